"""Dropout compaction (Kubo, Tucker, Wiesler 2016): learn for every hidden unit whether to keep it, and remove the others while training.

Three phases, stated as shares of the epochs: plain training until `start`; from there dropout training with one retention probability
per unit, alternating with passes of retention learning on held-out frames, units leaving the net as their probability reaches zero;
from `end` on, training of what is left. The published algorithm is `start: 0`, `estimator: score`, `controller: none`.

Beyond the paper: the budget controller moves the separatrix of the prior to the quantile of the probabilities that leaves the wanted
number of units per layer, and decides the rest at `end`, so that a budget of multiply-adds is met exactly and no layer collapses.
"""

from __future__ import annotations

from typing import Any, Literal, Union

import numpy as np
import torch
from pydantic import Field

from dropasr.compaction.retention import ESTIMATORS, Targets, prior_curvature, prior_gradient, separatrix, split_half
from dropasr.compaction.surgery import fold_scales
from dropasr.data.chunks import Inputs
from dropasr.methods.base import HeldOut
from dropasr.methods.base_removal import GradualRemoval, RemovalOptions
from dropasr.models.base import AcousticModel
from dropasr.models.gates import sampled


class MethodOptions(RemovalOptions):
    """Keys of conf/method/dropout_compaction.yaml."""

    estimator: Literal["score", "mean_field", "gumbel_st", "random"] = "mean_field"
    """Gradient of the retention probabilities: the paper's, the expectation-scaled net's, straight-through, or noise, as a control."""
    controller: Literal["budget", "none"] = "budget"
    """`budget`: meet the row's share of multiply-adds; `none`: as published, the size follows from prior and data."""
    alpha: float = Field(default=0.9, gt=0, lt=1)
    """Powered beta prior: below 1 it repels from 0.5 towards 0 (the controller sets it)."""
    beta: float = Field(default=0.9, gt=0, lt=1)
    """Powered beta prior: below 1 it repels from 0.5 towards 1."""
    prior_strength: float = Field(default=1.0, ge=0)
    """gamma / T of the paper: weight of the prior against the data term per frame, without the controller."""
    path: Literal["free", "even"] = "free"
    """With the controller: `free` lets units leave when their probability reaches 0, those too many at `end`; `even` lets as many leave
    after every pass as lead evenly to the final widths, the least probable ones."""
    pace: float = Field(default=1.2, gt=0)
    """With the controller: deviations from the separatrix grow by exp(pace) per pass, by the prior alone."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Step on the retention probabilities per update."""
    gradient_scale: Literal["layer", "none"] = "layer"
    """`layer`: divide the data gradient by its standard deviation over the layer; `none`: as published."""
    initial_retention: float = Field(default=0.75, gt=0, lt=1)
    """Retention probability of all units when retention learning starts."""
    updates_per_pass: int = Field(default=8, ge=1)
    """Updates per pass."""
    frames_per_update: int = Field(default=2048, ge=2)
    """Held-out frames per update."""
    threshold: float = Field(default=0.02, gt=0, lt=0.5)
    """Below it a probability becomes 0 and the unit leaves; above 1 - threshold it becomes 1."""
    signal_frames: int = Field(default=8192, ge=0)
    """Held-out frames for the split-half correlation of every estimator at the first pass; 0 leaves it out."""
    signal_updates: bool = False
    """Also measure that correlation at every update, on the frames of the update."""


class Method(GradualRemoval):
    """`scales` are the retention probabilities, one tensor per group of units."""

    ranks_inputs = True

    @classmethod
    def learns_units(cls, options: MethodOptions) -> bool:
        return options.estimator != "random"

    @property
    def meets_budget(self) -> bool:
        return self.options.controller == "budget"

    def holds_out(self, epoch: int) -> bool:
        return epoch < self.options.end * self.schedule.epochs

    def begin_removal(self, net: AcousticModel, trained: bool) -> None:
        super().begin_removal(net, trained)
        self.scales = [torch.full((width,), self.options.initial_retention) for width in net.widths]
        if trained:
            # The trained units are about to be scaled by their retention probability: keep what the layers above read.
            fold_scales(net.unit_groups(), [1 / probabilities for probabilities in self.scales])

    def training_mode(self, net: AcousticModel, epoch: int) -> None:
        super().training_mode(net, epoch)
        if self.phase != "learning":
            return
        self.report.keep = float(torch.cat(self.scales).mean())
        for group, probabilities in zip(net.unit_groups(), self.scales):
            group.gate.multiplier = sampled(self.generator, probabilities)

    def inference_mode(self, net: AcousticModel) -> None:
        super().inference_mode(net)
        if self.phase == "learning":
            for group, probabilities in zip(net.unit_groups(), self.scales):
                group.gate.multiplier = probabilities

    def _measure_signal(self, net: AcousticModel, held_out: HeldOut) -> None:
        inputs, targets = held_out.draw(self.generator, min(self.options.signal_frames, held_out.num_rows))
        for name in ESTIMATORS:
            correlation = split_half(name, net, inputs, targets, self.scales, self.generator, self.options.frames_per_update)
            self.report.estimators[name] = {"split_half": correlation, "frames": len(inputs)}
            text = " ".join("–" if value is None else f"{value:.3f}" for value in correlation)
            self.report.messages.append(f"signal of {name} (split-half correlation per layer, {len(inputs)} held-out frames): {text}")

    def _note_signals(self, net: AcousticModel, inputs: Inputs, targets: Targets, place: dict[str, Any]) -> None:
        # Masks of its own: measuring must not change what is drawn for learning.
        generator = np.random.default_rng([self.schedule.seed, place["pass"], place["update"]])
        found = {name: split_half(name, net, inputs, targets, self.scales, generator) for name in ESTIMATORS}
        short = {name: [None if value is None else round(value, 4) for value in values] for name, values in found.items()}
        self.report.signals.append({**place, "frames": len(inputs), "split_half": short})

    def run_pass(self, net: AcousticModel, number: int, time: float, held_out: HeldOut) -> None:
        options = self.options
        if number == 1 and options.signal_frames:
            self._measure_signal(net, held_out)
        targets = self.targets or [None] * len(self.scales)
        for update in range(options.updates_per_pass):
            gradients = self._gradients(net, held_out, {"epoch": round(time, 3), "pass": number, "update": update})
            for index, (gradient, target) in enumerate(zip(gradients, targets)):
                self.scales[index] = self._update(self.scales[index], gradient, target)
        self._guard()
        if self.targets and options.path == "even":
            self._keep_to_path(number)

    def _keep_to_path(self, number: int) -> None:
        """Leave as many probabilities above 0 after pass `number` as lie on the way from the first widths to the final ones."""
        for index, (probabilities, first, last) in enumerate(zip(self.scales, self.initial_units, self.targets)):
            surplus = probabilities.numel() - self.planned(first, last, number)
            leaving = probabilities.topk(max(surplus, 0), largest=False).indices
            kept = probabilities.clamp(min=2 * self.options.threshold)
            kept[leaving] = 0
            self.scales[index] = kept

    def _gradients(self, net: AcousticModel, held_out: HeldOut, place: dict[str, Any]) -> list[torch.Tensor]:
        if self.options.estimator == "random":
            return [torch.from_numpy(self.generator.standard_normal(scales.numel(), dtype=np.float32)) for scales in self.scales]
        inputs, targets = held_out.draw(self.generator, self.options.frames_per_update)
        if self.options.signal_updates:
            self._note_signals(net, inputs, targets, place)
        return ESTIMATORS[self.options.estimator](net, inputs, targets, self.scales, self.generator)

    def _update(self, retention: torch.Tensor, gradient: torch.Tensor, target: Union[int, None]) -> torch.Tensor:
        options = self.options
        if options.gradient_scale == "layer":
            gradient = gradient / gradient.std().clamp(min=1e-12) if gradient.numel() > 1 else gradient
        if target is None:
            step = options.learning_rate * (gradient + options.prior_strength * prior_gradient(retention, options.alpha, options.beta))
        else:
            at = self._separatrix(retention, target)
            alpha = 1 - (1 - options.beta) * at / (1 - at)
            strength = options.pace / (options.updates_per_pass * prior_curvature(at, options.beta))
            # The force diverges at the ends; a step beyond a quarter would jump over the separatrix.
            prior = (strength * prior_gradient(retention, alpha, options.beta)).clamp(-0.25, 0.25)
            step = options.learning_rate * gradient + prior
        undecided = (retention > 0) & (retention < 1)
        moved = (retention + step).clamp(0, 1)
        moved = torch.where(moved <= options.threshold, torch.zeros_like(moved), moved)
        moved = torch.where(moved >= 1 - options.threshold, torch.ones_like(moved), moved)
        return torch.where(undecided, moved, retention)

    def _separatrix(self, retention: torch.Tensor, target: int) -> float:
        surplus = retention.numel() - target
        if surplus <= 0:
            return 0.05
        order = retention.sort().values
        at = float(order[surplus - 1] + order[min(surplus, order.numel() - 1)]) / 2
        return min(max(at, 0.05), 0.95)

    def _guard(self) -> None:
        """Keep at least `min_units` units (with the controller: the target) in every layer."""
        floor = self.targets or [self.options.min_units] * len(self.scales)
        for probabilities, units in zip(self.scales, floor):
            units = min(units, probabilities.numel())
            if int((probabilities > 0).sum()) < units:
                best = probabilities.topk(units).indices
                probabilities[best] = probabilities[best].clamp(min=separatrix(self.options.alpha, self.options.beta))
