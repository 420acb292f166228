"""`dropasr bench rtf`: word error rates and real-time factors of exported nets in engines, measured together.

The protocol is that of stage 8 (dropasr/runtime/timing.py): one thread pinned to one core, one utterance at a time, candidates interleaved.
Words are those of the whole of test with the same net, engine and search; every such evaluation is logged as stage 7 logs its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dropasr.bench.candidates import Candidate, candidates, feature_extractor, positions_of
from dropasr.bench.memory import peak_memory
from dropasr.bench.throughput import throughput
from dropasr.bench.words import errors_on_test, journal_of
from dropasr.config import Config
from dropasr.data.store import FrameStore
from dropasr.decoding.search import PLAIN
from dropasr.errors import MeasurementError
from dropasr.log import get_logger
from dropasr.paths import Paths
from dropasr.runtime.busy import BUSY_SHARE, busy_share
from dropasr.runtime.machine import hardware, pinned, versions
from dropasr.runtime.rtf import Searches
from dropasr.runtime.timing import Audio, Times, interleaved, load_audio
from dropasr.scoring.bootstrap import Interval, difference_interval, ratio_interval, wer_interval
from dropasr.scoring.wer import WerResult

logger = get_logger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is measured and how."""

    folders: tuple[Path, ...]
    engines: tuple[str, ...] = ()
    """Empty: all that can run."""
    repeats: int | None = None
    """Timed passes; None: rtf.repeats of the configuration."""
    utterances: int | None = None
    """Utterances of test whose words are compared; None: all."""
    threads: int = 1
    batch: int = 1
    """With more than one thread or utterance at once, throughput is measured, too."""
    under_load: bool = False
    """Measure on a busy machine, and mark the table."""


def check_load(under_load: bool) -> float:
    """Other processes' share of one core. Raises MeasurementError on a busy machine, if it is not meant to be measured all the same."""
    busy = busy_share()
    if busy > BUSY_SHARE and not under_load:
        raise MeasurementError(
            f"the machine is busy: other processes use {100 * busy:.0f} % of one core, at most {100 * BUSY_SHARE:.0f} % was expected. "
            "Measure again when it is idle, or with --under-load, which marks the table."
        )
    return busy


def measure(config: Config, paths: Paths, plan: Plan) -> dict[str, Any]:
    """The figures of all candidates, the first of which is what the others are compared with. Raises MeasurementError, UsageError."""
    if (busy := busy_share()) > BUSY_SHARE and not plan.under_load:
        logger.warning(
            f"other processes use {100 * busy:.0f} % of one core. Words are found all the same, and kept; times will be refused "
            f"if that is still above {100 * BUSY_SHARE:.0f} % by then."
        )
    searches, journal = Searches(config, paths), journal_of(paths)
    found = list(candidates(plan.folders, plan.engines, config, paths, searches))
    if not found:
        raise MeasurementError("no engine can run any of the folders, see above. Install onnxruntime, or export again.")
    store, audio = FrameStore.open(paths.features("test")), load_audio(config, paths)
    positions = positions_of(store, plan.utterances, [utterance.id for utterance in audio])
    results = {candidate.name: errors_on_test(candidate, store, positions, paths, journal) for candidate in found}
    busy = check_load(plan.under_load)
    repeats = plan.repeats or config.rtf.repeats
    features = feature_extractor(config)
    with pinned(), torch.no_grad():
        decoders = {candidate.name: candidate.decoder(features, store) for candidate in found}
        times = interleaved(decoders, audio, repeats)
    busy = max(busy, check_load(plan.under_load))
    rates = _rates(found, plan, audio, store, features, repeats)
    durations = np.array([utterance.duration for utterance in audio])
    longest = max(len(store.utterance(utterance.id)) for utterance in audio)
    reference = found[0].name
    rows = []
    for candidate in found:
        name = candidate.name
        errors = error_figures(results[name], results[reference], store, positions)
        rows.append(
            {
                "name": name,
                **candidate.about(),
                **errors,
                "rtf": times[name].figures(durations, repeats),
                "speedup": _speedups(times[reference], times[name]),
                "peak_memory_mib": peak_memory(candidate.folder, candidate.engine, longest),
                "joules_per_second_of_speech": _energy(times[name], durations),
                "throughput": rates.get(name),
            }
        )
    return {
        "hardware": hardware(),
        "versions": versions(),
        "corpus": config.corpus.name,
        "backend": searches.get(PLAIN).backend,
        "beam": config.decode.beam,
        "max_active": config.decode.max_active,
        "stride": config.train.frame_subsampling,
        "busy_share": round(busy, 3),
        "under_load": busy > BUSY_SHARE,
        "repeats": repeats,
        "timed_utterances": len(audio),
        "timed_seconds": float(durations.sum()),
        "scored_utterances": len(positions),
        "of_utterances": len(store),
        "reference": reference,
        "rows": rows,
    }


def bounds(interval: Interval) -> dict[str, Any]:
    """An interval for JSON."""
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "kind": interval.kind, "unit": interval.unit}


def error_figures(result: WerResult, reference: WerResult, store: FrameStore, positions: list[int]) -> dict[str, Any]:
    """Word error rate with its interval, and the difference to that of a reference."""
    errors, others = ([item.errors for item in each.utterances] for each in (result, reference))
    words = [item.words for item in result.utterances]
    speakers = [store.speakers[position] for position in positions]
    return {
        "words": result.words,
        "wer": bounds(wer_interval(errors, words, speakers)),
        "wer_difference": bounds(difference_interval([errors], [others], words, speakers)),
    }


def _speedups(reference: Times, own: Times) -> dict[str, Any]:
    pairs = {"model": "model_seconds", "total": "total_seconds"}
    return {key: bounds(ratio_interval(getattr(reference, name), getattr(own, name))) for key, name in pairs.items()}


def _energy(times: Times, durations: np.ndarray) -> float | None:
    if any(value is None for value in times.joules):
        return None
    return sum(times.joules) / (len(times.joules) * float(durations.sum()))  # type: ignore[arg-type]


def _rates(found: list[Candidate], plan: Plan, audio: list[Audio], store: FrameStore, features: Any, repeats: int) -> dict[str, Any]:
    if plan.threads == plan.batch == 1:
        return {}
    items = [(features(utterance), *store.statistics(utterance.id)) for utterance in audio]
    seconds = sum(utterance.duration for utterance in audio)
    nets = {candidate.name: candidate.net for candidate in found}
    return throughput(nets, items, seconds, plan.threads, plan.batch, repeats)
