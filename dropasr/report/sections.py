"""What the report says: sections of blocks, every sentence computed from the figures of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from dropasr.report import plots
from dropasr.report.claims import FEW_SPEAKERS, MIN_WORDS
from dropasr.report.load import Net, Run
from dropasr.report.page import Block, Bullets, Figure, Heading, Text
from dropasr.report.results import budget_text, label
from dropasr.report.schema import Comparison, ResultRow, Results, Stack
from dropasr.report.tables import Table, comparison_table, detail_table, extra_table, interval, main_table, rtf, units
from dropasr.runtime.busy import BUSY_SHARE, busy_caution


def by_name(results: Results) -> dict[str, ResultRow]:
    """The rows by name."""
    return {row.name: row for row in results.rows}


def headline(results: Results) -> list[str]:
    """One sentence per compacted net: size, WER, speed; and what the net of its size from scratch does."""
    rows = by_name(results)
    reference = rows[results.reference]
    sentences = []
    for row in results.rows:
        if row.kind != "compact":
            continue
        rate, of_reference = row.rate(results.error_rate), reference.rate(results.error_rate).value
        difference = interval(rate.difference.mean, rate.difference.interval, signed=True)
        share = 100 * row.macs_per_second / reference.macs_per_second
        sentence = (
            f"{row.label[0].upper()}{row.label[1:]} keeps {share:.1f} % of the multiply-adds of the {reference.label} net: "
            f"{results.rate_name} {rate.value:.2f} % against {of_reference:.2f} % (difference {difference}); its acoustic model runs "
            f"{row.speedup.model:.1f} times as fast, the whole decode {row.speedup.total:.1f} times."
        )
        if not row.budget:
            sentence += " Its size is as learned: no net of the same size stands beside it."
        against = [item for item in results.comparisons if item.row == row.name]
        sentences.append(sentence + "".join(" " + _against_rival(item, rows, results) for item in against))
    return sentences


def _against_rival(item: Comparison, rows: dict[str, ResultRow], results: Results) -> str:
    said = {"better": "It is better than", "worse": "It is worse than", "tie": "It ties with"}[item.outcome]
    difference = interval(item.difference.mean, item.difference.interval, signed=True)
    place = "" if item.test == "test" else f"On {item.test}: "
    rate = rows[item.difference.to].on(item.test).rate(results.error_rate).value
    return f"{place}{said} {rows[item.difference.to].label} ({rate:.2f} %, difference {difference})."


def cautions(results: Results) -> list[str]:
    """What a reader must know before using the figures."""
    found = ["One training seed: the table of the recipe pools several (`python -m dropasr table`), and only that one carries claims."]
    if results.note:
        found.insert(0, results.note)
    if results.one_speaker:
        found.append("This corpus has one speaker (declared in its configuration): train and test share it; WER says nothing of others.")
    for test, size in results.tests.items():
        name = "The test set" if test == "test" else f"The test set {test}"
        if size.words < MIN_WORDS:
            found.append(f"{name} has {size.words} words; below {MIN_WORDS} no claim is made.")
        if size.bootstrap_unit == "utterance":
            found.append(f"{name} has one speaker: its intervals draw utterances instead of speakers.")
        elif size.speakers < FEW_SPEAKERS:
            found.append(f"{name} has {size.speakers} speakers; intervals drawn over so few are rough.")
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
    if results.extra_tests:
        yield extra_table(results, results.rows)
    for test in results.tests:
        caption = f"{name} on {test} against the RTF of the acoustic model. Lower left is better; lines join the budgets of a method."
        yield Figure(f"rate-time-{slug(test)}", plots.rate_against_time(results, results.rows, test), caption)
    caption = "Cross-entropy on dev against multiply-adds: it resolves what the words of a test set cannot."
    yield Figure("ce-macs", plots.ce_against_macs(results.rows), caption)
    if results.comparisons:
        yield Heading("Compacted against rivals of the same size")
        yield comparison_table(results, results.rows, results.comparisons)
        yield Text("The difference is paired: same utterances, same drawn speakers. A tie is a difference whose 95 % interval includes 0.")
    yield Heading("Errors, dev figures, single utterances")
    yield detail_table(results)
    scales = [(label(net.row), ", ".join(f"{scale}: {wer:.2f}" for scale, wer in net.scores.scales.items())) for net in run.nets]
    yield Text("WER on dev by acoustic scale (the best LM scale and insertion penalty of each); what was best decoded the test sets, once:")
    yield Table(("net", "dev WER % by acoustic scale"), scales, frozenset({0, 1}))
    for option, index in (("acoustic_scales", 0), ("lm_scales", 1), ("insertion_penalties", 2)):
        edge = [label(net.row) for net in run.nets if at_edge(net, index)]
        if edge:
            yield Text(f"The best of decode.{option} lies at the edge of those tried, so a better one may lie beyond: {', '.join(edge)}.")


def at_edge(net: Net, index: int = 0) -> bool:
    """Whether the acoustic scale (0), LM scale (1) or insertion penalty (2) of a net is the smallest or largest of several tried."""
    tried = sorted({setting[index] for setting in net.scores.tuning})
    chosen = (net.scores.acoustic_scale, net.scores.lm_scale, net.scores.insertion_penalty)[index]
    return len(tried) > 1 and chosen in (tried[0], tried[-1])


def training_section(run: Run) -> Iterator[Block]:
    """Curves, retention histograms, gradient signal, compactions."""
    yield Heading("Training")
    yield Figure("training", plots.training_curves(run.nets), "Training curves. While units are being removed, epochs become shorter.")
    compacted = [net for net in run.nets if net.summary.compactions or any(epoch.layers for epoch in net.summary.retention)]
    for net in compacted:
        retention = [epoch for epoch in net.summary.retention if epoch.layers]
        if retention:
            title = f"{label(net.row)}: units by retention probability"
            caption = f"{title}, per layer and epoch; darker is more. The titles say how many units were kept in the last epoch shown."
            yield Figure(f"retention-{slug(net.name)}", plots.retention_histograms(slug(net.name), title, retention), caption)
    signal = [line for net in compacted for line in _signal_lines(net)]
    if signal:
        yield Heading("Signal of the gradient estimators")
        layers = max(len(line) for line in signal) - 3
        lines = [[*line, *[""] * (layers + 3 - len(line))] for line in signal]
        yield Table(("net", "estimator", "frames", *(f"layer {i + 1}" for i in range(layers))), lines, frozenset({0, 1}))
        yield Text(
            "Correlation over units between the gradients of two halves of held-out frames, measured when retention learning starts: "
            "1 is all signal, 0 a coin flip."
        )
    removed = [line for net in compacted for line in _compaction_lines(net)]
    if removed:
        yield Heading("Compactions")
        header = ("net", "epoch", "units before", "units after", "largest difference", "largest logit", "relative")
        yield Table(header, removed)
        yield Text(
            "Largest difference between the outputs of the masked and the compacted net on real frames; training stops where it exceeds "
            "1e-4 of the largest logit."
        )


def slug(name: str) -> str:
    """A name fit for files and ids."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _signal_lines(net: Net) -> Iterator[list[str]]:
    for name, estimator in net.summary.estimators.items():
        correlations = ["–" if value is None else f"{value:.3f}" for value in estimator.split_half]
        yield [label(net.row), name, str(estimator.frames), *correlations]


def _compaction_lines(net: Net) -> Iterator[list[str]]:
    for item in net.summary.compactions:
        relative = item.max_difference / item.largest_logit if item.largest_logit > 0 else 0.0
        figures = [f"{item.max_difference:.1e}", f"{item.largest_logit:.3g}", f"{relative:.1e}"]
        yield [label(net.row), str(item.epoch), units(item.units_before), units(item.units_after), *figures]


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
        yield Bullets([f"output units: {run.align.units}", *made])


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
            f"Code: revision {', '.join(revisions)}. Evaluations on test in this experiment folder so far: {results.test_evaluations}.",
        ]
    )
    reference = by_name(results)[results.reference]
    budgets = ", ".join(budget_text(budget) for budget in sorted({row.budget for row in results.rows if 0 < row.budget < 1}, reverse=True))
    shares = "shares of the large net's multiply-adds per frame, over all its matrices, input and output included."
    yield Heading("How to read this")
    yield Bullets(
        [
            f"The reference is {reference.label}: of the large nets, the better one on dev. All differences and speed-ups are against it.",
            *([f"Budgets ({budgets}) are {shares}"] if budgets else []),
            f"WER has a 95 % bootstrap interval that draws whole {results.bootstrap_unit}s. The interval of a difference is paired and "
            "narrower than the two WERs' own intervals suggest: judge by it.",
            f"RTF is processing time over audio time: {rtf(reference.rtf.model)} means {1 / reference.rtf.model:.0f} times as fast as the "
            "speech. The whole decode gains less than the acoustic model, because features and search stay as they are.",
            "The cross-entropy on dev is far more sensitive than WER; look at it where WERs tie.",
            "The net from scratch of the same size is the row to beat: it shows what size alone costs. A row whose units were removed at "
            "random shows what choosing them is worth.",
        ]
    )


def all_sections(run: Run, results: Results) -> list[Block]:
    """The whole report."""
    return [*main_section(run, results), *training_section(run), *corpus_section(run), *measurement_section(run, results)]
