"""Approximate random dropout (Song et al. 2018): patterns so regular that the products of a training step shrink by what is dropped.

For every batch and every layer a period k is drawn from a distribution d over 1..N, and a bias b evenly from 0..k-1. Of `rows`, unit i
is there if (i - b) mod k = 0; of `tiles`, the same holds for the sum of the places of a tile in the matrix that reads the units. Every
unit, or weight, is there with probability sum_k d_k / k = 1 - rate, as in ordinary dropout; units closer to each other than k never are
together, and all frames of a batch share the mask.

The distribution is the most diverse one with that mean. As published it is searched for: with p_k = (k - 1) / k and d = softmax(v),

    minimise  l1 (sum_k d_k p_k - rate)^2 + l2 (1/N) sum_k d_k log d_k   over v by gradient descent, l1 = 0.99, l2 = 0.01.

Its limit for l1 / l2 to infinity has the closed form d_k ~ exp(theta p_k), with theta such that the mean is the rate exactly.

`blocks` is ours: published patterns are few (with a period of 2 there are two), their share changes from batch to batch, and a whole batch
has one, so that after short trainings words are lost (docs/decisions.md). Here every batch is divided into `parts`, and for each part and
layer random blocks of `block` neighbouring units are there, as many as make up 1 - rate; where that is no whole number, one more or less
at random. Every unit is there with probability 1 - rate (where that is a block or more), and multiplied by the inverse of the share that
is there, so that what the next layer reads is as large as without dropout.

What it costs: drawing two numbers per layer, or a permutation per layer and part, and gathering and spreading the weights that are there
(dropasr/models/patterns.py). What it saves: with rows a matrix between two layers keeps (1 - rate)^2 of its products on average, forward
and in both backward products, those of the first and last layer 1 - rate; with blocks it is so in every step; with tiles every matrix that
reads units keeps 1 - rate. Recurrent layers run torch's fused kernel over the cells that are there, recurrent matrix included, for all
steps of the batch; with blocks once for each part of its pieces, which are what is divided there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.optimize import brentq

from dropasr.errors import ConfigError
from dropasr.methods.base import BaseMethod, CommonOptions
from dropasr.models.base import AcousticModel
from dropasr.models.patterns import BlockPattern, Pattern, RowPattern, TilePattern


class MethodOptions(CommonOptions):
    """Keys of conf/method/approximate_random_dropout.yaml."""

    rate: float = Field(default=0.5, gt=0, lt=1)
    """Probability of being left out."""
    pattern: Literal["rows", "tiles", "blocks"] = "rows"
    """Leave out units, tiles of the weights that read them, or random blocks of units."""
    periods: int = Field(default=8, ge=2)
    """Longest period; of narrower layers, their width."""
    tile: int = Field(default=32, ge=1)
    """Rows and columns of a tile."""
    block: int = Field(default=32, ge=1)
    """Units of a block, at most: the largest number that divides the width of a layer and leaves it 32 blocks is taken."""
    parts: int = Field(default=4, ge=1)
    """Parts of a batch with blocks of their own, at most."""
    part_frames: int = Field(default=128, ge=2)
    """Frames of a part, at least: gathering weights costs as much for a few frames as for many."""
    distribution: Literal["closed", "searched"] = "closed"
    """Distribution of the periods: in closed form, or by the published search."""
    scale: Literal["rate", "period"] = "rate"
    """With rows and tiles, what is there is multiplied by 1 / (1 - rate), or by the period of the batch: what the next layer reads is as
    large as without dropout on average over the patterns, or in every single one."""

    @model_validator(mode="after")
    def _check(self) -> MethodOptions:
        if self.pattern != "blocks" and self.rate >= 1 - 1 / self.periods:
            raise ValueError(
                f"rate: periods up to {self.periods} reach rates below {1 - 1 / self.periods:.3g}, found {self.rate:g}; raise periods"
            )
        return self


def drop_shares(periods: int) -> np.ndarray:
    """Shares `(N,)` that the periods 1..N leave out."""
    return 1 - 1 / np.arange(1, periods + 1)


def _gibbs(theta: float, shares: np.ndarray) -> np.ndarray:
    weights = np.exp(theta * shares - (theta * shares).max())
    return weights / weights.sum()


@lru_cache(maxsize=64)
def closed_form(rate: float, periods: int) -> np.ndarray:
    """The distribution `(N,)` of greatest entropy over the periods 1..N whose mean share left out is `rate`."""
    shares = drop_shares(periods)
    if not 0 < rate < shares[-1]:
        raise ConfigError(
            f"approximate_random_dropout: expected a rate between 0 and {shares[-1]:.3g} for {periods} periods, found {rate:g}."
        )
    theta = brentq(lambda value: _gibbs(value, shares) @ shares - rate, -1e4, 1e4, xtol=1e-12)
    return _gibbs(theta, shares)


def search_objective(distribution: np.ndarray, rate: float) -> float:
    """What the published search minimises, for a distribution `(N,)` of positive numbers."""
    shares = drop_shares(len(distribution))
    return 0.99 * (distribution @ shares - rate) ** 2 + 0.01 * (distribution @ np.log(distribution)) / len(distribution)


@lru_cache(maxsize=64)
def searched(rate: float, periods: int, steps: int = 20_000, learning_rate: float = 5.0) -> np.ndarray:
    """The distribution `(N,)` that gradient descent on the published objective finds from even probabilities."""
    shares, logits = drop_shares(periods), np.zeros(periods)
    for _ in range(steps):
        distribution = np.exp(logits - logits.max())
        distribution /= distribution.sum()
        slope = 2 * 0.99 * (distribution @ shares - rate) * shares + 0.01 / periods * (np.log(distribution) + 1)
        logits -= learning_rate * distribution * (slope - distribution @ slope)
    return distribution


class Method(BaseMethod):
    """A period and a bias per group of units and batch, or blocks per group and part of a batch."""

    @classmethod
    def check(cls, options: MethodOptions, net: AcousticModel, teacher: Any = None) -> None:
        if not net.knows_patterns:
            raise ConfigError(f"{options.method}: nets of the kind {type(net).__name__} do not compute parts of their units.")
        if options.pattern == "tiles" and net.reads_chunks:
            raise ConfigError(
                f"{options.method}: torch's kernel of recurrent layers knows no tiles, so that nothing would become faster. "
                "Set pattern: rows or blocks, or take model feedforward."
            )

    def _draw_blocks(self, width: int) -> BlockPattern:
        options = self.options
        size = max(number for number in range(1, max(1, min(options.block, width // 32)) + 1) if width % number == 0)
        wanted = (1 - options.rate) * width / size
        kept = max(1, int(wanted + self.generator.random()))
        blocks = np.sort(self.generator.permuted(np.tile(np.arange(width // size), (options.parts, 1)), axis=1)[:, :kept], axis=1)
        return BlockPattern(torch.from_numpy(blocks), size, width / (kept * size), options.part_frames)

    def draw(self, width: int) -> Pattern:
        """A fresh pattern for a group of `width` units."""
        options = self.options
        if options.pattern == "blocks":
            return self._draw_blocks(width)
        find = closed_form if options.distribution == "closed" else searched
        distribution = find(options.rate, min(options.periods, width))
        period = 1 + int(self.generator.choice(len(distribution), p=distribution))
        bias = int(self.generator.integers(period))
        scale = float(period) if options.scale == "period" else 1 / (1 - options.rate)
        return RowPattern(period, bias, scale) if options.pattern == "rows" else TilePattern(period, bias, scale, options.tile)

    def training_mode(self, net: AcousticModel, epoch: int) -> None:
        self.check(self.options, net)
        super().training_mode(net, epoch)
        self.report.keep = 1 - self.options.rate

    def before_step(self, net: AcousticModel, epoch: int, step: int) -> None:
        for group in net.unit_groups():
            group.gate.pattern = self.draw(group.gate.width)
