"""Intervals of word error rates, of their differences, and of ratios of times.

Percentile bootstrap (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP
2004), but whole speakers are drawn instead of utterances, because the errors of one speaker depend on each other. Where
there is only one speaker, utterances are drawn. Drawn from few speakers, percentiles are too narrow: of two equal nets
one is "better" in a quarter of all cases with three speakers, in a tenth with ten. Below thirty speakers the interval is
therefore Student's t over speakers, with the linearised variance of a ratio of sums (Cochran, "Sampling Techniques", 1977,
section 6.4), or over utterances where that one is wider, since two speakers can agree by chance. The result says which kind
it is.

Several test sets together are strata: their speakers are not exchangeable, and a draw must not miss the set that has few.
Speakers are drawn within each set, or each set has a variance of its own, weighted by its share of the words (the same,
section 5.4 with the degrees of freedom of Satterthwaite).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from dropasr.errors import MeasurementError

Bounds = tuple[float, float]
Outcome = Literal["better", "worse", "tie"]
IntervalKind = Literal["bootstrap", "t"]
RESAMPLES = 10_000
CONFIDENCE = 0.95
RELATIVE_MARGIN = 0.05
ABSOLUTE_MARGIN = 0.5
FEW_SPEAKERS = 30
"""With fewer speakers in a test set, intervals of error rates are Student's t over speakers instead of a bootstrap."""
_DRAWS_AT_ONCE = 1_000_000  # bounds the memory of a block of resamples


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval over so many `units` (`speaker` or `utterance`); `kind` is how it was made."""

    estimate: float
    low: float
    high: float
    unit: str
    units: int
    kind: IntervalKind = "bootstrap"

    @property
    def bounds(self) -> Bounds:
        """Lower and upper end."""
        return self.low, self.high


@dataclass(frozen=True)
class _Clusters:
    """The cluster number `(U,)` of each utterance, the stratum number `(C,)` of each cluster, and what a cluster is."""

    numbers: np.ndarray
    strata: np.ndarray
    unit: str

    @property
    def sizes(self) -> np.ndarray:
        """Clusters of each stratum."""
        return np.bincount(self.strata)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums `(C,)` of values `(U,)`."""
        return np.bincount(self.numbers, weights=values, minlength=len(self.strata))


def _numbered(keys: Sequence[Hashable]) -> np.ndarray:
    number = {key: position for position, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys])


def _clusters(speakers: Sequence[str] | None, strata: Sequence[str] | None, count: int) -> _Clusters:
    for name, values in (("speaker", speakers), ("test set", strata)):
        if values is not None and len(values) != count:
            raise MeasurementError(f"bootstrap: expected a {name} for each of {count} utterances, found {len(values)}.")
    sets = _numbered([""] * count if strata is None else strata)
    if speakers is None or len(set(speakers)) == 1:
        return _Clusters(np.arange(count), sets, "utterance")
    keys: list[Hashable] = list(zip(sets.tolist(), speakers))
    for stratum in range(sets.max() + 1):
        if len({key for key in keys if key[0] == stratum}) == 1:  # one speaker there: his utterances
            keys = [(*key, place) if key[0] == stratum else key for place, key in enumerate(keys)]
    numbers = _numbered(keys)
    return _Clusters(numbers, sets[np.unique(numbers, return_index=True)[1]], "speaker")


def _resampled_sums(columns: np.ndarray, resamples: int, seed: int, strata: np.ndarray | None = None) -> np.ndarray:
    """Sums `(K, R)` of the columns `(K, C)` over C clusters drawn with replacement, within strata, the same draw for all columns."""
    generator = np.random.default_rng(seed)
    block = max(1, _DRAWS_AT_ONCE // columns.shape[1])
    groups = [np.arange(columns.shape[1])] if strata is None else [np.flatnonzero(strata == number) for number in np.unique(strata)]
    sums = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = np.concatenate([group[generator.integers(len(group), size=(rows, len(group)))] for group in groups], axis=1)
        sums.append([column[drawn].sum(axis=1) for column in columns])
    return np.concatenate(sums, axis=1)


def _interval(estimate: float, samples: np.ndarray, unit: str, units: int) -> Interval:
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(samples, [tail, 100.0 - tail])
    return Interval(float(estimate), float(low), float(high), unit, units)


def interval_kind(unit: str, units: int) -> IntervalKind:
    """How the interval of an error rate over so many speakers (of several test sets: of the one with fewest) or utterances is made."""
    return "t" if unit == "speaker" and units < FEW_SPEAKERS else "bootstrap"


def _rate_interval(
    wrong: np.ndarray,
    total: np.ndarray,
    speakers: Sequence[str] | None,
    strata: Sequence[str] | None,
    resamples: int,
    seed: int,
    least: float = -np.inf,
) -> Interval:
    """100 times sum of `wrong` over sum of `total`, both `(U,)`; the interval ends at `least` where the t interval reaches below."""
    clusters = _clusters(speakers, strata, len(total))
    columns, count = np.stack([clusters.sums(wrong), clusters.sums(total)]), len(clusters.strata)
    estimate = float(100.0 * wrong.sum() / total.sum())
    if clusters.sizes.min() == 1:
        # One utterance says nothing of others; without this its interval would be a point, which excludes 0.
        return Interval(estimate, max(-100.0, least), max(100.0, estimate), clusters.unit, count)
    if interval_kind(clusters.unit, clusters.sizes.min()) == "bootstrap":
        sums = _resampled_sums(columns, resamples, seed, clusters.strata)
        return _interval(estimate, 100.0 * sums[0] / sums[1], clusters.unit, count)
    # Few speakers may agree by chance, even exactly: no interval is narrower than that of independent utterances.
    of_utterances = _clusters(None, strata, len(total)).strata
    half = max(_t_half_width(*columns, clusters.strata), _t_half_width(wrong, total, of_utterances))
    return Interval(estimate, max(estimate - half, least), estimate + half, clusters.unit, count, "t")


def _t_half_width(wrong: np.ndarray, total: np.ndarray, strata: np.ndarray) -> float:
    """Half of the t interval of 100 times sum of `wrong` over sum of `total`, both `(C,)` over independent clusters of strata `(C,)`."""
    variances, freedoms = [], []
    for number in np.unique(strata):
        errors, words = wrong[strata == number], total[strata == number]
        residuals = errors - errors.sum() / words.sum() * words
        freedoms.append(len(words) - 1)
        variances.append(len(words) / (len(words) - 1) * float((residuals**2).sum()))
    variance = sum(variances)
    if not variance:
        return 0.0
    freedom = variance**2 / sum(own**2 / of_own for own, of_own in zip(variances, freedoms))
    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2) * 100.0 * np.sqrt(variance) / total.sum())


def _per_utterance(name: str, values: Sequence[float] | np.ndarray, count: int | None = None) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array) or (count is not None and len(array) != count):
        wanted = "one value per utterance" if count is None else f"{count} values, one per utterance"
        raise MeasurementError(f"bootstrap: {name}: expected {wanted}, found shape {array.shape}.")
    return array


def _check_words(words: Sequence[float] | np.ndarray) -> np.ndarray:
    array = _per_utterance("words", words)
    if (array < 1).any():
        raise MeasurementError(
            f"bootstrap: utterance number {int(np.argmax(array < 1))} has no reference words; drop it in stage 1 (data)."
        )
    return array


def wer_interval(
    errors: Sequence[float] | np.ndarray,
    words: Sequence[float] | np.ndarray,
    speakers: Sequence[str] | None,
    strata: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """WER in percent with its interval, from errors, reference words, speakers and, of several, test sets `(U,)` of the utterances."""
    total = _check_words(words)
    return _rate_interval(_per_utterance("errors", errors, len(total)), total, speakers, strata, resamples, seed, least=0.0)


def difference_interval(
    errors_a: Sequence[Sequence[float] | np.ndarray],
    errors_b: Sequence[Sequence[float] | np.ndarray],
    words: Sequence[float] | np.ndarray,
    speakers: Sequence[str] | None,
    strata: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """WER of A minus WER of B, in percent absolute, with its paired interval.

    `errors_a` and `errors_b` hold one array `(U,)` per training seed, over the same utterances; seeds are averaged. A resample
    draws speakers once and takes all their utterances for both systems and all seeds; the t interval takes the difference of
    each speaker's errors. `strata`: of several test sets together, that of each utterance.
    """
    if not len(errors_a) or not len(errors_b):
        raise MeasurementError("bootstrap: expected the errors of at least one training seed for both systems, found none.")
    total = _check_words(words)
    # Whole numbers until the last division: a mean over three seeds would leave differences of 1e-16 where there are none.
    pooled_a = np.sum([_per_utterance("errors of A", errors, len(total)) for errors in errors_a], axis=0) * len(errors_b)
    pooled_b = np.sum([_per_utterance("errors of B", errors, len(total)) for errors in errors_b], axis=0) * len(errors_a)
    return _rate_interval(pooled_a - pooled_b, total * (len(errors_a) * len(errors_b)), speakers, strata, resamples, seed)


def no_loss_margin(reference_wer: float) -> float:
    """How much worse than a reference still counts as "no loss": 5 % of its WER or 0.5 percent absolute, whichever is larger."""
    return max(RELATIVE_MARGIN * reference_wer, ABSOLUTE_MARGIN)


def non_inferior(bounds: Bounds, reference_wer: float) -> bool:
    """Whether the interval of a WER difference to a reference means "no loss": its upper end lies within the margin."""
    return bounds[1] <= no_loss_margin(reference_wer)


def outcome(bounds: Bounds) -> Outcome:
    """What the interval of a WER difference A minus B says of A: a tie where it includes 0."""
    return "better" if bounds[1] < 0 else "worse" if bounds[0] > 0 else "tie"


def ratio_interval(times_a: np.ndarray, times_b: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Sum of `times_a` over sum of `times_b`, with the paired interval over utterances.

    Both are seconds `(P, U)`, P interleaved passes over the same U utterances; with the reference as A, the ratio is B's speed-up.
    """
    a, b = np.asarray(times_a, np.float64), np.asarray(times_b, np.float64)
    if a.ndim != 2 or a.shape != b.shape or not a.size:
        raise MeasurementError(
            f"bootstrap: expected two equal shapes (passes, utterances), found {a.shape} and {b.shape}. Time both again."
        )
    if not ((a > 0).all() and (b > 0).all()):
        raise MeasurementError("bootstrap: expected times above 0 seconds, found others. Time both again.")
    columns = np.stack([a.sum(axis=0), b.sum(axis=0)])
    sums = _resampled_sums(columns, resamples, seed)
    return _interval(a.sum() / b.sum(), sums[0] / sums[1], "utterance", a.shape[1])
