"""The learning-rate schedule and the number type, the same for every row of a table."""

from __future__ import annotations

import contextlib

import torch

from dropasr.config import TrainConfig
from dropasr.runtime.machine import has_bfloat16


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Learning rate at `progress` (share of all steps done, 0-1): constant, then exponential down to `final_learning_rate`."""
    if progress <= config.constant_share:
        return config.learning_rate
    share = (progress - config.constant_share) / (1 - config.constant_share)
    return config.learning_rate * config.final_learning_rate**share


def resolved_precision(precision: str) -> str:
    """The number type that `train.precision` stands for on this processor: `bfloat16` or `float32`."""
    return ("bfloat16" if has_bfloat16() else "float32") if precision == "auto" else precision


def autocast(precision: str) -> contextlib.AbstractContextManager:
    """Context in which nets are trained: bfloat16 autocast (float32 master weights) or nothing."""
    if resolved_precision(precision) == "bfloat16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()
