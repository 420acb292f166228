"""The synthetic corpus: repeatable, disjoint, with the noise levels and rooms that it states."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet

from dropasr.config import REPOSITORY, load_config
from dropasr.data import corpora as stage
from dropasr.errors import DataError
from dropasr.files import sha256_file
from dropasr.paths import Paths

SCRIPT = stage.load_script("local/prepare_synth_commands.py")
NAMES = ("acoustics", "espeak", "grammar", "pronunciation", "voices")
acoustics, espeak, grammar, pronunciation, voices = (sys.modules[f"synth.{name}"] for name in NAMES)
TINY = ("train_utterances=14", "dev_utterances=4", "test_utterances=6", "lm_sentences=40", "babble_probability=0.5")


def make(folder: Path, nj: int, *settings: str) -> Paths:
    paths = Paths(folder, folder / "exp", "feedforward", 1)
    config = load_config(
        REPOSITORY / "conf" / "synth_commands.yaml", settings=[f"corpus.options.{setting}" for setting in (*TINY, *settings)]
    )
    stage.prepare(config, paths, nj)
    return paths


def digests(paths: Paths) -> dict[str, str]:
    files = [*paths.corpus.rglob("*.wav"), *paths.manifests.glob("*.txt")]
    return {path.name: sha256_file(path) for path in files}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return make(tmp_path_factory.mktemp("synth"), 1)


def test_same_seed_same_bytes_whatever_the_number_of_processes(tiny: Paths, tmp_path: Path) -> None:
    first, second, third = digests(tiny), digests(make(tmp_path / "a", 2)), digests(make(tmp_path / "b", 2, "seed=2"))
    assert len(first) == 26 and first == second
    assert len(third) == 26 and not set(first.values()) & (set(third.values()) - {third["lexicon.txt"]})


def test_an_utterance_does_not_depend_on_how_many_there_are(tiny: Paths, tmp_path: Path) -> None:
    first, more = digests(tiny), digests(make(tmp_path, 2, "train_utterances=20"))
    waves = {name for name in first if name.endswith(".wav")}
    assert waves <= set(more) and all(first[name] == more[name] for name in waves)


def test_splits_are_disjoint_and_counted(tiny: Paths) -> None:
    cuts = {split: list(CutSet.from_file(tiny.cuts(split))) for split in ("train", "dev", "test")}
    assert {split: len(found) for split, found in cuts.items()} == {"train": 14, "dev": 4, "test": 6}
    variants = {split: {cut.supervisions[0].speaker.split("-")[0] for cut in found} for split, found in cuts.items()}
    assert not variants["train"] & variants["dev"] and not variants["train"] & variants["test"] and not variants["dev"] & variants["test"]
    report = json.loads((tiny.manifests / "report.json").read_text(encoding="utf-8"))
    assert "synthetic" in report["note"] and report["splits"]["train"]["utterances"] == 14
    for cut in cuts["train"]:
        samples = cut.load_audio()[0]
        assert 0.6 < cut.duration < 12 and 10 ** (-15.1 / 20) < np.abs(samples).max() < 10 ** (-2.9 / 20)


def test_default_speakers_are_many_disjoint_and_differ() -> None:
    options = SCRIPT.PrepareOptions()
    names = [name for split in ("train", "dev", "test", "babble") for name in SCRIPT.speakers(options, split)]
    assert len(names) == len({voices.variant(name).replace(name, "") for name in names}) >= 240
    for split in ("train", "dev", "test"):
        assert {utterance.speaker for utterance in SCRIPT._plan(options, split)} == set(SCRIPT.speakers(options, split))
    assert sum(len(utterance.words) for utterance in SCRIPT._plan(options, "test")) >= 5200


def test_speakers_sound_different_and_repeat_exactly(tmp_path: Path) -> None:
    first, again = voices.Voices(tmp_path / "a"), voices.Voices(tmp_path / "b")
    said = {name: first.speak("turn on the light", name, "en-us", 200, 50, 50) for name in ("x-1", "x-2", "x-3")}
    assert all(np.array_equal(again.speak("turn on the light", name, "en-us", 200, 50, 50), said[name]) for name in reversed(said))
    lengths = [min(len(said["x-1"]), len(said[name])) for name in ("x-2", "x-3")]
    assert all(np.mean(said["x-1"][:length] == said[name][:length]) < 0.5 for name, length in zip(("x-2", "x-3"), lengths))


def test_grammar_and_lexicon(tiny: Paths) -> None:
    words = grammar.vocabulary()
    assert len(words) >= 150
    drawn = random.Random(0)
    sentences = [grammar.sentence(drawn) for _ in range(20000)]
    assert {word for sentence in sentences for word in sentence} == set(words)
    assert len({tuple(sentence) for sentence in sentences}) > 14000
    entries = [line.split() for line in (tiny.manifests / "lexicon.txt").read_text(encoding="utf-8").splitlines()]
    assert {entry[0] for entry in entries} == set(words) and all(len(entry) > 1 for entry in entries)
    assert 35 <= len({phone for entry in entries for phone in entry[1:]}) <= 45
    pronunciations = [tuple(entry) for entry in entries]
    assert len(pronunciations) == len(set(pronunciations))
    assert ("KITCHEN", "K", "IH", "CH", "AX", "N") in pronunciations and ("THIRTY", "TH", "ER", "DX", "IY") in pronunciations


def test_pronunciations_come_from_the_word_alone_and_from_sentences() -> None:
    words = ["TEN", "TO", "IT", "RAIN", "DID"]
    alone = pronunciation.lexicon(words, [])
    assert {word: len(found) for word, found in alone.items()} == dict.fromkeys(words, 1) and alone["IT"] == ["IH T"]
    assert pronunciation.lexicon(words, [["DID", "IT", "RAIN"]] * 3)["RAIN"] == ["R EY N"]
    with pytest.raises(DataError, match="the word 'X': no phone is known for eSpeak NG's 'ʘ'"):
        pronunciation._phones("X", ["ˈʘ"])


def test_speech_does_not_depend_on_what_was_said_before() -> None:
    speaker = espeak.Espeak()
    arguments = ("dim the lights", "en-us+f1", 200, 50, 50)  # f1 flutters, klatt4 and steph are noisy
    first = speaker.speak(*arguments)
    speaker.speak("something else entirely", "en+klatt4", 250, 70, 20)
    speaker.phonemes(["and more"])
    other = espeak.Espeak()
    other.phonemes(["while another instance exists"])
    other.speak("a bc", "en-029+steph", 170, 20, 90)
    assert np.array_equal(first, speaker.speak(*arguments)) and np.array_equal(first, other.speak(*arguments))
    assert 0.5 < len(first) / espeak.SAMPLE_RATE < 2


@pytest.mark.parametrize("voice", ["en-us+nobody", "nowhere", "nowhere+m3"])
def test_unknown_voice(voice: str) -> None:
    with pytest.raises(DataError, match=f"no voice '{voice}'".replace("+", r"\+")):
        espeak.Espeak().speak("hello", voice, 200, 50, 50)


def test_mix_has_the_stated_ratio() -> None:
    generator = np.random.default_rng(0)
    speech, noise = generator.standard_normal(16000) * 0.1, generator.standard_normal(16000) * 7
    added = acoustics.mix(speech, noise, 12.5) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(added**2)) == pytest.approx(12.5, abs=1e-9)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_coloured_noise_falls_as_stated(slope: float) -> None:
    generator = np.random.default_rng(1)
    power = np.mean([np.abs(np.fft.rfft(acoustics.coloured_noise(generator, 4096, slope))) ** 2 for _ in range(200)], axis=0)
    frequency = np.arange(len(power))[20:1500]
    assert np.polyfit(np.log(frequency), np.log(power[20:1500]), 1)[0] == pytest.approx(-slope, abs=0.06)


def test_room_decays_in_its_reverberation_time() -> None:
    response = acoustics.room(np.random.default_rng(2), 16000, 0.4, 5.0)
    assert response[0] == 1 and np.sum(response[1:] ** 2) == pytest.approx(10**-0.5)
    tail = np.cumsum(response[:0:-1] ** 2)[::-1]  # Schroeder's backward integral
    decay = 10 * np.log10(tail / tail[0])
    start, end = np.argmax(decay < -5), np.argmax(decay < -25)
    assert 3 * (end - start) / 16000 == pytest.approx(0.4, rel=0.1)


def test_convolution_is_that_of_numpy() -> None:
    generator = np.random.default_rng(3)
    for length, taps in ((1000, 37), (777, 900), (5, 1)):
        samples, response = generator.standard_normal(length), generator.standard_normal(taps)
        assert np.allclose(acoustics.convolve(samples, response), np.convolve(samples, response)[:length], atol=1e-10)


def test_trim_leaves_the_padding() -> None:
    samples = np.concatenate([np.zeros(50), np.ones(30), np.zeros(5)])
    assert np.array_equal(acoustics.trim(samples, 10), np.concatenate([np.zeros(10), np.ones(30), np.zeros(10)]))


def test_peak_level() -> None:
    assert np.abs(acoustics.to_int16(np.array([0.1, -0.4, 0.2]), -6.0)).max() == round(32767 * 10**-0.3)
