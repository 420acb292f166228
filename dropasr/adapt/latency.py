"""Time of one call of a net on this machine, one thread pinned to one core, measured beside the large net.

What counts is the processor time of the thread: on a machine with nothing else to do that is the time on the clock, and on a busy one it
leaves out the time in which others had the core. Measurements alternate between the two nets, so that what remains (shared caches, clock
rates) hits both; seconds are the median of a net's repeats, shares the median of the ratios of neighbours. Between runs they differ by a
few per cent (TOLERANCE).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from dropasr.adapt.adapter import Adapter
from dropasr.models.base import AcousticModel
from dropasr.runtime.machine import pinned

TOLERANCE = 0.05
"""What two measurements of one net may differ by; a found net counts as within its budget up to this."""
REPEATS, CALL_SECONDS = 15, 4e-3
"""Timings of each net, and how long each of them lasts at least."""

Call = Callable[[], object]


class Engine(Protocol):
    """What runs a net: `prepare` returns a function that runs it once, on `frames` rows or on a sequence of that many steps, in the thread
    that calls it."""

    name: str

    def prepare(self, adapter: Adapter, net: AcousticModel, frames: int) -> Call: ...


class TorchEngine:
    """The user's own module in torch, or the adapted net where there is only a state dict."""

    name = "torch"

    def prepare(self, adapter: Adapter, net: AcousticModel, frames: int) -> Call:
        inputs = torch.randn(frames, adapter.num_inputs, generator=torch.Generator().manual_seed(0), dtype=adapter.dtype)
        if adapter.module is None and adapter.factory is None:
            net = net.to(adapter.dtype).eval()
            given = adapter.inputs(inputs[None] if adapter.is_recurrent else inputs)
            return lambda: net(given)
        module = adapter.rebuild(net)
        if adapter.is_recurrent:
            inputs = inputs[None] if adapter.batch_first else inputs[:, None]
        return lambda: module(inputs)


def _seconds(call: Call, count: int) -> float:
    began = time.thread_time()
    for _ in range(count):
        call()
    return (time.thread_time() - began) / count


@torch.no_grad()
def interleaved(calls: Sequence[Call], repeats: int = REPEATS) -> list[list[float]]:
    """Seconds of a call, `repeats` per function, in turns on one thread of one core, after a warm-up."""
    with pinned():
        for call in calls:
            _seconds(call, 2)
        counts = [max(1, round(CALL_SECONDS / max(_seconds(call, 1), 1e-7))) for call in calls]
        times: list[list[float]] = [[] for _ in calls]
        for _ in range(repeats):
            for own, call, count in zip(times, calls, counts):
                own.append(_seconds(call, count))
    return times


class Meter:
    """Measures nets of other widths against `net`, the large one; `log` has every measurement."""

    def __init__(self, adapter: Adapter, net: AcousticModel, engine: Engine, frames: int, repeats: int = REPEATS) -> None:
        self.adapter, self.net, self.engine, self.frames, self.repeats = adapter, net, engine, frames, repeats
        self.log: list[dict] = []

    def measure(self, widths: Sequence[int]) -> tuple[float, float]:
        """Seconds of a call at these widths, and as a share of the large net's."""
        small = self.net.with_widths(widths).to(self.adapter.dtype)
        large, own = interleaved([self.engine.prepare(self.adapter, each, self.frames) for each in (self.net, small)], self.repeats)
        seconds, share = statistics.median(own), statistics.median(b / a for a, b in zip(large, own))
        self.log.append({"widths": list(widths), "seconds": seconds, "share": share, "large_seconds": statistics.median(large)})
        return seconds, share
