"""The claims of a recipe, each with its exit: the figures decide, whichever way they fall (docs: rules of comparison)."""

from __future__ import annotations

from collections.abc import Sequence

from dropasr.report.recipe_schema import Claim, PooledComparison, PooledRow, Verdict
from dropasr.report.results import budget_text
from dropasr.report.tables import interval
from dropasr.scoring.bootstrap import no_loss_margin, non_inferior

MIN_WORDS = 5000
MIN_SEEDS = 3
NO_LOSS_BUDGET = 0.25
BETTER_BUDGET = 0.125
SPEEDS = {0.25: 2.5, 0.125: 4.0}
"""Least speed-up of the acoustic model, by budget."""


def no_loss(row: PooledRow, reference: PooledRow) -> Claim:
    """Non-inferior: the upper end of the difference is at most +5 % of the reference's WER or +0.5, whichever is larger."""
    difference = row.wer_difference
    shown = f"difference {interval(difference.mean, difference.interval, signed=True)}; its upper end"
    holds = non_inferior(difference.interval, reference.wer)
    told = f"{'within' if holds else 'above'} the margin of +{no_loss_margin(reference.wer):.2f}"
    evidence = f"WER {row.wer:.2f} % against {reference.wer:.2f} %, {shown} is {told}"
    verdict: Verdict = "holds" if holds else "does not hold"
    return _claim(f"{row.label} loses nothing against {reference.label}", row, reference.name, verdict, evidence)


def better_than_scratch(row: PooledRow, scratch: PooledRow, comparison: PooledComparison) -> Claim:
    """Better: the interval of the difference excludes 0; a tie is called a tie."""
    verdicts: dict[str, Verdict] = {"better": "holds", "tie": "tie", "worse": "does not hold"}
    difference = interval(comparison.difference.mean, comparison.difference.interval, signed=True)
    figures = f"WER {row.wer:.2f} % against {scratch.wer:.2f} %, difference {difference}"
    evidence = f"{figures}; difference of dev CE {comparison.dev_ce_difference:+.4f}"
    return _claim(f"{row.label} is better than {scratch.label}", row, scratch.name, verdicts[comparison.outcome], evidence)


def faster(row: PooledRow, reference: PooledRow, least: float) -> Claim:
    """At least `least` times as fast: the whole interval of the speed-up lies there; a tie where the interval includes `least`."""
    low, high = row.speedup.interval
    verdict: Verdict = "holds" if low >= least else "does not hold" if high < least else "tie"
    spread = row.speedup_spread
    evidence = (
        f"{interval(row.speedup.model, row.speedup.interval)} times as fast, {spread.min:.2f} to {spread.max:.2f} over seeds, "
        f"at WER {row.wer:.2f} % against {reference.wer:.2f} %"
    )
    return _claim(f"the acoustic model of {row.label} is at least {least:g} times as fast", row, reference.name, verdict, evidence)


def _claim(text: str, row: PooledRow, to: str, verdict: Verdict, evidence: str) -> Claim:
    if len(row.seeds) < MIN_SEEDS:
        verdict, evidence = "cannot be claimed", f"{len(row.seeds)} of {MIN_SEEDS} seeds; {evidence}"
    return Claim(claim=text, model=row.model, row=row.name, to=to, verdict=verdict, evidence=evidence)


def claims(rows: Sequence[PooledRow], comparisons: Sequence[PooledComparison], test_words: int) -> list[Claim]:
    """All claims of a recipe; none where the test set has fewer than 5000 words."""
    if test_words < MIN_WORDS:
        return []
    references = {row.model: row for row in rows if row.reference}
    by_name = {(row.model, row.name): row for row in rows}
    found = []
    for row in rows:
        if row.kind == "compact" and budget_text(row.budget) == budget_text(NO_LOSS_BUDGET):
            found.append(no_loss(row, references[row.model]))
    for item in comparisons:
        if budget_text(item.budget) == budget_text(BETTER_BUDGET):
            found.append(better_than_scratch(by_name[item.model, item.row], by_name[item.model, item.difference.to], item))
    for row in rows:
        if row.kind == "compact" and row.budget in SPEEDS:
            found.append(faster(row, references[row.model], SPEEDS[row.budget]))
    return found
