"""The protocol of timing: decoders take turns over the same utterances, and real-time factors are sums of times over sums of durations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dropasr.config import Config
from dropasr.errors import MeasurementError
from dropasr.log import progress
from dropasr.paths import Paths
from dropasr.runtime.machine import joules

PARTS = ("features", "model", "search")
WARM_UP = 3
"""Utterances of pass 0, which warms up caches and allocators and is not counted."""


@dataclass(frozen=True)
class Audio:
    """One utterance, read before the clock starts: samples float32 `(S,)`, duration in seconds."""

    id: str
    samples: np.ndarray
    duration: float


Decode = Callable[[Audio], tuple[float, float, float]]
"""Decodes an utterance; returns the seconds of its features, the acoustic model and the search."""


def order_of_pass(names: Sequence[str], number: int) -> list[str]:
    """The nets in the order of one pass: begun one net later each time, and every second pass backwards, so that no net always
    follows the same one."""
    first = number % len(names)
    order = [*names[first:], *names[:first]]
    return order[::-1] if number % 2 else order


def load_audio(config: Config, paths: Paths, split: str = "test") -> list[Audio]:
    """The utterances to time: a fixed random choice of a split."""
    from lhotse import CutSet

    cuts = sorted(CutSet.from_file(paths.cuts(split)), key=lambda cut: cut.id)
    chosen = np.random.default_rng(0).permutation(len(cuts))[: config.rtf.utterances]
    return [Audio(cuts[i].id, cuts[i].load_audio()[0].astype(np.float32), cuts[i].duration) for i in sorted(chosen)]


@dataclass
class Times:
    """The seconds of one decoder: sums per part of each pass, and model and total of each utterance of each pass."""

    passes: list[dict[str, float]] = field(default_factory=list)
    model_seconds: list[list[float]] = field(default_factory=list)
    total_seconds: list[list[float]] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)

    def add(self, passed: Sequence[tuple[float, float, float]], energy: float | None = None) -> None:
        """Take in one pass."""
        self.passes.append({part: sum(parts) for part, parts in zip(PARTS, zip(*passed))})
        self.model_seconds.append([model for _, model, _ in passed])
        self.total_seconds.append([sum(parts) for parts in passed])
        self.joules.append(energy)

    def figures(self, durations: np.ndarray, repeats: int) -> dict[str, Any]:
        """Real-time factors by part; median and 95th percentile over utterances; what they were made of."""
        if len(self.passes) != repeats:
            raise MeasurementError(f"expected {repeats} timed passes, found {len(self.passes)}. Run stage 8 again.")
        parts = {key: sum(sums[key] for sums in self.passes) / (repeats * durations.sum()) for key in PARTS}
        model, total = np.mean(self.model_seconds, axis=0) / durations, np.mean(self.total_seconds, axis=0) / durations
        return {
            **parts,
            "total": sum(parts.values()),
            "median": {"model": float(np.median(model)), "total": float(np.median(total))},
            "p95": {"model": float(np.percentile(model, 95)), "total": float(np.percentile(total, 95))},
            "passes": self.passes,
            "per_utterance_model_seconds": self.model_seconds,
            "per_utterance_total_seconds": self.total_seconds,
        }


def interleaved(decoders: Mapping[str, Decode], audio: Sequence[Audio], repeats: int) -> dict[str, Times]:
    """Let the decoders take turns over the utterances, `repeats` passes after one that warms up; call it inside `machine.pinned`."""
    times = {name: Times() for name in decoders}
    schedule = [(repeat, name) for repeat in range(repeats + 1) for name in order_of_pass(list(decoders), repeat)]
    for repeat, name in progress(schedule, "timing"):
        before = joules()
        passed = [decoders[name](utterance) for utterance in audio[: WARM_UP if repeat == 0 else None]]
        after = joules()
        if repeat > 0:
            times[name].add(passed, None if before is None or after is None or after < before else after - before)
    return times
