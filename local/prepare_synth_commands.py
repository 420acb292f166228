"""Voice-assistant commands, synthesised on the spot with eSpeak NG, with noise and simulated rooms. No download, no recorded speech.

A speaker is a voice variant drawn at random (synth/voices.py), whatever its accent, because utterances of one variant are not independent.
Train, dev, test and babble have speakers of their own. Every sentence is drawn independently: a short test sentence may also occur in
training, the report counts how many do. The same options give the same bytes, whatever the number of processes.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator
from synth import acoustics, grammar, pronunciation
from synth.espeak import SAMPLE_RATE
from synth.voices import Voices

from dropasr import workers
from dropasr.config import CorpusConfig, Options
from dropasr.errors import DataError
from dropasr.files import write_text
from dropasr.log import progress

BABBLE_SPEAKERS = 12
_BABBLE_CLIPS = 24


class PrepareOptions(Options):
    """Size, voices and acoustics of the synthetic corpus."""

    seed: int = 1
    """Seed of sentences, voices, rooms and noises."""
    train_utterances: int = Field(default=3000, ge=1)
    """Sentences of the training set."""
    dev_utterances: int = Field(default=300, ge=1)
    """Sentences of the development set."""
    test_utterances: int = Field(default=760, ge=1)
    """Sentences of the test set."""
    lm_sentences: int = Field(default=5000, ge=1)
    """Sentences drawn from the grammar, by a seed of their own, for the n-gram."""
    accents: list[str] = Field(default=["en-us", "en", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland", "en-029"], min_length=1)
    """eSpeak NG's languages that the voice variants speak (`en` is British English)."""
    accents_per_speaker: int = Field(default=2, ge=1)
    """Accents that each speaker has, taken in turn."""
    train_speakers: int = Field(default=150, ge=1)
    """Speakers of the training set."""
    dev_speakers: int = Field(default=30, ge=1)
    """Speakers of the development set."""
    test_speakers: int = Field(default=60, ge=1)
    """Speakers of the test set."""
    rate_low: int = Field(default=170, ge=80, le=450)
    """Slowest rate, words per minute."""
    rate_high: int = Field(default=270, ge=80, le=450)
    """Fastest rate, words per minute."""
    snr_low: float = -1.0
    """Lowest signal-to-noise ratio, dB."""
    snr_high: float = 15.0
    """Highest signal-to-noise ratio, dB."""
    babble_probability: float = Field(default=0.4, ge=0, le=1)
    """Share of the utterances whose noise is babble; the noise of the others is coloured (white to brown)."""
    reverb_probability: float = Field(default=0.5, ge=0, le=1)
    """Share of the utterances heard in a room."""
    reverb_low: float = Field(default=0.15, gt=0.01, le=3)
    """Shortest reverberation time (60 dB), seconds."""
    reverb_high: float = Field(default=0.5, gt=0.01, le=3)
    """Longest reverberation time (60 dB), seconds."""

    @model_validator(mode="after")
    def _check(self) -> PrepareOptions:
        for name in ("rate", "snr", "reverb"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            if low > high:
                raise ValueError(f"{name}_low is {low}, above {name}_high {high}")
        return self


@dataclass(frozen=True)
class Utterance:
    """One sentence of one speaker, and how it is said."""

    id: str
    speaker: str
    words: list[str]
    accent: str
    rate: int
    pitch: int
    pitch_range: int


def speakers(options: PrepareOptions, split: str) -> list[str]:
    """The speakers of a split (or of `babble`)."""
    count = BABBLE_SPEAKERS if split == "babble" else getattr(options, f"{split}_speakers")
    return [f"{split}{options.seed}-{index:03d}" for index in range(count)]


def _plan(options: PrepareOptions, split: str) -> list[Utterance]:
    """Who says what and how. Each speaker and accent has a pitch and a rate of its own, each utterance varies around them."""
    utterances = []
    accents = options.accents
    voices = [
        (speaker, accents[(number + step) % len(accents)])
        for step in range(min(options.accents_per_speaker, len(accents)))
        for number, speaker in enumerate(speakers(options, split))
    ]
    for index in range(getattr(options, f"{split}_utterances")):
        speaker, accent = voices[index % len(voices)]
        voice = f"{speaker}-{accent}"
        own, drawn = random.Random(f"{options.seed}/{voice}"), random.Random(f"{options.seed}/{split}/{index}")
        pitch, pitch_range = own.randint(35, 65) + drawn.randint(-6, 6), own.randint(35, 65) + drawn.randint(-10, 10)
        rate = round(options.rate_low + (options.rate_high - options.rate_low) * (0.5 * own.random() + 0.5 * drawn.random()))
        words = grammar.sentence(drawn)
        utterances.append(Utterance(f"{voice}-{index:05d}", speaker, words, accent, rate, pitch, pitch_range))
    return utterances


def _generator(*key: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:16], "big"))


@lru_cache(maxsize=2)
def _resampler(sample_rate: int):  # noqa: ANN202 - torchaudio is imported late
    import torch
    import torchaudio

    # In double precision, so that the 16-bit samples do not depend on the release of torch.
    return torchaudio.transforms.Resample(SAMPLE_RATE, sample_rate, dtype=torch.float64)


def _speak(words: list[str], speaker: str, accent: str, rate: int, pitch: int, pitch_range: int, sample_rate: int) -> np.ndarray:
    import torch

    samples = _voices.speak(" ".join(words).lower(), speaker, accent, rate, pitch, pitch_range)
    return _resampler(sample_rate)(torch.from_numpy(samples / 32768.0)).numpy()


@lru_cache(maxsize=3)
def _babble_clips(seed: int, talkers: tuple[str, ...], split: str, accents: tuple[str, ...], sample_rate: int) -> list[np.ndarray]:
    clips = []
    for index in range(_BABBLE_CLIPS):
        drawn = random.Random(f"{seed}/babble/{split}/{index}")
        accent, talker, pitch = drawn.choice(accents), talkers[index % len(talkers)], drawn.randint(30, 70)
        clips.append(acoustics.trim(_speak(grammar.sentence(drawn), talker, accent, 180, pitch, 50, sample_rate), 0))
    return clips


def _make(options: PrepareOptions, split: str, utterance: Utterance, sample_rate: int, path: Path) -> int:
    """Synthesise one utterance into a 16-bit WAV file and return its number of samples."""
    import soundfile

    generator = _generator(options.seed, utterance.id)
    said = (utterance.speaker, utterance.accent, utterance.rate, utterance.pitch, utterance.pitch_range)
    clean = _speak(utterance.words, *said, sample_rate)
    samples = acoustics.trim(clean, int(generator.uniform(0.05, 0.15) * sample_rate))
    if generator.random() < options.reverb_probability:
        reverberation = generator.uniform(options.reverb_low, options.reverb_high)
        samples = acoustics.convolve(samples, acoustics.room(generator, sample_rate, reverberation, generator.uniform(0, 10)))
    if generator.random() < options.babble_probability:
        clips = _babble_clips(options.seed, tuple(speakers(options, "babble")), split, tuple(options.accents), sample_rate)
        noise = acoustics.babble(generator, len(samples), clips, int(generator.integers(3, 7)))
    else:
        noise = acoustics.coloured_noise(generator, len(samples), generator.uniform(0, 2))
    samples = acoustics.mix(samples, noise, generator.uniform(options.snr_low, options.snr_high))
    soundfile.write(path, acoustics.to_int16(samples, generator.uniform(-15, -3)), sample_rate, subtype="PCM_16", format="WAV")
    return len(samples)


_voices: Voices


def _start_worker(folder: Path) -> None:
    global _voices
    import torch

    torch.set_num_threads(1)
    _voices = Voices(folder / str(os.getpid()))


def _work(task: tuple[PrepareOptions, str, Utterance, int, Path]) -> int:
    return _make(*task)


def prepare(corpus: CorpusConfig, options: PrepareOptions, folder: Path, nj: int):  # noqa: ANN201 - lhotse is imported late
    """Make the corpus in `folder` with `nj` processes: `{split: (RecordingSet, SupervisionSet)}`, `lexicon.txt` and `lm_text.txt`."""
    from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet

    if corpus.corpus_dir is not None:
        raise DataError(f"corpus {corpus.name} is made on the spot: corpus.corpus_dir '{corpus.corpus_dir}' means nothing. Leave it out.")
    audio = folder / "wav"
    for made in (audio, folder / "voices"):
        shutil.rmtree(made, ignore_errors=True)
    plans = {split: _plan(options, split) for split in ("train", "dev", "test")}
    drawn = random.Random(f"{options.seed}/lm")
    text = [grammar.sentence(drawn) for _ in range(options.lm_sentences)]
    tasks = []
    for split, plan in plans.items():
        (audio / split).mkdir(parents=True)
        tasks += [(options, split, utterance, corpus.sample_rate, audio / split / f"{utterance.id}.wav") for utterance in plan]
    with workers.pool(nj, "fork", _start_worker, (folder / "voices",)) as pool:
        pronunciations = pool.submit(pronunciation.lexicon, grammar.vocabulary(), text)
        lengths = list(progress(pool.map(_work, tasks, chunksize=8), "synthesising speech", len(tasks)))
    lines = [f"{word} {phones}" for word, variants in pronunciations.result().items() for phones in variants]
    write_text(folder / "lexicon.txt", "\n".join(lines) + "\n")
    write_text(folder / "lm_text.txt", "\n".join(" ".join(words) for words in text) + "\n")
    recordings, supervisions = {split: [] for split in plans}, {split: [] for split in plans}
    for (_, split, utterance, rate, path), length in zip(tasks, lengths):
        source = AudioSource("file", [0], str(path))
        recordings[split].append(Recording(utterance.id, [source], rate, length, length / rate))
        supervisions[split].append(
            SupervisionSegment(utterance.id, utterance.id, 0.0, length / rate, 0, " ".join(utterance.words), "English", utterance.speaker)
        )
    return {split: (RecordingSet.from_recordings(recordings[split]), SupervisionSet.from_segments(supervisions[split])) for split in plans}
