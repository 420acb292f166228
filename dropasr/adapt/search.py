"""From a budget to a finished net: which sizes are trained, which one is taken, and what is told of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

from torch import nn

from dropasr.adapt.adapter import Sizes, difference
from dropasr.adapt.budgets import Budget, num_bytes, widths_of
from dropasr.adapt.latency import TOLERANCE as LATENCY_TOLERANCE
from dropasr.adapt.latency import Engine, Meter
from dropasr.adapt.mapping import Tensors
from dropasr.adapt.run import Finished, Job
from dropasr.compaction.proof import TOLERANCE
from dropasr.errors import CompactionError, ConfigError
from dropasr.files import write_json
from dropasr.models.base import AcousticModel, widths_for_budget
from dropasr.models.checkpoint import write_tensors
from dropasr.runtime.busy import BUSY_SHARE, busy_share

SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)
"""Shares of the multiply-adds that the search for a loss budget tries, large to small, before it looks between two of them."""
Evaluate = Callable[[nn.Module], float]
"""A figure of the user's own for a module, lower being better, such as the WER of a decoder on dev."""


@dataclass
class Compacted:
    """A compacted net in the user's own format, and what it cost.

    state_dict: the user's tensor names, smaller tensors; sizes: those of each layer, by prefix; module: the user's module with them (None
    without a module and a factory); widths: units per layer (of an LSTM per layer and direction); figures: `before` and `after`, each with
    loss, error (percent of rows, nan where targets are no labels), macs, params, bytes and latency (seconds of a call), and how it was
    found; tried: all sizes that a search trained.
    """

    state_dict: Tensors
    sizes: Sizes
    module: Union[nn.Module, None]
    widths: list[int]
    figures: dict[str, Any]
    tried: list[dict[str, Any]] = field(default_factory=list)

    def save(self, folder: Union[str, Path]) -> None:
        """Write `compacted.safetensors`, and `compacted.json` with sizes, figures and the SHA-256 of the tensors."""
        folder = Path(folder)
        digest = write_tensors(folder / "compacted.safetensors", self.state_dict)
        about = {"sizes": self.sizes, "widths": self.widths, "sha256": digest, "figures": self.figures, "tried": self.tried}
        write_json(folder / "compacted.json", _without_nan(about))


def _without_nan(value: Any) -> Any:
    """The value with null where a figure does not exist, for JSON has no nan."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


class Search:
    """From a budget to a finished net."""

    def __init__(self, job: Job, budget: Budget, frames: int, engine: Engine, evaluate: Union[Evaluate, None] = None) -> None:
        self.job, self.budget, self.frames, self.evaluate = job, budget, frames, evaluate
        self.meter = Meter(job.adapter, job.adapter.net(), engine, frames)
        self.options = job.method_options
        if budget.kind == "wer-loss" and (evaluate is None or (job.adapter.module is None and job.adapter.factory is None)):
            raise ConfigError(
                "budget wer-loss: a net alone has no words to count; pass a module or a factory, and evaluate=, a function that "
                "decodes with a module and returns its WER on dev. Without a decoder take dev-loss=+0.05 or error=+0.5%."
            )
        self.before = self._figures(job.large)
        self.tried: list[dict[str, Any]] = []

    def result(self) -> Compacted:
        job, budget = self.job, self.budget
        job.say(
            f"net: {'/'.join(map(str, job.large.widths))} units, {job.large.macs_per_frame()} multiply-adds, {self._shown(self.before)}"
        )
        if budget.kind == "latency" and (share := busy_share()) > BUSY_SHARE:
            job.say(
                f"caution: other processes use {100 * share:.0f} % of one core; they share caches, so latencies come out too long, shares "
                "less so"
            )
        if budget.kind == "error" and math.isnan(self.before["error"]):
            raise ConfigError("budget error: the targets are no labels, so there are no errors to count; take dev-loss.")
        finished = self._search() if budget.is_search else job.train(self._widths())
        return self._finish(finished)

    def _widths(self) -> list[int]:
        scale = self.frames if self.budget.per_frame else 1
        units, multiple = self.options.min_units, self.options.width_multiple

        def seconds(widths: list[int]) -> float:
            return self.meter.measure(widths)[self.budget.relative] / scale

        return widths_of(self.budget, self.job.large, units, multiple, self.job.adapter.together, seconds)

    def _figures(self, net: AcousticModel) -> dict[str, float]:
        """Loss and error on dev, and, where that is the budget, what `evaluate` says of the user's module."""
        figures = dict(self.job.before) if net is self.job.large else self.job.figures(net)
        if self.budget.kind == "wer-loss":
            adapter = self.job.adapter
            figures["wer-loss"] = float(self.evaluate(adapter.rebuild(copy.deepcopy(net).to(adapter.dtype))))
        return figures

    def _at(self, share: float) -> Finished:
        large = self.job.large
        widths = widths_for_budget(
            large, share * large.macs_per_frame(), None, self.options.min_units, self.options.width_multiple, self.job.adapter.together
        )
        finished = self.job.train(widths)
        figures, key = self._figures(finished.net), {"dev-loss": "loss"}.get(self.budget.kind, self.budget.kind)
        rise = figures[key] - self.before[key]
        within = rise <= self.budget.value
        self.tried.append({"share": share, "widths": widths, **figures, "rise": rise, "within": within})
        self.job.say(
            f"{share:.4g} of the multiply-adds: {self._shown(figures)}; {key} {rise:+.3f}, "
            f"{'within' if within else 'beyond'} {self.budget.value:+g}"
        )
        return finished

    def _search(self) -> Finished:
        """The smallest net that stays within the budget: down the shares until one does not, then once between the last two."""
        best, failed = None, None
        for share in SHARES:
            finished = self._at(share)
            if not self.tried[-1]["within"]:
                failed = share
                break
            best, last = finished, share
        if best is None:
            raise CompactionError(
                f"budget {self.budget.kind}: {SHARES[0]:g} of the multiply-adds is {self.tried[0]['rise']:+.3f} off the large net, "
                f"{self.budget.value:+g} are allowed. Train longer (epochs), or allow more."
            )
        if failed is not None:
            between = self._at(math.sqrt(last * failed))
            best = between if self.tried[-1]["within"] else best
        return best

    def _shown(self, figures: dict[str, float]) -> str:
        error = "" if math.isnan(figures["error"]) else f", error {figures['error']:.2f} %"
        return f"loss {figures['loss']:.4f}{error}"

    def _finish(self, finished: Finished) -> Compacted:
        job, adapter = self.job, self.job.adapter
        after = self._figures(finished.net)
        net = finished.net.to(adapter.dtype)
        module = None if adapter.module is None and adapter.factory is None else adapter.rebuild(net)
        exported = adapter.export(net)
        if module is not None:
            batch = job.example.transpose(0, 1) if adapter.is_recurrent and not adapter.batch_first else job.example
            different, largest = difference(module, adapter, net, batch[:256])
            if not different <= TOLERANCE[adapter.dtype] * max(largest, 1e-30):
                raise CompactionError(
                    f"the compacted module differs by {different:.3g} (largest output {largest:.3g}) from the compacted net: "
                    "please report this with its layers."
                )
        seconds, share = self.meter.measure(net.widths)
        large = self.meter.log[-1]["large_seconds"]
        figures = {
            "budget": vars(self.budget),
            "before": {**self.before, **self._sizes(job.large), "latency": large},
            "after": {**after, **self._sizes(net), "latency": seconds},
            "latency_share": share,
            "frames_per_call": self.frames,
            "engine": self.meter.engine.name,
            "largest_proof_difference": max((proof["max_difference"] for proof in finished.proofs), default=None),
            "seconds": finished.seconds,
            "measured": self.meter.log,
        }
        self._check_met(figures)
        before, after = figures["before"], figures["after"]
        job.say(
            f"compacted: {'/'.join(map(str, net.widths))} units, {self._shown(before)} -> {self._shown(after)}; multiply-adds "
            f"{after['macs'] / before['macs']:.4f}, bytes {before['bytes']} -> {after['bytes']}, a call of {self.frames} frames "
            f"{1e3 * large:.3g} -> {1e3 * seconds:.3g} ms ({share:.3f})"
        )
        return Compacted(exported, adapter.sizes(net), module, net.widths, figures, self.tried)

    def _sizes(self, net: Any) -> dict[str, int]:
        own = self.job.adapter.net()
        return {"macs": net.macs_per_frame(), "params": net.num_parameters(), "bytes": num_bytes(own, net.widths)}

    def _check_met(self, figures: dict[str, Any]) -> None:
        """Say where a time that was measured again lies beyond the budget by more than two measurements differ."""
        if self.budget.kind != "latency":
            return
        found = (
            figures["latency_share"]
            if self.budget.relative
            else figures["after"]["latency"] / (self.frames if self.budget.per_frame else 1)
        )
        if found > self.budget.value * (1 + LATENCY_TOLERANCE):
            self.job.say(
                f"caution: measured again, the latency is {found:.4g}, {found / self.budget.value - 1:.1%} above the budget; "
                "other work may have interfered"
            )
