"""Seeds pooled: the table of a recipe, its paired differences and its claims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np

from dropasr.errors import MeasurementError
from dropasr.report.claims import claims, smallest_without_loss
from dropasr.report.recipe_schema import PooledComparison, PooledRow, RecipeResults, Smallest, StoredRow
from dropasr.report.results import split_size
from dropasr.report.rivals import are_many, is_variant, pairs
from dropasr.report.schema import ErrorRate
from dropasr.report.seeds import Pool, check_pool, spread, tests_of
from dropasr.report.test_sets import ALL, SplitSize, ordered, parts
from dropasr.scoring.bootstrap import outcome


def _label(pool: Pool, reference: Pool) -> str:
    """Where a row has fewer seeds than the reference, its name says which."""
    if len(pool.seeds) == len(reference.seeds):
        return pool.first.label
    return f"{pool.first.label} (seed{'s' if len(pool.seeds) > 1 else ''} {', '.join(map(str, pool.seeds))})"


_SAME = "name kind method learns_units model teacher budget epochs estimators signals criterion".split()
"""What is taken from the first seed."""


def _pooled(pool: Pool, reference: Pool, tests: Sequence[str], kind: ErrorRate) -> PooledRow:
    first = pool.first
    speedup, speedup_spread = pool.speedup(reference)
    cers = [row.dev_cer for row in pool.figures]
    nonzeros, inputs = [row.nonzeros for row in pool.figures], [row.inputs for row in pool.figures]
    cpu_seconds = [row.train_cpu_seconds for row in pool.figures]
    return PooledRow(
        **{key: getattr(first, key) for key in _SAME},
        label=_label(pool, reference),
        **pool.split(reference, "test").model_dump(),
        extra={test: pool.split(reference, test) for test in tests if test != "test"},
        corpus=pool.rows[0].corpus,
        system=pool.rows[0].system,
        reference=pool is reference,
        seeds=pool.seeds,
        units=[round(float(value)) for value in np.mean([row.units for row in pool.figures], axis=0)],
        inputs=None if None in inputs else round(pool.mean("inputs")),
        units_per_seed=[row.units for row in pool.figures],
        parameters=round(pool.mean("parameters")),
        nonzeros=None if None in nonzeros else round(pool.mean("nonzeros")),
        macs_per_second=pool.mean("macs_per_second"),
        dev_wer=pool.mean("dev_wer"),
        dev_wer_interval=pool.dev_interval(),
        dev_cer=None if None in cers else pool.mean("dev_cer"),
        dev_ce=pool.mean("dev_ce"),
        dev_ce_spread=spread([row.dev_ce for row in pool.figures]),
        dev_difference=pool.dev_rate(kind) - reference.common(pool).dev_rate(kind),
        rtf=pool.rtf(reference),
        speedup=speedup,
        speedup_spread=speedup_spread,
        # Training is timed beside whatever else runs: one seed in bad company must not decide.
        train_seconds=float(np.median([row.train_seconds for row in pool.figures])),
        train_cpu_seconds=None if None in cpu_seconds else float(np.median(cpu_seconds)),
        test_evaluations=sum(row.test_evaluations for row in pool.rows),
        config_hash=pool.rows[0].config_hash,
    )


_ORDER = {"large": 0, "small": 1, "compact": 2}


def _chosen_variants(pools: list[Pool], kind: ErrorRate) -> list[tuple[Pool, Pool]]:
    """Where many methods are compared: the nets of a budget, with the variant of dropout compaction that has the fewest errors on dev."""
    if not are_many([pool.first for pool in pools]):
        return []
    variants: dict[float, list[Pool]] = {}
    for pool in pools:
        if is_variant(pool.first):
            variants.setdefault(pool.first.budget, []).append(pool)
    chosen = {
        budget: min(of_budget, key=lambda pool: (-len(pool.seeds), pool.dev_rate(kind), pool.mean("dev_ce")))
        for budget, of_budget in variants.items()
        if len(of_budget) > 1
    }
    of_size = [(pool, chosen.get(pool.first.budget)) for pool in pools if pool.first.kind != "large"]
    return [(pool, other) for pool, other in of_size if other is not None and other is not pool]


def _compared(found_pairs: Iterable[tuple[Pool, Pool]], tests: Sequence[str], kind: ErrorRate) -> list[PooledComparison]:
    """Nets against those that they are compared with, on every test set, over the seeds that both have."""
    found = []
    for test, (pool, other) in product(tests, found_pairs):
        if set(pool.seeds) & set(other.seeds):
            ours, theirs = pool.common(other), other.common(pool)
            difference = ours.difference(theirs, test, kind)
            found.append(
                PooledComparison(
                    model=pool.first.model,
                    system=pool.rows[0].system,
                    row=pool.first.name,
                    budget=pool.first.budget,
                    test=test,
                    difference=difference,
                    rates=(float(np.mean(ours.rates(test, kind))), float(np.mean(theirs.rates(test, kind)))),
                    dev_ce_difference=ours.mean("dev_ce") - theirs.mean("dev_ce"),
                    outcome=outcome(difference.interval),
                    seeds=ours.seeds,
                )
            )
    return found


def _reference(pools: Sequence[Pool], kind: ErrorRate) -> Pool | None:
    """The large net with the lowest error rate on dev; only one that has all seeds can be compared with every row."""
    large = [pool for pool in pools if pool.first.kind == "large"]
    most = max((len(pool.seeds) for pool in large), default=0)
    complete = [pool for pool in large if len(pool.seeds) == most]
    return min(complete, key=lambda pool: (pool.dev_rate(kind), pool.mean("dev_ce")), default=None)


def reference_name(rows: Sequence[StoredRow]) -> str | None:
    """The row that a table of these, of one model and system, is measured against; None where there is no large net."""
    pools = [Pool([row for row in rows if row.figures.name == name]) for name in _unique(row.figures.name for row in rows)]
    found = _reference(pools, rows[0].error_rate) if pools else None
    return None if found is None else found.first.name


def _pool_group(
    rows: list[StoredRow], tests: Sequence[str], kind: ErrorRate
) -> tuple[list[PooledRow], list[PooledComparison], list[PooledComparison]]:
    """The rows of one model and system, large ones first and then by budget, their comparisons at equal budget, and those with the
    variant of dropout compaction that dev chooses."""
    by_name: dict[str, list[StoredRow]] = {}
    for row in rows:
        by_name.setdefault(row.figures.name, []).append(row)
    pools = [Pool(of_row) for of_row in by_name.values()]
    pools.sort(key=lambda pool: (-pool.first.budget, _ORDER[pool.first.kind], pool.first.name))
    reference = _reference(pools, kind)
    if reference is None:
        raise MeasurementError(f"model {rows[0].figures.model}: no row of a large net to compare with. Run the recipe again.")
    for pool in pools:
        check_pool(pool, reference)
    pools.sort(key=lambda pool: pool is not reference)
    by_name = {pool.first.name: pool for pool in pools}
    rivals = [(by_name[row.name], by_name[rival.name]) for row, rival in pairs([pool.first for pool in pools])]
    pooled = [_pooled(pool, reference, tests, kind) for pool in pools]
    return pooled, _compared(rivals, tests, kind), _compared(_chosen_variants(pools, kind), tests, kind)


def _unique(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _sizes(stored: Sequence[StoredRow]) -> dict[str, SplitSize]:
    """Sizes of the test sets of all systems; of their union only where a system was evaluated on all of them."""
    having = {test: row for row in reversed(stored) for test in tests_of(row)}
    tests = _unique(test for row in stored for test in tests_of(row))
    complete = [row for row in stored if len(tests) > 1 and set(tests_of(row)) == set(tests)]
    found = [(test, Pool([having[test]])) for test in tests] + [(ALL, Pool([row])) for row in complete[:1]]
    return {test: split_size(pool.counts(test, "word"), pool.speakers(test), pool.sets(test)) for test, pool in found}


def _timings(stored: Sequence[StoredRow]) -> int:
    """In how many runs the acoustic models of one seed were timed, at most."""
    found: dict[tuple[str, str, int], set[str]] = {}
    for row in stored:
        found.setdefault((row.system, row.figures.model, row.figures.seed), set()).add(row.model_timing_id)
    return max(map(len, found.values()))


def make_recipe_results(stored: list[StoredRow], command: str) -> RecipeResults:
    """Pool the rows of one corpus of a recipe; MeasurementError where they must not be pooled or compared."""
    found = _unique(row.error_rate for row in stored)
    if len(found) > 1:
        raise MeasurementError(f"expected the rows of one error rate, found {', '.join(found)}. Give each a recipe of its own.")
    stored = sorted(stored, key=lambda row: (row.system, row.figures.model, row.figures.seed))
    first = stored[0]
    sizes = _sizes(stored)
    rows: list[PooledRow] = []
    comparisons: list[PooledComparison] = []
    to_chosen: list[PooledComparison] = []
    for key in _unique((row.system, row.figures.model) for row in stored):
        of_key = [row for row in stored if (row.system, row.figures.model) == key]
        own = tests_of(of_key[0])
        tests = [test for test in ordered(sizes) if set(parts(test, sizes)) - {ALL} <= set(own)]
        of_group, compared, with_chosen = _pool_group(of_key, tests, first.error_rate)
        rows += of_group
        comparisons += compared
        to_chosen += with_chosen
    smallest: list[Smallest] = smallest_without_loss(rows, sizes, first.error_rate)
    test = sizes["test"]
    return RecipeResults(
        corpus=first.corpus,
        note=first.note,
        experiment_note=" ".join(_unique(row.experiment_note for row in stored if row.experiment_note)),
        one_speaker=first.one_speaker,
        error_rate=first.error_rate,
        command=command,
        busy_share=max(max(row.busy_share, 0.0 if row.retimed is None else row.retimed.busy_share) for row in stored),
        run_commands=_unique(row.command for row in stored),
        hardware=_unique(machine for row in stored for machine in (row.hardware, row.retimed.hardware if row.retimed else row.hardware)),
        stack=_unique(row.stack for row in stored),
        git_revisions=_unique(row.figures.git_revision or "unknown" for row in stored),
        timings=_timings(stored),
        retimed=sum(row.retimed is not None for row in stored),
        test_words=test.words,
        test_speakers=test.speakers,
        bootstrap_unit=test.bootstrap_unit,
        interval=test.interval,
        extra_tests={name: size for name, size in sizes.items() if name != "test"},
        test_evaluations=sum(row.test_evaluations for row in rows),
        rows=rows,
        comparisons=comparisons,
        to_chosen=to_chosen,
        claims=claims(rows, comparisons, smallest, sizes, first.error_rate),
        smallest=smallest,
    )
