"""Log-mel features against torchaudio's Kaldi port, normalisation by hand, and stage 2 on tiny corpora."""

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import BrokenExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.compliance.kaldi as kaldi
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from dropasr.config import Config, CorpusConfig, FeaturesConfig
from dropasr.data import features as features_module
from dropasr.data.features import extract, log_mel, make_extractor
from dropasr.data.normalisation import STD_FLOOR, normalise
from dropasr.data.store import FrameStore
from dropasr.errors import ConfigError, DataError, StageError
from dropasr.paths import Paths


def _samples(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """A tone that slides, in noise: energy in every filter, different from frame to frame."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (300 + 400 * seed + 500 * time) * time) + 0.02 * noise).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("seconds", [0.025, 0.3, 1.2345])
def test_log_mel_is_that_of_torchaudio(rate: int, seconds: float) -> None:
    samples = _samples(seconds, rate)
    found = log_mel(make_extractor(FeaturesConfig(num_mel_bins=23), rate), samples, rate)
    expected = kaldi.fbank(
        torch.from_numpy(samples)[None], sample_frequency=rate, num_mel_bins=23, dither=0.0, snip_edges=False, high_freq=-400.0
    )
    assert found.dtype == np.float32 and found.shape == tuple(expected.shape) == ((len(samples) + rate // 200) // (rate // 100), 23)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-3)


def test_log_mel_is_deterministic_and_refuses_other_audio() -> None:
    extractor = make_extractor(FeaturesConfig(), 16000)
    samples = _samples(0.2, 16000)
    np.testing.assert_array_equal(log_mel(extractor, samples, 16000), log_mel(extractor, samples, 16000))
    with pytest.raises(DataError, match="16000 Hz, found 8000 Hz"):
        log_mel(extractor, samples, 8000)
    with pytest.raises(DataError, match="at least 400 samples"):
        log_mel(extractor, samples[:399], 16000)


def test_filters_must_lie_below_half_the_sample_rate() -> None:
    with pytest.raises(ConfigError, match="7600 Hz.*≤ 4000 Hz"):
        make_extractor(FeaturesConfig(high_freq=7600.0), 8000)
    with pytest.raises(ConfigError, match="frame_shift"):
        make_extractor(FeaturesConfig(frame_shift=1.0), 8000)


def _corpus(folder: Path, clips: dict[str, tuple[str | None, np.ndarray]], rate: int = 16000) -> Paths:
    """The same cuts for all splits, `far` among them."""
    folder.mkdir(exist_ok=True)
    paths = Paths(folder / "data", folder / "exp", "feedforward", 0)
    cuts = []
    for id, (speaker, samples) in clips.items():
        soundfile.write(folder / f"{id}.wav", samples, rate, subtype="FLOAT")
        recording = Recording.from_file(folder / f"{id}.wav", recording_id=id)
        supervision = SupervisionSegment(id, id, 0.0, recording.duration, text=f"word {id}", speaker=speaker)
        cuts.append(MonoCut(id, 0.0, recording.duration, 0, supervisions=[supervision], recording=recording))
    for split in ("train", "dev", "test", "far"):
        paths.cuts(split).parent.mkdir(parents=True, exist_ok=True)
        CutSet.from_cuts(cuts).to_file(paths.cuts(split))
    return paths


def _config(rate: int = 16000, **features: object) -> Config:
    corpus = CorpusConfig(name="tiny", prepare="local/prepare_tiny.py", sample_rate=rate)  # type: ignore[arg-type]
    return Config(corpus=corpus, features=FeaturesConfig(num_mel_bins=23, dtype="float32", **features))  # type: ignore[arg-type]


def _reference(samples: np.ndarray, rate: int) -> np.ndarray:
    options = {"sample_frequency": rate, "num_mel_bins": 23, "dither": 0.0, "snip_edges": False, "high_freq": -400.0}
    return kaldi.fbank(torch.from_numpy(samples)[None], **options).numpy().astype(np.float64)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("kind", ["speaker", "utterance"])
def test_extract_normalises_per_speaker_or_utterance(tmp_path: Path, rate: int, kind: str) -> None:
    clips = {
        "a1": ("anna", _samples(0.5, rate, 1)),
        "b1": ("bert", _samples(0.4, rate, 2)),
        "x1": (None, _samples(0.2, rate, 3)),
        "a2": ("anna", _samples(0.3, rate, 4)),
        "x2": (None, _samples(0.3, rate, 5)),
    }
    paths = _corpus(tmp_path, clips, rate)
    extract(_config(rate, normalise=kind), paths, 2)
    store = FrameStore.open(paths.features("dev"), verify=True)
    by_speaker = kind == "speaker"
    assert store.ids == (["a1", "a2", "b1", "x1", "x2"] if by_speaker else list(clips))
    assert store.speakers[store.position("x1")] == "x1" and store.speakers[store.position("a2")] == "anna"
    assert store.texts[store.position("b1")] == ["word", "b1"] and store.normalisation == kind
    assert store.durations[store.position("a2")] == pytest.approx(0.3) and store.sample_rate == rate
    groups = [["a1", "a2"], ["b1"], ["x1"], ["x2"]] if by_speaker else [[id] for id in clips]
    extractor = make_extractor(_config(rate).features, rate)
    for group in groups:
        raw = {id: _reference(clips[id][1], rate) for id in group}
        joined = np.concatenate(list(raw.values()))
        for id, frames in raw.items():
            np.testing.assert_allclose(store.utterance(id), (frames - joined.mean(0)) / joined.std(0), atol=5e-3)
            run_time = normalise(log_mel(extractor, clips[id][1], rate), *store.statistics(id))
            np.testing.assert_allclose(run_time, store.utterance(id), atol=1e-5)
    assert paths.features("train").joinpath("frames.npy").read_bytes() == paths.features("test").joinpath("frames.npy").read_bytes()


def test_the_number_of_processes_does_not_matter(tmp_path: Path) -> None:
    paths = _corpus(tmp_path, {f"u{i}": (f"s{i % 3}", _samples(0.2 + 0.01 * i, 16000, i)) for i in range(9)})
    contents = []
    for nj in (1, 3):
        shutil.rmtree(paths.features("train").parent, ignore_errors=True)  # or they would be left alone
        extract(_config(), paths, nj)
        contents.append([path.read_bytes() for path in sorted(paths.features("train").iterdir())])
    assert contents[0] == contents[1]


def _frames(paths: Paths) -> dict[str, bytes]:
    return {split: (paths.features(split) / "frames.npy").read_bytes() for split in ("train", "dev", "test")}


def _inodes(paths: Paths, *splits: str) -> list[int]:
    return [(paths.features(split) / "frames.npy").stat().st_ino for split in splits]


@pytest.mark.parametrize("options", [{}, {"prior_frames": 20}])
def test_a_killed_run_keeps_the_splits_that_it_had_finished(tmp_path: Path, options: dict) -> None:
    """Train and dev are there when it ends, and test is normalised with the moments of train as if nothing had happened."""
    paths = _corpus(tmp_path, {f"u{i}": (f"s{i % 2}", _samples(0.2 + 0.01 * i, 16000, i)) for i in range(4)})
    config = _config(**options)
    extract(config, paths, 1)
    whole = _frames(paths)
    for split in ("train", "dev", "test"):
        shutil.rmtree(paths.features(split))
    manifest = paths.cuts("test").rename(tmp_path / "away")
    with pytest.raises(StageError, match="cuts of 'test'"):
        extract(config, paths, 1)
    before = _inodes(paths, "train", "dev")
    manifest.rename(paths.cuts("test"))
    extract(config, paths, 1)
    assert _inodes(paths, "train", "dev") == before and _frames(paths) == whole


@pytest.mark.parametrize("change", ["option", "manifest", "frames.npy", "normalisation.npz", "index.json", "finished.json"])
def test_features_of_other_cuts_or_options_or_damaged_ones_are_made_again(tmp_path: Path, change: str) -> None:
    paths = _corpus(tmp_path, {f"u{i}": ("s", _samples(0.2, 16000, i)) for i in range(2)})
    extract(_config(), paths, 1)
    before, whole = _inodes(paths, "dev"), _frames(paths)
    config = _config(low_freq=30.0) if change == "option" else _config()
    if change == "manifest":
        os.utime(paths.cuts("dev"), (1, 1))
    elif change.endswith(".json"):  # still JSON: a word, a moment
        path = paths.features("dev") / change
        old, new = (b'"word"', b'"worb"') if change == "index.json" else (b'"frames": 4', b'"frames": 5')
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new))
    elif change != "option":
        path = paths.features("dev") / change
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    extract(config, paths, 1)
    assert _inodes(paths, "dev") != before
    assert (_frames(paths) == whole) == (change != "option")


def test_silent_audio_gives_finite_features(tmp_path: Path) -> None:
    clips = {"zero": (None, np.zeros(4000, np.float32)), "constant": ("anna", np.full(4000, 0.5, np.float32))}
    paths = _corpus(tmp_path, clips)
    extract(_config(), paths, 1)
    store = FrameStore.open(paths.features("train"))
    assert np.abs(store.frames).max() < 5
    np.testing.assert_allclose(store.utterance("zero"), 0.0, atol=1e-3)


def test_unusable_audio_is_named(tmp_path: Path) -> None:
    good = _samples(0.3, 16000)
    paths = _corpus(tmp_path, {"good": ("anna", good), "bad": ("anna", good)})
    with pytest.raises(DataError, match=r"cut 'good'.*8000 Hz, found 16000 Hz"):
        extract(_config(8000), paths, 1)
    with soundfile.SoundFile(tmp_path / "bad.wav", "w", 16000, 1, "FLOAT") as file:
        file.write(np.full(4800, np.nan, np.float32))
    with pytest.raises(DataError, match=r"cut 'bad'.*not finite"):
        extract(_config(), paths, 1)
    (tmp_path / "bad.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cut 'bad'.*bad\.wav: expected 0\.300 s.*missing, damaged or truncated"):
        extract(_config(), paths, 1)
    (tmp_path / "bad.wav").unlink()
    with pytest.raises(DataError, match=r"cut 'bad'.*bad\.wav: expected 0\.300 s.*missing, damaged or truncated"):
        extract(_config(), paths, 2)
    assert not (paths.features("train") / "index.json").exists()
    paths.cuts("train").unlink()
    with pytest.raises(StageError, match=r"train\.jsonl\.gz.*Stage 1"):
        extract(_config(), paths, 1)


def test_a_killed_worker_is_an_error_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = _corpus(tmp_path, {"u": ("anna", _samples(0.3, 16000))})
    monkeypatch.setattr(features_module, "_extract_cut", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(BrokenExecutor):  # of which dropasr.stamps makes the message
        extract(_config(), paths, 2)


def test_copies_of_train_at_other_speeds(tmp_path: Path) -> None:
    clips = {"a1": ("anna", _samples(0.5, 16000, 1)), "b1": ("bert", _samples(0.4, 16000, 2)), "a2": ("anna", _samples(0.3, 16000, 4))}
    paths = _corpus(tmp_path, clips)
    extract(_config(), paths, 1)
    plain = FrameStore.open(paths.features("train"))
    contents = []
    for nj in (1, 2):
        extract(_config(speed_perturb=[0.9, 1.1], volume_perturb=[0.5, 2.0]), paths, nj)
        contents.append((paths.features("train") / "frames.npy").read_bytes())
    assert contents[0] == contents[1]
    store = FrameStore.open(paths.features("train"))
    assert store.ids == ["a1", "a2", "b1", "sp0.9-a1", "sp0.9-a2", "sp0.9-b1", "sp1.1-a1", "sp1.1-a2", "sp1.1-b1"]
    assert store.originals == ["a1", "a2", "b1"] * 3 and store.texts[3:6] == store.texts[:3]
    assert store.speakers[3:] == ["sp0.9-anna", "sp0.9-anna", "sp0.9-bert", "sp1.1-anna", "sp1.1-anna", "sp1.1-bert"]
    assert [len(store.utterance(f"sp{speed}-a1")) for speed in (0.9, 1.1)] == [56, 45] and len(store.utterance("a1")) == 50
    for speaker in ("sp0.9-anna", "sp1.1-bert"):
        own = np.concatenate([store.utterance(i) for i, name in enumerate(store.speakers) if name == speaker])
        np.testing.assert_allclose(own.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(own.std(0), 1, atol=1e-4)
    # The only utterance of a speaker: normalisation takes its volume away.
    np.testing.assert_allclose(store.utterance("b1"), plain.utterance("b1"), atol=5e-3)
    dev = FrameStore.open(paths.features("dev"))
    assert dev.ids == plain.ids and dev.originals == dev.ids
    np.testing.assert_array_equal(dev.frames, plain.frames)


def test_an_extra_test_set_gets_its_store(tmp_path: Path) -> None:
    paths = _corpus(tmp_path, {"u": ("anna", _samples(0.3, 16000))})
    config = _config()
    extract(config, paths, 1)
    assert not paths.features("far").exists()
    extract(config.model_copy(update={"corpus": config.corpus.model_copy(update={"extra_tests": ["far"]})}), paths, 1)
    assert FrameStore.open(paths.features("far")).ids == ["u"]


@pytest.mark.parametrize("kind", ["speaker", "utterance"])
def test_speakers_of_one_short_utterance(tmp_path: Path, kind: str) -> None:
    train = {f"t{i}": (f"s{i}", _samples(0.5, 16000, i)) for i in range(4)}
    paths = _corpus(tmp_path, train)
    short = {
        "word": ("eva", _samples(0.03, 16000, 7)),
        "zero": ("fay", np.zeros(480, np.float32)),
        "long": ("gil", _samples(0.6, 16000, 3)),
    }
    others = _corpus(tmp_path / "test", short)
    for split in ("dev", "test"):
        os.replace(others.cuts(split), paths.cuts(split))
    extract(_config(normalise=kind, prior_frames=60.0), paths, 1)
    store = FrameStore.open(paths.features("test"))
    everything = np.concatenate([_reference(samples, 16000) for _, samples in train.values()])
    mean, std = store.global_statistics()
    np.testing.assert_allclose(mean, everything.mean(0), atol=2e-3)
    np.testing.assert_allclose(std, everything.std(0), atol=2e-3)
    np.testing.assert_array_equal(FrameStore.open(paths.features("train")).global_statistics()[0], mean)
    for id_, (_, samples) in short.items():
        raw = _reference(samples, 16000)
        total = len(raw) + 60
        own_mean = (raw.sum(0) + 60 * everything.mean(0)) / total
        second = (np.square(raw).sum(0) + 60 * np.square(everything).mean(0)) / total
        expected = (raw - own_mean) / np.maximum(np.sqrt(second - own_mean**2), STD_FLOOR)
        assert np.isfinite(store.utterance(id_)).all()
        np.testing.assert_allclose(store.utterance(id_), expected, atol=1e-2)
        run_time = normalise(log_mel(make_extractor(_config().features, 16000), samples, 16000), *store.statistics(id_))
        np.testing.assert_allclose(run_time, store.utterance(id_), atol=1e-5)
    assert not list(paths.features("train").glob(".*")) and np.abs(store.utterance("word")).max() < 6


def test_speaker_and_utterance_agree_for_speakers_of_one_utterance(tmp_path: Path) -> None:
    paths = _corpus(tmp_path, {f"u{i}": (f"s{i}", _samples(0.03 + 0.1 * i, 16000, i)) for i in range(3)})
    contents = []
    for kind in ("speaker", "utterance"):
        extract(_config(normalise=kind, prior_frames=40.0), paths, 1)
        contents.append([(paths.features(split) / "frames.npy").read_bytes() for split in ("train", "test")])
    assert contents[0] == contents[1]
