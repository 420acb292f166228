"""Kaldi data directories (wav.scp, text, utt2spk, optional segments) as lhotse manifests.

`lhotse.kaldi.load_kaldi_data_dir` is not used: it rounds durations down to milliseconds, so that no length can be checked against the
file, drops what it cannot read, and meets an empty transcript or a missing speaker with a bare KeyError or ValueError.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dropasr.errors import DataError
from dropasr.files import read_lines

if TYPE_CHECKING:
    from lhotse import Recording, RecordingSet, SupervisionSet

_LAYOUT = (
    "Expected a Kaldi data directory: wav.scp (`RECORDING PATH`), text (`UTTERANCE WORDS`), utt2spk (`UTTERANCE SPEAKER`), optional "
    "segments."
)


def read_table(path: Path, required: bool = True) -> dict[str, str]:
    """Read `KEY VALUE` lines; the value may be empty. Raises DataError for a missing file, an empty line or a repeated key."""
    if not path.is_file():
        if required:
            raise DataError(f"{path}: no such file. {_LAYOUT}")
        return {}
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if not key:
            raise DataError(f"{path}, line {number}: expected `KEY VALUE`, found an empty line. Remove it.")
        if key in table:
            raise DataError(f"{path}, line {number}: '{key}' stands twice, expected once. Remove one of the lines.")
        table[key] = value.strip()
    return table


def _recording(folder: Path, name: str, value: str) -> Recording:
    from lhotse import Recording

    where = f"{folder / 'wav.scp'}: recording '{name}'"
    if value.endswith("|") or value.startswith("|"):
        raise DataError(
            f"{where}: expected the path of a file, found a pipe (`{value}`). Run the command once and name the file that it writes."
        )
    # Relative paths count from the working directory, as in Kaldi, or from the data directory or the folder that holds it, which can then
    # be moved.
    places = (Path(value), folder / value, folder.parent / value)
    path = next((path for path in places if value and path.is_file()), None)
    if path is None:
        raise DataError(
            f"{where}: expected an audio file, found none at '{value}' (nor at '{places[1]}', nor at '{places[2]}'). Correct wav.scp or "
            "restore the file."
        )
    try:
        return Recording.from_file(path.resolve(), recording_id=name)
    except Exception as error:  # lhotse tries several readers, each with exceptions of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{where}: expected readable audio in '{path}', found a file that cannot be opened ({reason}). Replace it."
        ) from None


def _time(where: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: expected a time in seconds, found '{text}'. Correct the line.") from None


def load(folder: Path) -> tuple[RecordingSet, SupervisionSet]:
    """Read one directory. Without `segments` an utterance is a whole recording; an end of -1 there is the end of the recording.

    Raises DataError where a file is missing, an audio path is a pipe or does not exist, or the tables do not name the same utterances.
    """
    from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. {_LAYOUT}")
    recordings = {name: _recording(folder, name, value) for name, value in read_table(folder / "wav.scp").items()}
    texts, speakers = read_table(folder / "text"), read_table(folder / "utt2spk")
    segments = read_table(folder / "segments", required=False)
    utterances = segments or {name: f"{name} 0 -1" for name in recordings}
    source = folder / ("segments" if segments else "wav.scp")
    for table, path in ((texts, folder / "text"), (speakers, folder / "utt2spk")):
        for extra, present, absent in ((set(utterances) - set(table), source, path), (set(table) - set(utterances), path, source)):
            if extra:
                raise DataError(
                    f"{present}: the utterance '{min(extra)}' stands there, but not in {absent} ({len(extra)} such). Add or remove it."
                )
    supervisions = []
    for name, value in utterances.items():
        where = f"{source}: utterance '{name}'"
        fields = value.split()
        if len(fields) != 3:
            raise DataError(f"{where}: expected `RECORDING START END`, found '{value}'. Correct the line.")
        if fields[0] not in recordings:
            raise DataError(f"{where}: the recording '{fields[0]}' is not in wav.scp. Add it there or remove the line.")
        start, end = _time(where, fields[1]), _time(where, fields[2])
        duration = (recordings[fields[0]].duration if end == -1 else end) - start
        supervisions.append(SupervisionSegment(name, fields[0], start, round(duration, 8), 0, texts[name], speaker=speakers[name]))
    return RecordingSet.from_recordings(recordings.values()), SupervisionSet.from_segments(supervisions)
