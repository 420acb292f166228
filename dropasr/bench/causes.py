"""`dropasr bench causes`: what makes decoding faster, one cause after the other: net, engine, search, rate of scores.

The first line is the large net in plain torch with the first decoder: that of the configuration file, or what `--first` says. Each further
line changes one thing and keeps the ones before; the last has all that `--set` gives on the command line. Beside them stands the large net
with everything else as in the last line, so that what the smaller net brings can be seen there, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dropasr.bench.candidates import Candidate, feature_extractor, positions_of
from dropasr.bench.rtf import Plan, bounds, check_load, error_figures
from dropasr.bench.ways import WAYS, provide_graph
from dropasr.bench.words import errors_in, errors_on_test, journal_of
from dropasr.config import Config, load_config, system_folder, system_name
from dropasr.data.store import FrameStore
from dropasr.decoding.rescore import load_decoder
from dropasr.decoding.search import choose_backend
from dropasr.errors import UsageError
from dropasr.files import hash_of, sha256_file
from dropasr.lang.graph_build import FILE_NAMES
from dropasr.paths import Paths
from dropasr.report.tables import MISSING, Table
from dropasr.report.tables import interval as interval_text
from dropasr.runtime.busy import BUSY_SHARE, busy_caution
from dropasr.runtime.engines import DEFAULT, engine_module
from dropasr.runtime.export import export
from dropasr.runtime.machine import hardware, pinned, versions
from dropasr.runtime.rtf import Searches
from dropasr.runtime.timing import Times, interleaved, load_audio
from dropasr.scoring.bootstrap import ratio_interval, wer_interval
from dropasr.training.evaluate import decoding_identity

if TYPE_CHECKING:
    from dropasr.options import Invocation

SEARCH = ("decode.backend", "decode.beam", "decode.max_active")
RATE = ("decode.frame_skip", "train.frame_subsampling")
PLAIN_ENGINE = "torch"


def _taken(config: Config, other: Config, keys: Sequence[str]) -> Config:
    """`config` with the values that `other` has for `keys`."""
    for key in keys:
        section, _, name = key.partition(".")
        changed = getattr(config, section).model_copy(update={name: getattr(getattr(other, section), name)})
        config = config.model_copy(update={section: changed})
    return config


def first_system(config: Config, invocation: Invocation) -> Config:
    """The configuration of the first decoder: search and rate of scores as in the configuration file, and as `--first` says."""
    causes, first = (*SEARCH, *RATE), invocation.own.get("--first", [])
    for setting in first:
        if setting.partition("=")[0] not in causes:
            raise UsageError(f"option '--first': expected one of {', '.join(causes)} with its value, found '{setting}'.")
    kept = [setting for setting in invocation.settings if setting.partition("=")[0] not in causes]
    corpus_dir = str(invocation.corpus_dir) if invocation.corpus_dir else None
    file = load_config(invocation.conf, invocation.model, invocation.method, corpus_dir, [*kept, *first], invocation.overlays)
    return _taken(config, file, causes)


@dataclass(frozen=True)
class Step:
    """One line: what is new in it, and all that it is made of."""

    cause: str
    row: str
    engine: str
    config: Config


def steps_of(first: Config, last: Config, large: str, small: str, engine: str) -> list[Step]:
    """The lines, from the first decoder to the last, and the large net beside the last one. Causes that change nothing have none."""
    tuned = _taken(first, last, SEARCH)
    found = [Step("first decoder", large, PLAIN_ENGINE, first), Step("net", small, PLAIN_ENGINE, first)]
    if engine != PLAIN_ENGINE:
        found.append(Step("engine", small, engine, first))
    if tuned != first:
        found.append(Step("search", small, engine, tuned))
    if _taken(tuned, last, RATE) != tuned:
        found.append(Step("subsampling", small, engine, last))
    return [*found, replace(found[-1], cause="large net beside it", row=large)]


class _Systems:
    """Exported nets and searches of the steps; those of equal settings are made once, and graphs are shared by beams."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._exported: dict[tuple[str, str], Any] = {}
        self._searches: dict[Any, Searches] = {}
        self._loaded: dict[Any, Any] = {}
        self._graphs: dict[Any, str] = {}

    def paths(self, config: Config) -> Paths:
        """The folders of the system of a configuration."""
        return replace(self._paths, system=system_folder(config))

    def candidate(self, step: Step) -> Candidate:
        """The net of a step in its engine, with its search."""
        config, paths = step.config, self.paths(step.config)
        folder = self._paths.system_home / "bench" / "causes" / (paths.system or "as_trained") / step.row
        key = paths.system, step.row
        if key not in self._exported:
            self._exported[key] = export(config, paths, step.row, folder)
        search = self._search(config, paths)
        # The graph may be one that was made beside the benchmarks, which stage 7 does not know.
        decoding = hash_of([decoding_identity(config, paths), self._graphs[paths.system, choose_backend(config.decode.backend)]])
        candidate = Candidate(folder, self._exported[key], step.engine, paths, search, decoding, config.corpus.text)
        candidate.name = f"{step.cause}: {candidate.name}"
        return candidate

    def _search(self, config: Config, paths: Paths) -> Searches:
        backend, options = choose_backend(config.decode.backend), config.decode
        way = next(way for way in WAYS if way.backend == backend)
        graph = paths.system, backend
        if graph not in self._loaded:
            place = provide_graph(way, config, paths)
            self._graphs[graph] = sha256_file(place / FILE_NAMES[backend])
            self._loaded[graph] = load_decoder(config, paths, place)
        key = (*graph, options.beam, options.max_active)
        if key not in self._searches:
            self._searches[key] = Searches(config, paths, self._loaded[graph].pruned(options.beam, options.max_active))
        return self._searches[key]


def measure(first: Config, last: Config, paths: Paths, plan: Plan, large: str, small: str) -> dict[str, Any]:
    """The figures of all steps. Both rows must have been decoded (stage 7) in the first system and in the last.

    Raises MeasurementError on a busy machine, StageError for a row that was not decoded, UsageError.
    """
    if len(plan.engines) > 1:
        raise UsageError(f"option '--engines': causes take one engine, found {', '.join(plan.engines)}.")
    systems, journal = _Systems(paths), journal_of(paths)
    steps = steps_of(first, last, large, small, plan.engines[0] if plan.engines else DEFAULT)
    found = [systems.candidate(step) for step in steps]
    stores, audio = {split: FrameStore.open(paths.features(split)) for split in ("dev", "test")}, load_audio(last, paths)
    test, dev = stores["test"], stores["dev"]
    positions = positions_of(test, plan.utterances, [utterance.id for utterance in audio])
    dev_positions = positions_of(dev, plan.utterances, [])
    results = [errors_on_test(candidate, test, positions, systems.paths(step.config), journal) for candidate, step in zip(found, steps)]
    on_dev = [errors_in(candidate, dev, dev_positions, journal) for candidate in found]
    busy = check_load(plan.under_load)
    repeats, features = plan.repeats or last.rtf.repeats, feature_extractor(last)
    with pinned(), torch.no_grad():
        times = interleaved({candidate.name: candidate.decoder(features, test) for candidate in found}, audio, repeats)
    busy = max(busy, check_load(plan.under_load))
    durations = np.array([utterance.duration for utterance in audio])
    speakers = [dev.speakers[position] for position in dev_positions]
    rows = []
    for number, (step, candidate) in enumerate(zip(steps, found)):
        # The large net stands beside the last line, and is compared with it alone.
        before = times[found[max(number - 1, 0)].name]
        errors, words = ([getattr(item, key) for item in on_dev[number].utterances] for key in ("errors", "words"))
        rows.append(
            {
                "cause": step.cause,
                "row": step.row,
                "engine": step.engine,
                "backend": candidate.search.backend,
                "beam": step.config.decode.beam,
                "max_active": step.config.decode.max_active,
                "system": system_name(step.config),
                "dev_wer": bounds(wer_interval(errors, words, speakers)),
                **error_figures(results[number], results[0], test, positions),
                "rtf": times[candidate.name].figures(durations, repeats),
                "factor": _ratios(before, times[candidate.name]),
                "speedup": _ratios(times[found[0].name], times[candidate.name]),
            }
        )
    return {
        "hardware": hardware(),
        "versions": versions(),
        "corpus": last.corpus.name,
        "busy_share": round(busy, 3),
        "under_load": busy > BUSY_SHARE,
        "repeats": repeats,
        "timed_utterances": len(audio),
        "timed_seconds": float(durations.sum()),
        "scored_utterances": {"test": len(positions), "dev": len(dev_positions)},
        "rows": rows,
    }


def _ratios(reference: Times, own: Times) -> dict[str, Any]:
    return {
        "model": bounds(ratio_interval(reference.model_seconds, own.model_seconds)),
        "total": bounds(ratio_interval(reference.total_seconds, own.total_seconds)),
    }


def _interval(value: dict[str, Any], signed: bool = False) -> str:
    return interval_text(value["estimate"], (value["low"], value["high"]), signed=signed)


def _line(number: int, row: dict[str, Any]) -> list[str]:
    times = row["rtf"]
    return [
        row["cause"],
        row["row"],
        engine_module(row["engine"]).TITLE,
        f"{row['backend']}, {row['beam']:g}, {row['max_active']}",
        row["system"] or "every frame",
        f"{row['dev_wer']['estimate']:.2f}",
        _interval(row["wer"]),
        MISSING if number == 0 else _interval(row["wer_difference"], signed=True),
        *(f"{times[part]:.5f}" for part in ("features", "model", "search", "total")),
        MISSING if number == 0 else _interval(row["factor"]["total"]),
        *("1" if number == 0 else _interval(row["speedup"][part]) for part in ("total", "model")),
    ]


def markdown(result: dict[str, Any]) -> str:
    """The table, and what has to be known to read it. `result`: what `measure` returns."""
    header = (
        *("what is new", "net", "engine", "search: beam, max active", "scores", "WER % on dev", "WER % on test", "difference"),
        *("features", "model", "search", "RTF", "× the line above", "× the first", "model × the first"),
    )
    scored, cpu = result["scored_utterances"], result["hardware"]["cpu"]
    notes = [
        "Each line changes one thing and keeps the ones above; the last is the large net with everything else as in the line above it. "
        f"{result['corpus']}: WER of {scored['dev']} utterances of dev and {scored['test']} of test ({result['rows'][0]['words']} words), "
        "95 % intervals; differences are to the first line. Acoustic scales are those that dev chose for the net and its rate of scores. "
        f"Real-time factors: {result['timed_utterances']} utterances of test ({result['timed_seconds']:.0f} s), {result['repeats']} "
        "interleaved passes, one thread on one core, one utterance at a time; ratios are of features, net and search together. "
        f"{cpu}; " + ", ".join(f"{name} {version}" for name, version in result["versions"].items()) + "."
    ]
    if result["under_load"]:
        notes.insert(0, f"**Measured under load.** {busy_caution(result['busy_share'])}")
    lines = [_line(number, row) for number, row in enumerate(result["rows"])]
    return "\n\n".join([Table(header, lines, frozenset(range(5))).markdown(), *notes]) + "\n"
