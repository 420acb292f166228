"""The data of a user's net: read once into a frame store, then batched as those of any training.

Reading it once makes the division into training, held-out and dev rows the same in every epoch (a loader that shuffles would mix them), and
a run that is continued sees the same batches. The store is a file, so data need not fit into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch

from dropasr.adapt.adapter import Adapter
from dropasr.compaction.retention import CriterionTargets
from dropasr.config import TrainConfig
from dropasr.data.batches import FrameSampler, utterance_subsets
from dropasr.data.chunks import ChunkSampler
from dropasr.data.store import FrameStore, FrameStoreWriter
from dropasr.errors import DataError
from dropasr.training.criteria import Sampler
from dropasr.training.loop import Samplers

CROSS_ENTROPY = "cross_entropy"
CriterionLike = Union[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]
RUN_ROWS = 100
"""Rows of a batch that stay together, in training, held-out slice or dev, because neighbours are alike."""


@dataclass
class Stored:
    """Rows of a frame store with their targets `(N, ...)`; `first` is the first batch's inputs, as the user gave them."""

    store: FrameStore
    targets: np.ndarray
    first: torch.Tensor
    digest: str


def _tensor(value: Any, what: str, where: str) -> torch.Tensor:
    if isinstance(value, np.ndarray):
        try:
            value = torch.from_numpy(value)
        except TypeError:
            raise DataError(f"{where}: expected {what} of a number type that torch has, found {value.dtype}. Convert them.") from None
    if not torch.is_tensor(value):
        raise DataError(f"{where}: expected {what} as a tensor or an array, found {type(value).__name__}.")
    return value.detach().cpu()


def _batches(source: Any, where: str) -> Iterator[Sequence[Any]]:
    """Batches of whatever the user gave: one pair of arrays, or an iterable of batches."""
    if isinstance(source, (tuple, list)) and len(source) in (2, 3) and all(hasattr(item, "shape") for item in source):
        source = [source]
    if not isinstance(source, Iterable) or hasattr(source, "shape"):
        raise DataError(
            f"{where}: expected batches (inputs, targets), such as a DataLoader, or one such pair, found {type(source).__name__}."
        )
    for number, batch in enumerate(source):
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            found = f"{len(batch)} items" if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise DataError(f"{where}: batch {number}: expected (inputs, targets) or (inputs, targets, lengths), found {found}.")
        yield batch


def _lengths(value: Any, where: str) -> list[int]:
    found = _tensor(value, "lengths", where)
    if found.dim() != 1 or found.is_floating_point():
        raise DataError(f"{where}: expected lengths (B,) as whole numbers, found {found.dtype} of shape {tuple(found.shape)}.")
    return found.tolist()


def _pieces(adapter: Adapter, batch: Sequence[Any], where: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Runs of rows `(T, D)` with targets `(T, ...)` that stay together: sequences without their padding, or parts of a batch of rows."""
    inputs, targets = _tensor(batch[0], "inputs", where), _tensor(batch[1], "targets", where)
    if inputs.dim() < (3 if adapter.is_recurrent else 2) or inputs.shape[-1] != adapter.num_inputs:
        wanted = f"({'B, T' if adapter.is_recurrent else '..., N'}, {adapter.num_inputs})"
        raise DataError(f"{where}: expected inputs of shape {wanted}, found {tuple(inputs.shape)}.")
    leading = inputs.shape[:-1]
    if targets.shape[: len(leading)] != leading:
        raise DataError(
            f"{where}: expected targets for inputs {tuple(inputs.shape)} to begin with {tuple(leading)}, found {tuple(targets.shape)}."
        )
    if not bool(torch.isfinite(inputs).all()):
        raise DataError(f"{where}: expected finite inputs, found values that are not.")
    if not adapter.is_recurrent:
        if len(batch) == 3:
            raise DataError(
                f"{where}: expected no lengths for a net that reads single rows; give negative targets to the rows that are padding."
            )
        rows, wanted = inputs.flatten(0, len(leading) - 1), targets.flatten(0, len(leading) - 1)
        yield from zip(rows.split(RUN_ROWS), wanted.split(RUN_ROWS))
        return
    if not adapter.batch_first:
        inputs, targets = inputs.transpose(0, 1), targets.transpose(0, 1)
    steps = inputs.shape[1]
    lengths = _lengths(batch[2], where) if len(batch) == 3 else None
    if lengths is not None and (len(lengths) != len(inputs) or min(lengths) < 1 or max(lengths) > steps):
        raise DataError(f"{where}: expected {len(inputs)} lengths from 1 to {steps}, found {lengths[:8]}.")
    for index in range(len(inputs)):
        length = steps if lengths is None else lengths[index]
        yield inputs[index, :length], targets[index, :length]


def read_data(adapter: Adapter, source: Any, criterion: CriterionLike, folder: Path, where: str) -> Stored:
    """Write the batches of `source` to a frame store in `folder`. Raises DataError that names `where` and what is wrong with the data."""
    digest, targets, first = hashlib.sha256(), [], None
    with FrameStoreWriter(folder, adapter.num_inputs, "float32") as writer:
        for batch in _batches(source, where):
            for rows, wanted in _pieces(adapter, batch, where):
                first = _tensor(batch[0], "inputs", where) if first is None else first
                if len(rows):
                    frames = rows.float().numpy()
                    writer.add(f"{where}-{len(targets)}", "", [], float(len(rows)), frames)
                    targets.append(wanted.numpy())
                    digest.update(np.ascontiguousarray(frames))
                    digest.update(np.ascontiguousarray(targets[-1]))
        if not targets:
            raise DataError(f"{where}: expected at least one batch, found none. An iterator that was used up before gives nothing.")
    store = FrameStore.open(folder)
    joined = np.concatenate(targets)
    if criterion == CROSS_ENTROPY:
        _check_labels(joined, adapter.num_outputs, where)
    return Stored(store, joined, first, digest.hexdigest())


def _check_labels(labels: np.ndarray, outputs: int, where: str) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{where}: cross_entropy needs an integer label per row, found targets {labels.dtype} {('N', *labels.shape[1:])}.")
    if labels.max() >= outputs:
        raise DataError(
            f"{where}: expected labels from 0 to {outputs - 1}, as the net has {outputs} outputs "
            f"(negative: the row does not count), found {labels.max()}."
        )


class _WithTargets:
    """Makes a sampler give the user's targets in the place of labels."""

    values: np.ndarray
    criterion: Callable

    def gather(self, *items: Any) -> tuple[Any, CriterionTargets, torch.Tensor]:
        inputs, _, indices = super().gather(*items)
        return inputs, CriterionTargets(torch.from_numpy(self.values[indices.numpy()]), self.criterion), indices


class _Rows(_WithTargets, FrameSampler):
    pass


class _Sequences(_WithTargets, ChunkSampler):
    pass


def sampler_of(
    adapter: Adapter, data: Stored, criterion: CriterionLike, train: TrainConfig, context: tuple[int, int], seed: int
) -> Sampler:
    """Batches of all rows whose integer target, if it has one, is not negative. `context`: that of the adapted net."""
    plain = criterion == CROSS_ENTROPY
    are_labels = data.targets.dtype.kind in "iu" and data.targets.ndim == 1
    counts = data.targets.astype(np.int64) if are_labels else np.zeros(len(data.targets), np.int64)
    if not bool((counts >= 0).any()):
        raise DataError(f"{data.store.folder.name}: expected targets of 0 or above, found negative ones only.")
    if adapter.is_recurrent:
        kind = ChunkSampler if plain else _Sequences
        made = kind(data.store, counts, context, train.chunk_frames, train.chunk_batch_frames, None, seed, False)
    else:
        made = (FrameSampler if plain else _Rows)(data.store, counts, context, train.batch_size, None, seed, False)
    if not plain:
        made.values, made.criterion = data.targets, criterion
    return made


def divide(everything: Sampler, utterances: int, dev: Union[Sampler, None], train: TrainConfig, seed: int) -> Samplers:
    """Samplers of training, held-out slice and dev; without data for dev, a tenth of the runs of rows or sequences is dev."""
    use = np.arange(utterances)
    if dev is None:
        kept, own = utterance_subsets(utterances, 0.1, seed)
        everything, dev, use = everything.subset(kept), everything.subset(own), kept
    kept, held_out = utterance_subsets(len(use), train.held_out, seed)
    return Samplers(everything, everything.subset(use[kept]), everything.subset(use[held_out]), dev)
