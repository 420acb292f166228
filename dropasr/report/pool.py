"""Seeds pooled: the table of a recipe, its paired differences and its claims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np

from dropasr.errors import MeasurementError
from dropasr.report.claims import claims, smallest_without_loss
from dropasr.report.recipe_schema import PooledComparison, PooledRow, RecipeResults, Smallest, Spread, StoredRow, Utterance
from dropasr.report.results import are_rivals, split_size
from dropasr.report.schema import Difference, ErrorRate, Rtf, Speedup, SplitFigures
from dropasr.scoring.bootstrap import Bounds, difference_interval, outcome, ratio_interval, wer_interval

_HINT = "Remove its files and run the recipe again."


def _spread(values: Sequence[float]) -> Spread:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Spread(std=std, min=min(values), max=max(values), per_seed=list(values))


def _utterances(row: StoredRow, test: str) -> list[Utterance]:
    return row.utterances if test == "test" else row.extra_utterances[test]


class _Pool:
    """The files of one row, by seed."""

    def __init__(self, rows: Iterable[StoredRow]) -> None:
        self.rows = sorted(rows, key=lambda row: row.figures.seed)
        self.figures = [row.figures for row in self.rows]
        self.first = self.figures[0]
        self.seeds = [row.seed for row in self.figures]

    def common(self, other: _Pool) -> _Pool:
        """The files of the seeds that both have."""
        return _Pool(row for row in self.rows if row.figures.seed in other.seeds)

    def knows(self, test: str, kind: ErrorRate) -> bool:
        """Whether all files have such errors of the test set; files of older versions have no characters."""
        return kind == "word" or all(test in row.characters for row in self.rows)

    def errors(self, test: str, kind: ErrorRate) -> list[np.ndarray]:
        """Errors `(U,)` per seed."""
        if kind == "character":
            return [np.array([wrong for _, wrong in row.characters[test]], np.float64) for row in self.rows]
        return [np.array([item[3] for item in _utterances(row, test)], np.float64) for row in self.rows]

    def counts(self, test: str, kind: ErrorRate) -> np.ndarray:
        """Reference words or characters `(U,)`."""
        if kind == "character":
            return np.array([characters for characters, _ in self.rows[0].characters[test]], np.float64)
        return np.array([item[2] for item in _utterances(self.rows[0], test)], np.float64)

    def speakers(self, test: str) -> list[str]:
        """Speakers of the utterances."""
        return [item[1] for item in _utterances(self.rows[0], test)]

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

    def difference(self, other: _Pool, test: str = "test", kind: ErrorRate = "word") -> Difference:
        """Error rate of this row minus that of the other, over the seeds that both have."""
        ours, theirs = self.common(other), other.common(self)
        interval = difference_interval(ours.errors(test, kind), theirs.errors(test, kind), self.counts(test, kind), self.speakers(test))
        return Difference(to=other.first.name, mean=interval.estimate, interval=interval.bounds)

    def split(self, reference: _Pool, test: str) -> SplitFigures:
        """Error rates on a test set."""
        found: dict[str, Any] = {}
        for name, kind in (("wer", "word"), ("cer", "character")):
            if self.knows(test, kind) and reference.knows(test, kind):
                errors = np.mean(self.errors(test, kind), axis=0)
                interval = wer_interval(errors, self.counts(test, kind), self.speakers(test))
                difference = self.difference(reference, test, kind)
                found |= {name: interval.estimate, f"{name}_interval": interval.bounds, f"{name}_difference": difference}
        return SplitFigures(**found)

    def speedup(self, reference: _Pool) -> tuple[Speedup, Spread]:
        """Speed against the reference, seeds as further passes; and the acoustic model's speed-up per seed."""
        theirs = reference.common(self)
        model = ratio_interval(_passes(theirs, "model_seconds"), _passes(self, "model_seconds"))
        total = ratio_interval(_passes(theirs, "total_seconds"), _passes(self, "total_seconds"))
        per_seed = [float(np.sum(a.model_seconds) / np.sum(b.model_seconds)) for a, b in zip(theirs.rows, self.rows)]
        speedup = Speedup(model=model.estimate, total=total.estimate, interval=model.bounds, total_interval=total.bounds)
        return speedup, _spread(per_seed)


def _passes(pool: _Pool, name: str) -> np.ndarray:
    return np.concatenate([np.asarray(getattr(row, name), np.float64) for row in pool.rows])


def _check(pool: _Pool, reference: _Pool) -> None:
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
        for test in ("test", *first.extra_utterances):
            if [item[:3] for item in _utterances(row, test)] != [item[:3] for item in _utterances(first, test)]:
                raise MeasurementError(f"row {name}, seed {seed}: other {test} utterances, speakers or words than {at}. {_HINT}")
        if row.timing_id != other.timing_id:
            raise MeasurementError(f"row {name}, seed {seed}: not timed together with {reference.first.name} of that seed. {_HINT}")
        ours, theirs = (stack.model_copy(update={"versions": {}}) for stack in (row.stack, first.stack))
        if ours != theirs:
            raise MeasurementError(f"row {name}, seed {seed}: decoded with {ours.search}, beam {ours.beam:g}; others differ. {_HINT}")


def _pooled(pool: _Pool, reference: _Pool) -> PooledRow:
    first = pool.first
    speedup, speedup_spread = pool.speedup(reference)
    which = ("name", "label", "kind", "method", "learns_units", "model", "teacher", "budget", "epochs", "estimators")
    same = {key: getattr(first, key) for key in which}
    cers = [row.dev_cer for row in pool.figures]
    return PooledRow(
        **same,
        **pool.split(reference, "test").model_dump(),
        extra={test: pool.split(reference, test) for test in pool.rows[0].extra_utterances},
        corpus=pool.rows[0].corpus,
        system=pool.rows[0].system,
        reference=pool is reference,
        seeds=pool.seeds,
        units=[round(float(value)) for value in np.mean([row.units for row in pool.figures], axis=0)],
        units_per_seed=[row.units for row in pool.figures],
        parameters=round(pool.mean("parameters")),
        macs_per_second=pool.mean("macs_per_second"),
        wer_spread=_spread([row.wer for row in pool.figures]),
        dev_wer=pool.mean("dev_wer"),
        dev_wer_interval=pool.dev_interval(),
        dev_cer=None if None in cers else pool.mean("dev_cer"),
        dev_ce=pool.mean("dev_ce"),
        dev_ce_spread=_spread([row.dev_ce for row in pool.figures]),
        rtf=Rtf(**{part: pool.mean(f"rtf.{part}") for part in ("features", "model", "search", "total")}),
        speedup=speedup,
        speedup_spread=speedup_spread,
        train_seconds=pool.mean("train_seconds"),
        test_evaluations=sum(row.test_evaluations for row in pool.rows),
        config_hash=pool.rows[0].config_hash,
    )


_ORDER = {"large": 0, "small": 1, "compact": 2}


def _compared(pools: list[_Pool], kind: ErrorRate) -> list[PooledComparison]:
    """Compacted nets against their rivals, on every test set."""
    found = []
    for test, pool, other in product(("test", *pools[0].rows[0].extra_utterances), pools, pools):
        if are_rivals(pool.first, other.first) and set(pool.seeds) & set(other.seeds):
            difference = pool.difference(other, test, kind)
            more_ce = pool.common(other).mean("dev_ce") - other.common(pool).mean("dev_ce")
            same = {"model": pool.first.model, "system": pool.rows[0].system, "row": pool.first.name, "budget": pool.first.budget}
            verdict = outcome(difference.interval)
            found.append(PooledComparison(**same, test=test, difference=difference, dev_ce_difference=more_ce, outcome=verdict))
    return found


def _pool_group(rows: list[StoredRow], kind: ErrorRate) -> tuple[list[PooledRow], list[PooledComparison]]:
    """The rows of one model and system, large ones first and then by budget, and their comparisons at equal budget."""
    by_name: dict[str, list[StoredRow]] = {}
    for row in rows:
        by_name.setdefault(row.figures.name, []).append(row)
    pools = [_Pool(of_row) for of_row in by_name.values()]
    pools.sort(key=lambda pool: (-pool.first.budget, _ORDER[pool.first.kind], pool.first.name))
    large = [pool for pool in pools if pool.first.kind == "large"]
    if not large:
        raise MeasurementError(f"model {rows[0].figures.model}: no row of a large net to compare with. Run the recipe again.")
    # Only a net that has all seeds can be compared with every row.
    most = max(len(pool.seeds) for pool in large)
    complete = [pool for pool in large if len(pool.seeds) == most]
    reference = min(complete, key=lambda pool: (pool.dev_rate(kind), pool.mean("dev_ce")))
    for pool in pools:
        _check(pool, reference)
    pools.sort(key=lambda pool: pool is not reference)
    return [_pooled(pool, reference) for pool in pools], _compared(pools, kind)


def _unique(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def make_recipe_results(stored: list[StoredRow], command: str) -> RecipeResults:
    """Pool the rows of a recipe; MeasurementError where they must not be pooled or compared."""
    for name in ("corpus", "error_rate"):
        found = _unique(getattr(row, name) for row in stored)
        if len(found) > 1:
            told = ", ".join(map(str, found))
            raise MeasurementError(f"expected the rows of one {name.replace('_', ' ')}, found {told}. Give each a recipe of its own.")
    stored = sorted(stored, key=lambda row: (row.system, row.figures.model, row.figures.seed))
    first = stored[0]
    rows: list[PooledRow] = []
    comparisons: list[PooledComparison] = []
    for key in _unique((row.system, row.figures.model) for row in stored):
        of_group, compared = _pool_group([row for row in stored if (row.system, row.figures.model) == key], first.error_rate)
        rows += of_group
        comparisons += compared
    sizes = {test: split_size(pool.counts(test, "word"), pool.speakers(test)) for pool in [_Pool([first])] for test in _tests(first)}
    smallest: list[Smallest] = smallest_without_loss(rows, sizes, first.error_rate)
    test = sizes["test"]
    return RecipeResults(
        corpus=first.corpus,
        note=first.note,
        one_speaker=first.one_speaker,
        error_rate=first.error_rate,
        command=command,
        busy_share=max(row.busy_share for row in stored),
        run_commands=_unique(row.command for row in stored),
        hardware=_unique(row.hardware for row in stored),
        stack=_unique(row.stack for row in stored),
        git_revisions=_unique(row.figures.git_revision or "unknown" for row in stored),
        test_words=test.words,
        test_speakers=test.speakers,
        bootstrap_unit=test.bootstrap_unit,
        extra_tests={name: size for name, size in sizes.items() if name != "test"},
        test_evaluations=sum(row.test_evaluations for row in rows),
        rows=rows,
        comparisons=comparisons,
        claims=claims(rows, comparisons, smallest, sizes, first.error_rate),
        smallest=smallest,
    )


def _tests(row: StoredRow) -> list[str]:
    return ["test", *row.extra_utterances]
