"""One compaction of a user's net to given widths: method, training loop, checkpoint; finished ones are not run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dropasr.adapt.adapter import Adapter
from dropasr.adapt.criterion import UserCriterion
from dropasr.config import REPOSITORY, TrainConfig, nearest, read_layers
from dropasr.errors import CompactionError, ConfigError
from dropasr.files import hash_of, sha256_bytes
from dropasr.methods import build_method, check_method, makes_smaller, method_options
from dropasr.methods.base import Schedule, open_gates
from dropasr.methods.base_removal import RemovalOptions
from dropasr.models.base import AcousticModel
from dropasr.models.checkpoint import load_net, read_about, save_net
from dropasr.training.checkpoints import remove_training
from dropasr.training.criteria import Criterion
from dropasr.training.loop import Samplers, Trainer


@dataclass(frozen=True)
class Finished:
    """A compacted net (float32, gates open), its proofs, and the seconds of its training."""

    net: AcousticModel
    proofs: list[dict[str, Any]]
    seconds: float


@dataclass
class Job:
    """What the compactions of one net to several sizes share. `large` is the net as a model of dropasr, in float32."""

    adapter: Adapter
    large: AcousticModel
    samplers: Samplers
    criterion: Criterion
    criterion_name: str
    method: str
    own_options: dict[str, Any]
    train_config: TrainConfig
    folder: Path
    seed: int
    data: list[str]
    example: torch.Tensor
    say: Callable[[str], None]

    @cached_property
    def method_values(self) -> dict[str, Any]:
        """Options of the method: those of conf/method/NAME.yaml, where there is such a file, under those of the user."""
        path = REPOSITORY / "conf" / "method" / f"{self.method}.yaml"
        values = {"method": self.method, **(read_layers(path) if path.exists() else {}), **self.own_options}
        if not makes_smaller(self.method, values) or values["method"] == "svd":  # which leaves products of matrices, not smaller layers
            known = [each.stem for each in path.parent.glob("*.yaml") if each.stem != "svd"]
            raise ConfigError(f"method: expected one that removes units, found '{self.method}'{nearest('dropout_compaction', known)}.")
        options = method_options(self.method, values)
        if options.teacher is not None:
            raise ConfigError(f"method: expected no teacher, found teacher: {options.teacher}.")
        # Measured for tables of methods alone, and with losses per row.
        return {**values, **({"signal_frames": 0} if hasattr(options, "signal_frames") else {})}

    @cached_property
    def method_options(self) -> RemovalOptions:
        """The same, typed. Raises ConfigError for a method that does not suit the net."""
        check_method(self.method, self.method_values, self.large)
        return method_options(self.method, self.method_values)

    @cached_property
    def before(self) -> dict[str, float]:
        """Loss and error (percent) of the large net on dev."""
        return self.figures(self.large)

    def figures(self, net: AcousticModel) -> dict[str, float]:
        """Loss and error (percent) on dev."""
        open_gates(net)
        loss, error = self.criterion.figures(net, self.samplers.dev, self.train_config, everything=True)
        return {"loss": loss, "error": error}

    def _identity(self, widths: Sequence[int]) -> str:
        weights = {name: sha256_bytes(tensor.contiguous().numpy().tobytes()) for name, tensor in self.large.state_dict().items()}
        training = self.train_config.training_values()
        # What a function does cannot be hashed, so it is known by what it says of the large net.
        own = isinstance(self.criterion, UserCriterion)
        criterion = [self.criterion_name, f"{self.before['loss']:.4g}"] if own else self.criterion_name
        return hash_of([weights, self.large.dims, self.data, list(widths), self.method_values, training, self.seed, criterion])

    def train(self, widths: Sequence[int]) -> Finished:
        """Compact to these widths; a run that was interrupted goes on, one that was finished is read. Raises CompactionError."""
        folder = self.folder / ("units-" + "-".join(map(str, widths)))
        identity = self._identity(widths)
        if (folder / "model.json").exists():
            about = read_about(folder / "model.json", ("identity", "proofs", "seconds"))
            if about["identity"] == identity:
                self.say(f"{folder.name}: already done")
                return Finished(load_net(folder), about["proofs"], about["seconds"])
        options = self.method_options
        if getattr(options, "controller", "budget") == "none":
            raise ConfigError(f"{self.method}: controller none makes a net of the size that it learns; a budget needs controller: budget.")
        macs = float(self.large.macs_per_frame(widths))
        train = self.train_config
        schedule = Schedule(train.epochs, self.samplers.all.steps_per_epoch, self.seed, macs, tuple(widths), train.optimiser, trained=True)
        method = build_method(self.method, self.method_values, schedule)
        net = self.adapter.net(torch.float32).train()
        trainer = Trainer(net, method, self.samplers, self.train_config, folder, self.seed, None, self.say, identity, self.criterion)
        net = trainer.run()
        if net.widths != list(widths) and abs(net.macs_per_frame() / macs - 1) > 0.02:
            raise CompactionError(f"{self.method}: expected {list(widths)} units, found {net.widths}. Take another method, or more epochs.")
        proofs = trainer.compactions
        seconds = sum(figures["seconds"] for figures in trainer.history)
        save_net(folder, net, {"identity": identity, "proofs": proofs, "seconds": seconds, "history": trainer.history})
        remove_training(folder)
        return Finished(net, proofs, seconds)
