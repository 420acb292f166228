"""Mini-batches of items of several frames each (utterances, or pieces of them), in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from dropasr.data.batches import PassSampler

BUCKET = 16
"""Batches whose items are sorted by length together, so that those of one batch are about equally long."""


def every(first: np.ndarray, counts: np.ndarray, step: int) -> np.ndarray:
    """Positions of every `step`-th frame of some runs, int64, one run after the other: `counts[i]` of them from `first[i]` on."""
    shift = first - step * (np.cumsum(counts) - counts)
    return step * np.arange(int(counts.sum())) + np.repeat(shift, counts)


class PackedSampler(PassSampler):
    """Samplers of items of several frames each, packed up to `batch_frames` frames of the store.

    Items of about one length come together, and the order of the batches is random.
    """

    batch_frames: int

    def lengths(self, items: np.ndarray) -> np.ndarray:
        """Frames of the store that each item reads."""
        raise NotImplementedError

    def rows(self, items: np.ndarray) -> np.ndarray:
        """Rows of each item."""
        raise NotImplementedError

    @property
    def num_rows(self) -> int:
        return int(self.rows(self.items).sum())

    @property
    def num_frames(self) -> int:
        """Frames of the store that all rows stand for."""
        return self.num_rows * self.frame_subsampling

    def pack(self, items: np.ndarray) -> list[np.ndarray]:
        """Consecutive runs of items of at most `batch_frames` frames, or of one item that is longer."""
        batches, start, frames = [], 0, 0
        for position, length in enumerate(self.lengths(items).tolist()):
            if position > start and frames + length > self.batch_frames:
                batches.append(items[start:position])
                start, frames = position, 0
            frames += length
        return [*batches, items[start:]] if len(items) else []

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Items of each batch of an epoch, in an order that depends on seed and epoch alone."""
        order = self.order(epoch)
        # Buckets of a number of frames: sorting all by length would put the same items together in every epoch.
        bucket = np.cumsum(self.lengths(order)) // (BUCKET * self.batch_frames)
        batches = self.pack(order[np.lexsort((-self.lengths(order), bucket))])
        return [batches[i] for i in np.random.default_rng([self.seed, epoch, len(batches)]).permutation(len(batches))]

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""
        return len(self.batches(epoch))

    def sample(self, max_frames: float) -> Iterator[tuple[Any, Any, torch.Tensor]]:
        for items in self.pack(self.items[:: max(1, int(self.num_frames // max_frames))]):
            yield self.gather(items)

    def draw(self, generator: np.random.Generator, count: int) -> tuple[Any, Any]:
        order = generator.permutation(self.items)
        return self.gather(order[: int(np.searchsorted(np.cumsum(self.rows(order)), count)) + 1])[:2]

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Any, torch.Tensor]]:
        """The batches of an epoch."""
        for items in self.batches(epoch):
            yield self.gather(items)
