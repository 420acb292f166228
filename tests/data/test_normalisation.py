"""Moments of groups of frames, joined and smoothed, against numpy on all frames at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropasr.data.normalisation import STD_FLOOR, Moments, moments, normalise, statistics


def frames(seed: int, length: int, features: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((length, features)) * generator.uniform(0.1, 5, features) + generator.uniform(-20, 5, features)


def test_statistics_and_normalise_by_hand() -> None:
    mean, std = statistics([np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[8.0, 5.0]])])
    np.testing.assert_allclose(mean, [4.0, 5.0])
    np.testing.assert_allclose(std, [np.sqrt((9 + 1 + 16) / 3), STD_FLOOR], rtol=1e-6)
    np.testing.assert_allclose(normalise(np.array([[8.0, 5.0]], np.float32), mean, std), [[4 / np.sqrt(26 / 3), 0.0]], rtol=1e-6)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000))
def test_joined_moments_are_those_of_all_frames(lengths: list[int], seed: int) -> None:
    arrays = [frames(seed + number, length) for number, length in enumerate(lengths)]
    found = moments(arrays[:1])
    for array in arrays[1:]:
        found = found.joined(moments([array]))
    joined = np.concatenate(arrays)
    assert found.frames == len(joined)
    np.testing.assert_allclose(found.mean, joined.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.variance, joined.var(axis=0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("copies", [1, 4])
def test_smoothing_is_adding_frames_of_the_prior(copies: int) -> None:
    own, prior = frames(1, 7), frames(2, 50)
    found = moments([own]).smoothed(moments([prior]), 50 * copies)
    together = np.concatenate([own, *[prior] * copies])
    np.testing.assert_allclose(found.mean, together.mean(axis=0))
    np.testing.assert_allclose(found.variance, together.var(axis=0))


def test_smoothing_by_hand_and_its_limits() -> None:
    own, prior = Moments(2, np.array([3.0]), np.array([1.0])), Moments(900, np.array([0.0]), np.array([4.0]))
    found = own.smoothed(prior, 6.0)
    # Mean (2·3 + 6·0) / 8; variance (2·(1 + 2.25²) + 6·(4 + 0.75²)) / 8.
    np.testing.assert_allclose([*found.mean, *found.variance], [0.75, (2 * (1 + 2.25**2) + 6 * (4 + 0.75**2)) / 8])
    assert own.smoothed(prior, 0) is own and own.smoothed(None, 6) is own
    strong = own.smoothed(prior, 1e12)
    np.testing.assert_allclose([*strong.mean, *strong.variance], [0, 4], atol=1e-6)
