"""Stage 8: the real-time factor of every net, split into features, acoustic model and search.

One thread pinned to one core, batch 1, warmed up, nets interleaved over the same test utterances in an order that changes from
pass to pass; the factor is the sum of times over the sum of durations.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch

from dropasr.config import Config, rows
from dropasr.data.features import log_mel, make_extractor
from dropasr.data.normalisation import normalise
from dropasr.data.store import FrameStore
from dropasr.decoding.likelihoods import load_log_prior
from dropasr.decoding.rescore import load_decoder
from dropasr.decoding.search import PLAIN, Search, Weights
from dropasr.errors import MeasurementError, StageError
from dropasr.files import read_json, write_json
from dropasr.log import get_logger, progress
from dropasr.models.checkpoint import load_net
from dropasr.paths import Paths
from dropasr.runtime.busy import BUSY_SHARE, busy_share

logger = get_logger(__name__)
PARTS = ("features", "model", "search")
PACKAGES = ("torch", "torchaudio", "k2", "kaldi-decoder", "kaldifst", "lhotse", "sentencepiece", "numpy")


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and system of this machine; no names or addresses."""
    cpu = platform.machine()
    with contextlib.suppress(OSError):
        for line in open("/proc/cpuinfo", encoding="utf-8"):
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": 1,
        "memory_gib": round(memory, 1),
        "os": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Pin this process to one core and torch to one thread."""
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def order_of_pass(names: Sequence[str], number: int) -> list[str]:
    """The nets in the order of one pass: begun one net later each time, and every second pass backwards, so that no net always
    follows the same one."""
    first = number % len(names)
    order = [*names[first:], *names[:first]]
    return order[::-1] if number % 2 else order


class _Timed:
    """One net with its prior, its scales and the search that its weights need, and the seconds of its passes."""

    def __init__(self, config: Config, paths: Paths, name: str, searches: _Searches) -> None:
        if not paths.scores(name).exists():
            raise StageError(f"{paths.scores(name)}: no WER for '{name}', so its time must not be reported. Run: bash run.sh --stage 7.")
        self.net = load_net(paths.net(name))
        self.scores = read_json(paths.scores(name))
        self.scale, self.prior = self.scores["acoustic_scale"], load_log_prior(config, paths, name)
        self.stride = config.train.frame_subsampling
        self.search = searches.get(Weights(self.scores["lm_scale"], self.scores["insertion_penalty"]))
        self.passes: list[dict[str, float]] = []
        self.model_seconds: list[list[float]] = []
        self.total_seconds: list[list[float]] = []

    def seconds(self, frames_of: Callable[[], np.ndarray]) -> tuple[float, float, float]:
        """Decode one utterance: seconds of features (`frames_of`), acoustic model and search."""
        begin = time.perf_counter()
        frames = frames_of()
        after_features = time.perf_counter()
        scores = (torch.log_softmax(self.net.logits(torch.from_numpy(frames), self.stride), dim=1) - self.prior) * self.scale
        after_model = time.perf_counter()
        self.search.decode([scores])
        return after_features - begin, after_model - after_features, time.perf_counter() - after_model


class _Searches:
    """The searches of all nets; those with equal weights share one, since graphs are large."""

    def __init__(self, config: Config, paths: Paths) -> None:
        self._plain = load_decoder(config, paths)
        self._found: dict[Weights, Search] = {PLAIN: self._plain}

    def get(self, weights: Weights) -> Search:
        """The search with these weights."""
        if weights not in self._found:
            self._found[weights] = self._plain.weighted(weights)
        return self._found[weights]


def _load_audio(config: Config, paths: Paths) -> list[tuple[str, np.ndarray, float]]:
    """Samples and durations (seconds) of the utterances to time: a fixed random choice from test, read before the clock starts."""
    from lhotse import CutSet

    cuts = sorted(CutSet.from_file(paths.cuts("test")), key=lambda cut: cut.id)
    chosen = np.random.default_rng(0).permutation(len(cuts))[: config.rtf.utterances]
    return [(cuts[i].id, cuts[i].load_audio()[0].astype(np.float32), cuts[i].duration) for i in sorted(chosen)]


def measure(config: Config, paths: Paths, nj: int) -> None:
    """Stage 8: time all rows of the experiment and write rtf.json."""
    searches = _Searches(config, paths)
    timed = {row.name: _Timed(config, paths, row.name, searches) for row in rows(config)}
    audio = _load_audio(config, paths)
    store = FrameStore.open(paths.features("test"))
    speech_seconds = sum(duration for _, _, duration in audio)
    busy = busy_share()
    if busy > BUSY_SHARE:
        logger.warning(
            f"the machine is busy (other processes use {100 * busy:.0f} % of one core): times will be too long; "
            "the interleaving keeps ratios comparable"
        )
    schedule = [(repeat, name) for repeat in range(config.rtf.repeats + 1) for name in order_of_pass(list(timed), repeat)]
    rate = config.corpus.sample_rate
    extractor = make_extractor(config.features, rate)
    with one_core(), torch.no_grad():
        for repeat, name in progress(schedule, "timing"):
            item = timed[name]
            passed = [
                item.seconds(lambda id_=id_, samples=samples: normalise(log_mel(extractor, samples, rate), *store.statistics(id_)))
                for id_, samples, _ in audio[: 3 if repeat == 0 else None]
            ]
            # Pass 0 warms up caches and allocators.
            if repeat > 0:
                item.passes.append({part: sum(parts) for part, parts in zip(PARTS, zip(*passed))})
                item.model_seconds.append([model for _, model, _ in passed])
                item.total_seconds.append([sum(parts) for parts in passed])
    durations = np.array([duration for _, _, duration in audio])
    result = {
        "hardware": hardware(),
        "versions": versions(),
        "threads": 1,
        "busy_share": round(busy, 3),
        "repeats": config.rtf.repeats,
        "utterances": len(audio),
        "audio_seconds": speech_seconds,
        "order": "interleaved",
        "backend": searches.get(PLAIN).backend,
        "rows": {name: _figures(item, durations, config.rtf.repeats) for name, item in timed.items()},
    }
    for name, figures in result["rows"].items():
        logger.info(
            f"{name}: RTF features {figures['features']:.4f} + model {figures['model']:.4f} + search {figures['search']:.4f} = "
            f"{figures['total']:.4f} at {timed[name].scores['test']['wer']:.2f} % WER"
        )
    write_json(paths.rtf, result)


def _figures(item: _Timed, durations: np.ndarray, repeats: int) -> dict[str, Any]:
    if len(item.passes) != repeats:
        raise MeasurementError(f"expected {repeats} timed passes, found {len(item.passes)}. Run stage 8 again.")
    parts = {key: sum(sums[key] for sums in item.passes) / (repeats * durations.sum()) for key in PARTS}
    model, total = np.mean(item.model_seconds, axis=0) / durations, np.mean(item.total_seconds, axis=0) / durations
    return {
        **parts,
        "total": sum(parts.values()),
        "median": {"model": float(np.median(model)), "total": float(np.median(total))},
        "p95": {"model": float(np.percentile(model, 95)), "total": float(np.percentile(total, 95))},
        "passes": item.passes,
        "per_utterance_model_seconds": item.model_seconds,
        "per_utterance_total_seconds": item.total_seconds,
    }
