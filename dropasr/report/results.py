"""`results.json`: the table of one run for programs, in the form of dropasr/report/schema.py."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from dropasr.config import CTC_OPTIONS, Config, Row, rows, system_name
from dropasr.files import hash_of
from dropasr.paths import GRAPH_CONSTRUCTION
from dropasr.report.load import Net, Run
from dropasr.report.rivals import pairs
from dropasr.report.schema import (
    Comparison,
    Counts,
    Difference,
    ErrorRate,
    ModelTotalRtf,
    ResultRow,
    Results,
    Rtf,
    Speedup,
    SplitFigures,
    Stack,
)
from dropasr.report.signals import short_signals
from dropasr.report.test_sets import SplitSize, ordered
from dropasr.scoring.bootstrap import difference_interval, interval_kind, outcome, ratio_interval, wer_interval

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


_FIRST_KEYS = {
    "corpus": "name prepare sample_rate one_speaker note unknown_words empty_transcripts max_dropped options",
    "features": "num_mel_bins low_freq high_freq frame_shift normalise dtype",
    "lang": "lexicon unknown_word arpa text order smoothing states_per_phone silence_states silence_probability",
    "align": "gaussian_rounds gaussian_utterances net_rounds layers width epochs beam",
    "train": "epochs batch_size learning_rate final_learning_rate constant_share momentum weight_decay max_grad_norm held_out precision",
    "decode": "backend beam max_active acoustic_scales prior_scale",
    "rtf": "utterances repeats",
}
"""Options of the first version, whose values always count; later ones count where they are not at their default, so that the hash of a
configuration that does not use them stays what it was."""


def _counting(config: Config) -> dict[str, Any]:
    """The values of all options that a row depends on."""
    values, changed = config.model_dump(mode="json"), config.model_dump(mode="json", exclude_defaults=True)
    kept = {
        section: {key: value for key, value in values[section].items() if key in first.split() or key in changed.get(section, {})}
        for section, first in _FIRST_KEYS.items()
    }
    if config.train.criterion == "frames":
        for key in CTC_OPTIONS:
            kept["train"].pop(key, None)
    kept["corpus"].pop("corpus_dir", None)
    options = kept["corpus"]["options"]
    kept["corpus"]["options"] = {
        key: Path(value).name if isinstance(value, str) and os.path.isabs(value) else value for key, value in options.items()
    }
    for key in ("lexicon", "arpa", "text", "dictionary"):
        if isinstance(kept["lang"].get(key), str):
            kept["lang"][key] = Path(kept["lang"][key]).name
    if "texts" in kept["lang"]:
        kept["lang"]["texts"] = [Path(name).name for name in kept["lang"]["texts"]]
    return {**kept, "model": values["model"]}


def row_hashes(config: Config) -> dict[str, str]:
    """Per row, a hash of what its figures depend on, without seed and machine: the same on every machine with the same configuration.

    Rows do not depend on each other's presence, so that adding a method leaves the hashes of the other rows as they are.
    """
    methods = config.methods
    shared = {**_counting(config), "budget_tolerance": config.experiment.budget_tolerance, "graph_construction": GRAPH_CONSTRUCTION}
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


def _difference(net: Net, other: Net, run: Run, test: str = "test", kind: ErrorRate = "word") -> Difference:
    about = run.counts(test, kind), run.speakers(test), run.sets(test)
    interval = difference_interval([net.errors(test, kind)], [other.errors(test, kind)], *about)
    return Difference(to=other.name, mean=interval.estimate, interval=interval.bounds)


def _split_figures(net: Net, run: Run, test: str) -> SplitFigures:
    about = run.speakers(test), run.sets(test)
    wer, cer = (wer_interval(net.errors(test, kind), run.counts(test, kind), *about) for kind in ("word", "character"))
    return SplitFigures(
        wer=wer.estimate,
        wer_interval=wer.bounds,
        wer_difference=_difference(net, run.reference, run, test),
        cer=cer.estimate,
        cer_interval=cer.bounds,
        cer_difference=_difference(net, run.reference, run, test, "character"),
    )


def _speedup(net: Net, reference: Net) -> Speedup:
    model = ratio_interval(reference.timing.model_seconds, net.timing.model_seconds)
    total = ratio_interval(reference.timing.total_seconds, net.timing.total_seconds)
    return Speedup(model=model.estimate, total=total.estimate, interval=model.bounds, total_interval=total.bounds)


def evaluations_per_second(config: Config) -> float:
    """How often nets are evaluated per second of audio."""
    return round(1 / config.features.frame_shift) / (config.train.frame_subsampling * config.decode.frame_skip)


def _row(net: Net, run: Run, config: Config) -> ResultRow:
    summary, scores, timing, test, dev = net.summary, net.scores, net.timing, net.scores.test, net.scores.dev.utterances
    return ResultRow(
        **_split_figures(net, run, "test").model_dump(),
        extra={name: _split_figures(net, run, name) for name in run.tests[1:]},
        name=net.name,
        label=label(net.row),
        kind=net.row.kind,
        method=net.row.method,
        learns_units=summary.learns_units,
        model=summary.model,
        teacher=summary.teacher,
        seed=summary.seed,
        budget=net.row.budget,
        reference=net is run.reference,
        units=summary.units,
        inputs=summary.inputs,
        parameters=summary.parameters,
        nonzeros=summary.nonzeros,
        macs_per_second=round(summary.macs_per_frame * evaluations_per_second(config)),
        criterion=summary.criterion,
        wer_counts=Counts(words=test.words, substitutions=test.substitutions, deletions=test.deletions, insertions=test.insertions),
        dev_wer=scores.dev.wer,
        dev_wer_interval=wer_interval([i.errors for i in dev], [i.words for i in dev], [i.speaker for i in dev]).bounds,
        dev_cer=scores.dev.cer,
        dev_ce=net.last.dev_ce,
        dev_frame_error=net.last.dev_frame_error,
        estimators={name: estimator.split_half for name, estimator in summary.estimators.items()},
        signals=short_signals(summary.signals),
        acoustic_scale=scores.acoustic_scale,
        lm_scale=scores.lm_scale,
        insertion_penalty=scores.insertion_penalty,
        prior=scores.prior,
        rtf=Rtf(features=timing.features, model=timing.model, search=timing.search, total=timing.total),
        rtf_median=ModelTotalRtf(**timing.median.model_dump()),
        rtf_p95=ModelTotalRtf(**timing.p95.model_dump()),
        speedup=_speedup(net, run.reference),
        train_seconds=summary.train_seconds,
        train_cpu_seconds=summary.train_cpu_seconds,
        epochs=summary.epochs,
        config_hash=summary.config_hash,
        git_revision=summary.git_revision,
    )


def _comparisons(run: Run, found: Sequence[ResultRow]) -> list[Comparison]:
    nets = {net.name: net for net in run.nets}
    comparisons = []
    for test, (row, other) in product(ordered(sizes_of(run)), pairs(found)):
        net, rival = nets[row.name], nets[other.name]
        difference = _difference(net, rival, run, test, run.error_rate)
        words = run.counts(test, run.error_rate).sum()
        comparisons.append(
            Comparison(
                row=row.name,
                test=test,
                budget=row.budget,
                difference=difference,
                rates=tuple(100 * float(one.errors(test, run.error_rate).sum() / words) for one in (net, rival)),
                dev_ce_difference=net.last.dev_ce - rival.last.dev_ce,
                outcome=outcome(difference.interval),
            )
        )
    return comparisons


def split_size(counts: np.ndarray, speakers: Sequence[str], sets: Sequence[str]) -> SplitSize:
    """Size of a test set of so many words per utterance; of the union of several, `sets` says which each is from."""
    number, of_set = len(set(speakers)), Counter(place for place, _ in set(zip(sets, speakers)))
    unit = "speaker" if number > 1 else "utterance"
    kind = interval_kind(unit, min(of_set.values()))
    return SplitSize(words=int(np.sum(counts)), speakers=number, bootstrap_unit=unit, interval=kind, sets=len(of_set))


def sizes_of(run: Run) -> dict[str, SplitSize]:
    """Sizes of all test sets of a run, their union included."""
    return {test: split_size(run.counts(test), run.speakers(test), run.sets(test)) for test in run.tests}


def make_results(config: Config, run: Run) -> Results:
    """The table of one run."""
    scores = run.nets[0].scores
    sizes = sizes_of(run)
    test = sizes.pop("test")
    found = [_row(net, run, config) for net in run.nets]
    return Results(
        corpus=config.corpus.name,
        note=config.corpus.note,
        experiment_note=config.experiment.note,
        one_speaker=run.corpus.one_speaker,
        error_rate=run.error_rate,
        system=system_name(config),
        command=command_line(),
        hardware=run.timing.hardware,
        busy_share=run.timing.busy_share,
        stack=Stack(
            search=scores.backend,
            beam=scores.beam,
            max_active=scores.max_active,
            frame_subsampling=scores.frame_subsampling,
            frame_skip=scores.frame_skip,
            rescore=scores.rescore,
            versions={name: str(version) for name, version in run.timing.versions.items()},
        ),
        config_hash=hash_of(row_hashes(config)),
        reference=run.reference.name,
        test_words=test.words,
        test_speakers=test.speakers,
        bootstrap_unit=test.bootstrap_unit,
        interval=test.interval,
        extra_tests=sizes,
        test_evaluations=run.test_evaluations,
        rows=found,
        comparisons=_comparisons(run, found),
    )
