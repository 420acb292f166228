"""RESULTS.md of a recipe, and the same tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from dropasr.report.claims import MIN_SEEDS, MIN_WORDS
from dropasr.report.page import Block, Bullets, Heading, Text
from dropasr.report.page import to_markdown as blocks_to_markdown
from dropasr.report.recipe_schema import PooledRow, RecipeResults, Spread
from dropasr.report.tables import Table, count, interval, rtf, short_units, units


def _over_seeds(mean: float, spread: Spread, decimals: int = 2) -> str:
    return f"{mean:.{decimals}f} ± {spread.std:.{decimals}f} ({spread.min:.{decimals}f} to {spread.max:.{decimals}f})"


def _difference(row: PooledRow) -> str:
    return "reference" if row.reference else interval(row.wer_difference.mean, row.wer_difference.interval, signed=True)


def wer_table(rows: Sequence[PooledRow]) -> Table:
    """Sizes and errors."""
    header = (
        "net", "units per layer", "parameters", "multiply-adds per second", "WER %, mean ± std (range) over seeds", "95 % interval",
        "difference to the reference [95 %]", "dev WER %", "dev CE",
    )  # fmt: skip
    lines = [
        (
            row.label,
            units(row.units),
            count(row.parameters),
            count(row.macs_per_second),
            _over_seeds(row.wer, row.wer_spread),
            f"[{row.wer_interval[0]:.2f}, {row.wer_interval[1]:.2f}]",
            _difference(row),
            f"{row.dev_wer:.2f}",
            f"{row.dev_ce:.4f} ± {row.dev_ce_spread.std:.4f}",
        )
        for row in rows
    ]
    return Table(header, lines)


def speed_table(rows: Sequence[PooledRow]) -> Table:
    """Times, with the WER that they belong to."""
    header = (
        "net", "WER %", "RTF features", "RTF model", "RTF search", "RTF total", "model × faster [95 %] (range over seeds)",
        "total × faster [95 %]", "training s",
    )  # fmt: skip
    lines = []
    for row in rows:
        speed, spread = row.speedup, row.speedup_spread
        model = "1" if row.reference else f"{interval(speed.model, speed.interval)} ({spread.min:.2f} to {spread.max:.2f})"
        lines.append(
            (
                row.label,
                f"{row.wer:.2f}",
                *(rtf(value) for value in (row.rtf.features, row.rtf.model, row.rtf.search, row.rtf.total)),
                model,
                "1" if row.reference else interval(speed.total, speed.total_interval),
                f"{row.train_seconds:.0f}",
            )
        )
    return Table(header, lines)


def terminal_table(rows: Sequence[PooledRow]) -> str:
    """The main table for the terminal, about 150 columns wide."""
    header = ("net", "units", "param", "WER % ± std", "95 %", "difference [95 %]", "dev CE", "RTF model", "total", "×model [95 %]")
    lines = [
        (
            row.label,
            short_units(row.units),
            count(row.parameters),
            f"{row.wer:.2f} ± {row.wer_spread.std:.2f}",
            f"[{row.wer_interval[0]:.2f}, {row.wer_interval[1]:.2f}]",
            _difference(row),
            f"{row.dev_ce:.3f}",
            rtf(row.rtf.model),
            rtf(row.rtf.total),
            "1" if row.reference else interval(row.speedup.model, row.speedup.interval),
            f"{row.speedup.total:.2f}",
            f"{row.train_seconds:.0f}",
        )
        for row in rows
    ]
    return Table((*header, "×total", "train s"), lines).terminal()


def comparison_table(results: RecipeResults, model: str) -> Table:
    """Compacted nets against nets from scratch of the same budget."""
    by_name = {row.name: row for row in results.rows if row.model == model}
    lines = []
    for item in results.comparisons:
        if item.model == model:
            row, other = by_name[item.row], by_name[item.difference.to]
            difference = interval(item.difference.mean, item.difference.interval, signed=True)
            figures = (f"{row.wer:.2f}", f"{other.wer:.2f}", difference, f"{item.dev_ce_difference:+.4f}")
            lines.append((row.label, other.label, *figures, item.outcome))
    header = ("compacted", "from scratch", "WER %", "WER % from scratch", "difference [95 %]", "difference of dev CE", "outcome")
    return Table(header, lines, frozenset({0, 1, 6}))


def seed_table(rows: Sequence[PooledRow]) -> Table:
    """WER and units of every seed."""
    lines = []
    for row in rows:
        wers = [f"{wer:.2f} ({units(widths)})" for wer, widths in zip(row.wer_spread.per_seed, row.units_per_seed)]
        lines.append((row.label, *wers))
    return Table(("net", *(f"seed {seed}" for seed in rows[0].seeds)), lines)


def learned_sizes(rows: Sequence[PooledRow]) -> list[str]:
    """A sentence per net without a budget: the size it reached, and that nothing stands beside it."""
    reference = next(row for row in rows if row.reference)
    return [
        f"{row.label[0].upper()}{row.label[1:]}: {100 * row.macs_per_second / reference.macs_per_second:.1f} % of the multiply-adds of "
        f"the {reference.label} net, mean over seeds. No net of the same size stands beside it, and no claim is made."
        for row in rows
        if not row.budget
    ]


def no_claims(results: RecipeResults) -> str:
    """Why there are no claims."""
    return f"The test set has {results.test_words} words; below {MIN_WORDS} no claim is made, whichever way the figures fall."


def _models(results: RecipeResults) -> list[str]:
    return list(dict.fromkeys(row.model for row in results.rows))


def _claims(results: RecipeResults) -> Block:
    if results.test_words < MIN_WORDS:
        return Text(no_claims(results))
    several = len(_models(results)) > 1
    lines = [(f"{claim.model}: {claim.claim}" if several else claim.claim, claim.verdict, claim.evidence) for claim in results.claims]
    return Table(("claim", "verdict", "evidence"), lines, frozenset({0, 1, 2}))


def _about(results: RecipeResults) -> list[str]:
    hardware = [", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in machine.items()) for machine in results.hardware]
    software = []
    for stack in results.stack:
        versions = ", ".join(f"{name} {version}" for name, version in stack.versions.items())
        software.append(f"{versions}; search {stack.search}, beam {stack.beam:g}, at most {stack.max_active} active states")
    return [
        f"Made by `{results.command}`, which ran " + "; ".join(f"`{command}`" for command in results.run_commands) + ".",
        *(f"Hardware: {text}." for text in hardware),
        *(f"Software: {text}." for text in software),
        f"Code: revision {', '.join(results.git_revisions)}. `rows/` has one file per net and seed; `python -m dropasr table` makes this "
        "page from them.",
        f"Evaluations on test: {results.test_evaluations}, for {sum(len(row.seeds) for row in results.rows)} nets (rows times seeds).",
    ]


def _reading(results: RecipeResults) -> list[str]:
    reference = " and ".join(f"{row.label} ({row.model})" for row in results.rows if row.reference)
    return [
        f"Reference: {reference}: of the large nets, the one with the lower mean WER on dev.",
        f"Intervals of WER and differences: 95 % bootstrap over {results.bootstrap_unit}s of {results.test_speakers} test speakers, "
        f"{results.test_words} words, errors averaged over seeds; differences are paired. "
        "Seeds are averaged, not drawn: read the spread over seeds beside an interval.",
        "RTF: one thread, batch 1, warmed up, nets interleaved over the same utterances, sum of times over sum of durations. "
        "Intervals of speed-ups: bootstrap over utterances, seeds as further passes.",
        "No loss: the upper end of the difference is at most +5 % of the reference's WER or +0.5, whichever is larger. Better: the "
        "interval excludes 0. Faster: the whole interval lies above the bound. A tie is called a tie.",
        f"A claim needs at least {MIN_WORDS} test words and {MIN_SEEDS} seeds.",
    ]


def to_markdown(results: RecipeResults) -> str:
    """RESULTS.md."""
    blocks: list[Block] = [Bullets(_about(results))]
    notes = [results.note] if results.note else []
    if results.one_speaker:
        notes.append("This corpus has one speaker (declared in its configuration): train and test share it; WER says nothing of others.")
    blocks += [Text(note) for note in notes]
    blocks += [Heading("Claims"), _claims(results)]
    for model in _models(results):
        rows = [row for row in results.rows if row.model == model]
        of_model = f", {model}" if len(_models(results)) > 1 else ""
        seeds = ", ".join(map(str, rows[0].seeds))
        blocks += [Heading(f"Word error rate{of_model} (seeds {seeds})"), wer_table(rows)]
        blocks += [Text(sentence) for sentence in learned_sizes(rows)]
        compared = comparison_table(results, model)
        if compared.lines:
            blocks += [Heading(f"Compacted against trained from scratch at the same size{of_model}"), compared]
        blocks += [Heading(f"Speed{of_model}"), speed_table(rows), Heading(f"WER % and units by seed{of_model}"), seed_table(rows)]
    blocks += [Heading("How to read this"), Bullets(_reading(results))]
    return blocks_to_markdown(f"{results.corpus}: results over seeds", blocks)


def to_terminal(results: RecipeResults) -> str:
    """Tables and claims for the terminal."""
    parts = []
    for model in _models(results):
        rows = [row for row in results.rows if row.model == model]
        parts.append(f"{results.corpus}, {model}, seeds {', '.join(map(str, rows[0].seeds))}\n{terminal_table(rows)}")
    if results.test_words < MIN_WORDS:
        parts.append(no_claims(results))
    else:
        parts.append("\n".join(f"{claim.verdict.upper()}: {claim.claim} ({claim.evidence})" for claim in results.claims))
    return "\n\n".join(parts)
