"""RESULTS.md of a recipe with its plots, and the same tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from dropasr.report import plots
from dropasr.report.claims import MIN_SEEDS, MIN_WORDS, group_name, grouped
from dropasr.report.method_tables import (
    budget_table,
    budgets_of,
    comparisons_of,
    full_size_table,
    learned_size_table,
    overview_table,
    standing,
)
from dropasr.report.page import Block, Bullets, Figure, Heading, Text
from dropasr.report.pareto import front_rows, pareto_plot
from dropasr.report.recipe_schema import PooledComparison, PooledRow, RecipeResults
from dropasr.report.recipe_tables import (
    estimator_table,
    plain_nets,
    rate_table,
    seed_table,
    signal_table,
    size_table,
    speed_table,
    system_table,
    terminal_table,
)
from dropasr.report.results import budget_text
from dropasr.report.rivals import are_many
from dropasr.report.sections import search_text, slug, test_title, verdicts_over
from dropasr.report.tables import NAMES, Table, comparison_table, extra_table
from dropasr.report.test_sets import set_name
from dropasr.runtime.busy import BUSY_SHARE, busy_caution


def learned_sizes(rows: list[PooledRow]) -> list[str]:
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
            told = f"{test_title(test)} {size.words} words; below {MIN_WORDS} no claim is made, whichever way the figures fall."
            sentences.append(told)
    return sentences


def _claims(results: RecipeResults) -> Iterator[Block]:
    several = len(grouped(results.rows)) > 1
    yield from (Text(sentence) for sentence in verdicts_over(results, results.rows))
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
        f"Code that trained the nets: revision {', '.join(results.git_revisions)}. `rows/` has one file per net and seed; "
        "`python -m dropasr table` makes this page from them.",
        f"Evaluations on test: {results.test_evaluations}, for {sum(len(row.seeds) for row in results.rows)} nets (rows times seeds).",
    ]


_TIMED_APART = (
    "Rows were added: nets of one seed were timed in several runs, each beside the reference, to which their speed-ups are; RTFs of added "
    "rows are scaled by what the reference took in the first run and in theirs. What changed between the runs, such as faster kernels, "
    "is in the speed-ups, too: compare those of one run."
)


def _retimed(results: RecipeResults) -> str:
    all_rows = results.retimed == sum(len(row.seeds) for row in results.rows)
    whose = "of all rows" if all_rows else f"of {results.retimed} nets (rows times seeds)"
    return (
        f"Acoustic models {whose} were timed again (`bench retime`), those of a seed in one run, as nets of the rows' sizes with "
        "weights by lot; features and search have the times of the runs that made the rows, each beside the "
        "reference, by which those of added rows are scaled; the total is the sum. Nets of equal sizes may differ by more "
        "than intervals over utterances say: compare them to see what runs and seeds add."
    )


def _reading(results: RecipeResults) -> list[str]:
    reference = " and ".join(f"{row.label} ({group_name(row)})" for row in results.rows if row.reference)
    sizes = [f"{set_name(name)}: {size.speakers_text}, {size.words} words, {size.interval_text}" for name, size in results.tests.items()]
    few = "Below thirty speakers, for which a bootstrap is too narrow: Student's t over speakers, or over utterances where that is wider. "
    students = few if any(size.interval == "t" for size in results.tests.values()) else ""
    return [
        f"Reference: {reference}: of the large nets, the one with the lower mean {results.rate_name} on dev.",
        f"Intervals of error rates and differences: 95 % ({'; '.join(sizes)}), errors averaged over seeds. {students}"
        "Differences are paired and, like the error rates of a comparison or claim, over the seeds that both rows have; a row with fewer "
        "seeds names them. Seeds are averaged, not drawn: read the spread over seeds beside an interval.",
        "RTF: one thread, batch 1, warmed up, nets interleaved over the same utterances, sum of times over sum of durations. "
        "Intervals of speed-ups: bootstrap over utterances, seeds as further passes."
        + (f" {_TIMED_APART}" if results.timings > 1 else "")
        + (f" {_retimed(results)}" if results.retimed else ""),
        "Training: one thread, median over seeds, without that of a teacher; by the clock, beside whatever else ran, where the column does "
        "not say processor.",
        "No loss: the upper end of the difference is at most +5 % of the reference's error rate or +0.5, whichever is larger. Better: the "
        "interval excludes 0. Faster: the whole interval lies above the bound. A tie is called a tie.",
        f"Claims are made on test sets of at least {MIN_WORDS} words; evidence of fewer than {MIN_SEEDS} seeds says so.",
    ]


def title(results: RecipeResults) -> str:
    """Title of the page."""
    return f"{results.corpus}: results over seeds"


def _of_group(results: RecipeResults, name: str) -> str:
    return f", {name}" if len(grouped(results.rows)) > 1 else ""


def _sizes(results: RecipeResults, name: str, rows: list[PooledRow]) -> Iterator[Block]:
    """What size alone costs: the nets trained plainly, before any that is compacted."""
    if len(plain_nets(rows)) < 2:
        return
    of_group, names = _of_group(results, name), NAMES[rows[0].criterion]
    yield Heading(f"What size costs: plainly trained nets{of_group}")
    yield size_table(results, rows)
    rate = f"{results.rate_name} on {set_name(results.order(rows)[0])}"
    caption = (
        f"Nets trained plainly, by multiply-adds{of_group}: {rate}, {names.quantity} on dev. "
        "Where it is flat, a small net from scratch loses nothing, and compaction has nothing to win."
    )
    yield Figure(slug(f"size-{name}"), plots.size_curve(results, plain_nets(rows)), caption)


def _group(results: RecipeResults, name: str, rows: list[PooledRow]) -> Iterator[Block]:
    of_group, names = _of_group(results, name), NAMES[rows[0].criterion]
    seeds = ", ".join(map(str, sorted({seed for row in rows for seed in row.seeds})))
    rate = "Word error rate" if results.error_rate == "word" else "Character error rate"
    yield Heading(f"{rate}{of_group} (seeds {seeds})")
    tests, many = results.order(rows), are_many(rows)
    compared = [item for item in results.comparisons if group_name(item) == name]
    if many:
        yield from _methods(results, name, rows, compared, [item for item in results.to_chosen if group_name(item) == name])
        yield Heading(f"All nets{of_group}")
    for test in [] if many else tests:
        about = f"{results.rate_name} on {set_name(test)} against the RTF of the acoustic model{of_group}"
        caption = f"{about}; lines join the budgets of a method."
        yield Figure(slug(f"rate-time-{name}-{test}"), plots.rate_against_time(results, rows, test), caption)
    yield rate_table(results, rows)
    yield from (Text(sentence) for sentence in learned_sizes(rows))
    if len(tests) > 1:
        yield Heading(f"The test sets apart{of_group}")
        yield extra_table(results, rows)
    if compared and not many:
        yield Heading(f"Compacted against rivals of the same size{of_group}")
        yield comparison_table(results, rows, compared)
    if not many:
        quantity = names.quantity[0].upper() + names.quantity[1:]
        caption = f"{quantity} on dev against multiply-adds{of_group}: it resolves what the words of a test set cannot."
        yield Figure(slug(f"ce-macs-{name}"), plots.ce_against_macs(rows), caption)
    yield from (Heading(f"Speed{of_group}"), speed_table(results, rows))
    yield from _signal(rows, of_group)
    yield from (Heading(f"WER % on test and units by seed{of_group}"), seed_table(rows))


def _methods(
    results: RecipeResults, name: str, rows: list[PooledRow], compared: list[PooledComparison], to_chosen: list[PooledComparison]
) -> Iterator[Block]:
    """Every method against dropout compaction of its size, and against the variant of it that dev chose."""
    of_group, found = _of_group(results, name), comparisons_of(results, rows, compared)
    with_chosen = comparisons_of(results, rows, to_chosen)
    test, budgets = results.order(rows)[0], budgets_of(rows)
    yield from (Text(sentence) for sentence in standing(results, rows, found, with_chosen))
    sized = {row.name for row in rows if row.kind != "large"}
    of_variants = sum(item.difference.to != found[name].difference.to for name, item in with_chosen.items() if name in found)
    number = sum(item.row in sized for item in found.values()) + of_variants
    yield Text(
        f"{number} comparisons with intervals of 95 % each: about one in twenty of equal nets would be called better or worse by chance."
    )
    yield overview_table(results, rows, found)
    for place in results.order(rows):
        front = "; ".join(f"{number} {row.label}" for number, row in enumerate(front_rows(results, rows, place), start=1))
        about = f"{results.rate_name} on {set_name(place)} against the RTF of the acoustic model{of_group}"
        caption = f"{about}. Ringed: the front, which no other net beats; times within 5 % of each other count as equal. {front}."
        yield Figure(slug(f"pareto-{name}-{place}"), pareto_plot(results, rows, place), caption)
    for budget in budgets:
        yield Heading(f"At {budget_text(budget)} of the multiply-adds{of_group}, on {set_name(test)}")
        yield budget_table(results, rows, budget, found, with_chosen)
    if any(not row.budget for row in rows):
        yield from (Heading(f"Sizes as learned{of_group}"), learned_size_table(results, rows))
    yield from (Heading(f"At full size{of_group}"), full_size_table(results, rows, found))


def _signal(rows: list[PooledRow], of_group: str) -> Iterator[Block]:
    estimators, signals = estimator_table(rows), signal_table(rows)
    if not estimators.lines and not signals.lines:
        return
    yield Heading(f"Signal of the gradient estimators{of_group}")
    yield Text("Correlation over units between the gradients of two halves of held-out frames, first seed: 1 is all signal, 0 a coin flip.")
    if estimators.lines:
        yield from (Text("When retention learning starts:"), estimators)
    if signals.lines:
        yield from (Text("Over its updates, on the frames of one update, mean over layers:"), signals)


def page(results: RecipeResults) -> list[Block]:
    """RESULTS.md."""
    blocks: list[Block] = [Bullets(_about(results))]
    if results.experiment_note:
        blocks.insert(0, Text(results.experiment_note, lead=True))
    notes = [results.note] if results.note else []
    if results.one_speaker:
        notes.append("This corpus has one speaker (declared in its configuration): train and test share it; WER says nothing of others.")
    if results.busy_share > BUSY_SHARE:
        notes.append(busy_caution(results.busy_share))
    blocks += [Text(note) for note in notes]
    groups = grouped(results.rows)
    for name, rows in groups.items():
        blocks += _sizes(results, name, rows)
    claims = [*_claims(results)] if any(row.kind == "compact" for row in results.rows) else []
    blocks += [Heading("Claims"), *claims] if claims else []
    if len(groups) > 1:
        about = "The large net that is the reference of each system, and its compacted nets. The systems' times come from different runs."
        blocks += [Heading("Systems compared"), system_table(results, groups), Text(about)]
    for name, rows in groups.items():
        blocks += _group(results, name, rows)
    return [*blocks, Heading("How to read this"), Bullets(_reading(results))]


def to_terminal(results: RecipeResults) -> str:
    """Tables and claims for the terminal."""
    parts = [results.experiment_note] if results.experiment_note else []
    groups = grouped(results.rows)
    for name, rows in groups.items():
        seeds = ", ".join(map(str, sorted({seed for row in rows for seed in row.seeds})))
        parts.append(f"{results.corpus}, {name}, seeds {seeds}\n{terminal_table(results, rows)}")
        if len(results.order(rows)) > 1:
            parts.append(extra_table(results, rows).terminal())
    if len(groups) > 1:
        parts.append(f"systems compared\n{system_table(results, groups).terminal()}")
    parts += [*verdicts_over(results, results.rows), *no_claims(results)]
    if results.smallest or results.claims:
        lines = [f"{item.model}: {item.sentence}" for item in results.smallest]
        for claim in results.claims:
            about = f"{claim.model}: {claim.claim}" if len(groups) > 1 else claim.claim
            lines.append(f"{claim.verdict.upper()}: {about} ({claim.evidence})")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
