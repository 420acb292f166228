"""Mini-batches of spliced frames from a frame store, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from dropasr.data.store import FrameStore
from dropasr.errors import ConfigError, DataError

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def splice(frames: torch.Tensor, left: int, right: int) -> torch.Tensor:
    """Join each frame with its `left` predecessors and `right` successors: `(T, F)` → `(T, (left+1+right)*F)`.

    Beyond the ends of the utterance the first and last frame are repeated, as Kaldi's splice-feats does.
    """
    num_frames, num_features = frames.shape
    if num_frames == 0:
        return frames.new_empty(0, (left + 1 + right) * num_features)
    padded = torch.cat([frames[:1].expand(left, -1), frames, frames[-1:].expand(right, -1)])
    # Windows of consecutive rows of a contiguous array overlap in memory: a strided view, copied once.
    windows = padded.contiguous().as_strided((num_frames, (left + 1 + right) * num_features), (num_features, 1))
    return windows.contiguous()


def utterance_subsets(store: FrameStore | int, held_out_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide the utterances of a store (or of a number of them) at random into `(train, held_out)`, sorted int64 positions.

    `held_out` gets `held_out_share` of the utterances, rounded, and at least one; the same arguments give the same division.
    Raises DataError if one of the two would be empty.
    """
    total = store if isinstance(store, int) else len(store)
    held_out = max(1, round(total * held_out_share))
    if not 0 < held_out_share < 1 or held_out >= total:
        raise DataError(f"cannot hold out {held_out_share:g} of {total} utterances: expected at least one on either side. Use more data.")
    order = np.random.default_rng([seed, total]).permutation(total)
    return np.sort(order[held_out:]).astype(np.int64), np.sort(order[:held_out]).astype(np.int64)


class FrameSampler:
    """Mini-batches `(inputs, labels, frame_indices)` of single frames with context, for frame-wise training.

    inputs: float32 `(B, (left+1+right)*F)`; labels: int64 `(B,)`; frame_indices: int64 `(B,)`, positions in the store.
    Every labelled frame (label 0 or above) of the chosen utterances comes once per epoch; the last batch may be smaller.
    Context never crosses an utterance border: the first and last frame are repeated, so that `inputs` equals `splice` of the
    whole utterance.
    """

    def __init__(
        self,
        store: FrameStore,
        labels: np.ndarray | str | Path | None,
        context: tuple[int, int],
        batch_size: int,
        utterances: np.ndarray | None = None,
        seed: int = 0,
        in_memory: bool = True,
    ) -> None:
        """Sample from `utterances` (positions; None is all) of `store` with `labels` `(N,)` (None: those the store was opened with).

        `in_memory` copies the frames from the memory map, in the number type of the store. Raises DataError if labels and
        frames do not match, ConfigError for a negative context or a batch size below 1.
        """
        left, right = context
        if left < 0 or right < 0 or batch_size < 1:
            raise ConfigError(f"expected a context of 0 or more frames and a batch size of 1 or more, found {context} and {batch_size}.")
        if isinstance(labels, (str, Path)):
            labels = FrameStore.open(store.folder, labels).labels
        labels = store.labels if labels is None else labels
        if labels is None or labels.shape != (store.num_frames,):
            found = "none" if labels is None else str(labels.shape)
            raise DataError(f"{store.folder}: expected labels of shape ({store.num_frames},), found {found}. Run stage 4 (align) again.")
        utterances = np.arange(len(store)) if utterances is None else utterances
        self.batch_size = batch_size
        self.seed = seed
        self._offsets = store.offsets
        # A copy-on-write map costs no memory and, unlike a read-only one, can be wrapped as a tensor.
        frames = np.array(store.frames) if in_memory else np.load(store.frames.filename, mmap_mode="c")
        self._frames = torch.from_numpy(np.asarray(frames))
        self._labels = np.array(labels, copy=True)
        self._window = np.arange(-left, right + 1)
        self._folder = store.folder
        self.frame_indices = self._frames_of(utterances)

    def _frames_of(self, utterances: np.ndarray) -> np.ndarray:
        utterances, total = np.asarray(utterances, np.int64), len(self._offsets) - 1
        if not len(utterances) or utterances.min() < 0 or utterances.max() >= total:
            raise DataError(f"{self._folder}: expected utterance positions from 0 to {total - 1}, found {utterances}.")
        frames = np.concatenate([np.arange(self._offsets[i], self._offsets[i + 1]) for i in utterances])
        frames = frames[self._labels[frames] >= 0]
        if not len(frames):
            raise DataError(f"{self._folder}: none of the {len(utterances)} utterances has labels. Run stage 4 (align) again.")
        return frames

    def subset(self, utterances: np.ndarray) -> FrameSampler:
        """A sampler of other utterances (positions) of the same store, sharing its frames in memory."""
        other = copy.copy(self)
        other.frame_indices = self._frames_of(utterances)
        return other

    @property
    def num_frames(self) -> int:
        """Frames per epoch."""
        return len(self.frame_indices)

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, the last, smaller one included."""
        return -(-len(self.frame_indices) // self.batch_size)

    @property
    def input_size(self) -> int:
        """Values per input, `(left+1+right)*F`."""
        return len(self._window) * int(self._frames.shape[1])

    def gather(self, frame_indices: np.ndarray) -> Batch:
        """The batch of the given frames, int64 `(B,)` positions in the store."""
        utterances = np.searchsorted(self._offsets, frame_indices, side="right") - 1
        first, last = self._offsets[utterances], self._offsets[utterances + 1] - 1
        rows = np.clip(frame_indices[:, None] + self._window, first[:, None], last[:, None])
        inputs = self._frames.index_select(0, torch.from_numpy(rows.reshape(-1))).view(len(frame_indices), -1).float()
        labels = torch.from_numpy(self._labels[frame_indices].astype(np.int64))
        return inputs, labels, torch.from_numpy(frame_indices)

    def order(self, epoch: int) -> np.ndarray:
        """The frames of an epoch in their order, int64 `(num_frames,)`: a permutation that depends on seed and epoch alone."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.frame_indices)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step `start_step` on; the order of a resumed epoch is that of the whole one."""
        order = self.order(epoch)
        for start in range(start_step * self.batch_size, len(order), self.batch_size):
            yield self.gather(order[start : start + self.batch_size])
