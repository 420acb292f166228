"""`dropasr bench auto`: the fastest engine on this machine whose word error rate on dev is within a tolerance of the best one.

The choice is written into the exported folder as `engine.json`; `--engine auto` reads it from there, on the processor that it was made on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dropasr.bench.candidates import candidates, feature_extractor, positions_of
from dropasr.bench.rtf import Plan, check_load
from dropasr.config import Config
from dropasr.data.store import FrameStore
from dropasr.errors import MeasurementError
from dropasr.files import write_json
from dropasr.log import get_logger
from dropasr.paths import Paths
from dropasr.runtime.busy import BUSY_SHARE, busy_caution
from dropasr.runtime.engines import CHOICE
from dropasr.runtime.machine import hardware, pinned, versions
from dropasr.runtime.rtf import Searches
from dropasr.runtime.timing import interleaved, load_audio

logger = get_logger(__name__)


def fastest(figures: dict[str, dict[str, float]], tolerance: float) -> str:
    """Of engines with `wer` (percent) and `seconds`, the fastest whose WER is at most `tolerance` percent absolute above the least."""
    limit = min(item["wer"] for item in figures.values()) + tolerance
    return min((item["seconds"], name) for name, item in figures.items() if item["wer"] <= limit + 1e-9)[1]


def choose(config: Config, paths: Paths, plan: Plan, folder: Path, tolerance: float) -> dict[str, Any]:
    """Measure all engines on dev, keep one, and write which. Raises MeasurementError where none can run or the machine is busy."""
    busy = check_load(plan.under_load)
    found = list(candidates([folder], plan.engines, config, paths, Searches(config, paths)))
    if not found:
        raise MeasurementError(f"{folder}: no engine can run it, see above. Install onnxruntime, or export again.")
    store, audio = FrameStore.open(paths.features("dev")), load_audio(config, paths, "dev")
    positions = positions_of(store, plan.utterances, [utterance.id for utterance in audio])
    features = feature_extractor(config)
    with pinned(), torch.no_grad():
        decoders = {candidate.engine: candidate.decoder(features, store) for candidate in found}
        times = interleaved(decoders, audio, plan.repeats or config.rtf.repeats)
    busy = max(busy, check_load(plan.under_load))
    durations = sum(utterance.duration for utterance in audio)
    figures: dict[str, dict[str, float]] = {}
    for candidate in found:
        result = candidate.result(store, positions)
        seconds = float(np.median(np.sum(times[candidate.engine].model_seconds, axis=1)))
        figures[candidate.engine] = {"wer": result.wer, "words": result.words, "seconds": seconds, "rtf": seconds / durations}
    chosen = fastest(figures, tolerance)
    value = {
        "engine": chosen,
        "folder": folder.name,
        "tolerance": tolerance,
        "figures": figures,
        "cpu": hardware()["cpu"],
        "versions": versions(),
        "utterances": len(positions),
        "busy_share": round(busy, 3),
        "under_load": busy > BUSY_SHARE,
    }
    write_json(folder / CHOICE, value)
    return value


def told(value: dict[str, Any]) -> str:
    """The choice in a line."""
    figures = ", ".join(f"{name} {item['wer']:.2f} % WER, model RTF {item['rtf']:.5f}" for name, item in value["figures"].items())
    line = f"{value['folder']}: {value['engine']} (on {value['utterances']} utterances of dev: {figures})"
    return f"{line}. **Measured under load.** {busy_caution(value['busy_share'])}" if value["under_load"] else line
