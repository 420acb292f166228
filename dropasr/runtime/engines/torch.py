"""torch as it is, float32: what the nets were decoded and timed with."""

from __future__ import annotations

from pathlib import Path

from dropasr.runtime.engines.base_torch import TorchEngine, requirement
from dropasr.runtime.exported import WEIGHTS, Exported

TITLE, FILE = "torch", WEIGHTS
__all__ = ["requirement"]


def load(folder: Path, exported: Exported, threads: int) -> TorchEngine:
    """The net of an exported folder."""
    return TorchEngine(folder, exported, threads)
