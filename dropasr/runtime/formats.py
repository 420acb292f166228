"""Transcripts as lines of text, of JSON, or of CTM (NIST's time-marked conversation: FILE CHANNEL START DURATION WORD CONFIDENCE)."""

from __future__ import annotations

import json
import re
from typing import Any

from dropasr.runtime.recogniser import Transcript

FORMATS = ("text", "json", "ctm")


def _json(name: str, value: dict[str, Any]) -> str:
    return json.dumps({"file": name, **value}, ensure_ascii=False)


def _ctm(name: str, channel: int | None, transcript: Transcript) -> list[str]:
    key = re.sub(r"\s", "_", re.sub(r"\.[A-Za-z0-9]+$", "", name))
    return [
        f"{key} {(channel or 0) + 1} {word.start:.3f} {word.end - word.start:.3f} {word.text} {word.confidence:.3f}"
        for word in transcript.words
    ]


def lines(form: str, name: str, transcript: Transcript, channel: int | None = None, alone: bool = True) -> list[str]:
    """A transcript as the lines of a format. `text` begins with the name of the file and a tab unless the file stands `alone`."""
    if form == "json":
        return [_json(name, transcript.as_dict())]
    if form == "ctm":
        return _ctm(name, channel, transcript)
    return [transcript.text if alone else f"{name}\t{transcript.text}"]


def stream_lines(form: str, name: str, transcript: Transcript, final: bool, channel: int | None = None, alone: bool = True) -> list[str]:
    """A result of a stream, as `lines`. Partial ones are told in JSON alone."""
    if form == "json":
        return [_json(name, {"final": final, **transcript.as_dict()})]
    return lines(form, name, transcript, channel, alone) if final else []


def error_lines(form: str, name: str, message: str) -> list[str]:
    """A file that could not be transcribed, where the format has room for it."""
    return [_json(name, {"error": message})] if form == "json" else []
