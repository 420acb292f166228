"""dropasr: train large acoustic models with dropout, learn which units to keep, remove the others, measure what it bought."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dropasr.runtime.recogniser import Recogniser

__version__ = "0.1.0"


def load(folder: str | Path, engine: str = "onnx", threads: int = 1) -> Recogniser:
    """The recogniser of a package folder: `dropasr.load(folder).transcribe(path)`. See `dropasr.runtime.recogniser.load`."""
    from dropasr.runtime.recogniser import load

    return load(folder, engine, threads)
