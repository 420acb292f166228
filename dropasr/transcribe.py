"""`python -m dropasr transcribe FILE… --package DIR`: its options, and its way through files, folders and standard input.

It runs where ONNX Runtime, kaldi-native-fbank, kaldi-decoder, kaldifst, soundfile and numpy are all that is installed.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dropasr.errors import DataError, DropasrError, UsageError
from dropasr.options import Option, split, whole_number

if TYPE_CHECKING:
    from dropasr.runtime.recogniser import Recogniser

STANDARD_INPUT = "-"
OPTIONS = (
    Option("--package", "DIR", "folder that `python -m dropasr package` made (required)"),
    Option("--format", "FORM", "text (default), json (one object a line: text, words with times and confidences), or ctm"),
    Option("--engine", "NAME", "onnx (default), onnx_int8, onnx_int8_static: as far as the package has them"),
    Option("--stream", "", "read as if live: partial results (json), a final one at each pause; always so for standard input"),
    Option("--rate", "HZ", "sample rate of standard input (default that of the net)"),
    Option("--channel", "N", "channel to transcribe, from 0 (default: the mean of all)"),
    Option("--one-speaker", "", "all files are of one speaker: their features are normalised together"),
    Option("--recursive", "", "of folders, transcribe also what lies in folders below"),
    Option("--threads", "N", "threads of the acoustic model (default 1)"),
    Option("--help", "", "show this text, and stop"),
)
EXAMPLE = "such as: python -m dropasr transcribe meeting.wav --package DIR"


@dataclass(frozen=True)
class Request:
    """What a command line asks for."""

    inputs: tuple[str, ...]
    package: Path
    form: str
    engine: str
    stream: bool
    rate: int | None
    channel: int | None
    one_speaker: bool
    recursive: bool
    threads: int


def help_text() -> str:
    """The answer to `transcribe --help`."""
    head = [
        "usage: python -m dropasr transcribe FILE… --package DIR [options]",
        "",
        "FILE: audio of any rate and of any format that libsndfile reads (WAV, FLAC, Ogg, MP3, …), a folder, or - for raw samples (signed",
        "16-bit little-endian, one channel) from standard input. What is said of a file goes to standard error; files that cannot be",
        "transcribed are named there, the others are transcribed all the same, and the exit code is 1.",
        "",
        "options (`--name value` or `--name=value`):",
    ]
    return "\n".join([*head, *(f"  {(option.name + ' ' + option.value).strip():<16} {option.help}" for option in OPTIONS)])


def parse(argv: Sequence[str], base: Path) -> Request | None:
    """Read a command line; None where help is wanted. Raises UsageError."""
    values, inputs = split(list(argv), sys.maxsize, "", OPTIONS, "python -m dropasr transcribe --help")
    if "--help" in values:
        return None
    if not inputs:
        raise UsageError(f"the files to transcribe are missing: expected names of files or folders, or '-', {EXAMPLE}")
    if "--package" not in values:
        raise UsageError(f"option '--package' is missing: expected the folder of a package, {EXAMPLE}")
    form = values.get("--format", ["text"])[-1]
    if form not in ("text", "json", "ctm"):
        raise UsageError(f"option '--format': expected text, json or ctm, found '{form}'.")
    stream = "--stream" in values or STANDARD_INPUT in inputs
    for option, wrong in (("--rate", STANDARD_INPUT not in inputs), ("--one-speaker", stream)):
        if option in values and wrong:
            why = "it is for raw samples from standard input ('-')" if option == "--rate" else "a stream is normalised as it comes"
            raise UsageError(f"option '{option}': {why}. Leave it out.")
    if STANDARD_INPUT in inputs and len(inputs) > 1:
        raise UsageError("'-' (standard input) stands alone: transcribe files with a command of their own.")
    return Request(
        tuple(inputs),
        base / values["--package"][-1],
        form,
        values.get("--engine", ["onnx"])[-1],
        stream,
        whole_number(values, "--rate", 16000, 1000) if "--rate" in values else None,
        whole_number(values, "--channel", 0, 0) if "--channel" in values else None,
        "--one-speaker" in values,
        "--recursive" in values,
        whole_number(values, "--threads", 1, 1),
    )


def find(inputs: Sequence[str], base: Path, recursive: bool) -> Iterator[tuple[str, Path]]:
    """Name and path of every file: what was given, and of folders the audio files, by name. Raises DataError for a folder without any."""
    from dropasr.runtime.audio import audio_suffixes

    suffixes = audio_suffixes()
    for name in inputs:
        path = base / name
        if not path.is_dir():
            yield name, path
            continue
        entries = sorted(entry for entry in (path.rglob("*") if recursive else path.iterdir()) if entry.is_file())
        audio = [entry for entry in entries if entry.suffix.lower() in suffixes]
        if not audio:
            below = "" if recursive else "; --recursive looks into the folders below"
            raise DataError(f"{name}: expected audio files in this folder, found none among {len(entries)} files{below}.")
        for entry in audio:
            yield str(Path(name) / entry.relative_to(path)), entry


def run(argv: Sequence[str], base: Path) -> None:
    """Transcribe what a command line names. Raises DropasrError, at the end where single files failed."""
    request = parse(argv, base)
    if request is None:
        print(help_text())
        return
    for stream in (sys.stdout, sys.stderr):  # names of files may hold bytes that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    from dropasr.runtime.recogniser import load

    recogniser = load(request.package, request.engine, request.threads)
    if request.inputs == (STANDARD_INPUT,):
        _standard_input(recogniser, request, sys.stdin.buffer)
        return
    files: list[tuple[str, Path]] = []
    failed = total = 0
    for name in request.inputs:
        try:
            with _named(name):
                files += find([name], base, request.recursive)
        except DataError as error:
            failed, total = failed + 1, total + 1
            _tell("error", str(error))
    alone = len(files) == 1 and len(request.inputs) == 1
    statistics = recogniser.speaker_statistics([path for _, path in files], request.channel) if request.one_speaker else None
    for name, path in files:
        total += 1
        lines = _file(recogniser, request, name, path, alone, statistics)
        try:
            while True:
                with _named(name):
                    line = next(lines, None)
                if line is None:
                    break
                _say(line)
        except DropasrError as error:
            failed += 1
            _fail(request, name, str(error))
    if failed:
        raise DataError(f"{failed} of {total} files could not be transcribed; each is named above.")


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """What the system says of a file or folder becomes a DataError that names it."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{name}: it cannot be read ({error.strerror or error}). Check its name and permissions.") from None


def _file(recogniser: Recogniser, request: Request, name: str, path: Path, alone: bool, statistics: object) -> Iterator[str]:
    from dropasr.runtime import formats

    if request.stream:
        from dropasr.runtime.audio import AudioFile

        audio = AudioFile(path, recogniser.package.exported.sample_rate, request.channel)
        _notes(name, audio.notes)
        yield from _streamed(recogniser, request, name, audio.blocks(), alone)
        return
    transcript = recogniser.transcribe(path, request.channel, statistics)  # type: ignore[arg-type]
    _notes(name, transcript.notes)
    yield from formats.lines(request.form, name, transcript, request.channel, alone)


def _streamed(recogniser: Recogniser, request: Request, name: str, blocks: Iterator, alone: bool = True) -> Iterator[str]:
    from dropasr.runtime import formats
    from dropasr.runtime.streaming import stream

    for result in stream(recogniser, blocks):
        yield from formats.stream_lines(request.form, name, result.transcript, result.final, request.channel, alone)


def _standard_input(recogniser: Recogniser, request: Request, source: BinaryIO) -> None:
    from dropasr.runtime.audio import raw_blocks
    from dropasr.runtime.streaming import CHUNK_SECONDS

    rate = recogniser.package.exported.sample_rate
    if request.rate not in (None, rate):
        _notes("standard input", [f"resampled from {request.rate} to {rate} Hz"])
    try:
        blocks = raw_blocks(source, request.rate or rate, rate, CHUNK_SECONDS)
        for line in _streamed(recogniser, request, STANDARD_INPUT, blocks):
            _say(line)
    except DataError as error:
        message = str(error)
        raise DataError(message if message.startswith("standard input") else f"standard input: {message}.") from None


def _say(line: str) -> None:
    print(line, flush=True)


def _tell(kind: str, message: str) -> None:
    print(f"{kind}: {message}", file=sys.stderr, flush=True)


def _notes(name: str, notes: Sequence[str]) -> None:
    for note in notes:
        _tell("note", f"{name}: {note}")


def _fail(request: Request, name: str, message: str) -> None:
    from dropasr.runtime import formats

    _tell("error", message)
    for line in formats.error_lines(request.form, name, message):
        _say(line)
