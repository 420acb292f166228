"""`dropasr bench search`: word error rate on dev and real-time factor of the search, by beam and number of active states.

The scores are those that stage 7 gives the search, with the acoustic scale and the weights that dev chose. Words are found for all
utterances; times are taken on some of them, in passes in which all settings take turns. They are processor times, so that other work on
the machine does not choose. In each way of searching, the knee is the fastest setting whose error rate is at most a tolerance above that
of the widest one. Test plays no part in it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dropasr.bench.candidates import positions_of
from dropasr.bench.journal import Journal
from dropasr.bench.rtf import Plan, check_load
from dropasr.bench.ways import Way, load_way, provide_graph, ways_called, why_not
from dropasr.config import Config
from dropasr.data.store import FrameStore
from dropasr.data.text import Normaliser
from dropasr.decoding.likelihoods import load_log_prior, log_likelihoods
from dropasr.decoding.search import Search, Weights, batches_by_frames, search_name
from dropasr.errors import MeasurementError, StageError, UsageError
from dropasr.files import hash_of, read_json, sha256_file
from dropasr.lang.graph_build import FILE_NAMES
from dropasr.log import get_logger, progress
from dropasr.models.checkpoint import load_net
from dropasr.paths import Paths
from dropasr.runtime.busy import BUSY_SHARE
from dropasr.runtime.machine import hardware, pinned, versions
from dropasr.runtime.timing import WARM_UP, order_of_pass
from dropasr.scoring.bootstrap import difference_interval, wer_interval
from dropasr.scoring.wer import character_errors, score_utterance
from dropasr.training.evaluate import decoding_identity
from dropasr.training.row_evaluation import net_identity

logger = get_logger(__name__)
BEAMS = (8.0, 10.0, 12.0, 14.0, 16.0)
MAX_ACTIVE = (300, 1000, 3000, 7000)
EQUAL_TIMES = 1.05
"""Ratio of two times below which neither counts as faster."""
BLOCK_FRAMES = 20_000
"""Frames whose scores are in memory at once while words are found."""


@dataclass(frozen=True)
class Setting:
    """A way of searching with a beam and a number of active states."""

    way: Way
    beam: float
    max_active: int

    @property
    def name(self) -> str:
        """For the journal."""
        return f"{self.way.name} {self.beam:g} {self.max_active}"


def grid_of(config: Config, beams: Sequence[float], max_active: Sequence[int]) -> list[tuple[float, int]]:
    """Beams and numbers of active states: those given, else the usual ones and those of the configuration."""
    options = config.decode
    beams = beams or [*BEAMS, options.beam]
    max_active = max_active or [*MAX_ACTIVE, options.max_active]
    return [(beam, active) for beam in sorted(set(beams)) for active in sorted(set(max_active))]


class _Row:
    """A decoded row on dev: its scores, as the search reads them, and the errors in words."""

    def __init__(self, config: Config, paths: Paths, row: str) -> None:
        if not paths.scores(row).exists():
            raise StageError(f"{paths.scores(row)}: '{row}' was not decoded, so its scales are not known. Run: bash run.sh --stage 7.")
        figures = read_json(paths.scores(row))
        self.config, self.store = config, FrameStore.open(paths.features("dev"))
        self._normalise = Normaliser(config.corpus.text)
        self.scale, self.weights = figures["acoustic_scale"], Weights(figures["lm_scale"], figures["insertion_penalty"])
        self._net, self._prior = load_net(paths.net(row)), load_log_prior(config, paths, row)
        self.identity = [net_identity(paths, row), self.scale, self.weights.lm_scale, self.weights.insertion_penalty]

    def scores(self, position: int) -> torch.Tensor:
        """Scaled scores `(T, K)` of an utterance."""
        stride, skip = self.config.train.frame_subsampling, self.config.decode.frame_skip
        return self.scale * log_likelihoods(self._net, self.store.utterance(position), self._prior, stride, skip)

    def errors(self, position: int, words: list[str]) -> int:
        """Wrong words, or characters where they are the headline."""
        reference, words = self.store.texts[position], self._normalise.words(words)
        if self.config.corpus.error_rate == "character":
            return character_errors(reference, words)[1]
        return score_utterance(self.store.ids[position], reference, words).errors

    def size(self, position: int) -> int:
        """Words or characters that were spoken."""
        reference = self.store.texts[position]
        return character_errors(reference, [])[0] if self.config.corpus.error_rate == "character" else len(reference)


def measure(
    config: Config,
    paths: Paths,
    plan: Plan,
    row: str,
    grid: Sequence[tuple[float, int]],
    tolerance: float,
    journal: Journal,
) -> dict[str, Any]:
    """The figures of all settings of all ways that can run here. Raises MeasurementError, StageError, UsageError."""
    if search_name(config) == "greedy":
        raise UsageError("decode.ctc=greedy: it has no beam to tune. Set decode.ctc=hlg or h.")
    busy = check_load(plan.under_load)
    net = _Row(config, paths, row)
    timed = timed_positions(net.store, config.rtf.utterances)
    positions = positions_of(net.store, plan.utterances, [net.store.ids[position] for position in timed])
    wrong: dict[str, dict[str, int]] = {}
    searches: dict[str, Search] = {}
    settings: list[Setting] = []
    identities = []
    for way in ways_called(plan.engines):
        reason = why_not(way, config)
        if reason is not None:
            if plan.engines:
                raise MeasurementError(f"search '{way.name}' cannot run: {reason}.")
            logger.info(f"without search {way.name}: {reason}")
            continue
        folder = provide_graph(way, config, paths)
        searches.setdefault(way.backend, load_way(way, config, paths, net.weights, folder))
        own = [Setting(way, beam, active) for beam, active in grid]
        identities.append(_identity(net, config, paths, way, folder))
        wrong.update(_errors(net, own, searches[way.backend], positions, journal, identities[-1]))
        settings += own
    if not settings:
        raise MeasurementError("no search can run here, see above. Install k2, or kaldi-decoder and kaldifst.")
    repeats = plan.repeats or config.rtf.repeats
    seconds = _times(net, settings, searches, timed, repeats, journal, hash_of([identities, [item.name for item in settings], timed]))
    busy = max(busy, check_load(plan.under_load))
    duration = float(sum(net.store.durations[position] for position in timed))
    rows = _figures(net, settings, wrong, positions, {name: sum(item) / (repeats * duration) for name, item in seconds.items()})
    for way in {setting.way.name for setting in settings}:
        knee([item for item in rows if item["way"] == way], tolerance)["knee"] = True
    return {
        "hardware": hardware(),
        "versions": versions(),
        "corpus": config.corpus.name,
        "error_rate": config.corpus.error_rate,
        "row": row,
        "acoustic_scale": net.scale,
        "tolerance": tolerance,
        "stride": config.train.frame_subsampling,
        "frame_skip": config.decode.frame_skip,
        "busy_share": round(busy, 3),
        "under_load": busy > BUSY_SHARE,
        "repeats": repeats,
        "timed_utterances": len(timed),
        "timed_seconds": duration,
        "scored_utterances": len(positions),
        "of_utterances": len(net.store),
        "size": sum(net.size(position) for position in positions),
        "rows": rows,
    }


def knee(rows: Sequence[dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """Of the settings of one way, the fastest whose error rate is at most `tolerance` percent absolute above that of the widest.

    Times within 5 % count as equal, and of those the widest is taken.
    """
    widest = max(rows, key=lambda item: (item["beam"], item["max_active"]))
    good = [item for item in rows if item["wer"]["estimate"] <= widest["wer"]["estimate"] + tolerance + 1e-9]
    least = min(item["rtf"] for item in good)
    return max((item for item in good if item["rtf"] <= EQUAL_TIMES * least), key=lambda item: (item["beam"], item["max_active"]))


def timed_positions(store: FrameStore, count: int) -> list[int]:
    """The utterances to time: a fixed random choice."""
    return sorted(np.random.default_rng(0).permutation(len(store))[:count].tolist())


def _identity(net: _Row, config: Config, paths: Paths, way: Way, folder: Path) -> str:
    """Hash of all that the words of a way depend on, beam and active states aside."""
    plain = {"backend": way.backend, "beam": 1.0, "max_active": 10}
    config = config.model_copy(update={"decode": config.decode.model_copy(update=plain)})
    graph = folder / FILE_NAMES[way.backend]
    return hash_of([way.name, net.identity, decoding_identity(config, paths), sha256_file(graph) if graph.exists() else None])


def _errors(
    net: _Row, settings: Sequence[Setting], search: Search, positions: Sequence[int], journal: Journal, identity: str
) -> dict[str, dict[str, int]]:
    """Errors by utterance id of each setting; what the journal has is not searched again."""
    found: dict[str, dict[str, int]] = {setting.name: {} for setting in settings}
    for line in journal.lines(identity):
        if "errors" in line and line["setting"] in found:
            found[line["setting"]].update(line["errors"])
    store = net.store
    lengths = [int(store.offsets[position + 1] - store.offsets[position]) for position in positions]
    blocks = list(batches_by_frames(lengths, BLOCK_FRAMES))
    for block in progress(blocks, settings[0].way.title):
        numbers = [positions[index] for index in block]
        ids = [store.ids[position] for position in numbers]
        missing = [setting for setting in settings if not found[setting.name].keys() >= set(ids)]
        scores = [net.scores(position) for position in numbers] if missing else []
        for setting in missing:
            words = setting.way.decode(search.pruned(setting.beam, setting.max_active), scores)
            errors = {store.ids[position]: net.errors(position, text) for position, text in zip(numbers, words, strict=True)}
            found[setting.name].update(errors)
            journal.add(identity, {"setting": setting.name, "errors": errors})
    return found


def _times(
    net: _Row,
    settings: Sequence[Setting],
    searches: dict[str, Search],
    timed: Sequence[int],
    repeats: int,
    journal: Journal,
    identity: str,
) -> dict[str, list[float]]:
    """Seconds of the search for the timed utterances, by setting and pass; passes that the journal has are not repeated."""
    passes = {line["pass"]: line["seconds"] for line in journal.lines(identity) if "pass" in line}
    scores = [net.scores(position) for position in timed]
    by_name = {setting.name: setting for setting in settings}
    missing = [number for number in range(1, repeats + 1) if number not in passes]
    with pinned():
        for number in progress([0, *missing] if missing else [], "timing"):
            seconds = {}
            for name in order_of_pass(list(by_name), number):
                setting = by_name[name]
                search = searches[setting.way.backend].pruned(setting.beam, setting.max_active)
                begin = time.process_time()
                setting.way.decode(search, scores[:WARM_UP] if number == 0 else scores)
                seconds[name] = time.process_time() - begin
            if number:
                passes[number] = seconds
                journal.add(identity, {"pass": number, "seconds": seconds})
    return {name: [passes[number][name] for number in range(1, repeats + 1)] for name in by_name}


def _figures(
    net: _Row, settings: Sequence[Setting], wrong: dict[str, dict[str, int]], positions: Sequence[int], rtf: dict[str, float]
) -> list[dict[str, Any]]:
    store = net.store
    ids, speakers = [store.ids[position] for position in positions], [store.speakers[position] for position in positions]
    sizes = [net.size(position) for position in positions]
    errors = {name: [item[id] for id in ids] for name, item in wrong.items()}
    rows = []
    for setting in settings:
        widest = replace(setting, beam=max(item.beam for item in settings), max_active=max(item.max_active for item in settings))
        difference = difference_interval([errors[setting.name]], [errors[widest.name]], sizes, speakers)
        interval = wer_interval(errors[setting.name], sizes, speakers)
        rows.append(
            {
                "way": setting.way.name,
                "backend": setting.way.backend,
                "beam": setting.beam,
                "max_active": setting.max_active,
                "wer": {"estimate": interval.estimate, "low": interval.low, "high": interval.high},
                "difference": {"estimate": difference.estimate, "low": difference.low, "high": difference.high},
                "rtf": rtf[setting.name],
                "knee": False,
            }
        )
    return rows
