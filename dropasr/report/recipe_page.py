"""RESULTS.md of a recipe with its plots, and the same tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dropasr.report import plots
from dropasr.report.claims import MIN_SEEDS, MIN_WORDS, group_name
from dropasr.report.page import Block, Bullets, Figure, Heading, Text
from dropasr.report.recipe_schema import PooledRow, RecipeResults, Spread
from dropasr.report.sections import search_text, slug
from dropasr.report.tables import (
    Table,
    comparison_table,
    count,
    dev_wer,
    difference,
    extra_table,
    interval,
    optional,
    other_rate,
    other_value,
    rtf,
    short_units,
    speedup,
    units,
)
from dropasr.runtime.busy import BUSY_SHARE, busy_caution


def _over_seeds(spread: Spread, mean: float, decimals: int = 2) -> str:
    return f"{mean:.{decimals}f} ± {spread.std:.{decimals}f} ({spread.min:.{decimals}f} to {spread.max:.{decimals}f})"


def _seeds(row: PooledRow, most: int) -> str:
    """How many seeds, where a row has fewer than others."""
    seeds = ", ".join(map(str, row.seeds))
    return row.label if len(row.seeds) == most else f"{row.label} (seed{'s' if len(row.seeds) > 1 else ''} {seeds})"


def rate_table(results: RecipeResults, rows: Sequence[PooledRow]) -> Table:
    """Sizes and errors."""
    name, kind, most = results.rate_name, results.error_rate, max(len(row.seeds) for row in rows)
    header = (
        "net", "units per layer", "parameters", "multiply-adds per second", "WER %, mean ± std (range) over seeds",
        f"{name} % [95 %]", "difference to the reference [95 %]", f"{other_rate(kind)[0]} %", "dev WER % [95 %]", "dev CE",
    )  # fmt: skip
    lines = [
        (
            _seeds(row, most),
            units(row.units),
            count(row.parameters),
            count(row.macs_per_second),
            _over_seeds(row.wer_spread, row.wer),
            interval(*row.rate(kind)[:2]),
            difference(row, row, kind),
            other_value(row, kind),
            dev_wer(row),
            f"{row.dev_ce:.4f} ± {row.dev_ce_spread.std:.4f}",
        )
        for row in rows
    ]
    return Table(header, lines)


def speed_table(results: RecipeResults, rows: Sequence[PooledRow]) -> Table:
    """Times, with the error rate that they belong to."""
    header = (
        "net", f"{results.rate_name} %", "RTF features", "RTF model", "RTF search", "RTF total",
        "model × faster [95 %] (range over seeds)", "total × faster [95 %]", "training s", "epochs",
    )  # fmt: skip
    lines = []
    for row in rows:
        spread = row.speedup_spread
        lines.append(
            (
                row.label,
                f"{row.rate(results.error_rate).value:.2f}",
                *(rtf(value) for value in (row.rtf.features, row.rtf.model, row.rtf.search, row.rtf.total)),
                "1" if row.reference else f"{speedup(row)} ({spread.min:.2f} to {spread.max:.2f})",
                "1" if row.reference else interval(row.speedup.total, row.speedup.total_interval),
                f"{row.train_seconds:.0f}",
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


def terminal_table(results: RecipeResults, rows: Sequence[PooledRow]) -> str:
    """The main table for the terminal, about 150 columns wide."""
    kind = results.error_rate
    header = ("net", "units", "param", f"{results.rate_name} % [95 %]", "± std", "difference [95 %]", "dev CE", "RTF model", "total")
    lines = [
        (
            row.label,
            short_units(row.units),
            count(row.parameters),
            interval(*row.rate(kind)[:2]),
            f"{row.wer_spread.std:.2f}",
            difference(row, row, kind),
            f"{row.dev_ce:.3f}",
            rtf(row.rtf.model),
            rtf(row.rtf.total),
            speedup(row),
            f"{row.speedup.total:.2f}",
            f"{row.train_seconds:.0f}",
        )
        for row in rows
    ]
    return Table((*header, "×model [95 %]", "×total", "train s"), lines).terminal()


def seed_table(rows: Sequence[PooledRow]) -> Table:
    """WER and units of every seed."""
    seeds = sorted({seed for row in rows for seed in row.seeds})
    lines = []
    for row in rows:
        per_seed = dict(zip(row.seeds, zip(row.wer_spread.per_seed, row.units_per_seed)))
        cells = [f"{per_seed[seed][0]:.2f} ({units(per_seed[seed][1])})" if seed in per_seed else "–" for seed in seeds]
        lines.append((row.label, *cells))
    return Table(("net", *(f"seed {seed}" for seed in seeds)), lines)


def learned_sizes(rows: Sequence[PooledRow]) -> list[str]:
    """A sentence per net without a budget: the size it reached, and that nothing stands beside it."""
    reference = next(row for row in rows if row.reference)
    return [
        f"{row.label[0].upper()}{row.label[1:]}: {100 * row.macs_per_second / reference.macs_per_second:.1f} % of the multiply-adds of "
        f"the {reference.label} net, mean over seeds. No net of the same size stands beside it, and no claim is made."
        for row in rows
        if not row.budget
    ]


def no_claims(results: RecipeResults) -> list[str]:
    """For each test set that is too small, why there are no claims."""
    sentences = []
    for test, size in results.tests.items():
        if size.words < MIN_WORDS:
            name = "The test set" if test == "test" else f"The test set {test}"
            sentences.append(f"{name} has {size.words} words; below {MIN_WORDS} no claim is made, whichever way the figures fall.")
    return sentences


def _groups(results: RecipeResults) -> dict[str, list[PooledRow]]:
    """The rows of each model and system."""
    found: dict[str, list[PooledRow]] = {}
    for row in results.rows:
        found.setdefault(group_name(row), []).append(row)
    return found


def _claims(results: RecipeResults) -> Iterator[Block]:
    several = len(_groups(results)) > 1
    for smallest in results.smallest:
        yield Text(f"{smallest.model}: {smallest.sentence}" if several else smallest.sentence, lead=True)
    if results.claims:
        lines = [(f"{claim.model}: {claim.claim}" if several else claim.claim, claim.verdict, claim.evidence) for claim in results.claims]
        yield Table(("claim", "verdict", "evidence"), lines, frozenset({0, 1, 2}))
    for sentence in no_claims(results):
        yield Text(sentence)


def _about(results: RecipeResults) -> list[str]:
    hardware = [", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in machine.items()) for machine in results.hardware]
    software = []
    for stack in results.stack:
        versions = ", ".join(f"{name} {version}" for name, version in stack.versions.items())
        software.append(f"{versions}; search {search_text(stack)}")
    return [
        f"Made by `{results.command}`, which ran " + "; ".join(f"`{command}`" for command in results.run_commands) + ".",
        *(f"Hardware: {text}." for text in hardware),
        *(f"Software: {text}." for text in software),
        f"Code: revision {', '.join(results.git_revisions)}. `rows/` has one file per net and seed; `python -m dropasr table` makes this "
        "page from them.",
        f"Evaluations on test: {results.test_evaluations}, for {sum(len(row.seeds) for row in results.rows)} nets (rows times seeds).",
    ]


def _reading(results: RecipeResults) -> list[str]:
    reference = " and ".join(f"{row.label} ({group_name(row)})" for row in results.rows if row.reference)
    sizes = "; ".join(f"{test}: {size.speakers} speakers, {size.words} words" for test, size in results.tests.items())
    return [
        f"Reference: {reference}: of the large nets, the one with the lower mean {results.rate_name} on dev.",
        f"Intervals of error rates and differences: 95 % bootstrap over {results.bootstrap_unit}s ({sizes}), errors averaged over seeds; "
        "differences are paired and over the seeds that both rows have. Seeds are averaged, not drawn: read the spread over seeds beside "
        "an interval.",
        "RTF: one thread, batch 1, warmed up, nets interleaved over the same utterances, sum of times over sum of durations. "
        "Intervals of speed-ups: bootstrap over utterances, seeds as further passes.",
        "No loss: the upper end of the difference is at most +5 % of the reference's error rate or +0.5, whichever is larger. Better: the "
        "interval excludes 0. Faster: the whole interval lies above the bound. A tie is called a tie.",
        f"Claims are made on test sets of at least {MIN_WORDS} words; evidence of fewer than {MIN_SEEDS} seeds says so.",
    ]


def title(results: RecipeResults) -> str:
    """Title of the page."""
    return f"{results.corpus}: results over seeds"


def _group(results: RecipeResults, name: str, rows: list[PooledRow]) -> Iterator[Block]:
    of_group = f", {name}" if len(_groups(results)) > 1 else ""
    seeds = ", ".join(map(str, sorted({seed for row in rows for seed in row.seeds})))
    rate = "Word error rate" if results.error_rate == "word" else "Character error rate"
    yield Heading(f"{rate}{of_group} (seeds {seeds})")
    for test in results.tests:
        caption = f"{results.rate_name} on {test} against the RTF of the acoustic model{of_group}; lines join the budgets of a method."
        yield Figure(slug(f"rate-time-{name}-{test}"), plots.rate_against_time(results, rows, test), caption)
    yield rate_table(results, rows)
    yield from (Text(sentence) for sentence in learned_sizes(rows))
    if results.extra_tests:
        yield Heading(f"Further test sets{of_group}")
        yield extra_table(results, rows)
    compared = [item for item in results.comparisons if group_name(item) == name]
    if compared:
        yield Heading(f"Compacted against rivals of the same size{of_group}")
        yield comparison_table(results, rows, compared)
    caption = f"Cross-entropy on dev against multiply-adds{of_group}: it resolves what the words of a test set cannot."
    yield Figure(slug(f"ce-macs-{name}"), plots.ce_against_macs(rows), caption)
    yield from (Heading(f"Speed{of_group}"), speed_table(results, rows))
    estimators = estimator_table(rows)
    if estimators.lines:
        yield Heading(f"Signal of the gradient estimators{of_group}")
        yield estimators
        yield Text("Correlation over units between the gradients of two halves of held-out frames: 1 is all signal, 0 a coin flip.")
    yield from (Heading(f"WER % and units by seed{of_group}"), seed_table(rows))


def page(results: RecipeResults) -> list[Block]:
    """RESULTS.md."""
    blocks: list[Block] = [Bullets(_about(results))]
    notes = [results.note] if results.note else []
    if results.one_speaker:
        notes.append("This corpus has one speaker (declared in its configuration): train and test share it; WER says nothing of others.")
    if results.busy_share > BUSY_SHARE:
        notes.append(busy_caution(results.busy_share))
    blocks += [Text(note) for note in notes]
    blocks += [Heading("Claims"), *_claims(results)]
    for name, rows in _groups(results).items():
        blocks += _group(results, name, rows)
    return [*blocks, Heading("How to read this"), Bullets(_reading(results))]


def to_terminal(results: RecipeResults) -> str:
    """Tables and claims for the terminal."""
    parts = []
    for name, rows in _groups(results).items():
        seeds = ", ".join(map(str, sorted({seed for row in rows for seed in row.seeds})))
        parts.append(f"{results.corpus}, {name}, seeds {seeds}\n{terminal_table(results, rows)}")
        if results.extra_tests:
            parts.append(extra_table(results, rows).terminal())
    parts += no_claims(results)
    if results.smallest or results.claims:
        lines = [f"{item.model}: {item.sentence}" for item in results.smallest]
        parts.append("\n".join([*lines, *(f"{claim.verdict.upper()}: {claim.claim} ({claim.evidence})" for claim in results.claims)]))
    return "\n\n".join(parts)
