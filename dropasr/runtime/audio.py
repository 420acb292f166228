"""Audio in parts without torch: files of any format and rate that libsndfile reads, and raw samples; one channel at the net's rate out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dropasr.data.audio import declared_wav_samples
from dropasr.errors import DataError
from dropasr.runtime.resample import Resampler

BLOCK_SECONDS = 10.0
"""Audio in memory at once."""
RATES = (1000, 768_000)
"""Sample rates in Hz beyond which a header is taken for damaged."""
_OGG_PAGE = 65_307
"""Bytes of the largest page of an Ogg file."""
_MAGIC = {b"RIFF", b"fLaC", b"OggS", b"FORM", b"NIST", b"caff", b"RF64", b".snd"}


def audio_suffixes() -> set[str]:
    """File name endings, in small letters, of the formats that can be read."""
    import soundfile

    return {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"} | {".aif", ".oga", ".opus", ".sph"}


@dataclass
class AudioFile:
    """One file: `blocks()` gives its samples, as often as wanted. `channel` (from 0): that one; without it, the mean of all.

    What the user should know stands in `notes`. Raises DataError naming the file where it is no audio, or is damaged, or empty.
    """

    path: Path
    sample_rate: int
    """Hz, of the samples that come out."""
    channel: int | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """Length as its header says."""

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        if self.path.is_dir() or not self.path.exists():
            found = "a folder" if self.path.is_dir() else "no such file"
            raise DataError(f"{self.path}: expected an audio file, found {found}. Check the name.")
        if self.path.stat().st_size == 0:
            raise DataError(f"{self.path}: the file is empty (0 bytes). Replace it by an intact copy.")
        with self._opened() as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
        if not RATES[0] <= rate <= RATES[1]:
            raise DataError(f"{self.path}: its header says {rate} Hz, expected {RATES[0]} to {RATES[1]}: it is damaged. Replace the file.")
        self._check_length(frames)
        self.seconds = frames / rate
        if self.channel is not None and not 0 <= self.channel < channels:
            raise DataError(
                f"{self.path}: channel {self.channel} was asked for, but it has {channels}, numbered from 0. Correct --channel."
            )
        if rate != self.sample_rate:
            quality = "" if rate > self.sample_rate else ", though the net was trained on audio that holds higher frequencies"
            self.notes.append(f"resampled from {rate} to {self.sample_rate} Hz{quality}")
        if channels > 1:
            which = f"the mean of {channels} channels" if self.channel is None else f"channel {self.channel} of {channels}"
            self.notes.append(f"{which} is transcribed" + ("; --channel N takes one of them" if self.channel is None else ""))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        import soundfile

        try:
            with soundfile.SoundFile(os.fsencode(self.path)) as file:
                yield file
        except (RuntimeError, OSError, TypeError) as error:  # TypeError: a headerless format (.raw)
            with open(self.path, "rb") as opened:
                head = opened.read(4)
            if _has_header(head):
                what = f"audio that cannot be decoded ({' '.join(str(error).split())}): it is damaged or truncated"
            else:
                what = "something else" + (" (text)" if _is_text(self.path) else "")
            raise DataError(f"{self.path}: expected an audio file, found {what}. Check the file.") from None

    def _check_length(self, frames: int) -> None:
        """Refuse a file without samples, a WAV file that is shorter than its header says, an Ogg file without its end."""
        declared = declared_wav_samples(self.path)
        if declared is not None and frames < declared:
            raise self._truncated(declared, frames)
        if _ends_early(self.path):
            raise DataError(
                f"{self.path}: expected the last page of an Ogg stream, found none: it is truncated. Replace it by an intact copy."
            )
        if frames <= 0:
            raise DataError(f"{self.path}: the file holds no samples. Replace it by an intact copy.")

    def _truncated(self, expected: int, found: int) -> DataError:
        return DataError(
            f"{self.path}: expected {expected} samples as its header says, found {found}: it is truncated. Replace it by an intact copy."
        )

    def blocks(self) -> Iterator[np.ndarray]:
        """The samples, float32 `(S,)` in [-1, 1], in parts. Raises DataError where the file ends early or cannot be decoded."""
        with self._opened() as file:
            resampler = None if file.samplerate == self.sample_rate else Resampler(file.samplerate, self.sample_rate)
            found = 0
            while len(block := file.read(int(BLOCK_SECONDS * file.samplerate), dtype="float32", always_2d=True)):
                found += len(block)
                samples = block.mean(axis=1) if self.channel is None else np.ascontiguousarray(block[:, self.channel])
                if not np.isfinite(samples).all():
                    raise DataError(f"{self.path}: its audio holds values that are not finite numbers. Replace the file.")
                yield samples if resampler is None else resampler.feed(samples)
            if found < file.frames:
                raise self._truncated(file.frames, found)
            if resampler is not None:
                yield resampler.finish()


def _ends_early(path: Path) -> bool:
    """Whether this is an Ogg file whose last page is not marked as such (RFC 3533)."""
    with open(path, "rb") as file:
        if file.read(4) != b"OggS":
            return False
        file.seek(max(0, path.stat().st_size - _OGG_PAGE))
        tail = file.read()
    page = tail.rfind(b"OggS")
    return page < 0 or len(tail) < page + 6 or not tail[page + 5] & 4


def _has_header(head: bytes) -> bool:
    """Whether a file of known audio format begins with these four bytes."""
    return head in _MAGIC or head[:3] == b"ID3"


def _is_text(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(4096)
    with contextlib.suppress(UnicodeDecodeError):
        return all(character.isprintable() or character.isspace() for character in head[:-4].decode("utf-8"))
    return False


def raw_blocks(stream: BinaryIO, rate: int, sample_rate: int, seconds: float) -> Iterator[np.ndarray]:
    """Samples, float32 `(S,)`, of a stream of raw 16-bit little-endian integers of one channel at `rate` Hz, about `seconds` at a time.

    Raises DataError where the stream ends within a sample, has none, or begins as a file does.
    """
    resampler = None if rate == sample_rate else Resampler(rate, sample_rate)
    rest, received = b"", 0
    read = getattr(stream, "read1", stream.read)  # what is there, without waiting for more
    while data := read(2 * max(1, int(seconds * rate))):
        data, received = rest + data, received + len(data)
        if received == len(data) >= 4 and _has_header(data[:4]):
            raise DataError(
                "standard input: expected raw 16-bit samples, found an audio file with a header. Give the file by its name, or convert it."
            )
        whole = len(data) // 2 * 2
        data, rest = data[:whole], data[whole:]
        samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
        yield samples if resampler is None else resampler.feed(samples)
    if rest:
        raise DataError(f"standard input: expected 16-bit samples, found {received} bytes, an odd number. Send raw s16le without a header.")
    if not received:
        raise DataError("standard input: expected raw 16-bit samples, found none.")
    if resampler is not None:
        yield resampler.finish()
