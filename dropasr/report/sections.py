"""What the report says: sections of blocks, every sentence computed from the figures of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from dropasr.report import plots
from dropasr.report.claims import MIN_WORDS
from dropasr.report.load import Net, Run
from dropasr.report.page import Block, Bullets, Figure, Heading, Text
from dropasr.report.pareto import pareto_plot
from dropasr.report.results import budget_text, label
from dropasr.report.rivals import PIVOT, are_many
from dropasr.report.schema import Comparison, Described, ResultRow, Results, Row, Stack
from dropasr.report.tables import NAMES, Table, comparison_table, detail_table, extra_table, interval, main_table, rtf
from dropasr.report.test_sets import set_name
from dropasr.report.training_section import slug, training_section
from dropasr.runtime.busy import BUSY_SHARE, busy_caution


def by_name(results: Results) -> dict[str, ResultRow]:
    """The rows by name."""
    return {row.name: row for row in results.rows}


def headline(results: Results) -> list[str]:
    """One sentence per compacted net: size, WER, speed; and what the net of its size from scratch does."""
    rows = by_name(results)
    reference = rows[results.reference]
    name = results.rate_name if results.headline == "test" else f"{results.rate_name} on {set_name(results.headline)}"
    sentences = []
    compact = [row for row in results.rows if row.kind == "compact"]
    for row in [row for row in compact if row.method == PIVOT or not row.budget] if are_many(compact) else compact:
        rate, of_reference = (net.on(results.headline).rate(results.error_rate) for net in (row, reference))
        difference = interval(rate.difference.mean, rate.difference.interval, signed=True)
        share = 100 * row.macs_per_second / reference.macs_per_second
        sentence = (
            f"{row.label[0].upper()}{row.label[1:]} keeps {share:.1f} % of the multiply-adds of the {reference.label} net: "
            f"{name} {rate.value:.2f} % against {of_reference.value:.2f} % (difference {difference}); its acoustic model runs "
            f"{row.speedup.model:.1f} times as fast, the whole decode {row.speedup.total:.1f} times."
        )
        if not row.budget:
            sentence += " Its size is as learned: no net of the same size stands beside it."
        against = [item for item in results.comparisons if item.row == row.name and row.budget]
        sentences.append(sentence + "".join(" " + _against_rival(item, rows, results) for item in against))
    return sentences


def _against_rival(item: Comparison, rows: dict[str, ResultRow], results: Results) -> str:
    said = {"better": "It is better than", "worse": "It is worse than", "tie": "It ties with"}[item.outcome]
    difference = interval(item.difference.mean, item.difference.interval, signed=True)
    place = "" if item.test == results.headline else f"On {set_name(item.test)}: "
    return f"{place}{said} {rows[item.difference.to].label} ({item.rates[1]:.2f} %, difference {difference})."


def test_title(test: str) -> str:
    """Start of a sentence on what a test set has."""
    return {"test": "The test set has", "all": "All test sets together have"}.get(test, f"The test set {test} has")


def verdicts_over(results: Described, rows: Sequence[Row]) -> list[str]:
    """What the verdicts are over, where it is not `test` alone."""
    if results.headline == "test":
        return []
    size = results.tests[results.headline]
    names = " and ".join(test for test in results.tests if test != results.headline)
    told = f"Verdicts are over all {size.speakers} test speakers ({names} together, {size.words} words); {names} alone stand beside them."
    if all(row.has(results.headline) for row in rows):
        return [told]
    return [f"{told} A system that was not evaluated on all of them has its verdicts over test."]


def cautions(results: Results) -> list[str]:
    """What a reader must know before using the figures."""
    found = verdicts_over(results, results.rows)
    if results.experiment_note:
        found.insert(0, results.experiment_note)
    found += ["One training seed: the table of the recipe pools several (`python -m dropasr table`), and only that one carries claims."]
    if results.note:
        found.insert(0, results.note)
    if results.one_speaker:
        found.append("This corpus has one speaker (declared in its configuration): train and test share it; WER says nothing of others.")
    for test, size in results.tests.items():
        if size.words < MIN_WORDS:
            found.append(f"{test_title(test)} {size.words} words; below {MIN_WORDS} no claim is made.")
        if size.bootstrap_unit == "utterance":
            found.append(f"{test_title(test)} one speaker: intervals draw utterances instead of speakers.")
        elif size.interval == "t":
            wider = "over utterances where that is wider"
            found.append(f"{test_title(test)} {size.speakers} speakers: intervals are Student's t over them ({wider}), and wide.")
    if results.busy_share > BUSY_SHARE:
        found.append(f"{busy_caution(results.busy_share)} To measure again: remove rtf.json, same command.")
    epochs = {row.label: row.epochs for row in results.rows}
    if len(set(epochs.values())) > 1:
        told = ", ".join(f"{name} {number}" for name, number in epochs.items())
        found.append(f"The rows did not get the same number of epochs, so they are not comparable: {told}.")
    return found


def main_section(run: Run, results: Results) -> Iterator[Block]:
    """The sentences, the table, the plot."""
    for sentence in headline(results):
        yield Text(sentence, lead=True)
    yield Bullets(cautions(results))
    name = results.rate_name
    yield Heading(f"{name} against speed")
    yield main_table(results)
    if len(results.tests) > 1:
        yield extra_table(results, results.rows)
    many = are_many(results.rows)
    for test in results.order(results.rows):
        about, kind = f"{name} on {set_name(test)} against the RTF of the acoustic model. Lower left is better", f"rate-time-{slug(test)}"
        if many:
            yield Figure(kind, pareto_plot(results, results.rows, test), f"{about}; ringed: the front, which no other net beats.")
        else:
            yield Figure(kind, plots.rate_against_time(results, results.rows, test), f"{about}; lines join the budgets of a method.")
    quantity = NAMES[run.criterion].quantity
    caption = f"{quantity[0].upper()}{quantity[1:]} on dev against multiply-adds: it resolves what the words of a test set cannot."
    yield Figure("ce-macs", plots.ce_against_macs(results.rows), caption)
    if results.comparisons:
        yield Heading(
            "Every net against dropout compaction of its size, large ones against plain dropout"
            if many
            else "Compacted against rivals of the same size"
        )
        yield comparison_table(results, results.rows, results.comparisons, "net" if many else "compacted")
        yield Text("The difference is paired: same utterances, same speakers. A tie is a difference whose 95 % interval includes 0.")
    yield Heading("Errors, dev figures, single utterances")
    yield detail_table(results)
    scales = [(label(net.row), ", ".join(f"{scale}: {wer:.2f}" for scale, wer in net.scores.scales.items())) for net in run.nets]
    yield Text("WER on dev by acoustic scale (the best LM scale and insertion penalty of each); what was best decoded the test sets, once:")
    yield Table(("net", "dev WER % by acoustic scale"), scales, frozenset({0, 1}))
    for option, index in (("acoustic_scales", 0), ("lm_scales", 1), ("insertion_penalties", 2)):
        edge = [label(net.row) for net in run.nets if at_edge(net, index)]
        if edge:
            yield Text(f"The best of decode.{option} lies at the edge of those tried, so a better one may lie beyond: {', '.join(edge)}.")
    short = [label(net.row) for net in run.nets if leaves_words_out(net)]
    weighed = run.criterion == "frames" or "hlg" in results.system  # else there is no language model to weigh words against
    if short and weighed:
        yield Text(
            f"Most errors on dev are words left out: {', '.join(short)}. Costs of a word below 0, tried on dev, may give them back:"
            ' --set "decode.insertion_penalties=[-6,-4,-2,0]" (search with k2).'
        )


def at_edge(net: Net, index: int = 0) -> bool:
    """Whether the acoustic scale (0), LM scale (1) or insertion penalty (2) of a net is the smallest or largest of several tried."""
    tried = sorted({setting[index] for setting in net.scores.tuning})
    chosen = (net.scores.acoustic_scale, net.scores.lm_scale, net.scores.insertion_penalty)[index]
    return len(tried) > 1 and chosen in (tried[0], tried[-1])


def leaves_words_out(net: Net) -> bool:
    """Whether more than half of the errors on dev are deletions, at least a tenth of the words, though no word cost less than nothing."""
    dev = net.scores.dev
    return net.scores.insertion_penalty >= 0 and 2 * dev.deletions > dev.errors and 10 * dev.deletions >= dev.words


def corpus_section(run: Run) -> Iterator[Block]:
    """What was seen, dropped and why; the language; the alignment."""
    corpus = run.corpus
    order = {"train": 0, "dev": 1, "test": 2}
    splits = sorted(corpus.splits.items(), key=lambda item: order.get(item[0], len(order)))
    yield Heading("Corpus")
    lines = [
        (
            name,
            str(split.seen if split.seen is not None else split.utterances + len(split.dropped)),
            str(len(split.dropped)),
            str(split.utterances),
            f"{split.hours:.3f}",
            str(split.words),
            str(split.speakers),
            str(sum(split.mapped_words.values())),
        )
        for name, split in splits
    ]
    yield Table(("split", "utterances seen", "dropped", "used", "hours", "words", "speakers", "words mapped"), lines)
    reasons = Counter((name, item.reason) for name, split in splits for item in split.dropped)
    if reasons:
        yield Bullets([f"{name}: {number} dropped: {reason}" for (name, reason), number in reasons.items()])
    if corpus.test_sentences_seen:
        shares = ", ".join(f"{100 * share:.0f} % {place.replace('_', ' ')}" for place, share in corpus.test_sentences_seen.items())
        yield Text(f"Test sentences whose exact words also occur elsewhere: {shares}.")
    if run.lang:
        yield Heading("Language")
        yield Bullets([f"{name}: {value}" for name, value in flatten(run.lang)])
    yield Heading("Alignment")
    rounds = [(item.name, _optional(item.changed_percent), _optional(item.boundary_shift_frames)) for item in run.align.rounds]
    yield Table(("round", "labels changed %", "mean boundary shift, frames"), rounds)
    failed = run.align.failed if isinstance(run.align.failed, int) else len(run.align.failed)
    shift = _optional(run.align.mean_boundary_shift_frames)
    yield Text(
        f"{run.align.utterances} utterances, {run.align.frames} frames, {failed} utterances left out. Phone boundaries moved "
        f"by {shift} frames on average between the last two rounds."
    )
    made = [f"{backend} graph: {size['states']} states, {size['arcs']} arcs" for backend, size in run.align.graphs.items()]
    if run.align.units:
        yield Bullets([f"output units: {run.align.units}{_TYING.get(run.align.tying or '', '')}", *made])


_TYING = {
    "none": ", states of phones (no tying)",
    "count": ", states of left biphones, tied by count (rare ones share the unit of their phone)",
    "likelihood": ", states of left biphones, tied by likelihood (clustered)",
}


def _optional(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def flatten(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of a nested dictionary, in words."""
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, dict):
            yield from flatten(item, f"{name}, ")
        elif isinstance(item, list):
            yield name, " ".join(map(str, item))
        else:
            # Sources are files; their folders are the machine's own business.
            yield name, str(item).rsplit("/", 1)[-1] if isinstance(item, str) else str(item)


def search_text(stack: Stack) -> str:
    """The search and its options."""
    text = f"{stack.search}, beam {stack.beam:g}, at most {stack.max_active} active states"
    text += "" if stack.frame_subsampling == 1 else f", every {stack.frame_subsampling}rd frame"
    text += "" if stack.frame_skip == 1 else f", scores shared by {stack.frame_skip} frames"
    return text + ("" if stack.rescore == "none" else ", n-best lists rescored with a larger language model")


def measurement_section(run: Run, results: Results) -> Iterator[Block]:
    """Hardware, versions, how times were taken, how to read the page."""
    timing, stack = run.timing, results.stack
    yield Heading("How it was measured")
    hardware = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in results.hardware.items())
    versions = ", ".join(f"{name} {version}" for name, version in stack.versions.items())
    revisions = sorted({row.git_revision or "unknown" for row in results.rows})
    yield Bullets(
        [
            f"Command: `{results.command}`",
            f"Hardware: {hardware}.",
            f"Software: {versions}.",
            f"Search: {search_text(stack)}, the same for all rows.",
            f"RTF: {timing.threads} thread, batch 1, warmed up, {timing.repeats} passes over the same {timing.utterances} test utterances "
            f"({timing.audio_seconds:.1f} s of audio), nets {timing.order}, in an order that changes from pass to pass; sum of times over "
            "sum of durations.",
            f"Code that trained the nets: revision {', '.join(revisions)}.",
            f"Evaluations on test in this experiment folder so far: {results.test_evaluations}.",
        ]
    )
    reference = by_name(results)[results.reference]
    budgets = ", ".join(budget_text(budget) for budget in sorted({row.budget for row in results.rows if 0 < row.budget < 1}, reverse=True))
    sizes = [f"{set_name(name)}: {size.interval_text}" for name, size in results.tests.items()]
    shares = "shares of the large net's multiply-adds per frame, over all its matrices, input and output included."
    yield Heading("How to read this")
    yield Bullets(
        [
            f"The reference is {reference.label}: of the large nets, the better one on dev. All differences and speed-ups are against it.",
            *([f"Budgets ({budgets}) are {shares}"] if budgets else []),
            f"Error rates have 95 % intervals ({'; '.join(sizes)}). The interval of a difference is paired and narrower than the two "
            "rates' own intervals suggest: judge by it.",
            f"RTF is processing time over audio time: {rtf(reference.rtf.model)} means {1 / reference.rtf.model:.0f} times as fast as the "
            "speech. The whole decode gains less than the acoustic model, because features and search stay as they are.",
            f"The {NAMES[run.criterion].quantity} on dev is far more sensitive than WER; look at it where WERs tie.",
            "The net from scratch of the same size is the row to beat: it shows what size alone costs. A row whose units were removed at "
            "random shows what choosing them is worth.",
        ]
    )


def all_sections(run: Run, results: Results) -> list[Block]:
    """The whole report."""
    return [*main_section(run, results), *training_section(run), *corpus_section(run), *measurement_section(run, results)]
