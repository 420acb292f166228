"""The files of one row of a recipe, by seed: what is averaged over them, and what must agree before it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dropasr.errors import MeasurementError
from dropasr.report.recipe_schema import PooledFigures, Spread, StoredRow, Timing, Utterance
from dropasr.report.schema import Difference, ErrorRate, Rtf, Speedup
from dropasr.report.test_sets import parts
from dropasr.runtime.timing import PARTS
from dropasr.scoring.bootstrap import Bounds, difference_interval, ratio_interval, wer_interval

_HINT = "Remove its files and run the recipe again."


def spread(values: Sequence[float]) -> Spread:
    """Standard deviation and range over seeds."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Spread(std=std, min=min(values), max=max(values), per_seed=list(values))


def tests_of(row: StoredRow) -> list[str]:
    """The test sets of a file, `test` first."""
    return ["test", *sorted(row.extra_utterances)]


def _utterances(row: StoredRow, test: str) -> list[Utterance]:
    """Of the union of all test sets, the utterances of all in turn."""
    found = {"test": row.utterances, **row.extra_utterances}
    return [item for part in parts(test, tests_of(row)) for item in found[part]]


def _characters(row: StoredRow, test: str) -> list[tuple[int, int]]:
    return [item for part in parts(test, tests_of(row)) for item in row.characters[part]]


class Pool:
    """The files of one row, by seed."""

    def __init__(self, rows: Iterable[StoredRow]) -> None:
        self.rows = sorted(rows, key=lambda row: row.figures.seed)
        self.figures = [row.figures for row in self.rows]
        self.first = self.figures[0]
        self.seeds = [row.seed for row in self.figures]

    def common(self, other: Pool) -> Pool:
        """The files of the seeds that both have."""
        return Pool(row for row in self.rows if row.figures.seed in other.seeds)

    def knows(self, test: str, kind: ErrorRate) -> bool:
        """Whether all files have such errors of the test set; files of older versions have no characters."""
        return kind == "word" or all(part in row.characters for row in self.rows for part in parts(test, tests_of(row)))

    def errors(self, test: str, kind: ErrorRate) -> list[np.ndarray]:
        """Errors `(U,)` per seed."""
        if kind == "character":
            return [np.array([wrong for _, wrong in _characters(row, test)], np.float64) for row in self.rows]
        return [np.array([item[3] for item in _utterances(row, test)], np.float64) for row in self.rows]

    def counts(self, test: str, kind: ErrorRate) -> np.ndarray:
        """Reference words or characters `(U,)`."""
        if kind == "character":
            return np.array([characters for characters, _ in _characters(self.rows[0], test)], np.float64)
        return np.array([item[2] for item in _utterances(self.rows[0], test)], np.float64)

    def speakers(self, test: str) -> list[str]:
        """Speakers of the utterances."""
        return [item[1] for item in _utterances(self.rows[0], test)]

    def sets(self, test: str) -> list[str]:
        """Test sets of the utterances."""
        return [part for part in parts(test, tests_of(self.rows[0])) for _ in _utterances(self.rows[0], part)]

    def mean(self, name: str) -> float:
        """Mean of a figure over seeds; `rtf.model` reaches below."""
        values = []
        for row in self.figures:
            value: Any = row
            for part in name.split("."):
                value = getattr(value, part)
            values.append(float(value))
        return float(np.mean(values))

    def dev_rate(self, kind: ErrorRate) -> float:
        """Error rate on dev, mean over seeds."""
        return float(np.mean([row.dev_rate(kind) for row in self.figures]))

    def dev_interval(self) -> Bounds | None:
        """Interval of the WER on dev, errors averaged over seeds; files of older versions have no utterances of dev."""
        if not all(row.dev_utterances for row in self.rows):
            return None
        errors = np.mean([[item[3] for item in row.dev_utterances] for row in self.rows], axis=0)
        first = self.rows[0].dev_utterances
        return wer_interval(errors, [item[2] for item in first], [item[1] for item in first]).bounds

    def difference(self, other: Pool, test: str = "test", kind: ErrorRate = "word") -> Difference:
        """Error rate of this row minus that of the other, over the seeds that both have."""
        ours, theirs = self.common(other), other.common(self)
        errors = ours.errors(test, kind), theirs.errors(test, kind)
        interval = difference_interval(*errors, self.counts(test, kind), self.speakers(test), self.sets(test))
        return Difference(to=other.first.name, mean=interval.estimate, interval=interval.bounds)

    def rates(self, test: str, kind: ErrorRate) -> list[float]:
        """Error rate per seed."""
        total = self.counts(test, kind).sum()
        return [100 * float(errors.sum() / total) for errors in self.errors(test, kind)]

    def split(self, reference: Pool, test: str) -> PooledFigures:
        """Error rates on a test set."""
        found: dict[str, Any] = {"wer_spread": spread(self.rates(test, "word"))}
        for name, kind in (("wer", "word"), ("cer", "character")):
            if self.knows(test, kind) and reference.knows(test, kind):
                errors = np.mean(self.errors(test, kind), axis=0)
                interval = wer_interval(errors, self.counts(test, kind), self.speakers(test), self.sets(test))
                difference = self.difference(reference, test, kind)
                found |= {name: interval.estimate, f"{name}_interval": interval.bounds, f"{name}_difference": difference}
        return PooledFigures(**found)

    def speedup(self, reference: Pool) -> tuple[Speedup, Spread]:
        """Speed against the reference, seeds as further passes; and the acoustic model's speed-up per seed."""
        theirs = self._beside(reference)
        model = ratio_interval(_passes(theirs, "model_seconds"), _passes(self.rows, "model_seconds"))
        total = ratio_interval(_passes(theirs, "total_seconds"), _passes(self.rows, "total_seconds"))
        per_seed = [float(np.sum(a.model_seconds) / np.sum(b.model_seconds)) for a, b in zip(theirs, self.rows)]
        speedup = Speedup(model=model.estimate, total=total.estimate, interval=model.bounds, total_interval=total.bounds)
        return speedup, spread(per_seed)

    def _beside(self, reference: Pool) -> list[Timing]:
        """The reference's times beside each of these rows, which `check_pool` has found to be there."""
        found = [other.timing(row.timing_id) for row, other in zip(self.rows, reference.common(self).rows)]
        return [timing for timing in found if timing is not None]

    def rtf(self, reference: Pool) -> Rtf:
        """Means over seeds; those of rows that were added later are as the reference's were at first."""
        found = []
        for row, first, beside in zip(self.figures, reference.common(self).figures, self._beside(reference)):
            scaled = {part: getattr(row.rtf, part) * getattr(first.rtf, part) / getattr(beside.rtf, part) for part in PARTS}
            found.append(row.rtf if beside.rtf == first.rtf else Rtf(**scaled, total=sum(scaled.values())))
        return Rtf(**{part: float(np.mean([getattr(rtf, part) for rtf in found])) for part in Rtf.model_fields})


def _passes(timed: Sequence[StoredRow | Timing], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(getattr(row, name), np.float64) for row in timed])


def check_pool(pool: Pool, reference: Pool) -> None:
    """Rows may be pooled and compared only where seeds, utterances, decoding and timing agree. A row may have fewer seeds."""
    name, first = pool.first.name, reference.rows[0]
    if not set(pool.seeds) <= set(reference.seeds) or len(set(pool.seeds)) != len(pool.seeds):
        wanted = f"seeds among {reference.seeds} as of {reference.first.name}"
        raise MeasurementError(f"row {name}: expected {wanted}, found {pool.seeds}. {_HINT}")
    if len({row.config_hash for row in pool.rows}) > 1:
        raise MeasurementError(f"row {name}: its seeds were made with different configurations, so they are not pooled. {_HINT}")
    for row, other in zip(pool.rows, reference.common(pool).rows):
        seed = row.figures.seed
        at = f"{reference.first.name}, seed {reference.seeds[0]}"
        if set(row.extra_utterances) != set(first.extra_utterances):
            raise MeasurementError(f"row {name}, seed {seed}: other test sets than {at}. {_HINT}")
        for test in tests_of(first):
            if [item[:3] for item in _utterances(row, test)] != [item[:3] for item in _utterances(first, test)]:
                raise MeasurementError(f"row {name}, seed {seed}: other {test} utterances, speakers or words than {at}. {_HINT}")
        if other.timing(row.timing_id) is None:
            raise MeasurementError(
                f"row {name}, seed {seed}: not timed together with {reference.first.name} of that seed, the reference. {_HINT} A run that"
                f" adds methods needs {reference.first.name} among experiment.large."
            )
        if row.retimed is not None and (other.retimed is None or other.retimed.timing_id != row.retimed.timing_id):
            raise MeasurementError(
                f"row {name}, seed {seed}: its acoustic model was timed again, but not beside {reference.first.name} as it is there. Run"
                " `bench retime` again."
            )
        ours, theirs = (stack.model_copy(update={"versions": {}}) for stack in (row.stack, first.stack))
        if ours != theirs:
            raise MeasurementError(f"row {name}, seed {seed}: decoded with {ours.search}, beam {ours.beam:g}; others differ. {_HINT}")
