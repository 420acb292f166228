"""`dropasr.compact`: a user's net with fewer units, trained with the methods of dropasr on the user's data."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Union

import torch
from torch import nn

from dropasr.adapt.adapter import Adapter, Factory, difference
from dropasr.adapt.budgets import parse_budget
from dropasr.adapt.criterion import criterion_of
from dropasr.adapt.data import CriterionLike, divide, read_data, sampler_of
from dropasr.adapt.latency import Engine, TorchEngine
from dropasr.adapt.run import Job
from dropasr.adapt.search import Compacted, Evaluate, Search
from dropasr.compaction.proof import TOLERANCE
from dropasr.config import TrainConfig, parse_options
from dropasr.errors import ConfigError


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
    evaluate: Union[Evaluate, None] = None,
    folder: Union[str, Path, None] = None,
    seed: int = 1,
    say: Callable[[str], None] = print,
) -> Compacted:
    """Remove hidden units of a user's feed-forward or LSTM net until it meets a budget, training while and after it shrinks.

    `net`: an nn.Module, or a state dict with `layers` (dropasr/adapt/layers.py); `data`, `dev`: batches (inputs, targets), such as a
    DataLoader, or one such pair, for LSTMs (B, T, F) with targets (B, T) and lengths (B,) as a third where sequences are padded and the
    net packs them; without `dev` a tenth of the data takes its part. `criterion`: `cross_entropy`, or a function (outputs (N, K), targets
    (N, ...)) -> mean loss. `budget`: see dropasr/adapt/budgets.py. `train`, `options`: keys of TrainConfig and of the method.
    `frames_per_call`: rows, or steps of a sequence, of the call whose latency counts. `evaluate`: for budget wer-loss, a function from the
    module to its WER on dev (or any figure that is to stay low). `folder`: keeps the state, so that the same call goes
    on after an interruption. The user's module is not changed.

    Raises ConfigError or DataError for what cannot be used, CompactionError where a budget cannot be met, or where the module that is
    returned would not compute what the compacted net does.
    """
    adapter = Adapter.of(net, layers, factory)
    wanted = parse_budget(budget)
    if "epochs" in (train or {}):
        raise ConfigError(
            "train.epochs: the passes over the data are not an option of `train` here. Give `epochs` (compact-net: --epochs)."
        )
    settings = parse_options(TrainConfig, {**(train or {}), "epochs": epochs}, "train")
    with _home(folder) as home, _module_as_it_was(adapter.module):
        job = _job(adapter, data, dev, criterion, method, options or {}, settings, home, seed, say)
        return Search(job, wanted, frames_per_call, engine or TorchEngine(), evaluate).result()


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


def _job(adapter, data, dev, criterion, method, options, settings: TrainConfig, home: Path, seed: int, say: Callable[[str], None]) -> Job:
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


def _check_same(adapter: Adapter, batch: torch.Tensor, say: Callable[[str], None]) -> None:
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
