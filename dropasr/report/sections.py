"""What the report says: sections of blocks, every sentence computed from the figures of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from dropasr.report import plots
from dropasr.report.claims import MIN_WORDS
from dropasr.report.load import Net, Run
from dropasr.report.page import Block, Bullets, Figure, Heading, Text
from dropasr.report.results import budget_text, label
from dropasr.report.schema import Comparison, ResultRow, Results
from dropasr.report.tables import Table, comparison_table, detail_table, interval, main_table, rtf, units
from dropasr.runtime.busy import BUSY_SHARE

FEW_SPEAKERS = 10


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
        difference = interval(row.wer_difference.mean, row.wer_difference.interval, signed=True)
        share = 100 * row.macs_per_second / reference.macs_per_second
        sentence = (
            f"{row.label[0].upper()}{row.label[1:]} keeps {share:.1f} % of the multiply-adds of the {reference.label} net: "
            f"WER {row.wer:.2f} % against {reference.wer:.2f} % (difference {difference}); its acoustic model runs "
            f"{row.speedup.model:.1f} times as fast, the whole decode {row.speedup.total:.1f} times."
        )
        if not row.budget:
            sentence += " Its size is as learned: no net of the same size stands beside it."
        against = [item for item in results.comparisons if item.row == row.name]
        sentences.append(sentence + "".join(" " + _against_scratch(item, rows) for item in against))
    return sentences


def _against_scratch(item: Comparison, rows: dict[str, ResultRow]) -> str:
    said = {"better": "It is better than", "worse": "It is worse than", "tie": "It ties with"}[item.outcome]
    difference = interval(item.difference.mean, item.difference.interval, signed=True)
    return f"{said} {rows[item.difference.to].label} ({rows[item.difference.to].wer:.2f} %, difference {difference})."


def cautions(results: Results) -> list[str]:
    """What a reader must know before using the figures."""
    found = ["One training seed: the table of the recipe pools several (`python -m dropasr table`), and only that one carries claims."]
    if results.note:
        found.insert(0, results.note)
    if results.one_speaker:
        found.append("This corpus has one speaker (declared in its configuration): train and test share it; WER says nothing of others.")
    if results.test_words < MIN_WORDS:
        found.append(f"The test set has {results.test_words} words; below {MIN_WORDS} no claim is made.")
    if results.bootstrap_unit == "utterance":
        found.append("With one test speaker, the intervals draw utterances instead of speakers.")
    elif results.test_speakers < FEW_SPEAKERS:
        found.append(f"The test set has {results.test_speakers} speakers; intervals drawn over so few are rough.")
    if results.busy_share > BUSY_SHARE:
        found.append(
            f"The machine was busy when times were taken (other processes used {100 * results.busy_share:.0f} % of one core): "
            "RTFs are too high; speed-ups suffer less, because the nets were interleaved. To measure again: remove rtf.json, same command."
        )
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
    yield Heading("WER against speed")
    yield main_table(results)
    yield Figure("wer-rtf", plots.wer_against_rtf(results), "WER on test against the RTF of the acoustic model. Lower left is better.")
    if results.comparisons:
        yield Heading("Compacted against trained from scratch at the same size")
        yield comparison_table(results)
        yield Text("The difference is paired: same utterances, same drawn speakers. A tie is a difference whose 95 % interval includes 0.")
    yield Heading("Errors, dev figures, single utterances")
    yield detail_table(results)
    scales = [(label(net.row), ", ".join(f"{scale}: {wer:.2f}" for scale, wer in net.scores.scales.items())) for net in run.nets]
    yield Text("WER on dev by acoustic scale; the best one decoded test, once:")
    yield Table(("net", "dev WER % by acoustic scale"), scales, frozenset({0, 1}))
    edge = [label(net.row) for net in run.nets if scale_at_edge(net)]
    if edge:
        yield Text(
            f"The best scale lies at the edge of those tried, so a better one may lie beyond (decode.acoustic_scales): {', '.join(edge)}."
        )


def scale_at_edge(net: Net) -> bool:
    """Whether the acoustic scale of a net is the smallest or the largest of several that were tried."""
    tried = sorted(float(scale) for scale in net.scores.scales)
    return len(tried) > 1 and net.scores.acoustic_scale in (tried[0], tried[-1])


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
            f"Search: {stack.search}, beam {stack.beam:g}, at most {stack.max_active} active states, the same for all rows.",
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
            "The net from scratch of the same size is the row to beat: it shows what size alone costs.",
        ]
    )


def all_sections(run: Run, results: Results) -> list[Block]:
    """The whole report."""
    return [*main_section(run, results), *training_section(run), *corpus_section(run), *measurement_section(run, results)]
