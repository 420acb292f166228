"""Dropout compaction (Kubo, Tucker, Wiesler 2016): learn for every hidden unit whether to keep it, and remove the others while training.

Three phases, stated as shares of the epochs: plain training until `start`; from there dropout training with one retention probability
per unit, alternating with passes of retention learning on held-out frames, units leaving the net as their probability reaches zero;
from `end` on, training of what is left. The published algorithm is `start: 0`, `estimator: score`, `controller: none`.

Beyond the paper: the budget controller moves the separatrix of the prior to the quantile of the probabilities that leaves the wanted
number of units per layer, and decides the rest at `end`, so that a budget of multiply-adds is met exactly and no layer collapses.
"""

from __future__ import annotations

from typing import Literal, Union

import torch
from pydantic import Field

from dropasr.compaction.proof import compact
from dropasr.compaction.retention import ESTIMATORS, prior_curvature, prior_gradient, separatrix, split_half
from dropasr.compaction.surgery import fold_scales
from dropasr.errors import CompactionError
from dropasr.methods.base import BaseMethod, CommonOptions, HeldOut, Schedule, open_gates
from dropasr.models.base import AcousticModel, widths_for_budget
from dropasr.models.gates import sampled


class MethodOptions(CommonOptions):
    """Keys of conf/method/dropout_compaction.yaml."""

    estimator: Literal["score", "mean_field", "gumbel_st"] = "mean_field"
    """Gradient of the retention probabilities: the paper's, the expectation-scaled net's, or straight-through."""
    controller: Literal["budget", "none"] = "budget"
    """`budget`: meet the row's share of multiply-adds; `none`: as published, the size follows from prior and data."""
    alpha: float = Field(default=0.9, gt=0, lt=1)
    """Powered beta prior: below 1 it repels from 0.5 towards 0 (the controller sets it)."""
    beta: float = Field(default=0.9, gt=0, lt=1)
    """Powered beta prior: below 1 it repels from 0.5 towards 1."""
    prior_strength: float = Field(default=1.0, ge=0)
    """gamma / T of the paper: weight of the prior against the data term per frame, without the controller."""
    pace: float = Field(default=1.2, gt=0)
    """With the controller: deviations from the separatrix grow by exp(pace) per pass, by the prior alone."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Step on the retention probabilities per update."""
    gradient_scale: Literal["layer", "none"] = "layer"
    """`layer`: divide the data gradient by its standard deviation over the layer; `none`: as published."""
    initial_retention: float = Field(default=0.75, gt=0, lt=1)
    """Retention probability of all units when retention learning starts."""
    start: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training steps before retention learning."""
    end: float = Field(default=0.25, gt=0, le=1)
    """Share of the training steps after which every unit is decided (with the controller) or learning stops."""
    passes: int = Field(default=9, ge=1)
    """Passes of retention learning between `start` and `end`, evenly spread."""
    updates_per_pass: int = Field(default=8, ge=1)
    """Updates per pass."""
    frames_per_update: int = Field(default=2048, ge=2)
    """Held-out frames per update."""
    threshold: float = Field(default=0.02, gt=0, lt=0.5)
    """Below it a probability becomes 0 and the unit leaves; above 1 - threshold it becomes 1."""
    min_units: int = Field(default=8, ge=1)
    """Units that every layer keeps, whatever the probabilities say."""
    signal_frames: int = Field(default=8192, ge=0)
    """Held-out frames for the split-half correlation of every estimator at the first pass; 0 leaves it out."""


class Method(BaseMethod):
    """`retention`: one tensor of probabilities per group of units, following the net as it shrinks."""

    makes_smaller = True

    def __init__(self, options: MethodOptions, schedule: Schedule) -> None:
        super().__init__(options, schedule)
        if options.controller == "budget" and schedule.target_macs is None:
            raise CompactionError("the budget controller needs a budget: use the method in experiment.compact, or set controller: none.")
        if options.end <= options.start:
            raise CompactionError(f"dropout_compaction: end ({options.end}) must come after start ({options.start}).")
        self.retention: list[torch.Tensor] = []
        self.targets: list[int] = []
        self.initial_units: list[int] = []
        self.phase = "before"

    def holds_out(self, epoch: int) -> bool:
        return epoch < self.options.end * self.schedule.epochs

    def _begin_learning(self, net: AcousticModel, trained: bool) -> None:
        initial = self.options.initial_retention
        self.retention = [torch.full((width,), initial) for width in net.widths]
        self.initial_units = list(net.widths)
        if self.options.controller == "budget":
            self.targets = widths_for_budget(net, float(self.schedule.target_macs), min_units=self.options.min_units)
        if trained:
            # The trained units are about to be scaled by their retention probability: keep what the layers above read.
            fold_scales(net.unit_groups(), [1 / probabilities for probabilities in self.retention])
        self.phase = "learning"

    def training_mode(self, net: AcousticModel, epoch: int) -> None:
        if self.phase == "before" and self.options.start == 0:
            self._begin_learning(net, trained=False)
        if self.phase != "learning":
            open_gates(net)
            return
        self.report.keep = float(torch.cat(self.retention).mean())
        for group, probabilities in zip(net.unit_groups(), self.retention):
            group.gate.multiplier = sampled(self.generator, probabilities)

    def inference_mode(self, net: AcousticModel) -> None:
        if self.phase != "learning":
            open_gates(net)
            return
        for group, probabilities in zip(net.unit_groups(), self.retention):
            group.gate.multiplier = probabilities

    def after_step(
        self, net: AcousticModel, epoch: int, step: int, optimiser: torch.optim.Optimizer, held_out: Union[HeldOut, None]
    ) -> None:
        begin, end = self.options.start * self.schedule.epochs, self.options.end * self.schedule.epochs
        before, now = (epoch + (step + done) / self.schedule.steps_per_epoch for done in (0, 1))
        if self.phase == "before" and now >= begin:
            self._begin_learning(net, trained=True)
            self.training_mode(net, epoch)
        if self.phase != "learning" or before >= end:
            return
        interval = (end - begin) / self.options.passes
        # A small excess guards against rounding: the last pass must fall on the last step before `end`.
        passed, due = (int((time - begin) / interval + 1e-9) for time in (before, now))
        if due <= max(passed, 0):
            return
        if held_out is None:
            raise CompactionError("dropout compaction needs held-out frames: set train.held_out above 0.")
        if passed <= 0 and self.options.signal_frames:
            self._measure_signal(net, held_out)
        for _ in range(due - max(passed, 0)):
            self._learn(net, held_out)
        decided = due >= self.options.passes
        if decided and self.targets:
            self._decide()
        self._note_histogram(now)
        self._remove(net, optimiser, held_out, fold=decided)
        if decided:
            self.phase = "after"
        self.training_mode(net, epoch)

    def _measure_signal(self, net: AcousticModel, held_out: HeldOut) -> None:
        inputs, labels = held_out.draw(self.generator, min(self.options.signal_frames, held_out.num_frames))
        for name in ESTIMATORS:
            correlation = split_half(name, net, inputs, labels, self.retention, self.generator, self.options.frames_per_update)
            self.report.estimators[name] = {"split_half": correlation, "frames": int(labels.numel())}
            text = " ".join(f"{value:.3f}" for value in correlation)
            self.report.messages.append(f"signal of {name} (split-half correlation per layer, {labels.numel()} held-out frames): {text}")

    def _learn(self, net: AcousticModel, held_out: HeldOut) -> None:
        options = self.options
        targets = self.targets or [None] * len(self.retention)
        estimate = ESTIMATORS[options.estimator]
        for _ in range(options.updates_per_pass):
            inputs, labels = held_out.draw(self.generator, options.frames_per_update)
            gradients = estimate(net, inputs, labels, self.retention, self.generator)
            for index, (gradient, target) in enumerate(zip(gradients, targets)):
                self.retention[index] = self._update(self.retention[index], gradient, target)
        self._guard()

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
        floor = self.targets or [self.options.min_units] * len(self.retention)
        for probabilities, units in zip(self.retention, floor):
            units = min(units, probabilities.numel())
            if int((probabilities > 0).sum()) < units:
                best = probabilities.topk(units).indices
                probabilities[best] = probabilities[best].clamp(min=separatrix(self.options.alpha, self.options.beta))

    def _decide(self) -> None:
        for index, (probabilities, target) in enumerate(zip(self.retention, self.targets)):
            kept = torch.zeros_like(probabilities)
            best = probabilities.topk(target).indices
            kept[best] = probabilities[best]
            self.retention[index] = kept

    def _remove(self, net: AcousticModel, optimiser: torch.optim.Optimizer, held_out: HeldOut, fold: bool) -> None:
        """Remove units of probability zero; `fold` then opens the gates."""
        if not fold and all(bool((probabilities > 0).all()) for probabilities in self.retention):
            return
        inputs, _ = held_out.draw(self.generator, 512)
        proof = compact(net, self.retention, inputs, optimiser, fold=fold)
        self.retention = [probabilities[probabilities > 0] for probabilities in self.retention]
        self.report.proofs.append(proof)
        before, after = ("/".join(map(str, units)) for units in (proof.units_before, proof.units_after))
        self.report.messages.append(
            f"removed units: {before} -> {after}; masked and compacted logits differ by {proof.max_difference:.1e} "
            f"(largest logit {proof.largest_logit:.3g})"
        )

    def _note_histogram(self, epochs: float) -> None:
        """Histogram of all units that the net had at the start; those that left stay in the first bin."""
        layers = []
        for probabilities, units in zip(self.retention, self.initial_units):
            counts = torch.histc(probabilities, bins=20, min=0, max=1).int().tolist()
            counts[0] += units - probabilities.numel()
            layers.append({"counts": counts, "kept": int((probabilities > 0).sum()), "total": units})
        self.report.retention.append({"epoch": round(epochs, 3), "layers": layers})

    def finish(self, net: AcousticModel, frames: torch.Tensor) -> None:
        if self.phase == "learning":
            self.report.proofs.append(compact(net, self.retention, frames, fold=True))
            self.phase = "after"
        open_gates(net)

    def tensors(self) -> dict[str, torch.Tensor]:
        phase = torch.tensor(["before", "learning", "after"].index(self.phase))
        retention = {f"retention.{index}": probabilities for index, probabilities in enumerate(self.retention)}
        sizes = {"targets": torch.tensor(self.targets), "initial_units": torch.tensor(self.initial_units)}
        return {"phase": phase, **sizes, **retention}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        self.phase = ["before", "learning", "after"][int(tensors["phase"])]
        self.targets, self.initial_units = (tensors[name].int().tolist() for name in ("targets", "initial_units"))
        self.retention = [tensors[f"retention.{index}"].clone() for index in range(len(tensors) - 3)]
