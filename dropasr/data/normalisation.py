"""Mean and variance normalisation of features: moments of groups of frames, smoothed towards those of the whole training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

STD_FLOOR = 0.01  # in nats; keeps a filter that is constant (digital silence) at 0 instead of NaN or amplified rounding errors


@dataclass(frozen=True)
class Moments:
    """Mean and variance, float64 `(F,)` each, of a number of frames, which may be any positive weight."""

    frames: float
    mean: np.ndarray
    variance: np.ndarray

    def joined(self, other: Moments) -> Moments:
        """Moments of the frames of both, without seeing them again (Chan, Golub and LeVeque, 1979)."""
        frames = self.frames + other.frames
        mean = (self.frames * self.mean + other.frames * other.mean) / frames
        own, others = self.variance + np.square(self.mean - mean), other.variance + np.square(other.mean - mean)
        return Moments(frames, mean, (self.frames * own + other.frames * others) / frames)

    def smoothed(self, prior: Moments | None, prior_frames: float) -> Moments:
        """Moments of these frames and of `prior_frames` more that are distributed as those of `prior` (none: unchanged).

        The mean is the maximum a posteriori estimate under a Gaussian prior that is worth `prior_frames` frames. Many frames of a speaker
        outweigh the prior; a speaker of one word is normalised mostly by it.
        """
        return self if prior is None or prior_frames <= 0 else self.joined(replace(prior, frames=prior_frames))

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, float32 `(F,)` each; the deviation is at least STD_FLOOR."""
        return self.mean.astype(np.float32), np.maximum(np.sqrt(self.variance), STD_FLOOR).astype(np.float32)


def moments(frames: Sequence[np.ndarray]) -> Moments:
    """Moments of all frames of the arrays `(T, F)`."""
    total = sum(len(array) for array in frames)
    mean = sum(array.sum(axis=0, dtype=np.float64) for array in frames) / total
    return Moments(total, mean, sum(np.square(array - mean).sum(axis=0) for array in frames) / total)


def statistics(frames: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, float32 `(F,)` each, over all frames of the arrays `(T, F)`; the deviation is at least STD_FLOOR."""
    return moments(frames).mean_and_std()


def normalise(frames: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """`(frames - mean) / std`, float32 `(T, F)`, for a mean and standard deviation `(F,)`."""
    return (frames - mean) / std
