"""Tables of a recipe's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dropasr.report.claims import compacted
from dropasr.report.recipe_schema import PooledRow, RecipeResults
from dropasr.report.tables import (
    MISSING,
    NAMES,
    Table,
    TrainingTime,
    count,
    dev_wer,
    difference,
    error_rate,
    interval,
    optional,
    other_rate,
    other_value,
    plain_rate,
    rate_heads,
    rtf,
    sizes,
    speedup,
    tight_head,
    units,
)
from dropasr.report.test_sets import ALL


def _over_seeds(row: PooledRow, test: str) -> str:
    spread = row.on(test).wer_spread
    return f"{row.on(test).wer:.2f} ± {spread.std:.2f} ({spread.min:.2f} to {spread.max:.2f})"


def rate_table(results: RecipeResults, rows: Sequence[PooledRow]) -> Table:
    """Sizes and errors on the test set of the verdicts; the error rates of the test sets beside it."""
    kind, (test, *others) = results.error_rate, results.order(rows)
    rate, *beside = rate_heads(results, [test, *others])
    header = (
        "net", "units per layer", "parameters", "multiply-adds per second", "WER %, mean ± std (range) over seeds",
        f"{rate} [95 %]", "difference to the reference [95 %]", f"{other_rate(kind)[0]} %", *beside,
        "dev WER % [95 %]", NAMES[rows[0].criterion].loss,
    )  # fmt: skip
    lines = [
        (
            row.label,
            sizes(row),
            count(row.parameters),
            count(row.macs_per_second),
            _over_seeds(row, test),
            error_rate(row, test, kind),
            difference(row, test, kind),
            other_value(row, test, kind),
            *(plain_rate(row, other, kind) for other in others),
            dev_wer(row),
            f"{row.dev_ce:.4f} ± {row.dev_ce_spread.std:.4f}",
        )
        for row in rows
    ]
    return Table(header, lines)


def speed_table(results: RecipeResults, rows: Sequence[PooledRow]) -> Table:
    """Times, with the error rate that they belong to."""
    tests, training = results.order(rows), TrainingTime(rows)
    header = (
        "net", rate_heads(results, tests)[0], "RTF features", "RTF model", "RTF search", "RTF total",
        "model × faster [95 %] (range over seeds)", "total × faster [95 %]", training.head, "epochs",
    )  # fmt: skip
    lines = []
    for row in rows:
        spread = row.speedup_spread
        lines.append(
            (
                row.label,
                plain_rate(row, tests[0], results.error_rate),
                *(rtf(value) for value in (row.rtf.features, row.rtf.model, row.rtf.search, row.rtf.total)),
                "1" if row.reference else f"{speedup(row)} ({spread.min:.2f} to {spread.max:.2f})",
                "1" if row.reference else interval(row.speedup.total, row.speedup.total_interval),
                f"{training.of(row):.0f}",
                str(row.epochs),
            )
        )
    return Table(header, lines)


def estimator_table(rows: Sequence[PooledRow]) -> Table:
    """Split-half correlation of the gradient estimators, of the first seed."""
    lines = [[row.label, name, *(optional(value, 3) for value in values)] for row in rows for name, values in row.estimators.items()]
    layers = max((len(line) - 2 for line in lines), default=0)
    padded = [[*line, *[""] * (layers + 2 - len(line))] for line in lines]
    return Table(("net", "estimator", *(f"layer {i + 1}" for i in range(layers))), padded, frozenset({0, 1}))


def signal_table(rows: Sequence[PooledRow]) -> Table:
    """Split-half correlation over the updates of retention learning, of the first seed."""
    lines = [
        (row.label, name, *(optional(value, 3) for value in (signal.first, signal.median, signal.last)))
        for row in rows
        for name, signal in row.signals.items()
    ]
    return Table(("net", "estimator", "first update", "median", "last update"), lines, frozenset({0, 1}))


def plain_nets(rows: Sequence[PooledRow]) -> list[PooledRow]:
    """The plainly trained nets, large and from scratch, by size."""
    plain = [row for row in rows if row.method == "dense" and row.kind in ("large", "small")]
    return sorted(plain, key=lambda row: -row.macs_per_second)


def size_table(results: RecipeResults, rows: Sequence[PooledRow]) -> Table:
    """Plainly trained nets by size: what size alone costs."""
    tests = results.order(rows)
    names = [f"{name} [95 %]" for name in rate_heads(results, tests)]
    header = ("net", "units per layer", "share of the multiply-adds", NAMES[rows[0].criterion].loss, "dev WER % [95 %]", *names)
    plain = plain_nets(rows)
    lines = [
        (
            row.label,
            sizes(row),
            f"{100 * row.macs_per_second / plain[0].macs_per_second:.1f} %",
            f"{row.dev_ce:.4f} ± {row.dev_ce_spread.std:.4f}",
            dev_wer(row),
            *(error_rate(row, test, results.error_rate) for test in tests),
        )
        for row in plain
    ]
    return Table(header, lines)


def system_table(results: RecipeResults, groups: Mapping[str, Sequence[PooledRow]]) -> Table:
    """The reference of every system and its compacted nets."""
    tests = [test for test in ("test", ALL) if test in results.tests]
    rates = [f"{name} [95 %]" for name in rate_heads(results, tests)]
    header = ("system", "net", *rates, "RTF model", "RTF search", "RTF total")
    lines = [
        (
            name,
            row.label,
            *(error_rate(row, test, results.error_rate) for test in tests),
            *(rtf(value) for value in (row.rtf.model, row.rtf.search, row.rtf.total)),
        )
        for name, rows in groups.items()
        for row in rows
        if row.reference or row in compacted(rows)
    ]
    return Table(header, lines, frozenset({0, 1}))


def terminal_table(results: RecipeResults, rows: Sequence[PooledRow]) -> str:
    """The main table for the terminal, about 150 columns wide."""
    kind, test, training = results.error_rate, results.order(rows)[0], TrainingTime(rows)
    loss = NAMES[rows[0].criterion].loss
    header = ("net", "units", "param", tight_head(results, test), "± std", "difference [95 %]", loss, "RTF model", "total")
    lines = [
        (
            row.label,
            sizes(row, short=True),
            count(row.parameters),
            error_rate(row, test, kind),
            f"{row.on(test).wer_spread.std:.2f}",
            difference(row, test, kind),
            f"{row.dev_ce:.3f}",
            rtf(row.rtf.model),
            rtf(row.rtf.total),
            speedup(row),
            f"{row.speedup.total:.2f}",
            f"{training.of(row):.0f}",
        )
        for row in rows
    ]
    return Table((*header, "×model [95 %]", "×total", "train s"), lines).terminal()


def seed_table(rows: Sequence[PooledRow]) -> Table:
    """WER on test and units of every seed."""
    seeds = sorted({seed for row in rows for seed in row.seeds})
    lines = []
    for row in rows:
        per_seed = dict(zip(row.seeds, zip(row.wer_spread.per_seed, row.units_per_seed)))
        cells = [f"{per_seed[seed][0]:.2f} ({units(per_seed[seed][1])})" if seed in per_seed else MISSING for seed in seeds]
        lines.append((row.label, *cells))
    return Table(("net", *(f"seed {seed}" for seed in seeds)), lines)
