"""Bootstrap intervals against exact enumeration, the normal approximation and scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from dropasr.errors import MeasurementError
from dropasr.scoring.bootstrap import difference_interval, non_inferior, outcome, ratio_interval, wer_interval


def test_few_speakers_by_enumeration() -> None:
    errors, words, speakers = [1, 2, 0, 5, 1], [10, 10, 8, 12, 20], ["a", "b", "a", "c", "b"]
    by_speaker = {"a": (1, 18), "b": (3, 30), "c": (5, 12)}
    rates = []
    for draw in itertools.product(by_speaker.values(), repeat=3):
        rates.append(100 * sum(e for e, _ in draw) / sum(w for _, w in draw))
    # Every one of the 27 draws has probability 1/27 > 2.5 %, so that both ends are the extremes.
    found = wer_interval(errors, words, speakers)
    assert (found.unit, found.units) == ("speaker", 3)
    assert found.estimate == pytest.approx(100 * 9 / 60)
    assert found.bounds == pytest.approx((min(rates), max(rates)))


def test_many_speakers_by_the_normal_approximation() -> None:
    generator = np.random.default_rng(1)
    errors = generator.binomial(20, 0.1, size=(400, 2)).reshape(-1)
    words = np.full(800, 20)
    speakers = [f"s{i // 2}" for i in range(800)]
    found = wer_interval(errors, words, speakers)
    rates = 100 * errors.reshape(400, 2).sum(1) / 40
    half = 1.96 * rates.std() / np.sqrt(400)
    assert found.estimate == pytest.approx(rates.mean())
    assert found.low == pytest.approx(rates.mean() - half, abs=0.06 * half)
    assert found.high == pytest.approx(rates.mean() + half, abs=0.06 * half)


def test_difference_against_scipy() -> None:
    generator = np.random.default_rng(2)
    words = generator.integers(5, 30, 60)
    a, b = generator.binomial(words, 0.12), generator.binomial(words, 0.1)

    def statistic(x: np.ndarray, y: np.ndarray, w: np.ndarray, axis: int) -> np.ndarray:
        return 100 * (x.sum(axis) - y.sum(axis)) / w.sum(axis)

    reference = scipy.stats.bootstrap(
        (a, b, words), statistic, paired=True, vectorized=True, method="percentile", n_resamples=10_000, random_state=0
    ).confidence_interval
    found = difference_interval([a], [b], words, [f"s{i}" for i in range(60)])
    width = reference.high - reference.low
    assert found.bounds == pytest.approx((reference.low, reference.high), abs=0.03 * width)
    assert found.estimate == pytest.approx(100 * (a.sum() - b.sum()) / words.sum())


def test_difference_is_paired_and_pools_seeds() -> None:
    generator = np.random.default_rng(3)
    words = np.full(200, 10)
    hard = generator.integers(0, 9, 200)  # how hard an utterance is, the same for both systems
    speakers = [f"s{i // 4}" for i in range(200)]
    constant = difference_interval([hard + 1, hard + 1], [hard, hard, hard], words, speakers)
    assert constant.bounds == pytest.approx((10.0, 10.0)) and constant.estimate == pytest.approx(10.0)
    seeds_a, seeds_b = [hard + 1, hard - 1], [hard, hard]
    assert difference_interval(seeds_a, seeds_b, words, speakers).bounds == pytest.approx((0.0, 0.0))
    assert wer_interval(hard, words, speakers).high - wer_interval(hard, words, speakers).low > 5


def test_one_speaker_falls_back_to_utterances() -> None:
    errors, words = np.array([0, 1, 2, 0]), np.array([4, 4, 4, 4])
    for speakers in (["only"] * 4, None):
        found = wer_interval(errors, words, speakers)
        assert (found.unit, found.units) == ("utterance", 4)
        assert found.low < found.estimate < found.high
        difference = difference_interval([errors], [errors[::-1]], words, speakers)
        assert (difference.unit, difference.estimate) == ("utterance", 0.0)


def test_speakers_widen_the_interval_of_dependent_errors() -> None:
    errors = np.repeat([0, 4, 0, 4, 2, 1, 0, 3], 25)
    words = np.full(200, 10)
    speakers = [f"s{i // 25}" for i in range(200)]
    by_speaker, by_utterance = wer_interval(errors, words, speakers), wer_interval(errors, words, None)
    ratio = (by_speaker.high - by_speaker.low) / (by_utterance.high - by_utterance.low)
    assert ratio == pytest.approx(5, rel=0.1)  # the square root of 25 utterances that agree with each other


def test_the_seed_decides_the_draw() -> None:
    errors, words = np.arange(30) % 4, np.full(30, 9)
    assert wer_interval(errors, words, None) == wer_interval(errors, words, None)
    assert wer_interval(errors, words, None, seed=1) != wer_interval(errors, words, None, resamples=500, seed=2)


def test_ratio_of_times() -> None:
    generator = np.random.default_rng(4)
    durations = generator.uniform(1, 5, 50)
    exact = ratio_interval(np.stack([3 * durations] * 2), np.stack([durations] * 2))
    assert (exact.estimate, *exact.bounds) == pytest.approx((3.0, 3.0, 3.0))
    a = durations * generator.uniform(2.5, 3.5, (4, 50))
    b = durations * generator.uniform(0.9, 1.1, (4, 50))
    found = ratio_interval(a, b)

    def statistic(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return x.sum(axis) / y.sum(axis)

    reference = scipy.stats.bootstrap((a.sum(0), b.sum(0)), statistic, paired=True, vectorized=True, method="percentile", random_state=0)
    low, high = reference.confidence_interval
    assert found.bounds == pytest.approx((low, high), abs=0.05 * (high - low))
    assert found.estimate == pytest.approx(a.sum() / b.sum()) and found.unit == "utterance"


@pytest.mark.parametrize(
    ("high", "reference", "passes"), [(0.5, 4.0, True), (0.51, 4.0, False), (0.6, 12.0, True), (0.61, 12.0, False), (-1.0, 1.0, True)]
)
def test_no_loss_means_non_inferior(high: float, reference: float, passes: bool) -> None:
    assert non_inferior((high - 2, high), reference) is passes


@pytest.mark.parametrize(
    ("bounds", "said"),
    [((-2.0, -0.1), "better"), ((-2.0, 0.0), "tie"), ((-2.0, 0.1), "tie"), ((0.0, 2.0), "tie"), ((0.1, 2.0), "worse"), ((0.0, 0.0), "tie")],
)
def test_better_and_worse_exclude_zero(bounds: tuple[float, float], said: str) -> None:
    assert outcome(bounds) == said


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(MeasurementError, match="number 1 has no reference words"):
        wer_interval([0, 0], [3, 0], None)
    with pytest.raises(MeasurementError, match="speaker for each of 2 utterances, found 1"):
        wer_interval([0, 0], [3, 3], ["a"])
    with pytest.raises(MeasurementError, match="errors of B.*2 values"):
        difference_interval([[0, 0]], [[0]], [3, 3], None)
    with pytest.raises(MeasurementError, match="at least one training seed"):
        difference_interval([], [[0, 0]], [3, 3], None)
    with pytest.raises(MeasurementError, match="equal shapes"):
        ratio_interval(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(MeasurementError, match="above 0"):
        ratio_interval(np.ones((2, 3)), np.zeros((2, 3)))
