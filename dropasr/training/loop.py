"""Training one net: epochs of SGD with a method moving the gates, a checkpoint after each, figures on dev.

A killed run continues after its last whole epoch and ends with the same weights, bit for bit on one CPU thread: the order of the
frames and all masks depend only on seed and epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch

from dropasr.config import TrainConfig
from dropasr.data.batches import FrameSampler
from dropasr.methods.base import BaseMethod, HeldOut
from dropasr.models.base import AcousticModel
from dropasr.training.checkpoints import load_training, restore_momentum, save_training
from dropasr.training.criteria import Teacher, frame_loss
from dropasr.training.schedules import autocast, learning_rate


@dataclass
class Samplers:
    """Frames of one training: `all` for methods that hold nothing out, `kept` and `held_out` for those that do, `dev` for figures."""

    all: FrameSampler
    kept: FrameSampler
    held_out: FrameSampler
    dev: FrameSampler


def make_optimiser(net: AcousticModel, config: TrainConfig) -> torch.optim.SGD:
    """SGD with momentum; weight decay on matrices only."""
    matrices = [parameter for parameter in net.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in net.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


@torch.no_grad()
def frame_figures(net: AcousticModel, sampler: FrameSampler, config: TrainConfig, max_frames: int = 16384) -> tuple[float, float]:
    """Cross-entropy (nats) and frame error (percent) on evenly spaced frames of a sampler."""
    net.eval()
    indices = sampler.frame_indices[:: max(1, len(sampler.frame_indices) // max_frames)]
    loss = errors = 0.0
    for start in range(0, len(indices), 2048):
        inputs, labels, _ = sampler.gather(indices[start : start + 2048])
        with autocast(config.precision):
            logits = net(inputs)
        loss += float(torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum"))
        errors += float((logits.argmax(dim=1) != labels).sum())
    return loss / len(indices), 100 * errors / len(indices)


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
    ) -> None:
        self.net, self.method, self.samplers, self.config = net, method, samplers, config
        self.folder, self.seed, self.teacher, self.say, self.identity = folder, seed, teacher, say, identity
        self.history: list[dict[str, Any]] = []
        self.retention: list[dict[str, Any]] = []
        self.estimators: dict[str, Any] = {}
        self.compactions: list[dict[str, Any]] = []
        self.optimiser = make_optimiser(net, config)

    def resume(self) -> int:
        """Load the last state of the same configuration, if there is one; return the number of finished epochs."""
        if not (self.folder / "training.json").exists():
            return 0
        about, net, momentum, tensors = load_training(self.folder)
        if about["identity"] != self.identity:
            return 0
        self.net = net
        self.optimiser = make_optimiser(net, self.config)
        restore_momentum(net, self.optimiser, momentum)
        self.method.load_tensors(tensors)
        self.history, self.retention = about["history"], about["retention"]
        self.estimators, self.compactions = about["estimators"], about["compactions"]
        return int(about["epoch"])

    def _held_out(self) -> HeldOut:
        sampler = self.samplers.held_out

        def draw(generator: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
            chosen = generator.choice(sampler.frame_indices, size=min(count, len(sampler.frame_indices)), replace=False)
            return sampler.gather(chosen)[:2]

        return HeldOut(draw, len(sampler.frame_indices))

    def _epoch(self, epoch: int, sampler: FrameSampler, held_out: HeldOut) -> tuple[float, int]:
        """One pass over the frames; returns the mean training loss and the number of frames."""
        total, frames = 0.0, 0
        steps = sampler.steps_per_epoch
        self.method.training_mode(self.net, epoch)
        self.net.train()
        weight = self.method.options.teacher_weight
        for step, (inputs, labels, indices) in enumerate(sampler.epoch(epoch)):
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate(self.config, (epoch + step / steps) / self.config.epochs)
            targets = self.teacher(indices) if self.teacher is not None else None
            with autocast(self.config.precision):
                logits = self.net(inputs)
            loss = frame_loss(logits, labels, targets, weight)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.config.max_grad_norm)
            self.optimiser.step()
            total += float(loss.detach()) * len(labels)
            frames += len(labels)
            with autocast(self.config.precision):
                self.net.eval()
                self.method.after_step(self.net, epoch, step, self.optimiser, held_out)
                self.net.train()
        return total / frames, frames

    def run(self, on_epoch: Callable[[dict[str, Any]], None] = lambda figures: None) -> AcousticModel:
        """Train to the end and return the net with its gates open."""
        held_out = self._held_out()
        for epoch in range(self.resume(), self.config.epochs):
            began = time.perf_counter()
            sampler = self.samplers.kept if self.method.holds_out(epoch) else self.samplers.all
            self.method.schedule = self.method.schedule.with_steps(sampler.steps_per_epoch)
            self.method.begin_epoch(self.net, epoch, np.random.Generator(np.random.SFC64([self.seed, epoch])))
            loss, frames = self._epoch(epoch, sampler, held_out)
            if epoch == self.config.epochs - 1:
                self.method.finish(self.net, held_out.draw(np.random.default_rng(self.seed), 512)[0])
            seconds = time.perf_counter() - began
            self._note(epoch, loss, frames, seconds)
            on_epoch(self.history[-1])
            state = {name: getattr(self, name) for name in ("identity", "history", "retention", "estimators", "compactions")}
            save_training(self.folder, epoch + 1, self.net, self.optimiser, self.method.tensors(), state)
        return self.net.eval()

    def _note(self, epoch: int, loss: float, frames: int, seconds: float) -> None:
        report = self.method.report
        self.method.inference_mode(self.net)
        dev_ce, dev_error = frame_figures(self.net, self.samplers.dev, self.config)
        rate = frames / seconds
        figures = {
            "epoch": epoch + 1,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "train_ce": loss,
            "dev_ce": dev_ce,
            "dev_frame_error": dev_error,
            "frames_per_second": rate,
            "seconds": seconds,
            "units": self.net.widths,
            "keep": report.keep,
        }
        self.history.append(figures)
        self.retention += report.retention
        self.estimators.update(report.estimators)
        self.compactions += [{"epoch": epoch + 1, **asdict(proof)} for proof in report.proofs]
        for message in report.messages:
            self.say(message)
        left = sum(row["seconds"] for row in self.history) / len(self.history) * (self.config.epochs - epoch - 1)
        self.say(
            f"epoch {epoch + 1}/{self.config.epochs}  lr {figures['learning_rate']:.4f}  train CE {loss:.3f}  dev CE {dev_ce:.3f}  "
            f"dev frame error {dev_error:.1f} %  units {'/'.join(map(str, self.net.widths))}  {rate / 1000:.1f}k frames/s  "
            f"about {left:.0f} s left"
        )
