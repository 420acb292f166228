"""Intervals against exact enumeration, the normal approximation, scipy, and simulated experiments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from dropasr.errors import MeasurementError
from dropasr.scoring.bootstrap import difference_interval, non_inferior, outcome, ratio_interval, wer_interval


def test_few_utterances_by_enumeration() -> None:
    errors, words = [1, 3, 5], [18, 30, 12]
    rates = []
    for draw in itertools.product(zip(errors, words), repeat=3):
        rates.append(100 * sum(e for e, _ in draw) / sum(w for _, w in draw))
    # Every one of the 27 draws has probability 1/27 > 2.5 %, so that both ends are the extremes.
    found = wer_interval(errors, words, None)
    assert (found.unit, found.units, found.kind) == ("utterance", 3, "bootstrap")
    assert found.estimate == pytest.approx(100 * 9 / 60)
    assert found.bounds == pytest.approx((min(rates), max(rates)))


def test_few_speakers_of_equal_size_have_the_t_interval_of_their_rates() -> None:
    # Two utterances of 10 words each: the rates of the speakers are 10, 25, 40 and 15 %.
    errors, words, speakers = [1, 3, 4, 1, 1, 2, 4, 2], [10] * 8, list("abcdabcd")
    rates = np.array([10.0, 25.0, 40.0, 15.0])
    low, high = scipy.stats.t.interval(0.95, 3, loc=rates.mean(), scale=scipy.stats.sem(rates))
    found = wer_interval(errors, words, speakers)
    assert (found.unit, found.units, found.kind) == ("speaker", 4, "t")
    assert (found.estimate, *found.bounds) == pytest.approx((22.5, low, high))
    # Of two seeds of A, the mean counts: per speaker 5, 0, 5 and -10 % more than B.
    more = difference_interval([[1, 3, 4, 1, 2, 2, 6, 0], [1, 3, 4, 1, 2, 2, 4, 0]], [errors], words, speakers)
    rates = np.array([5.0, 0.0, 5.0, -10.0])
    assert more.bounds == pytest.approx(scipy.stats.t.interval(0.95, 3, loc=0.0, scale=scipy.stats.sem(rates)))


def test_a_t_interval_of_speakers_of_unequal_size_follows_the_jackknife() -> None:
    errors, words, speakers = np.array([9, 14, 8, 13, 11, 10]), np.array([100, 130, 90, 120, 110, 95]), list("abcdef")
    left_out = [(errors.sum() - e) / (words.sum() - w) for e, w in zip(errors, words)]
    jackknife = 100 * np.sqrt(5 / 6 * ((left_out - np.mean(left_out)) ** 2).sum())
    found = wer_interval(errors, words, speakers)
    assert (found.high - found.estimate) / scipy.stats.t.ppf(0.975, 5) == pytest.approx(jackknife, rel=0.03)


def test_speakers_who_agree_by_chance_have_the_interval_of_their_utterances() -> None:
    errors, rival = np.array([1, 0, 2, 0, 0, 3, 0, 0]), np.array([0, 0, 2, 0, 0, 1, 0, 1])
    words, speakers = np.full(8, 10), list("aaaabbbb")  # each speaker has 2.5 % more errors with one net than with the other
    rates = 10.0 * (errors - rival)
    found = difference_interval([errors], [rival], words, speakers)
    assert (found.unit, found.units, found.kind) == ("speaker", 2, "t")
    assert found.bounds == pytest.approx(scipy.stats.t.interval(0.95, 7, loc=2.5, scale=scipy.stats.sem(rates)))


def test_no_error_rate_reaches_below_zero_but_a_difference_does() -> None:
    errors, words, speakers = [1, 9], [100, 100], ["a", "b"]
    assert wer_interval(errors, words, speakers).low == 0.0 < wer_interval(errors, words, speakers).high
    assert difference_interval([errors], [[0, 0]], words, speakers).low < -30


def test_from_thirty_speakers_on_there_is_a_bootstrap() -> None:
    errors, words = np.arange(120) % 7, 10 + np.arange(120) % 5
    kinds = {count: wer_interval(errors, words, [f"s{i % count}" for i in range(120)]).kind for count in (29, 30)}
    assert kinds == {29: "t", 30: "bootstrap"}


def test_sets_of_few_speakers_add_their_variances_as_welch_has_it() -> None:
    """Two sets of equally many words: their mean is half of a difference of which one side is negated."""
    easy, hard = np.array([10.0, 25.0, 40.0]), np.array([55.0, 60.0, 30.0, 70.0, 45.0, 52.0])
    words = np.repeat([200, 100], [3, 6])
    errors = np.concatenate([2 * easy, hard])
    sets, speakers = ["easy"] * 3 + ["hard"] * 6, list("abcABC") + list("def")
    welch = scipy.stats.ttest_ind(easy, -hard, equal_var=False).confidence_interval()
    found = wer_interval(errors, words, speakers, sets)
    assert (found.kind, found.unit, found.units) == ("t", "speaker", 9)
    assert found.bounds == pytest.approx((welch.low / 2, welch.high / 2))
    # One speaker may be in both: his words of each set are a cluster of that set.
    assert wer_interval(errors, words, list("abcabcdef"), sets).bounds == found.bounds


def test_sets_are_drawn_from_apart_by_enumeration() -> None:
    errors, words, sets = [1, 3, 5, 9], [18, 30, 12, 20], list("aabb")
    rates = []
    for draw in itertools.product([0, 1], [0, 1], [2, 3], [2, 3]):
        rates.append(100 * sum(errors[i] for i in draw) / sum(words[i] for i in draw))
    # Every one of the 16 draws has probability 1/16 > 2.5 %, so that both ends are the extremes.
    found = wer_interval(errors, words, None, sets)
    assert found.kind == "bootstrap" and found.bounds == pytest.approx((min(rates), max(rates)))
    assert wer_interval(errors, words, None).high > found.high  # without sets a draw may be of the last utterance alone


def test_a_set_with_one_speaker_has_his_utterances() -> None:
    errors, words, sets = np.array([1, 4, 2, 5, 9, 7]), np.full(6, 20), list("aaabbb")
    alone = wer_interval(errors, words, ["one"] * 3 + ["x", "y", "z"], sets)
    assert alone.bounds == wer_interval(errors, words, list("pqrxyz"), sets).bounds


def test_equal_totals_of_three_seeds_are_a_tie() -> None:
    """Means over three seeds round; their differences must not."""
    generator = np.random.default_rng(5)
    for count in (12, 40):
        for _ in range(100):
            ours = generator.integers(0, 9, (3, count))
            theirs = generator.permuted(ours, axis=0)
            found = difference_interval(list(ours), list(theirs), np.full(count, 10), [f"s{i}" for i in range(count)])
            assert (found.estimate, *found.bounds) == (0.0, 0.0, 0.0) and outcome(found.bounds) == "tie"


@pytest.mark.parametrize("counts", [(2,), (3,), (6,), (10,), (13,), (3, 10)])
def test_equal_nets_are_seldom_told_apart_by_few_speakers(counts: tuple[int, ...]) -> None:
    """The last case is a set of few speakers who say much, and a harder one of more who say little."""
    generator = np.random.default_rng(20)
    told_apart, experiments, count = 0, 1500, sum(counts)
    sets, more = np.repeat(range(len(counts)), counts), np.repeat([8, 1][: len(counts)] if len(counts) > 1 else [1], counts)
    for _ in range(experiments):
        utterances = more * generator.integers(10, 40, count)
        speakers = np.repeat([f"s{i}" for i in range(count)], utterances).tolist()
        words = generator.integers(5, 25, utterances.sum())
        level = (1 + sets) * generator.gamma(6, 0.02, count)  # every speaker has an error rate of his own, every net its luck with him
        nets = []
        for _ in range(2):
            rate = (level * np.exp(generator.normal(0, 0.15, count))).clip(0, 0.9)
            nets.append([generator.binomial(words, np.repeat(rate, utterances)) for _ in range(2)])
        found = difference_interval(*nets, words, speakers, np.repeat(sets, utterances).tolist())
        told_apart += outcome(found.bounds) != "tie"
    # 5 % of Student's t, less where utterances have the wider interval, more where few speakers of one set say most of the words.
    assert 0.02 <= told_apart / experiments <= (0.065 if len(counts) == 1 else 0.08)


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
    errors = np.repeat([0, 4, 0, 4, 2, 1, 0, 3] * 3, 25)
    words = np.full(600, 10)
    speakers = [f"s{i // 25}" for i in range(600)]
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


def test_one_utterance_decides_nothing():
    difference = difference_interval([[3.0]], [[9.0]], [20], ["a"])
    assert difference.estimate == -30 and outcome(difference.bounds) == "tie"
    assert wer_interval([3], [20], ["a"]).bounds == (0, 100)
