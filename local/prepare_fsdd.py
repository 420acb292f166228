"""Free Spoken Digit Dataset: six speakers say the digits 50 times each, 8 kHz, CC BY-SA 4.0 (Jakobovski et al.).

Its clips hold one digit (`recordings/DIGIT_SPEAKER_INDEX.wav`); connected digits are made by joining clips of one speaker with pauses.
"""

from __future__ import annotations

import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from dropasr.config import CorpusConfig, Options
from dropasr.errors import DataError

WORDS = "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()
_CLIP = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")
_HELP = (
    "Get the corpus with `git clone https://github.com/Jakobovski/free-spoken-digit-dataset` and give its folder, the one with "
    "`recordings/` inside, as corpus.corpus_dir (--corpus-dir)."
)


class PrepareOptions(Options):
    """Splits, and how clips are joined."""

    mode: Literal["connected", "isolated", "both"] = "connected"
    """Connected digits (joined clips), isolated digits (the clips), or both."""
    train_speakers: list[str] = Field(default=["george", "jackson", "nicolas"], min_length=1)
    """Speakers of the training set."""
    dev_speakers: list[str] = Field(default=["lucas"], min_length=1)
    """Speakers of the development set."""
    test_speakers: list[str] = Field(default=["theo", "yweweler"], min_length=1)
    """Speakers of the test set."""
    digits_low: int = Field(default=3, ge=1)
    """Fewest digits of a string."""
    digits_high: int = Field(default=7, ge=1)
    """Most digits of a string."""
    pause_low: float = Field(default=0.05, ge=0)
    """Shortest pause before, between and after digits, seconds."""
    pause_high: float = Field(default=0.3, ge=0)
    """Longest pause, seconds."""
    train_passes: int = Field(default=2, ge=1)
    """How often each training clip is used in a string; dev and test clips are used once."""
    seed: int = 1
    """Seed of the order of the clips, the lengths of the strings and the pauses."""

    @model_validator(mode="after")
    def _check(self) -> PrepareOptions:
        if self.digits_low > self.digits_high:
            raise ValueError(f"digits_low is {self.digits_low}, above digits_high {self.digits_high}")
        if self.pause_low > self.pause_high:
            raise ValueError(f"pause_low is {self.pause_low}, above pause_high {self.pause_high}")
        return self


@dataclass(frozen=True)
class Clip:
    """One spoken digit."""

    path: Path
    digit: int
    speaker: str
    index: int


def _clips(corpus: CorpusConfig) -> dict[str, list[Clip]]:
    if corpus.corpus_dir is None:
        raise DataError(
            f"corpus {corpus.name}: corpus.corpus_dir is not set, and neither lhotse nor this recipe downloads the corpus. {_HELP}"
        )
    root = Path(corpus.corpus_dir).expanduser()
    places = [root / "recordings", root, root / "free-spoken-digit-dataset" / "recordings"]
    for place in places:
        found = [(path, match) for path in sorted(place.glob("*.wav")) if (match := _CLIP.fullmatch(path.name))]
        if found:
            clips: dict[str, list[Clip]] = {}
            for path, match in found:
                clips.setdefault(match[2], []).append(Clip(path.resolve(), int(match[1]), match[2], int(match[3])))
            return clips
    raise DataError(f"corpus {corpus.name}: expected DIGIT_SPEAKER_INDEX.wav files, found none in {', '.join(map(str, places))}. {_HELP}")


def _read(clip: Clip, sample_rate: int) -> np.ndarray:
    import soundfile

    from dropasr.data.audio import declared_wav_samples

    try:
        samples, rate = soundfile.read(clip.path, dtype="int16")
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{clip.path}: expected readable audio, found a file that cannot be decoded ({error}). Replace it by an intact copy."
        ) from None
    if rate != sample_rate or samples.ndim != 1:
        raise DataError(
            f"{clip.path}: expected one channel at {sample_rate} Hz, found shape {samples.shape} at {rate} Hz. Replace the file."
        )
    declared = declared_wav_samples(clip.path)
    if len(samples) == 0 or (declared is not None and len(samples) < declared):
        raise DataError(f"{clip.path}: expected {declared} samples as its header says, found {len(samples)}. Replace it by an intact copy.")
    return samples


def _join(clips: list[Clip], drawn: random.Random, options: PrepareOptions, sample_rate: int, path: Path) -> int:
    """Write clips with pauses to `path`; returns its number of samples. Pauses hold noise as weak as the clips' quietest tenth."""
    import soundfile

    parts = [_read(clip, sample_rate).astype(np.float64) for clip in clips]
    joined = np.concatenate(parts)
    frames = joined[: len(joined) // 80 * 80].reshape(-1, 80)
    floor = max(1.0, float(np.percentile(np.sqrt(np.mean(frames**2, axis=1)), 10)))
    noise = np.random.default_rng(drawn.getrandbits(64))

    def pause() -> np.ndarray:
        return floor * noise.standard_normal(round(drawn.uniform(options.pause_low, options.pause_high) * sample_rate))

    signal = np.concatenate([pause(), *[piece for part in parts for piece in (part, pause())]])
    soundfile.write(path, np.clip(np.round(signal), -32768, 32767).astype(np.int16), sample_rate, subtype="PCM_16", format="WAV")
    return len(signal)


def _strings(clips: list[Clip], drawn: random.Random, options: PrepareOptions) -> list[list[Clip]]:
    order = drawn.sample(clips, len(clips))
    strings: list[list[Clip]] = []
    while order:
        length = drawn.randint(options.digits_low, options.digits_high)
        strings.append(order[:length])
        order = order[length:]
    return strings


def prepare(corpus: CorpusConfig, options: PrepareOptions, folder: Path, nj: int):  # noqa: ANN201 - lhotse is imported late
    """Find the clips, join them into strings in `folder`: `{split: (RecordingSet, SupervisionSet)}`.

    Raises DataError where the corpus, a speaker or a clip is missing or unreadable.
    """
    from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet

    clips = _clips(corpus)
    audio = folder / "connected"
    shutil.rmtree(audio, ignore_errors=True)
    audio.mkdir(parents=True)
    result = {}
    for split in ("train", "dev", "test"):
        recordings, supervisions = [], []

        def add(recording: Recording, digits: list[Clip], recordings: list = recordings, supervisions: list = supervisions) -> None:
            recordings.append(recording)
            text = " ".join(WORDS[clip.digit] for clip in digits)
            supervisions.append(
                SupervisionSegment(recording.id, recording.id, 0.0, recording.duration, 0, text, "English", digits[0].speaker)
            )

        for speaker in getattr(options, f"{split}_speakers"):
            if speaker not in clips:
                raise DataError(
                    f"corpus {corpus.name}: the speaker '{speaker}' ({split}_speakers) has no clips; found {', '.join(sorted(clips))}."
                )
            if options.mode != "connected":
                for clip in clips[speaker]:
                    add(Recording.from_file(clip.path, recording_id=f"{speaker}-isolated-{clip.digit}-{clip.index:03d}"), [clip])
            for number in range(options.train_passes if split == "train" else 1) if options.mode != "isolated" else ():
                drawn = random.Random(f"{options.seed}/{speaker}/{number}")
                for index, digits in enumerate(_strings(clips[speaker], drawn, options)):
                    name = f"{speaker}-connected-{number}-{index:03d}"
                    path = audio / f"{name}.wav"
                    length = _join(digits, drawn, options, corpus.sample_rate, path)
                    source = AudioSource("file", [0], str(path))
                    add(Recording(name, [source], corpus.sample_rate, length, length / corpus.sample_rate), digits)
        result[split] = (RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions))
    return result
