"""Which left biphone states share an output unit: by count, or by clustering single Gaussians bottom-up (Odell 1995, without questions).

Statistics are arrays `(1+P, P, S)` over left phone (0 is silence), phone and state; silence itself is never tied.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from dropasr.errors import ConfigError
from dropasr.lang.units import OutputUnits

_Merge = tuple[float, int, int]
FLOOR = 0.05
"""Least variance of a Gaussian, as a share of the variance of all frames."""


def left_context(labels: np.ndarray, begins: np.ndarray, units: OutputUnits) -> np.ndarray:
    """Number of the phone before the one that each frame belongs to, `(N,)`; 0 for silence and at the beginning of an utterance.

    `labels`: units without a left context `(N,)`, all labelled; `begins`: first frame of each utterance. A phone that follows itself
    is told apart by its states; with one state per phone the two count as one.
    """
    phones, states = units.phone_index(labels), units.state_index(labels)
    new = np.zeros(len(labels), dtype=bool)
    new[1:] = (phones[1:] != phones[:-1]) | (states[1:] < states[:-1])
    new[begins] = True
    before = np.concatenate([[0], phones[new][:-1]])
    segment = np.cumsum(new) - 1
    before[segment[begins]] = 0
    return before[segment]


def with_context(labels: np.ndarray, left: np.ndarray, units: OutputUnits, tied: OutputUnits) -> np.ndarray:
    """Labels of `units` as labels of `tied`, int32 `(N,)`, by the left context of each frame."""
    silence = units.is_silence(labels)
    table = tied.table[left, units.phone_index(labels) - 1, units.state_index(labels).clip(max=units.states_per_phone - 1)]
    return np.where(silence, labels, table).astype(np.int32)


def accumulate(features: np.ndarray, index: np.ndarray, counts: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> None:
    """Add frames `(N, D)` to the counts `(K,)`, sums and sums of squares `(K, D)`, all float64, of the cells `index` `(N,)`."""
    if not len(index):
        return
    order = np.argsort(index, kind="stable")
    values = features[order].astype(np.float64)
    cells, starts = np.unique(index[order], return_index=True)
    counts[cells] += np.diff(np.append(starts, len(order)))
    sums[cells] += np.add.reduceat(values, starts, axis=0)
    squares[cells] += np.add.reduceat(values**2, starts, axis=0)


@dataclass
class Statistics:
    """Frames per biphone state, `counts` `(1+P, P, S)`, and sums and sums of squares of their features, `(1+P, P, S, D)`; float64."""

    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @classmethod
    def empty(cls, units: OutputUnits, num_features: int) -> Statistics:
        """Statistics of no frames."""
        shape = units.table.shape
        return cls(np.zeros(shape), np.zeros((*shape, num_features)), np.zeros((*shape, num_features)))

    def add(self, features: np.ndarray, labels: np.ndarray, left: np.ndarray, units: OutputUnits) -> None:
        """Add frames `(N, D)` with their labels without context and their left contexts `(N,)`; silence is passed over."""
        spoken = ~units.is_silence(labels)
        cell = (left[spoken], units.phone_index(labels[spoken]) - 1, units.state_index(labels[spoken]))
        width = self.sums.shape[-1]
        cells = self.counts.reshape(-1), self.sums.reshape(-1, width), self.squares.reshape(-1, width)
        accumulate(features[spoken], np.ravel_multi_index(cell, self.counts.shape), *cells)

    def floor(self) -> np.ndarray:
        """Least variance of a Gaussian, `(D,)`."""
        total, axes = max(self.counts.sum(), 1.0), (0, 1, 2)
        return FLOOR * np.maximum(self.squares.sum(axes) / total - (self.sums.sum(axes) / total) ** 2, 1e-10)


def log_likelihood(counts: np.ndarray, sums: np.ndarray, squares: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Log likelihood of frames under the diagonal Gaussian estimated from them: `(…,)`, `(…, D)`, `(…, D)` → `(…,)`.

    Variances below `floor` `(D,)` are raised to it.
    """
    counts = counts[..., None]
    safe = np.maximum(counts, 1.0)
    scatter = np.maximum(squares / safe - (sums / safe) ** 2, 0.0)
    variance = np.maximum(scatter, floor)
    return -0.5 * (counts * (np.log(2 * np.pi * variance) + scatter / variance)).sum(axis=-1)


class _Group:
    """The contexts of one phone state that were seen, merged pair by pair."""

    def __init__(self, statistics: Statistics, phone: int, state: int, floor: np.ndarray) -> None:
        self.members = [[int(context)] for context in np.flatnonzero(statistics.counts[:, phone, state])]
        seen = [contexts[0] for contexts in self.members]
        self.counts = statistics.counts[seen, phone, state].copy()
        self.sums, self.squares = statistics.sums[seen, phone, state].copy(), statistics.squares[seen, phone, state].copy()
        self.floor = floor
        self.alive = np.ones(len(seen), dtype=bool)
        self.own = log_likelihood(self.counts, self.sums, self.squares, floor)
        self.losses = np.full((len(seen), len(seen)), np.inf)
        for row in range(len(seen)):
            self._update(row)

    def _update(self, row: int) -> None:
        """Losses between one class and all others."""
        joined = [values[row] + values for values in (self.counts, self.sums, self.squares)]
        losses = self.own[row] + self.own - log_likelihood(*joined, self.floor)
        losses[~self.alive] = np.inf
        losses[row] = np.inf
        self.losses[row], self.losses[:, row] = losses, losses

    @property
    def size(self) -> int:
        """Classes left."""
        return int(self.alive.sum())

    def best(self) -> _Merge:
        """The least loss of a pair, and the pair; infinite where one class is left."""
        if self.size < 2:
            return np.inf, 0, 0
        first, second = divmod(int(self.losses.argmin()), len(self.alive))
        return float(self.losses[first, second]), first, second

    def rarest(self, min_count: int) -> _Merge | None:
        """The merge of the class with fewest frames, where it has fewer than `min_count`, with the one that loses least."""
        if self.size < 2:
            return None
        row = int(np.where(self.alive, self.counts, np.inf).argmin())
        return None if self.counts[row] >= min_count else (0.0, row, int(self.losses[row].argmin()))

    def merge(self, first: int, second: int) -> None:
        """Join two classes under the number of the first."""
        for values in (self.counts, self.sums, self.squares):
            values[first] += values[second]
        self.members[first] += self.members[second]
        self.alive[second] = False
        self.losses[second], self.losses[:, second] = np.inf, np.inf
        self.own[first] = log_likelihood(self.counts[first], self.sums[first], self.squares[first], self.floor)
        self._update(first)

    def classes(self, contexts: int) -> np.ndarray:
        """Class per left context `(1+P,)` from 0, -1 where it was not seen."""
        result = np.full(contexts, -1)
        for number, row in enumerate(np.flatnonzero(self.alive)):
            result[self.members[row]] = number
        return result


def cluster(statistics: Statistics, num_classes: int, min_count: int) -> np.ndarray:
    """Classes `(1+P, P, S)`, numbered from 0 within each phone state; -1 for contexts without frames.

    Within the states of each phone classes below `min_count` frames are first merged with the neighbour that costs least likelihood;
    then the pair that costs least among all phone states is merged, until `num_classes` are left. A phone state keeps one class.
    """
    contexts, phones, states = statistics.counts.shape
    floor = statistics.floor()
    groups = {(phone, state): _Group(statistics, phone, state, floor) for phone in range(phones) for state in range(states)}
    for group in groups.values():
        while (rare := group.rarest(min_count)) is not None:
            group.merge(*rare[1:])
    left = sum(max(group.size, 1) for group in groups.values())
    heap = [(*group.best(), key) for key, group in groups.items()]
    heapq.heapify(heap)
    while left > num_classes and heap[0][0] < np.inf:
        _, first, second, key = heap[0]
        groups[key].merge(first, second)
        heapq.heapreplace(heap, (*groups[key].best(), key))
        left -= 1
    result = np.empty(statistics.counts.shape, dtype=np.int64)
    for (phone, state), group in groups.items():
        result[:, phone, state] = group.classes(contexts)
    return result


def by_count(counts: np.ndarray, min_count: int) -> np.ndarray:
    """Classes `(1+P, P, S)`, numbered from 0 within each phone state: contexts with `min_count` frames have their own.

    The others share one more, unless they have fewer frames together and there are classes to fall back to: then -1.
    """
    own = counts >= min_count
    number = np.cumsum(own, axis=0) - 1
    rest = np.where(own, 0, counts).sum(axis=0)
    shared = np.where((rest >= min_count) | ~own.any(axis=0), own.sum(axis=0), -1)
    return np.where(own, number, shared)


def fill(classes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Classes with every -1 replaced, so that each context of each phone state has one.

    A context goes where its most similar one is: of the contexts that have a class there, the one that shares a class with it in most
    other phone states; at a tie the one with most frames. A phone state without any class gets class 0.
    """
    seen = (classes >= 0).reshape(len(classes), -1)
    flat = classes.reshape(len(classes), -1)
    shared = np.stack([((flat == row) & seen & own).sum(axis=1) for row, own in zip(flat, seen, strict=True)]).astype(np.float64)
    frames = counts.reshape(len(classes), -1)
    result = flat.copy()
    for context, cell in zip(*np.nonzero(~seen), strict=True):
        rank = shared[context] + frames[:, cell] / (1 + frames[:, cell].max())
        result[context, cell] = max(0, flat[np.where(seen[:, cell], rank, -1.0).argmax(), cell])
    return result.reshape(classes.shape)


def check_num_units(units: OutputUnits, num_units: int) -> None:
    """Raises ConfigError where `num_units` cannot hold one unit per state of `units`, those without context."""
    if num_units < units.num_units:
        raise ConfigError(
            f"lang.num_units: {len(units.phones)} phones of {units.states_per_phone} states and {units.silence_states} of silence"
            f" need at least {units.num_units} units, found {num_units}. Raise it, or set lang.tying=none."
        )


def tie(units: OutputUnits, statistics: Statistics, method: str, num_units: int, min_count: int) -> OutputUnits:
    """Units of left biphones: `method` is `count` or `likelihood` (then `num_units` of them, silence included; see `check_num_units`)."""
    if method == "count":
        classes = by_count(statistics.counts, min_count)
    else:
        check_num_units(units, num_units)
        classes = cluster(statistics, num_units - units.silence_states, min_count)
    classes = fill(classes, statistics.counts)
    sizes = classes.max(axis=0) + 1
    first = units.silence_states + np.cumsum(sizes.ravel()) - sizes.ravel()
    return units.tied(first.reshape(sizes.shape) + classes)
