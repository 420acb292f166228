"""The learning-rate schedule and the number type, the same for every row of a table."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from pathlib import Path

import torch

from dropasr.config import TrainConfig


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Learning rate at `progress` (share of all steps done, 0-1): constant, then exponential down to `final_learning_rate`."""
    if progress <= config.constant_share:
        return config.learning_rate
    share = (progress - config.constant_share) / (1 - config.constant_share)
    return config.learning_rate * config.final_learning_rate**share


@lru_cache(maxsize=1)
def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively (otherwise autocast is slower than float32)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(precision: str) -> contextlib.AbstractContextManager:
    """Context in which nets are trained: bfloat16 autocast (float32 master weights) or nothing."""
    if precision == "bfloat16" or (precision == "auto" and has_bfloat16()):
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()
