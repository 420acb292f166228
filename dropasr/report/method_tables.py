"""Many methods side by side on a recipe's page: by budget against dropout compaction, at full size, and at the size that they learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dropasr.report.recipe_schema import PooledComparison, PooledRow, RecipeResults
from dropasr.report.results import budget_text
from dropasr.report.rivals import PIVOT, PLAIN_DROPOUT
from dropasr.report.tables import MISSING, NAMES, Table, TrainingTime, count, interval, method_name, plain_rate, rtf, sizes, speedup

Comparisons = dict[str, PooledComparison]
"""On the test set of the verdicts, by row."""


def comparisons_of(results: RecipeResults, rows: Sequence[PooledRow], compared: Sequence[PooledComparison]) -> Comparisons:
    """The comparisons of one model and system on the test set of its verdicts."""
    test = results.order(rows)[0]
    return {item.row: item for item in compared if item.test == test}


def rate_over_seeds(results: RecipeResults, rows: Sequence[PooledRow], row: PooledRow) -> str:
    """The mean error rate; of words, with its standard deviation over seeds where there are several."""
    test = results.order(rows)[0]
    rate = plain_rate(row, test, results.error_rate)
    spread = row.on(test).wer_spread
    return f"{rate} ± {spread.std:.2f}" if results.error_rate == "word" and len(row.seeds) > 1 else rate


def _rate(results: RecipeResults, rows: Sequence[PooledRow], row: PooledRow) -> float:
    return row.on(results.order(rows)[0]).rate(results.error_rate).value


def budgets_of(rows: Sequence[PooledRow]) -> list[float]:
    """The budgets that there are, largest first."""
    return sorted({row.budget for row in rows if row.kind != "large" and row.budget}, reverse=True)


def of_budget(results: RecipeResults, rows: Sequence[PooledRow], budget: float) -> list[PooledRow]:
    """The nets of a budget, fewest errors first."""
    chosen = [row for row in rows if row.kind != "large" and row.budget == budget]
    return sorted(chosen, key=lambda row: (_rate(results, rows, row), row.dev_ce))


def _verdict(row: PooledRow, compared: Comparisons) -> str:
    return compared[row.name].outcome if row.name in compared else MISSING


def overview_table(results: RecipeResults, rows: Sequence[PooledRow], compared: Comparisons) -> Table:
    """Method by budget: the error rate, and the verdict against dropout compaction where it is no tie. Fewest errors on average first."""
    budgets, found = budgets_of(rows), {}
    for row in rows:
        if row.kind != "large" and row.budget:
            found.setdefault(method_name(row), {})[row.budget] = row

    def mean(name: str) -> tuple[int, float, str]:
        rates = [_rate(results, rows, row) for row in found[name].values()]
        return len(budgets) - len(rates), sum(rates) / len(rates), name

    def cell(row: PooledRow | None) -> str:
        if row is None:
            return MISSING
        verdict = _verdict(row, compared)
        return rate_over_seeds(results, rows, row) + (f" ({verdict})" if verdict in ("better", "worse") else "")

    lines = [[name, *(cell(found[name].get(budget)) for budget in budgets)] for name in sorted(found, key=mean)]
    return Table(("method", *(f"{results.rate_name} % at {budget_text(budget)}" for budget in budgets)), lines)


def _sizes_and_times(row: PooledRow, training: TrainingTime) -> tuple[str, ...]:
    return (
        sizes(row),
        count(row.parameters),
        MISSING if row.nonzeros is None else count(row.nonzeros),
        count(row.macs_per_second),
        rtf(row.rtf.model),
        speedup(row),
        f"{training.of(row):.0f}",
    )


_SIZES_AND_TIMES = "units per layer", "parameters", "non-zeros", "multiply-adds per second", "RTF model", "model × faster [95 %]"


def _difference(row: PooledRow, compared: Comparisons) -> str:
    if row.name not in compared:
        return MISSING
    difference = compared[row.name].difference
    return interval(difference.mean, difference.interval, signed=True)


def _errors(results: RecipeResults, rows: Sequence[PooledRow], row: PooledRow, compared: Comparisons) -> tuple[str, ...]:
    """The columns on errors, the name of the net first."""
    return row.label, rate_over_seeds(results, rows, row), _difference(row, compared), _verdict(row, compared), f"{row.dev_ce:.4f}"


def _chosen_of(rows: Sequence[PooledRow], budget: float, with_chosen: Comparisons) -> PooledRow | None:
    """The variant of dropout compaction that dev chose at a budget; None where there is one alone."""
    name = next((with_chosen[row.name].difference.to for row in rows if row.budget == budget and row.name in with_chosen), None)
    return next((row for row in rows if row.name == name), None)


def budget_table(
    results: RecipeResults, rows: Sequence[PooledRow], budget: float, compared: Comparisons, with_chosen: Comparisons | None = None
) -> Table:
    """All nets of a budget, fewest errors first: errors against dropout compaction and the variant of it that dev chose, sizes, times."""
    training, with_chosen = TrainingTime(rows), with_chosen or {}
    to, loss = f"difference to {PIVOT.replace('_', ' ')} [95 %]", NAMES[rows[0].criterion].loss
    header = ("net", f"{results.rate_name} %", to, "verdict", loss, *_SIZES_AND_TIMES, training.head)
    chosen = _chosen_of(rows, budget, with_chosen)
    to_variant = () if chosen is None or chosen.method == PIVOT else (f"difference to {method_name(chosen)} [95 %]",)
    lines = [
        (
            *_errors(results, rows, row, compared),
            *_sizes_and_times(row, training),
            *(_difference(row, with_chosen) for _ in to_variant),
        )
        for row in of_budget(results, rows, budget)
    ]
    return Table((*header, *to_variant), lines, frozenset({0, 3}))


def full_size_table(results: RecipeResults, rows: Sequence[PooledRow], compared: Comparisons) -> Table:
    """The large nets, fewest errors first: errors against plain dropout, non-zeros, training time."""
    large = sorted((row for row in rows if row.kind == "large"), key=lambda row: (_rate(results, rows, row), row.dev_ce))
    plain, training = next((row for row in large if row.method == PLAIN_DROPOUT), None), TrainingTime(large)
    loss = NAMES[rows[0].criterion].loss
    header = ("net", f"{results.rate_name} %", "difference to plain dropout [95 %]", "verdict", loss, "parameters", "non-zeros")
    lines = [
        (
            *_errors(results, rows, row, compared),
            count(row.parameters),
            MISSING if row.nonzeros is None else count(row.nonzeros),
            f"{training.of(row):.0f}",
            MISSING if plain is None else f"{training.of(row) / training.of(plain):.2f}",
        )
        for row in large
    ]
    return Table((*header, training.head, "× that of plain dropout"), lines, frozenset({0, 3}))


def learned_size_table(results: RecipeResults, rows: Sequence[PooledRow]) -> Table:
    """The nets that meet no budget, at the share of the multiply-adds that they learned."""
    reference, training = next(row for row in rows if row.reference), TrainingTime(rows)
    loss = NAMES[rows[0].criterion].loss
    lines = [
        (
            row.label,
            f"{100 * row.macs_per_second / reference.macs_per_second:.1f} %",
            rate_over_seeds(results, rows, row),
            f"{row.dev_ce:.4f}",
            *_sizes_and_times(row, training),
        )
        for row in rows
        if not row.budget
    ]
    return Table(("net", "share of the multiply-adds", f"{results.rate_name} %", loss, *_SIZES_AND_TIMES, training.head), lines)


def _names(rows: Sequence[PooledRow]) -> str:
    return ", ".join(method_name(row) for row in rows) or "none"


def _standing(results: RecipeResults, rows: Sequence[PooledRow], ranked: list[PooledRow], row: PooledRow, compared: Comparisons) -> str:
    """The place of a net among those of its size, and what beats it, loses to it, ties with it."""
    by = {verdict: [other for other in ranked if _verdict(other, compared) == verdict] for verdict in ("better", "worse", "tie")}
    place = 1 + sum(_rate(results, rows, other) < _rate(results, rows, row) for other in ranked)
    lowest = f"lowest: {method_name(ranked[0])}, {plain_rate(ranked[0], results.order(rows)[0], results.error_rate)} %"
    return (
        f"{method_name(row)} has place {place} of {len(ranked)} by mean "
        f"{results.rate_name} ({lowest}). By interval, better than it: {_names(by['better'])}; worse: {_names(by['worse'])}; "
        f"ties: {_names(by['tie'])}."
    )


def standing(
    results: RecipeResults, rows: Sequence[PooledRow], compared: Comparisons, with_chosen: Comparisons | None = None
) -> Iterator[str]:
    """Sentences per budget: where dropout compaction stands among the nets of that size, and where the variant does that dev chose."""
    for budget in budgets_of(rows):
        ranked = of_budget(results, rows, budget)
        pivot = next((row for row in ranked if row.kind == "compact" and row.method == PIVOT), None)
        chosen = _chosen_of(rows, budget, with_chosen or {})
        if pivot is not None:
            best = " Of its variants dev chooses it." if chosen is pivot else ""
            yield f"At {budget_text(budget)}, {_standing(results, rows, ranked, pivot, compared)}{best}"
        if chosen is not None and chosen is not pivot:
            words = results.error_rate == "word"
            dev = f"{results.rate_name} on dev {chosen.dev_wer if words else chosen.dev_cer:.2f} %"
            yield (
                f"At {budget_text(budget)}, of the variants of dropout compaction dev chooses {method_name(chosen)} ({dev}). On test, "
                f"{_standing(results, rows, ranked, chosen, with_chosen or {})}"
            )
