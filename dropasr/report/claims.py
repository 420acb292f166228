"""The claims of a recipe, each with its exit: the figures decide, whichever way they fall (docs: rules of comparison)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dropasr.report.recipe_schema import Claim, PooledComparison, PooledRow, Smallest, Verdict
from dropasr.report.results import budget_text, is_control
from dropasr.report.schema import ErrorRate, SplitSize
from dropasr.report.tables import interval
from dropasr.scoring.bootstrap import no_loss_margin, non_inferior

MIN_WORDS = 5000
MIN_SEEDS = 3
FEW_SPEAKERS = 10
"""Below it, a percentile interval over speakers is too narrow: with three, one of equal nets is 'better' in a quarter of all cases."""
SPEEDS = {"1/4": 2.5, "1/8": 4.0}
"""Least speed-up of the acoustic model, by budget."""
MODEL_TIME = 0.25
"""Largest share of the reference's acoustic-model time that the smallest net without loss is to take."""
_OUTCOMES: dict[str, Verdict] = {"better": "holds", "tie": "tie", "worse": "does not hold"}


def group_name(row: PooledRow | PooledComparison) -> str:
    """Model, and system where it is not the usual one."""
    return f"{row.model}, {row.system}" if row.system else row.model


def _rates(row: PooledRow, other: PooledRow, test: str, kind: ErrorRate) -> str:
    name = "WER" if kind == "word" else "CER"
    return f"{name} {row.on(test).rate(kind).value:.2f} % against {other.on(test).rate(kind).value:.2f} %"


def _claim(text: str, row: PooledRow, other: PooledRow, test: str, verdict: Verdict, evidence: str) -> Claim:
    """Few seeds are said with the verdict; on a further test set, so is its name."""
    seeds = len(set(row.seeds) & set(other.seeds))
    few = "" if seeds >= MIN_SEEDS else f"{'one seed' if seeds == 1 else f'{seeds} seeds'} only; "
    text = text if test == "test" else f"{test}: {text}"
    about = {"model": group_name(row), "row": row.name, "to": other.name, "test": test, "seeds": seeds}
    return Claim(claim=text, verdict=verdict, evidence=few + evidence, **about)


def no_loss(row: PooledRow, reference: PooledRow, test: str, kind: ErrorRate) -> Claim:
    """Non-inferior: the upper end of the difference is at most +5 % of the reference's error rate or +0.5, whichever is larger."""
    difference, level = row.on(test).rate(kind).difference, reference.on(test).rate(kind).value
    shown = f"difference {interval(difference.mean, difference.interval, signed=True)}; its upper end"
    holds = non_inferior(difference.interval, level)
    told = f"{'within' if holds else 'above'} the margin of +{no_loss_margin(level):.2f}"
    evidence = f"{_rates(row, reference, test, kind)}, {shown} is {told}"
    return _claim(
        f"{row.label} loses nothing against {reference.label}", row, reference, test, "holds" if holds else "does not hold", evidence
    )


def better_than_rival(row: PooledRow, rival: PooledRow, comparison: PooledComparison, kind: ErrorRate) -> Claim:
    """Better: the interval of the difference excludes 0; a tie is called a tie."""
    difference = interval(comparison.difference.mean, comparison.difference.interval, signed=True)
    figures = f"{_rates(row, rival, comparison.test, kind)}, difference {difference}"
    evidence = f"{figures}; difference of dev CE {comparison.dev_ce_difference:+.4f}"
    return _claim(f"{row.label} is better than {rival.label}", row, rival, comparison.test, _OUTCOMES[comparison.outcome], evidence)


def faster(row: PooledRow, reference: PooledRow, least: float, kind: ErrorRate) -> Claim:
    """At least `least` times as fast: the whole interval of the speed-up lies there; a tie where the interval includes `least`."""
    low, high = row.speedup.interval
    verdict: Verdict = "holds" if low >= least else "does not hold" if high < least else "tie"
    spread = row.speedup_spread
    evidence = (
        f"{interval(row.speedup.model, row.speedup.interval)} times as fast, {spread.min:.2f} to {spread.max:.2f} over seeds, "
        f"at {_rates(row, reference, 'test', kind)}"
    )
    return _claim(f"the acoustic model of {row.label} is at least {least:g} times as fast", row, reference, "test", verdict, evidence)


def _references(rows: Sequence[PooledRow]) -> dict[str, PooledRow]:
    return {group_name(row): row for row in rows if row.reference}


def _compacted(rows: Sequence[PooledRow]) -> list[PooledRow]:
    """The nets that claims are about: compacted to a budget, by a method that chooses units."""
    return [row for row in rows if row.kind == "compact" and row.budget and not is_control(row)]


def smallest_without_loss(rows: Sequence[PooledRow], sizes: Mapping[str, SplitSize], kind: ErrorRate) -> list[Smallest]:
    """Per model, system and test set with enough words, the smallest compacted net that is non-inferior to the reference."""
    found = []
    for group, reference in _references(rows).items():
        candidates = [row for row in _compacted(rows) if group_name(row) == group]
        for test in (test for test, size in sizes.items() if candidates and size.words >= MIN_WORDS):
            level = reference.on(test).rate(kind).value
            good = [row for row in candidates if non_inferior(row.on(test).rate(kind).difference.interval, level)]
            best = min(good, key=lambda row: row.macs_per_second) if good else None
            found.append(_smallest(group, test, best, reference, kind))
    return found


def _smallest(group: str, test: str, row: PooledRow | None, reference: PooledRow, kind: ErrorRate) -> Smallest:
    if row is None:
        sentence = f"On {test}, no compacted net is non-inferior to {reference.label}."
        return Smallest(model=group, test=test, row=None, model_time=None, model_time_interval=None, seeds=0, sentence=sentence)
    difference = row.on(test).rate(kind).difference
    low, high = row.speedup.interval
    time, bounds = 1 / row.speedup.model, (1 / high, 1 / low)
    few = "" if len(row.seeds) >= MIN_SEEDS else f" ({'one seed' if len(row.seeds) == 1 else f'{len(row.seeds)} seeds'} only)"
    sentence = (
        f"On {test}, the smallest compacted net that is non-inferior to {reference.label} is {row.label}{few}: its acoustic model takes "
        f"{interval(time, bounds, 3)} of the time ({row.speedup.model:.1f} times as fast), {_rates(row, reference, test, kind)}, "
        f"difference {interval(difference.mean, difference.interval, signed=True)}."
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
    """All claims of a recipe, for every budget, rival, and test set of at least 5000 words."""
    references = _references(rows)
    by_name = {(group_name(row), row.name): row for row in rows}
    found = []
    for test in (test for test, size in sizes.items() if size.words >= MIN_WORDS):
        found += [no_loss(row, references[group_name(row)], test, kind) for row in _compacted(rows)]
        for item in (item for item in comparisons if item.test == test):
            row, rival = (by_name[group_name(item), name] for name in (item.row, item.difference.to))
            if not is_control(row):
                found.append(better_than_rival(row, rival, item, kind))
        found += [_small_enough(item, rows) for item in smallest if item.test == test]
    if sizes["test"].words >= MIN_WORDS:
        for row in _compacted(rows):
            if budget_text(row.budget) in SPEEDS:
                found.append(faster(row, references[group_name(row)], SPEEDS[budget_text(row.budget)], kind))
    return [_with_caution(claim, sizes[claim.test]) for claim in found]


def _with_caution(claim: Claim, size: SplitSize) -> Claim:
    if size.speakers >= FEW_SPEAKERS:
        return claim
    return claim.model_copy(update={"evidence": f"{size.speakers} speakers only, too few for a reliable interval; {claim.evidence}"})
