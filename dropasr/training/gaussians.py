"""Single diagonal Gaussians on cepstra: the first acoustic model of flat start, and the statistics that biphones are tied by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch

from dropasr.data.store import FrameStore
from dropasr.lang.tying import FLOOR, Statistics, accumulate, left_context
from dropasr.lang.units import OutputUnits

CEPSTRA = 16
SLOPE = 2
"""Frames on either side that a slope is taken over."""
CHUNK = 200
"""Utterances whose cepstra are in memory together."""


def cepstra(frames: np.ndarray) -> np.ndarray:
    """Cepstra and their slopes `(N, 32)` of log-mel frames `(N, F)`: nearly uncorrelated, as diagonal Gaussians need."""
    values = scipy.fft.dct(np.asarray(frames, dtype=np.float32), type=2, norm="ortho", axis=1)[:, :CEPSTRA]
    slope = np.zeros_like(values)
    slope[SLOPE:-SLOPE] = values[2 * SLOPE :] - values[: -2 * SLOPE]
    return np.concatenate([values, slope], axis=1)


def store_cepstra(store: FrameStore, utterance: int) -> np.ndarray:
    """Cepstra `(T, 32)` of one utterance; slopes at its ends reach into its neighbours in the store."""
    begin, end = int(store.offsets[utterance]), int(store.offsets[utterance + 1])
    first, last = max(0, begin - SLOPE), min(len(store.frames), end + SLOPE)
    return cepstra(store.frames[first:last])[begin - first : end - first]


def _chunks(store: FrameStore, labels: np.ndarray, utterances: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Cepstra, labels, and first frames of utterances, for `CHUNK` labelled utterances at a time."""
    labelled = [i for i in utterances if labels[store.offsets[i]] >= 0]
    for start in range(0, len(labelled), CHUNK):
        chosen = labelled[start : start + CHUNK]
        parts = [labels[store.offsets[i] : store.offsets[i + 1]] for i in chosen]
        begins = np.cumsum([0, *map(len, parts[:-1])])
        yield np.concatenate([store_cepstra(store, i) for i in chosen]), np.concatenate(parts), begins


@dataclass(frozen=True)
class Gaussians:
    """One Gaussian per unit: `mean` and `variance` `(K, D)`, float64. Called with a store and an utterance, gives `(T, K)` scores."""

    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def estimate(cls, parts: Iterable[tuple[np.ndarray, np.ndarray]], num_units: int) -> Gaussians:
        """From parts of features `(N, D)` and labels `(N,)` (-1: unlabelled). A unit that is never seen gets the Gaussian of all frames."""
        counts, sums, squares = np.zeros(num_units), np.zeros((num_units, 1)), np.zeros((num_units, 1))
        for features, labels in parts:
            if sums.shape[1] != features.shape[1]:
                sums, squares = np.zeros((num_units, features.shape[1])), np.zeros((num_units, features.shape[1]))
            accumulate(features[labels >= 0], labels[labels >= 0], counts, sums, squares)
        present, frames = counts[:, None] > 0, np.maximum(counts, 1)[:, None]
        total = max(counts.sum(), 1.0)
        overall = sums.sum(axis=0) / total
        spread = squares.sum(axis=0) / total - overall**2
        mean = np.where(present, sums / frames, overall)
        variance = np.maximum(np.where(present, squares / frames - mean**2, spread), FLOOR * spread)
        return cls(mean, variance)

    @classmethod
    def of_store(cls, store: FrameStore, labels: np.ndarray, utterances: Sequence[int], num_units: int) -> Gaussians:
        """From the labelled ones of some utterances of a store; `labels` `(N,)` of all its frames."""
        return cls.estimate(((features, own) for features, own, _ in _chunks(store, labels, utterances)), num_units)

    def log_likelihoods(self, features: np.ndarray) -> np.ndarray:
        """Log likelihoods `(N, K)`, float32, of frames `(N, D)`."""
        precision = 1 / self.variance
        constant = -0.5 * (np.log(2 * np.pi * self.variance).sum(axis=1) + (self.mean**2 * precision).sum(axis=1))
        return ((features**2) @ (-0.5 * precision).T + features @ (self.mean * precision).T + constant).astype(np.float32)

    def __call__(self, store: FrameStore, utterance: int) -> torch.Tensor:
        """Log likelihoods `(T, K)` of one utterance."""
        return torch.from_numpy(self.log_likelihoods(store_cepstra(store, utterance)))


def biphone_statistics(store: FrameStore, labels: np.ndarray, utterances: Sequence[int], units: OutputUnits) -> Statistics:
    """Statistics of the cepstra of every left biphone state; `labels` `(N,)` are units without a left context."""
    statistics = Statistics.empty(units, 2 * min(CEPSTRA, store.num_features))
    for features, own, begins in _chunks(store, labels, utterances):
        statistics.add(features, own, left_context(own, begins, units), units)
    return statistics
