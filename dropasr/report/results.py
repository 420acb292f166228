"""`results.json`: the table of one run for programs, in the form of dropasr/report/schema.py."""

from __future__ import annotations

import os
import shlex
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from dropasr.config import Config, Row, rows
from dropasr.files import hash_of
from dropasr.report.load import Net, Run
from dropasr.report.schema import Comparison, Counts, Difference, ModelTotalRtf, ResultRow, Results, Rtf, Speedup, Stack
from dropasr.scoring.bootstrap import difference_interval, outcome, ratio_interval, wer_interval

COMMAND = "DROPASR_COMMAND"
"""Environment variable: the command line that made the run, if it is not the one of this process."""


def budget_text(budget: float) -> str:
    """A budget as a fraction: 0.125 → `1/8`."""
    fraction = Fraction(budget).limit_denominator(64)
    return str(fraction) if abs(float(fraction) - budget) < 1e-6 else f"{budget:g}"


def label(row: Row) -> str:
    """The name of a row for people: `large dense`, `small dense from scratch 1/8`, `dropout compaction 1/8`."""
    method = row.method.replace("_", " ")
    if row.kind == "large":
        return f"large {method}"
    if not row.budget:
        return f"{method}, size as learned"
    return f"small {method} from scratch {budget_text(row.budget)}" if row.kind == "small" else f"{method} {budget_text(row.budget)}"


def row_hashes(config: Config) -> dict[str, str]:
    """Per row, a hash of what its figures depend on, without seed and machine: the same on every machine with the same configuration.

    Rows do not depend on each other's presence, so that adding a method leaves the hashes of the other rows as they are.
    """
    values = config.model_dump(mode="json")
    experiment, methods = values.pop("experiment"), values.pop("methods")
    values["corpus"].pop("corpus_dir")
    options = values["corpus"]["options"]
    values["corpus"]["options"] = {
        key: Path(value).name if isinstance(value, str) and os.path.isabs(value) else value for key, value in options.items()
    }
    for key in ("lexicon", "arpa", "text"):
        if isinstance(values["lang"][key], str):
            values["lang"][key] = Path(values["lang"][key]).name
    shared = {**values, "budget_tolerance": experiment["budget_tolerance"]}
    teachers = {name: methods[name].get("teacher") for name in methods}
    return {
        row.name: hash_of([shared, row.name, row.kind, row.budget, methods.get(row.method), methods.get(teachers.get(row.method) or "")])
        for row in rows(config)
    }


def _plain_path(text: str) -> str:
    """A path as it may be published: relative to the working directory, or its last part alone."""
    if not os.path.isabs(text):
        return text
    relative = os.path.relpath(text)
    return f"/path/to/{Path(text).name}" if relative.startswith("..") else relative


def command_line() -> str:
    """The command that made the run, without paths of this machine: $DROPASR_COMMAND, or run.sh with the options of this process."""
    given = os.environ.get(COMMAND)
    words = shlex.split(given) if given else list(sys.argv)
    if not given and words[0].endswith(os.path.join("dropasr", "__main__.py")):
        options, rest = [], iter(words[2:])
        for word in rest:
            if word in ("--stage", "--stop-stage"):
                next(rest, None)
            elif not word.startswith(("--stage=", "--stop-stage=")):
                options.append(word)
        words = ["bash", "run.sh", *options]
    plain = []
    for word in words:
        name, equals, value = word.partition("=")
        plain.append(f"{name}={_plain_path(value)}" if equals and word.startswith("--") else _plain_path(word))
    return " ".join(shlex.quote(word) for word in plain)


def _difference(net: Net, other: Net, run: Run) -> Difference:
    interval = difference_interval([net.errors], [other.errors], run.words, run.speakers)
    return Difference(to=other.name, mean=interval.estimate, interval=interval.bounds)


def _speedup(net: Net, reference: Net) -> Speedup:
    model = ratio_interval(reference.timing.model_seconds, net.timing.model_seconds)
    total = ratio_interval(reference.timing.total_seconds, net.timing.total_seconds)
    return Speedup(model=model.estimate, total=total.estimate, interval=model.bounds, total_interval=total.bounds)


def _row(net: Net, run: Run) -> ResultRow:
    summary, scores, timing, test = net.summary, net.scores, net.timing, net.scores.test
    wer = wer_interval(net.errors, run.words, run.speakers)
    return ResultRow(
        name=net.name,
        label=label(net.row),
        kind=net.row.kind,
        method=net.row.method,
        model=summary.model,
        teacher=summary.teacher,
        seed=summary.seed,
        budget=net.row.budget,
        reference=net is run.reference,
        units=summary.units,
        parameters=summary.parameters,
        macs_per_second=summary.macs_per_second,
        wer=wer.estimate,
        wer_interval=wer.bounds,
        wer_counts=Counts(words=test.words, substitutions=test.substitutions, deletions=test.deletions, insertions=test.insertions),
        wer_difference=_difference(net, run.reference, run),
        dev_wer=scores.dev.wer,
        dev_ce=net.last.dev_ce,
        dev_frame_error=net.last.dev_frame_error,
        acoustic_scale=scores.acoustic_scale,
        prior=scores.prior,
        rtf=Rtf(features=timing.features, model=timing.model, search=timing.search, total=timing.total),
        rtf_median=ModelTotalRtf(**timing.median.model_dump()),
        rtf_p95=ModelTotalRtf(**timing.p95.model_dump()),
        speedup=_speedup(net, run.reference),
        train_seconds=summary.train_seconds,
        epochs=summary.epochs,
        config_hash=summary.config_hash,
        git_revision=summary.git_revision,
    )


def _comparisons(run: Run) -> list[Comparison]:
    found = []
    for net in run.nets:
        for other in run.nets:
            if net.row.kind == "compact" and other.row.kind == "small" and net.row.budget == other.row.budget:
                difference = _difference(net, other, run)
                verdict = outcome(difference.interval)
                found.append(Comparison(row=net.name, budget=net.row.budget, difference=difference, outcome=verdict))
    return found


def make_results(config: Config, run: Run) -> Results:
    """The table of one run."""
    scores = run.nets[0].scores
    speakers = len(set(run.speakers))
    return Results(
        corpus=config.corpus.name,
        note=config.corpus.note,
        one_speaker=run.corpus.one_speaker,
        command=command_line(),
        hardware=run.timing.hardware,
        busy_share=run.timing.busy_share,
        stack=Stack(
            search=scores.backend,
            beam=scores.beam,
            max_active=scores.max_active,
            versions={name: str(version) for name, version in run.timing.versions.items()},
        ),
        config_hash=hash_of(row_hashes(config)),
        reference=run.reference.name,
        test_words=int(np.sum(run.words)),
        test_speakers=speakers,
        bootstrap_unit="speaker" if speakers > 1 else "utterance",
        test_evaluations=run.test_evaluations,
        rows=[_row(net, run) for net in run.nets],
        comparisons=_comparisons(run),
    )
