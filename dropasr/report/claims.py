"""The claims of a recipe, each with its exit: the figures decide, whichever way they fall (docs: rules of comparison)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dropasr.report.recipe_schema import Claim, PooledComparison, PooledRow, Smallest, Verdict
from dropasr.report.results import budget_text
from dropasr.report.rivals import are_many, subjects
from dropasr.report.schema import ErrorRate, of_row
from dropasr.report.tables import NAMES, interval
from dropasr.report.test_sets import SplitSize, ordered, set_name
from dropasr.scoring.bootstrap import no_loss_margin, non_inferior

MIN_WORDS = 5000
MIN_SEEDS = 3
SPEEDS = {"1/4": 2.5, "1/8": 4.0}
"""Least speed-up of the acoustic model, by budget."""
MODEL_TIME = 0.25
"""Largest share of the reference's acoustic-model time that the smallest net without loss is to take."""
_OUTCOMES: dict[str, Verdict] = {"better": "holds", "tie": "tie", "worse": "does not hold"}


def group_name(row: PooledRow | PooledComparison) -> str:
    """Model, and system where it is not the usual one."""
    return f"{row.model}, {row.system}" if row.system else row.model


def _rates(rates: tuple[float, float], kind: ErrorRate) -> str:
    return f"{'WER' if kind == 'word' else 'CER'} {rates[0]:.2f} % against {rates[1]:.2f} %"


def _beside_reference(row: PooledRow, test: str, kind: ErrorRate) -> tuple[float, float]:
    """Error rates of a row and of the reference over the seeds that both have, which are those of the row."""
    rate = row.on(test).rate(kind)
    return rate.value, rate.value - rate.difference.mean


def _no_loss(row: PooledRow, test: str, kind: ErrorRate) -> bool:
    return non_inferior(row.on(test).rate(kind).difference.interval, _beside_reference(row, test, kind)[1])


def _claim(text: str, row: PooledRow, other: PooledRow, test: str, verdict: Verdict, evidence: str) -> Claim:
    """Few seeds are said with the verdict."""
    seeds = len(set(row.seeds) & set(other.seeds))
    few = "" if seeds >= MIN_SEEDS else f"{'one seed' if seeds == 1 else f'{seeds} seeds'} only; "
    about = {"model": group_name(row), "row": row.name, "to": other.name, "test": test, "seeds": seeds}
    return Claim(claim=text, verdict=verdict, evidence=few + evidence, **about)


def no_loss(row: PooledRow, reference: PooledRow, test: str, kind: ErrorRate) -> Claim:
    """Non-inferior: the upper end of the difference is at most +5 % of the reference's error rate or +0.5, whichever is larger."""
    difference, rates = row.on(test).rate(kind).difference, _beside_reference(row, test, kind)
    shown = f"difference {interval(difference.mean, difference.interval, signed=True)}; its upper end"
    holds = _no_loss(row, test, kind)
    told = f"{'within' if holds else 'above'} the margin of +{no_loss_margin(rates[1]):.2f}"
    evidence = f"{_rates(rates, kind)}, {shown} is {told}"
    return _claim(
        f"{row.label} loses nothing against {reference.label}", row, reference, test, "holds" if holds else "does not hold", evidence
    )


def no_better_large(reference: PooledRow, rows: Sequence[PooledRow], test: str, kind: ErrorRate) -> list[Claim]:
    """Large nets that the test set has ahead of the one that dev chose, the interval of the difference below 0: "no loss" is not said
    against them."""
    found = []
    for row in rows:
        if row.kind != "large" or row.reference or group_name(row) != group_name(reference) or not row.has(test):
            continue
        difference = row.on(test).rate(kind).difference
        if difference.interval[1] < 0:
            shown = interval(difference.mean, difference.interval, signed=True)
            figures = f"{_rates(_beside_reference(row, test, kind), kind)}, difference {shown}"
            evidence = f"{figures}; dev chose {reference.label}, and the verdicts are against it"
            found.append(_claim(f"no large net is better than {reference.label}", row, reference, test, "does not hold", evidence))
    return found


def better_than_rival(row: PooledRow, rival: PooledRow, comparison: PooledComparison, kind: ErrorRate) -> Claim:
    """Better: the interval of the difference excludes 0; a tie is called a tie."""
    difference = interval(comparison.difference.mean, comparison.difference.interval, signed=True)
    figures = f"{_rates(comparison.rates, kind)}, difference {difference}"
    evidence = f"{figures}; difference of {NAMES[row.criterion].loss} {comparison.dev_ce_difference:+.4f}"
    return _claim(f"{row.label} is better than {rival.label}", row, rival, comparison.test, _OUTCOMES[comparison.outcome], evidence)


def faster(row: PooledRow, reference: PooledRow, least: float, test: str, kind: ErrorRate) -> Claim:
    """At least `least` times as fast: the whole interval of the speed-up lies there; a tie where the interval includes `least`."""
    low, high = row.speedup.interval
    verdict: Verdict = "holds" if low >= least else "does not hold" if high < least else "tie"
    spread = row.speedup_spread
    evidence = (
        f"{interval(row.speedup.model, row.speedup.interval)} times as fast, {spread.min:.2f} to {spread.max:.2f} over seeds, "
        f"at {_rates(_beside_reference(row, test, kind), kind)}"
    )
    return _claim(f"the acoustic model of {row.label} is at least {least:g} times as fast", row, reference, test, verdict, evidence)


def grouped(rows: Sequence[PooledRow]) -> dict[str, list[PooledRow]]:
    """The rows of each model and system."""
    found: dict[str, list[PooledRow]] = {}
    for row in rows:
        found.setdefault(group_name(row), []).append(row)
    return found


def _references(rows: Sequence[PooledRow]) -> dict[str, PooledRow]:
    return {group_name(row): row for row in rows if row.reference}


def compacted(rows: Sequence[PooledRow]) -> list[PooledRow]:
    """The nets that claims are about: compacted to a budget, by a method that chooses units; of many methods, by dropout compaction."""
    return [row for of_group in grouped(rows).values() for row in subjects(of_group)]


def large_enough(sizes: Mapping[str, SplitSize]) -> list[str]:
    """The test sets with words enough for claims, that of the verdicts first."""
    return [test for test in ordered(sizes) if sizes[test].words >= MIN_WORDS]


def smallest_without_loss(rows: Sequence[PooledRow], sizes: Mapping[str, SplitSize], kind: ErrorRate) -> list[Smallest]:
    """Per model, system and test set with enough words, the smallest compacted net that is non-inferior to the reference."""
    found: list[Smallest] = []
    references = _references(rows)
    for group, of_group in grouped(rows).items():
        reference, candidates = references[group], subjects(of_group)
        kept = "net made by dropout compaction" if are_many(of_group) else "compacted net"
        for test in (test for test in large_enough(sizes) if candidates and reference.has(test)):
            good = [row for row in candidates if _no_loss(row, test, kind)]
            best = min(good, key=lambda row: row.macs_per_second) if good else None
            found.append(_smallest(group, test, best, reference, kind, kept))
    return found


def _smallest(group: str, test: str, row: PooledRow | None, reference: PooledRow, kind: ErrorRate, kept: str) -> Smallest:
    if row is None:
        sentence = f"On {set_name(test)}, no {kept} is non-inferior to {reference.label}."
        return Smallest(model=group, test=test, row=None, model_time=None, model_time_interval=None, seeds=0, sentence=sentence)
    difference = row.on(test).rate(kind).difference
    low, high = row.speedup.interval
    time, bounds = 1 / row.speedup.model, (1 / high, 1 / low)
    few = "" if len(row.seeds) >= MIN_SEEDS else f" {'One seed' if len(row.seeds) == 1 else f'{len(row.seeds)} seeds'} only."
    sentence = (
        f"On {set_name(test)}, the smallest {kept} that is non-inferior to {reference.label} is {row.label}: its acoustic model "
        f"takes {interval(time, bounds, 3)} of the time ({row.speedup.model:.1f} times as fast), "
        f"{_rates(_beside_reference(row, test, kind), kind)}, "
        f"difference {interval(difference.mean, difference.interval, signed=True)}.{few}"
    )
    about = {"model": group, "test": test, "row": row.name, "seeds": len(row.seeds)}
    return Smallest(**about, model_time=time, model_time_interval=bounds, sentence=sentence)


def _small_enough(smallest: Smallest, rows: Sequence[PooledRow]) -> Claim:
    """Whether the smallest net without loss takes at most a quarter of the acoustic-model time."""
    reference = _references(rows)[smallest.model]
    row = next((row for row in rows if row.name == smallest.row and group_name(row) == smallest.model), reference)
    verdict: Verdict = "does not hold"
    if smallest.model_time_interval is not None:
        low, high = smallest.model_time_interval
        verdict = "holds" if high <= MODEL_TIME else "does not hold" if low > MODEL_TIME else "tie"
    text = f"the smallest compacted net without loss takes at most {budget_text(MODEL_TIME)} of the acoustic-model time"
    return _claim(text, row, reference, smallest.test, verdict, smallest.sentence)


def claims(
    rows: Sequence[PooledRow],
    comparisons: Sequence[PooledComparison],
    smallest: Sequence[Smallest],
    sizes: Mapping[str, SplitSize],
    kind: ErrorRate,
) -> list[Claim]:
    """All claims of a recipe, for every budget, rival, and test set of at least 5000 words; the set of the verdicts first."""
    references = _references(rows)
    by_name = {(group_name(row), row.name): row for row in rows}
    found: list[Claim] = []
    main = {group: of_row(row, sizes)[0] for group, row in references.items()}
    for test in large_enough(sizes):
        chosen = [row for row in compacted(rows) if row.has(test)]
        of_test = [no_loss(row, references[group_name(row)], test, kind) for row in chosen]
        having = [reference for reference in references.values() if chosen and reference.has(test)]
        of_test += [claim for reference in having for claim in no_better_large(reference, rows, test, kind)]
        for item in (item for item in comparisons if item.test == test):
            row, rival = (by_name[group_name(item), name] for name in (item.row, item.difference.to))
            if row in chosen:
                of_test.append(better_than_rival(row, rival, item, kind))
        of_test += [_small_enough(item, rows) for item in smallest if item.test == test]
        found += [_told(claim, sizes[test], test == main[claim.model]) for claim in of_test]
        for row in (row for row in chosen if test == main[group_name(row)] and budget_text(row.budget) in SPEEDS):
            found.append(faster(row, references[group_name(row)], SPEEDS[budget_text(row.budget)], test, kind))
    return found


def _told(claim: Claim, size: SplitSize, main: bool) -> Claim:
    """A test set beside that of the verdicts is named; so is a t interval, because it is wide."""
    text = claim.claim if main else f"{set_name(claim.test)}: {claim.claim}"
    few = f"{size.interval_text}; " if size.interval == "t" else ""
    return claim.model_copy(update={"claim": text, "evidence": few + claim.evidence})
