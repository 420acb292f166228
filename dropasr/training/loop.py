"""Training one net: epochs of SGD with a method moving the gates, a checkpoint after each, figures on dev.

A killed run continues after its last whole epoch and ends with the same weights, bit for bit on one CPU thread: the order of the
frames and all masks depend only on seed and epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch

from dropasr.config import TrainConfig, parse_options
from dropasr.data.masking import MaskOptions, mask_inputs
from dropasr.errors import DivergedError
from dropasr.methods.base import BaseMethod, HeldOut
from dropasr.models.base import AcousticModel
from dropasr.training.checkpoints import load_training, restore_optimiser, save_training
from dropasr.training.criteria import Criterion, Loss, Sampler, make_criterion
from dropasr.training.schedules import autocast, learning_rate, resolved_precision
from dropasr.training.teacher import Teacher


@dataclass
class Samplers:
    """Data of one training: `all` for methods that hold nothing out, `kept` and `held_out` for those that do, `dev` for figures."""

    all: Sampler
    kept: Sampler
    held_out: Sampler
    dev: Sampler


def make_optimiser(net: AcousticModel, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or Adam with decoupled weight decay (Loshchilov and Hutter, 2019); decay on matrices only."""
    matrices = [parameter for parameter in net.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in net.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimiser == "adam":
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999))
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def mask_options(config: TrainConfig) -> Union[MaskOptions, None]:
    """What `train.masking` says, typed; None where nothing is masked."""
    return None if config.masking is None else parse_options(MaskOptions, config.masking, "train.masking")


STATE = ("identity", "precision", "history", "retention", "estimators", "signals", "compactions")
"""What the training state says beside tensors."""


class Trainer:
    """Runs the epochs of one net; `state` is what a checkpoint keeps beside the tensors."""

    def __init__(
        self,
        net: AcousticModel,
        method: BaseMethod,
        samplers: Samplers,
        config: TrainConfig,
        folder: Path,
        seed: int,
        teacher: Union[Teacher, None] = None,
        say: Callable[[str], None] = print,
        identity: str = "",
        criterion: Union[Criterion, None] = None,
    ) -> None:
        """`criterion` stands in the place of the one that `config` names."""
        self.net, self.method, self.samplers, self.config = net, method, samplers, config
        self.folder, self.seed, self.teacher, self.say, self.identity = folder, seed, teacher, say, identity
        self.criterion = make_criterion(config) if criterion is None else criterion
        self.masking = mask_options(config)
        self.precision = resolved_precision(config.precision)
        self.history: list[dict[str, Any]] = []
        self.retention: list[dict[str, Any]] = []
        self.estimators: dict[str, Any] = {}
        self.signals: list[dict[str, Any]] = []
        self.compactions: list[dict[str, Any]] = []
        self.optimiser = make_optimiser(net, config)

    def resume(self) -> int:
        """Load the last state of the same configuration, if there is one; return the number of finished epochs."""
        if not (self.folder / "training.json").exists():
            return 0
        about, net, state, tensors = load_training(self.folder)
        if about["identity"] != self.identity:
            return 0
        self.net = net
        self.optimiser = make_optimiser(net, self.config)
        restore_optimiser(net, self.optimiser, state)
        self.method.load_tensors(tensors)
        if about.get("precision", self.precision) != self.precision:
            self.say(
                f"goes on in {self.precision} after {about['epoch']} epochs in {about['precision']}, on another processor: the net will not"
                " be exactly that of a training without interruption. Set train.precision to have one type everywhere"
            )
        self.history, self.retention = about["history"], about["retention"]
        self.estimators, self.signals, self.compactions = about["estimators"], about["signals"], about["compactions"]
        return int(about["epoch"])

    def _step(
        self, progress: float, factor: float, inputs: torch.Tensor, targets: Any, indices: torch.Tensor, generator: torch.Generator
    ) -> Loss:
        """One update of the weights, at `factor` times the learning rate, when the share `progress` of all steps is done."""
        for group in self.optimiser.param_groups:
            group["lr"] = factor * learning_rate(self.config, progress)
        soft = self.teacher(inputs, indices) if self.teacher is not None else None
        if self.masking is not None:
            inputs = mask_inputs(inputs, self.samplers.all.num_features, generator, self.masking)
        with autocast(self.config.precision):
            logits = self.net(inputs)
        loss = self.criterion.loss(logits, targets, progress, soft, self.method.options.teacher_weight)
        penalty = self.method.penalty(self.net)
        self.optimiser.zero_grad(set_to_none=True)
        (loss.objective if penalty is None else loss.objective + penalty).backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.config.max_grad_norm)
        self.optimiser.step()
        return loss

    def _epoch(self, epoch: int, sampler: Sampler, held_out: HeldOut) -> tuple[float, int]:
        """One epoch of steps; returns the mean training loss and the number of frames."""
        total, counted, frames = 0.0, 0, 0
        steps = self.method.schedule.steps_per_epoch
        # Masks of the input, as all that is drawn, depend on seed and epoch alone.
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0]))
        self.method.training_mode(self.net, epoch)
        if self.method.masks_teacher:
            self.method.mask_teacher(self.teacher.net)
        self.net.train()
        for step, (inputs, targets, indices) in enumerate(sampler.epoch(epoch)):
            self.method.before_step(self.net, epoch, step)
            factor = self.method.rate_factor(epoch, step)
            loss = self._step((epoch + step / steps) / self.config.epochs, factor, inputs, targets, indices, generator)
            if not math.isfinite(loss.value):
                raise DivergedError(
                    f"{self.folder}: the loss is {loss.value} in epoch {epoch + 1} of {self.config.epochs}, step {step + 1} of {steps}:"
                    " training diverged. Lower the learning rate (train.learning_rate, or training_rate of the method)."
                )
            total += loss.value * loss.count
            counted += loss.count
            frames += len(indices) * sampler.frame_subsampling
            with autocast(self.config.precision):
                self.net.eval()
                self.method.after_step(self.net, epoch, step, self.optimiser, held_out)
                self.net.train()
        return total / counted, frames

    def run(self, on_epoch: Callable[[dict[str, Any]], None] = lambda figures: None) -> AcousticModel:
        """Train to the end and return the net with its gates open."""
        held_out = HeldOut(self.samplers.held_out.draw, self.samplers.held_out.num_rows)
        epochs, parts, done = self.config.epochs, self.config.epochs_per_pass, self.resume()
        if not done and epochs % parts:
            self.say(f"{parts} epochs are a pass over the data, and {epochs} epochs do not end with a whole one")
        # Where held-out frames return to training inside a pass, the rest of it must not repeat what it has had.
        change = next((epoch for epoch in range(epochs) if not self.method.holds_out(epoch)), epochs)
        everything = self.samplers.all.following(self.samplers.kept, change)
        for epoch in range(done, epochs):
            began, began_cpu = time.perf_counter(), time.process_time()
            sampler = self.samplers.kept if self.method.holds_out(epoch) else everything
            self.method.schedule = self.method.schedule.with_steps(sampler.steps(epoch))
            self.method.begin_epoch(self.net, epoch, np.random.Generator(np.random.SFC64([self.seed, epoch])))
            if epoch == 0 and self.method.masks_teacher:
                self.method.meet_teacher(self.net, self.teacher.net)
            loss, frames = self._epoch(epoch, sampler, held_out)
            if epoch == epochs - 1:
                self.method.finish(self.net, held_out.draw(np.random.default_rng(self.seed), 512)[0], held_out)
            self._note(epoch, loss, frames, time.perf_counter() - began, time.process_time() - began_cpu)
            on_epoch(self.history[-1])
            state = {name: getattr(self, name) for name in STATE}
            save_training(self.folder, epoch + 1, self.net, self.optimiser, self.method.tensors(), state)
        return self.net.eval()

    def _note(self, epoch: int, loss: float, frames: int, seconds: float, cpu_seconds: float) -> None:
        report = self.method.report
        self.method.inference_mode(self.net)
        dev_loss, dev_error = self.criterion.figures(self.net, self.samplers.dev, self.config, everything=epoch == self.config.epochs - 1)
        rate = frames / seconds
        figures = {
            "epoch": epoch + 1,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "train_ce": loss,
            "dev_ce": dev_loss,
            "dev_frame_error": dev_error,
            "frames_per_second": rate,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "units": self.net.widths,
            "keep": report.keep,
        }
        self.history.append(figures)
        self.retention += report.retention
        self.estimators.update(report.estimators)
        self.signals += report.signals
        self.compactions += [{"epoch": epoch + 1, **asdict(proof)} for proof in report.proofs]
        for message in report.messages:
            self.say(message)
        loss_name, error_name = self.criterion.loss_name, self.criterion.error_name
        error = "" if math.isnan(dev_error) else f"dev {error_name} {dev_error:.1f} %  "
        left = sum(row["seconds"] for row in self.history) / len(self.history) * (self.config.epochs - epoch - 1)
        self.say(
            f"epoch {epoch + 1}/{self.config.epochs}  lr {figures['learning_rate']:.4f}  "
            f"train {loss_name} {loss:.3f}  dev {loss_name} {dev_loss:.3f}  {error}"
            f"units {'/'.join(map(str, self.net.widths))}  {rate / 1000:.1f}k frames/s  about {left:.0f} s left"
        )
