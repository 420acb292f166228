"""torch in bfloat16, where the processor multiplies it natively; log softmax, prior and scale in float32."""

from __future__ import annotations

from pathlib import Path

from dropasr.runtime.engines import base_torch
from dropasr.runtime.exported import WEIGHTS, Exported
from dropasr.runtime.machine import has_bfloat16

TITLE, FILE = "torch, bfloat16", WEIGHTS


def requirement() -> str | None:
    """What is missing on this machine, or None."""
    return base_torch.requirement() or (None if has_bfloat16() else "the processor does not multiply bfloat16 natively")


def load(folder: Path, exported: Exported, threads: int) -> base_torch.TorchEngine:
    """The net of an exported folder."""
    return base_torch.TorchEngine(folder, exported, threads, lambda net: net.bfloat16(), "bfloat16")
