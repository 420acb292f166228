"""Reading audio: which library reads what, and checks of every recording's length and rate against its header and its manifest."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from dropasr import workers
from dropasr.errors import DataError
from dropasr.log import progress

if TYPE_CHECKING:
    from lhotse import RecordingSet

_STREAMED = 0x7FFFF000
"""WAV headers written to a pipe declare a length of zero, or this or more: the true one was not known."""
_BLOCK = 1 << 20
_FEW = 400
"""Recordings below which starting processes costs more than it saves."""


def read_sphere_by_libsndfile() -> None:
    """Have lhotse read NIST SPHERE files (`.sph`) by libsndfile where the program sph2pipe, its own choice, is not installed.

    libsndfile reads plain SPHERE files; those compressed by shorten need sph2pipe. A backend that the user chose stays.
    """
    from lhotse.audio.backend import AudioreadBackend, CompositeAudioBackend, LibsndfileBackend, TorchaudioDefaultBackend
    from lhotse.audio.backend import set_current_audio_backend as use

    if shutil.which("sph2pipe") is None and "LHOTSE_AUDIO_BACKEND" not in os.environ:
        use(CompositeAudioBackend([LibsndfileBackend(), TorchaudioDefaultBackend(), AudioreadBackend()]))


def declared_wav_samples(path: Path) -> int | None:
    """Samples per channel that the header of a WAV file declares; None for other formats and for streamed files."""
    with open(path, "rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return None
        block_align = 0
        while len(chunk := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            if name == b"data":
                return None if size == 0 or size >= _STREAMED or block_align == 0 else size // block_align
            content = file.read(size + size % 2)
            if name == b"fmt " and len(content) >= 14:
                block_align = struct.unpack("<H", content[12:14])[0]
    return None


def _audio_fault(task: tuple[str, str, int, int, int]) -> str | None:
    """What is wrong with one recording, or None. The whole file is read; a `corpus_rate` of 0 allows any."""
    import soundfile

    recording, path, manifest_rate, manifest_samples, corpus_rate = task
    where = f"{path} (recording '{recording}')"
    if not Path(path).is_file():
        return f"{where}: expected an audio file, found none. Restore the file, or remove the recording from the corpus."
    try:
        declared = declared_wav_samples(Path(path))
        with soundfile.SoundFile(path) as file:
            rate, in_header, found = file.samplerate, file.frames, 0
            while len(block := file.read(_BLOCK, dtype="int16")):
                found += len(block)
    except (RuntimeError, OSError) as error:
        return f"{where}: expected readable audio, found a file that cannot be decoded ({error}). Replace it by an intact copy."
    if corpus_rate not in (0, rate):
        return (
            f"{where}: expected {corpus_rate} Hz (corpus.sample_rate), found {rate} Hz. Correct corpus.sample_rate, or have the corpus "
            "resampled as it is read (corpus.resample: true)."
        )
    if manifest_rate != rate:
        return f"{where}: expected {manifest_rate} Hz as its manifest says, found {rate} Hz. Prepare the corpus again."
    expected = in_header if declared is None else declared
    if found < expected:
        return f"{where}: expected {expected} samples as its header says, found {found}: it is truncated. Replace it by an intact copy."
    if found != manifest_samples:
        return f"{where}: expected {manifest_samples} samples as its manifest says, found {found}. Prepare the corpus again."
    if found == 0:
        return f"{where}: expected speech, found no samples. Replace the file, or remove the recording from the corpus."
    return None


def check_audio(recordings: RecordingSet, sample_rate: int, nj: int, any_rate: bool = False) -> None:
    """Read every recording, in `nj` processes.

    Raises DataError for a missing, unreadable or truncated file, or a sample rate other than `sample_rate` unless `any_rate` is set.
    """
    tasks = []
    for recording in recordings:
        for source in recording.sources:
            if source.type != "file":
                raise DataError(
                    f"recording '{recording.id}': expected a plain file, found a {source.type} ({source.source}). Write it to a file."
                )
            tasks.append((recording.id, str(source.source), recording.sampling_rate, recording.num_samples, 0 if any_rate else sample_rate))
    if nj > 1 and len(tasks) >= _FEW:
        with workers.pool(nj, "fork") as pool:
            faults = [fault for fault in progress(pool.map(_audio_fault, tasks, chunksize=64), "reading audio", len(tasks)) if fault]
    else:
        faults = [fault for fault in map(_audio_fault, tasks) if fault]
    if faults:
        raise DataError(faults[0] + (f" {len(faults) - 1} more recordings are at fault." if len(faults) > 1 else ""))
