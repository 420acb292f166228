"""Mini-batches of spliced frames from a frame store, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dropasr.data.store import FrameStore
from dropasr.errors import ConfigError, DataError

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
SamplerType = TypeVar("SamplerType", bound="PassSampler")


def splice(frames: torch.Tensor, left: int, right: int, stride: int = 1) -> torch.Tensor:
    """Join each frame with its `left` predecessors and `right` successors: `(T, F)` → `(T, (left+1+right)*F)`.

    With a `stride`, every stride-th frame from the first on: `(⌈T/stride⌉, (left+1+right)*F)`. Beyond the ends of the utterance the first
    and last frame are repeated, as Kaldi's splice-feats does.
    """
    num_frames, num_features = frames.shape
    if num_frames == 0:
        return frames.new_empty(0, (left + 1 + right) * num_features)
    padded = torch.cat([frames[:1].expand(left, -1), frames, frames[-1:].expand(right, -1)])
    # Windows of consecutive rows of a contiguous array overlap in memory: a strided view, copied once.
    size = (-(-num_frames // stride), (left + 1 + right) * num_features)
    windows = padded.contiguous().as_strided(size, (stride * num_features, 1))
    return windows.contiguous()


def utterance_subsets(store: FrameStore | int, held_out_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide the utterances of a store (or of a number of them) at random into `(train, held_out)`, sorted int64 positions.

    `held_out` gets `held_out_share` of the utterances, rounded, and at least one; copies of one utterance at several speeds count as one
    and stay together. The same arguments give the same division. Raises DataError if one of the two would be empty.
    """
    # Originals in the order in which they first appear; which of them each utterance is a copy of.
    positions: dict[str | int, int] = {}
    names = range(store) if isinstance(store, int) else store.originals
    original_of = np.array([positions.setdefault(name, len(positions)) for name in names], np.int64)
    total = len(positions)
    held_out = max(1, round(total * held_out_share))
    if not 0 < held_out_share < 1 or held_out >= total:
        raise DataError(f"cannot hold out {held_out_share:g} of {total} utterances: expected at least one on either side. Use more data.")
    order = np.random.default_rng([seed, total]).permutation(total)
    is_held_out = np.zeros(total, bool)
    is_held_out[order[:held_out]] = True
    chosen = is_held_out[original_of]
    return np.flatnonzero(~chosen).astype(np.int64), np.flatnonzero(chosen).astype(np.int64)


class SplicedFrames:
    """Frames of a store that can be gathered with their context; context never crosses an utterance border."""

    def __init__(self, store: FrameStore, context: tuple[int, int], in_memory: bool = True) -> None:
        """`in_memory` copies the frames from the memory map, in the number type of the store. Raises ConfigError for a negative context."""
        left, right = context
        if left < 0 or right < 0:
            raise ConfigError(f"expected a context of 0 or more frames, found {context}.")
        # A copy-on-write map costs no memory and, unlike a read-only one, can be wrapped as a tensor.
        frames = np.array(store.frames) if in_memory else np.load(store.frames.filename, mmap_mode="c")
        self._frames = torch.from_numpy(np.asarray(frames))
        self._offsets = store.offsets
        self._window = np.arange(-left, right + 1)

    @property
    def num_features(self) -> int:
        """Features F of a frame."""
        return int(self._frames.shape[1])

    @property
    def input_size(self) -> int:
        """Values per input, `(left+1+right)*F`."""
        return len(self._window) * self.num_features

    def gather(self, frame_indices: np.ndarray) -> torch.Tensor:
        """Inputs float32 `(B, (left+1+right)*F)` of the given frames, int64 `(B,)` positions in the store, as `splice` gives them."""
        utterances = np.searchsorted(self._offsets, frame_indices, side="right") - 1
        first, last = self._offsets[utterances], self._offsets[utterances + 1] - 1
        rows = np.clip(frame_indices[:, None] + self._window, first[:, None], last[:, None])
        return self.at(rows).view(len(frame_indices), -1)

    def at(self, positions: np.ndarray) -> torch.Tensor:
        """The frames themselves, float32 `(*positions.shape, F)`, at int64 positions in the store."""
        return self._frames.index_select(0, torch.from_numpy(positions.reshape(-1))).view(*positions.shape, -1).float()


def part_of_pass(order: np.ndarray, part: int, parts: int) -> np.ndarray:
    """One part of a pass, the first being 0, where the items of `order` are cut into `parts` of about equal size."""
    return order[part * len(order) // parts : (part + 1) * len(order) // parts]


def frames_of_utterances(offsets: np.ndarray, utterances: np.ndarray) -> np.ndarray:
    """Positions of all frames of some utterances, one utterance after the other, in the smallest integer type that holds them."""
    lengths = offsets[utterances + 1] - offsets[utterances]
    # Millions of frames: half the bytes for most stores.
    dtype = np.int32 if offsets[-1] < 2**31 else np.int64
    shift = (offsets[utterances] - np.cumsum(lengths) + lengths).astype(dtype)
    frames = np.arange(int(lengths.sum()), dtype=dtype)
    frames += np.repeat(shift, lengths)
    return frames


def checked_labels(store: FrameStore, labels: np.ndarray | str | Path | None) -> np.ndarray:
    """Labels `(N,)` of the frames of a store, copied; None is those it was opened with. Raises DataError if they do not match."""
    if isinstance(labels, (str, Path)):
        labels = FrameStore.open(store.folder, labels).labels
    labels = store.labels if labels is None else labels
    if labels is None or labels.shape != (store.num_frames,):
        found = "none" if labels is None else str(labels.shape)
        raise DataError(f"{store.folder}: expected labels of shape ({store.num_frames},), found {found}. Run stage 4 (align) again.")
    return np.array(labels, copy=True)


class PassSampler:
    """What samplers have in common: `items` (frames, utterances or pieces of them) that come once per pass of `epochs_per_pass` epochs.

    The order of a pass depends on `seed` and the number of the pass alone. A batch is `(inputs, targets, frame_indices)`; its rows, for
    which a net gives logits, are frames of the store at the positions `frame_indices`, one of `frame_subsampling`.
    """

    items: np.ndarray
    seed: int
    epochs_per_pass: int
    frame_subsampling: int = 1
    _folder: Path
    _offsets: np.ndarray
    _spliced: SplicedFrames
    _joined: tuple[PassSampler, int] | None = None

    def _items_of(self, utterances: np.ndarray) -> np.ndarray:
        """The items of some utterances, positions in the store; DataError where there are none."""
        raise NotImplementedError

    def _checked(self, utterances: np.ndarray) -> np.ndarray:
        """Positions of utterances as int64; DataError where the store has no such ones."""
        utterances, total = np.asarray(utterances, np.int64), len(self._offsets) - 1
        if not len(utterances) or utterances.min() < 0 or utterances.max() >= total:
            raise DataError(f"{self._folder}: expected utterance positions from 0 to {total - 1}, found {utterances}.")
        return utterances

    def _without_labels(self, utterances: np.ndarray) -> DataError:
        return DataError(f"{self._folder}: none of the {len(utterances)} utterances has labels. Run stage 4 (align) again.")

    def gather(self, items: np.ndarray) -> tuple[Any, Any, torch.Tensor]:
        """The batch of the given items."""
        raise NotImplementedError

    def sample(self, max_frames: float) -> Iterator[tuple[Any, Any, torch.Tensor]]:
        """Batches of evenly spaced items with about `max_frames` frames of the store, or of all items if they are fewer."""
        raise NotImplementedError

    def draw(self, generator: np.random.Generator, count: int) -> tuple[Any, Any]:
        """Inputs and targets of items drawn at random that have `count` rows, or a few more where an item has several; or of all."""
        raise NotImplementedError

    @property
    def num_rows(self) -> int:
        """Rows per pass."""
        raise NotImplementedError

    def subset(self: SamplerType, utterances: np.ndarray) -> SamplerType:
        """A sampler of other utterances (positions) of the same store, sharing its frames in memory."""
        other = copy.copy(self)
        other.items = self._items_of(utterances)
        return other

    def following(self: SamplerType, earlier: SamplerType, epoch: int) -> SamplerType:
        """This sampler from `epoch` on, after epochs of `earlier`, which has a part of its items.

        Where the change falls inside a pass, the epochs left of that pass get what it has not had yet, so that it is whole.
        """
        if epoch % self.epochs_per_pass == 0:
            return self
        other = copy.copy(self)
        other._joined = earlier, epoch
        return other

    def order(self, epoch: int) -> np.ndarray:
        """The items of an epoch in their order: a part of a permutation of all that depends on seed and pass alone."""
        number, part = divmod(epoch, self.epochs_per_pass)
        order = np.random.default_rng([self.seed, number]).permutation(self.items)
        if self._joined is None or not self._is_shared(epoch):
            return part_of_pass(order, part, self.epochs_per_pass)
        earlier, change = self._joined
        seen = np.zeros(int(order.max()) + 1, bool)
        for had in range(number * self.epochs_per_pass, change):
            seen[earlier.order(had)] = True
        return part_of_pass(order[~seen[order]], epoch - change, self.epochs_per_pass - change % self.epochs_per_pass)

    def _is_shared(self, epoch: int) -> bool:
        """Whether an earlier sampler had the first epochs of this pass."""
        return self._joined is not None and self._joined[1] // self.epochs_per_pass == epoch // self.epochs_per_pass

    def count(self, epoch: int) -> int:
        """Items of an epoch."""
        if self._is_shared(epoch):
            return len(self.order(epoch))
        return len(part_of_pass(self.items, epoch % self.epochs_per_pass, self.epochs_per_pass))

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""
        raise NotImplementedError

    @property
    def steps_per_epoch(self) -> int:
        """Batches of the first epoch."""
        return self.steps(0)

    @property
    def input_size(self) -> int:
        """Values per input, `(left+1+right)*F`."""
        return self._spliced.input_size

    @property
    def num_features(self) -> int:
        """Features F of a frame."""
        return self._spliced.num_features


class FrameSampler(PassSampler):
    """Mini-batches `(inputs, labels, frame_indices)` of single frames with context, for frame-wise training.

    inputs: float32 `(B, (left+1+right)*F)`; labels: int64 `(B,)`; frame_indices: int64 `(B,)`, positions in the store.
    Every labelled frame (label 0 or above) of the chosen utterances comes once per pass of `epochs_per_pass` epochs; the last batch of
    an epoch may be smaller.
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
        epochs_per_pass: int = 1,
    ) -> None:
        """Sample from `utterances` (positions; None is all) of `store` with `labels` `(N,)` (None: those the store was opened with).

        `in_memory` copies the frames from the memory map. Raises DataError if labels and frames do not match, ConfigError for a negative
        context or a batch size below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"expected a batch size of 1 or more, found {batch_size}.")
        self._labels = checked_labels(store, labels)
        self.batch_size = batch_size
        self.seed = seed
        self.epochs_per_pass = epochs_per_pass
        self._spliced = SplicedFrames(store, context, in_memory)
        self._folder, self._offsets = store.folder, store.offsets
        self.items = self._items_of(np.arange(len(store)) if utterances is None else utterances)

    def _items_of(self, utterances: np.ndarray) -> np.ndarray:
        frames = frames_of_utterances(self._offsets, self._checked(utterances))
        frames = frames[self._labels[frames] >= 0]
        if not len(frames):
            raise self._without_labels(utterances)
        return frames

    @property
    def frame_indices(self) -> np.ndarray:
        """The frames, positions in the store."""
        return self.items

    @property
    def num_frames(self) -> int:
        """Frames per pass."""
        return len(self.frame_indices)

    def steps(self, epoch: int) -> int:
        """Batches of an epoch, the last, smaller one included."""
        return -(-self.count(epoch) // self.batch_size)

    def gather(self, frame_indices: np.ndarray) -> Batch:
        """The batch of the given frames, `(B,)` positions in the store."""
        frame_indices = frame_indices.astype(np.int64, copy=False)
        labels = torch.from_numpy(self._labels[frame_indices].astype(np.int64))
        return self._spliced.gather(frame_indices), labels, torch.from_numpy(frame_indices)

    @property
    def num_rows(self) -> int:
        return self.num_frames

    def sample(self, max_frames: float) -> Iterator[Batch]:
        indices = self.items[:: max(1, int(self.num_frames // max_frames))]
        for start in range(0, len(indices), 2048):
            yield self.gather(indices[start : start + 2048])

    def draw(self, generator: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.gather(generator.choice(self.items, size=min(count, self.num_frames), replace=False))[:2]

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        order = self.order(epoch)
        for start in range(0, len(order), self.batch_size):
            yield self.gather(order[start : start + self.batch_size])
