"""Seeds pooled: the table of a recipe, its paired differences and its claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dropasr.errors import MeasurementError
from dropasr.report.claims import claims
from dropasr.report.recipe_schema import PooledComparison, PooledRow, RecipeResults, Spread, StoredRow
from dropasr.report.schema import Difference, Rtf, Speedup
from dropasr.scoring.bootstrap import difference_interval, outcome, ratio_interval, wer_interval


def _spread(values: Sequence[float]) -> Spread:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Spread(std=std, min=min(values), max=max(values), per_seed=list(values))


class _Pool:
    """The files of one row, by seed."""

    def __init__(self, rows: list[StoredRow]) -> None:
        self.rows = sorted(rows, key=lambda row: row.figures.seed)
        self.figures = [row.figures for row in self.rows]
        self.first = self.figures[0]
        self.seeds = [row.seed for row in self.figures]
        self.errors = [np.array([item[3] for item in row.utterances], np.float64) for row in self.rows]
        self.words = np.array([item[2] for item in self.rows[0].utterances], np.float64)
        self.speakers = [item[1] for item in self.rows[0].utterances]

    def mean(self, name: str) -> float:
        """Mean of a figure over seeds; `rtf.model` reaches below."""
        values = []
        for row in self.figures:
            value: Any = row
            for part in name.split("."):
                value = getattr(value, part)
            values.append(float(value))
        return float(np.mean(values))

    def difference(self, other: _Pool) -> Difference:
        """WER of this row minus WER of the other, seeds pooled."""
        interval = difference_interval(self.errors, other.errors, self.words, self.speakers)
        return Difference(to=other.first.name, mean=interval.estimate, interval=interval.bounds)

    def speedup(self, reference: _Pool) -> tuple[Speedup, Spread]:
        """Speed against the reference, seeds as further passes; and the acoustic model's speed-up per seed."""
        model = ratio_interval(_passes(reference, "model_seconds"), _passes(self, "model_seconds"))
        total = ratio_interval(_passes(reference, "total_seconds"), _passes(self, "total_seconds"))
        per_seed = [float(np.sum(a.model_seconds) / np.sum(b.model_seconds)) for a, b in zip(reference.rows, self.rows)]
        speedup = Speedup(model=model.estimate, total=total.estimate, interval=model.bounds, total_interval=total.bounds)
        return speedup, _spread(per_seed)


def _passes(pool: _Pool, name: str) -> np.ndarray:
    return np.concatenate([np.asarray(getattr(row, name), np.float64) for row in pool.rows])


def _check(pools: list[_Pool]) -> None:
    """Rows may be pooled and compared only where seeds, utterances, decoding and timing agree."""
    first = pools[0]
    hint = "Remove its files and run the recipe again."
    wanted = [item[:3] for item in first.rows[0].utterances]
    for pool in pools:
        name = pool.first.name
        if pool.seeds != first.seeds or len(set(pool.seeds)) != len(pool.seeds):
            raise MeasurementError(f"row {name}: expected seeds {first.seeds} as of {first.first.name}, found {pool.seeds}. {hint}")
        if len({row.config_hash for row in pool.rows}) > 1:
            raise MeasurementError(f"row {name}: its seeds were made with different configurations, so they are not pooled. {hint}")
        for row, other in zip(pool.rows, first.rows):
            seed = row.figures.seed
            if [item[:3] for item in row.utterances] != wanted:
                at = f"{first.first.name}, seed {first.seeds[0]}"
                raise MeasurementError(f"row {name}, seed {seed}: other test utterances, speakers or words than {at}. {hint}")
            if row.timing_id != other.timing_id:
                raise MeasurementError(f"row {name}, seed {seed}: not timed together with {first.first.name} of that seed. {hint}")
            ours, theirs = row.stack, first.rows[0].stack
            if (ours.search, ours.beam, ours.max_active) != (theirs.search, theirs.beam, theirs.max_active):
                raise MeasurementError(f"row {name}, seed {seed}: decoded with {ours.search}, beam {ours.beam:g}; others differ. {hint}")


def _pooled(pool: _Pool, reference: _Pool) -> PooledRow:
    first = pool.first
    speedup, speedup_spread = pool.speedup(reference)
    same = {key: getattr(first, key) for key in ("name", "label", "kind", "method", "model", "teacher", "budget", "epochs")}
    return PooledRow(
        **same,
        corpus=pool.rows[0].corpus,
        reference=pool is reference,
        seeds=pool.seeds,
        units=[round(float(value)) for value in np.mean([row.units for row in pool.figures], axis=0)],
        units_per_seed=[row.units for row in pool.figures],
        parameters=round(pool.mean("parameters")),
        macs_per_second=pool.mean("macs_per_second"),
        wer=pool.mean("wer"),
        wer_spread=_spread([row.wer for row in pool.figures]),
        wer_interval=wer_interval(np.mean(pool.errors, axis=0), pool.words, pool.speakers).bounds,
        wer_difference=pool.difference(reference),
        dev_wer=pool.mean("dev_wer"),
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


def _pool_model(rows: list[StoredRow]) -> tuple[list[PooledRow], list[PooledComparison]]:
    """The rows of one model, large ones first and then by budget, and their comparisons at equal budget."""
    by_name: dict[str, list[StoredRow]] = {}
    for row in rows:
        by_name.setdefault(row.figures.name, []).append(row)
    pools = [_Pool(of_row) for of_row in by_name.values()]
    pools.sort(key=lambda pool: (-pool.first.budget, _ORDER[pool.first.kind], pool.first.name))
    large = [pool for pool in pools if pool.first.kind == "large"]
    if not large:
        raise MeasurementError(f"model {rows[0].figures.model}: no row of a large net to compare with. Run the recipe again.")
    _check(pools)
    reference = min(large, key=lambda pool: (pool.mean("dev_wer"), pool.mean("dev_ce")))
    pools.sort(key=lambda pool: pool is not reference)
    comparisons = []
    for pool in pools:
        for other in pools:
            if pool.first.kind == "compact" and other.first.kind == "small" and pool.first.budget == other.first.budget:
                difference = pool.difference(other)
                verdict = outcome(difference.interval)
                more_ce = pool.mean("dev_ce") - other.mean("dev_ce")
                same = {"model": pool.first.model, "row": pool.first.name, "budget": pool.first.budget}
                comparisons.append(PooledComparison(**same, difference=difference, dev_ce_difference=more_ce, outcome=verdict))
    return [_pooled(pool, reference) for pool in pools], comparisons


def _unique(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def make_recipe_results(stored: list[StoredRow], command: str) -> RecipeResults:
    """Pool the rows of a recipe; MeasurementError where they must not be pooled or compared."""
    corpora = _unique([row.corpus for row in stored])
    if len(corpora) > 1:
        raise MeasurementError(f"expected the rows of one corpus, found {', '.join(corpora)}. Give each corpus a recipe of its own.")
    stored = sorted(stored, key=lambda row: (row.figures.model, row.figures.seed))
    rows: list[PooledRow] = []
    comparisons: list[PooledComparison] = []
    for model in _unique([row.figures.model for row in stored]):
        of_model, compared = _pool_model([row for row in stored if row.figures.model == model])
        rows += of_model
        comparisons += compared
    first = stored[0]
    speakers = len({item[1] for item in first.utterances})
    words = sum(item[2] for item in first.utterances)
    return RecipeResults(
        corpus=first.corpus,
        note=first.note,
        one_speaker=first.one_speaker,
        command=command,
        run_commands=_unique([row.command for row in stored]),
        hardware=_unique([row.hardware for row in stored]),
        stack=_unique([row.stack for row in stored]),
        git_revisions=_unique([row.figures.git_revision or "unknown" for row in stored]),
        test_words=words,
        test_speakers=speakers,
        bootstrap_unit="speaker" if speakers > 1 else "utterance",
        test_evaluations=sum(row.test_evaluations for row in rows),
        rows=rows,
        comparisons=comparisons,
        claims=claims(rows, comparisons, words),
    )
