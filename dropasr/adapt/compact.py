"""`dropasr.compact`: a user's net with fewer units, trained with the methods of dropasr on the user's data."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

import torch
from torch import nn

from dropasr.adapt.adapter import Adapter, Factory, Sizes, Tensors, difference
from dropasr.adapt.budgets import Budget, num_bytes, parse_budget, widths_of
from dropasr.adapt.criterion import criterion_of
from dropasr.adapt.data import CriterionLike, divide, read_data, sampler_of
from dropasr.adapt.latency import TOLERANCE as LATENCY_TOLERANCE
from dropasr.adapt.latency import Engine, Meter, TorchEngine
from dropasr.adapt.run import Finished, Job
from dropasr.compaction.proof import TOLERANCE
from dropasr.config import TrainConfig, parse_options
from dropasr.errors import CompactionError, ConfigError
from dropasr.files import write_json
from dropasr.models.base import widths_for_budget
from dropasr.models.checkpoint import write_tensors
from dropasr.runtime.busy import BUSY_SHARE, busy_caution, busy_share

SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)
"""Shares of the multiply-adds that the search for a loss budget tries, large to small, before it looks between two of them."""
Say = Callable[[str], None]


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
        write_json(folder / "compacted.json", about)


def compact(
    net: Any,
    data: Any,
    criterion: CriterionLike = "cross_entropy",
    budget: str = "macs=1/8",
    method: str = "dropout_compaction",
    epochs: int = 10,
    *,
    dev: Any = None,
    layers: Any = None,
    factory: Union[Factory, None] = None,
    train: Union[dict[str, Any], None] = None,
    options: Union[dict[str, Any], None] = None,
    frames_per_call: int = 1,
    engine: Union[Engine, None] = None,
    folder: Union[str, Path, None] = None,
    seed: int = 1,
    say: Say = print,
) -> Compacted:
    """Remove hidden units of a user's feed-forward or LSTM net until it meets a budget, training while and after it shrinks.

    `net`: an nn.Module, or a state dict with `layers` (dropasr/adapt/layers.py); `data`, `dev`: batches (inputs, targets), such as a
    DataLoader, or one such pair, for LSTMs (B, T, F) with targets (B, T) and lengths (B,) as a third where sequences are padded and the
    net packs them; without `dev` a tenth of the data takes its part. `criterion`: `cross_entropy`, or a function (outputs (N, K), targets
    (N, ...)) -> mean loss. `budget`: see dropasr/adapt/budgets.py. `train`, `options`: keys of TrainConfig and of the method.
    `frames_per_call`: rows, or steps of a sequence, of the call whose latency counts. `folder`: keeps the state, so that the same call goes
    on after an interruption. The user's module is not changed.

    Raises ConfigError or DataError for what cannot be used, CompactionError where a budget cannot be met, or where the module that is
    returned would not compute what the compacted net does.
    """
    adapter = Adapter.of(net, layers, factory)
    wanted = parse_budget(budget)
    settings = parse_options(TrainConfig, {**(train or {}), "epochs": epochs}, "train")
    with _home(folder) as home, _module_as_it_was(adapter.module):
        job = _job(adapter, data, dev, criterion, method, options or {}, settings, home, seed, say)
        return _Run(job, wanted, frames_per_call, engine or TorchEngine()).result()


@contextlib.contextmanager
def _home(folder: Union[str, Path, None]) -> Iterator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="dropasr-") as made:
        yield Path(made)


@contextlib.contextmanager
def _module_as_it_was(module: Union[nn.Module, None]) -> Iterator[None]:
    modes = [] if module is None else [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _job(adapter, data, dev, criterion, method, options, settings: TrainConfig, home: Path, seed: int, say: Say) -> Job:
    """Read the data, check that the adapted net is the user's, and prepare what all sizes share."""
    if settings.criterion != "frames" or settings.masking is not None or settings.epoch_share != 1 or settings.frame_subsampling != 1:
        raise ConfigError("train: criterion, masking, epoch_share and frame_subsampling are for corpora; leave them out.")
    loop_criterion = criterion_of(criterion, adapter.end, settings)
    large = adapter.net(torch.float32)
    stored = read_data(adapter, data, criterion, home / "data", "data")
    _check_same(adapter, stored.first, say)
    parts = [stored] if dev is None else [stored, read_data(adapter, dev, criterion, home / "dev", "dev")]
    everything, *rest = [sampler_of(adapter, part, criterion, settings, large.context, seed) for part in parts]
    samplers = divide(everything, len(stored.store), rest[0] if rest else None, settings, seed)
    digest = [part.digest for part in parts]
    return Job(adapter, large, samplers, loop_criterion, _name(criterion), method, options, settings, home, seed, digest, stored.first, say)


def _name(criterion: CriterionLike) -> str:
    return criterion if isinstance(criterion, str) else getattr(criterion, "__qualname__", type(criterion).__qualname__)


def _check_same(adapter: Adapter, batch: torch.Tensor, say: Say) -> None:
    """Raise ConfigError where the adapted net does not compute what the user's module does on a batch of the data."""
    if adapter.module is None:
        return
    batch = batch[:256] if not adapter.is_recurrent or adapter.batch_first else batch[:, :64]
    if adapter.is_recurrent and not adapter.batch_first:
        batch = batch.transpose(0, 1)
    different, largest = difference(adapter.module, adapter, adapter.net(), batch)
    if not different <= TOLERANCE[adapter.dtype] * max(largest, 1e-30):
        raise ConfigError(
            f"net: its outputs differ by {different:.3g} (largest {largest:.3g}) from those of its layers run one after the other: "
            f"{', '.join(layer.kind for layer in adapter.layers)}. If forward() does anything else (functional activations, another "
            "order), say what it runs with layers=[…]; residual connections and attention are not supported."
        )
    say(f"the adapted net gives the module's outputs to within {different:.1e} (largest {largest:.3g})")


class _Run:
    """From a budget to a finished net."""

    def __init__(self, job: Job, budget: Budget, frames: int, engine: Engine) -> None:
        self.job, self.budget, self.frames = job, budget, frames
        self.meter = Meter(job.adapter, job.adapter.net(), engine, frames)
        self.options = job.method_options
        self.before = job.figures(job.large)
        self.tried: list[dict[str, Any]] = []

    def result(self) -> Compacted:
        job, budget = self.job, self.budget
        job.say(
            f"net: {'/'.join(map(str, job.large.widths))} units, {job.large.macs_per_frame()} multiply-adds, {self._shown(self.before)}"
        )
        if budget.kind == "latency" and (share := busy_share()) > BUSY_SHARE:
            job.say(busy_caution(share))
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

    def _at(self, share: float) -> Finished:
        large = self.job.large
        widths = widths_for_budget(
            large, share * large.macs_per_frame(), None, self.options.min_units, self.options.width_multiple, self.job.adapter.together
        )
        finished = self.job.train(widths)
        figures = self.job.figures(finished.net)
        key = "loss" if self.budget.kind == "dev-loss" else "error"
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
        job = self.job
        net, adapter = finished.net.to(job.adapter.dtype), job.adapter
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
            "after": {**job.figures(finished.net.float()), **self._sizes(net), "latency": seconds},
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
