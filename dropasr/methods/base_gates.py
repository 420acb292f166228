"""Learned gates: a random gate per unit whose distribution learns from the same backward pass as the weights.

Methods differ in the distribution and in what pulls its logits down. What they share is here: the logits and their Adam, the draws, the
way to a budget, and removal on the schedule of `GradualRemoval`.

The way to a budget (`controller: budget`, beyond all of the papers): a shift per group, common to its logits, makes the expected number
of open gates exactly what is wanted at each step; that falls from what it was at first to the target. Data decide which gates are open,
and the shift how many. At `end` the units with the largest logits stay, exactly as many as the budget says.

Feed-forward nets draw a gate per frame and unit. Recurrent nets draw one per unit for the whole mini-batch: a factor `(H,)` with
gradients stays in torch's fused kernel, where one per sequence would take a Python loop over time (models/recurrence.py). What that costs
in variance: docs/decisions.md.

Cost per step of a 4 x 1024 net (512 frames, bfloat16), in processor time: generalised dropout 11 %, adaptive dropout 22 %, hard concrete
gates 36 %, most of it passes over the activations of a layer; of an LSTM of 2 x 256 cells 1 to 4 %. The shift is found by bisection, in
less than 1 ms per group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Union

import numpy as np
import torch
from pydantic import Field

from dropasr.compaction.surgery import fold_scales
from dropasr.methods.base import HeldOut, Schedule
from dropasr.methods.base_removal import GradualRemoval, RemovalOptions
from dropasr.models.base import AcousticModel

FLOOR = 1e-3
"""Least scale of a unit that stays: one whose gate is closed may have to, where a budget or `min_units` says so."""
ADAM_DECAYS = (0.9, 0.999)
"""Decay of the mean and of the mean square of the gradients (Kingma and Ba 2015)."""


class GateOptions(RemovalOptions):
    """Keys of every method with learned gates."""

    start: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training steps before gates are learned."""
    end: float = Field(default=0.4, gt=0, le=1)
    """Share of the training steps after which the units left are those of the final net, without gates."""
    passes: int = Field(default=1, ge=1)
    """Removals between `start` and `end`; before the last, only units that are closed leave."""
    controller: Literal["budget", "none"] = "budget"
    """`budget`: meet the row's share of multiply-adds (an extension); `none`: as published, the size follows from prior and data."""
    fall: float = Field(default=0.8, gt=0, le=1)
    """Share of the time between `start` and `end` in which the wanted number of units falls; in the rest gates settle."""
    reach: float = Field(default=500.0, gt=0)
    """How far Adam can carry a logit between `start` and `end`, gradients agreeing: its learning rate times the number of steps."""


def straight_through(soft: torch.Tensor) -> torch.Tensor:
    """Hard gates, 1 where `soft` is above one half, with the gradient of `soft`."""
    return _StraightThrough.apply(soft)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, soft: torch.Tensor) -> torch.Tensor:
        return (soft > 0.5).to(soft.dtype)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def logistic_noise(generator: np.random.Generator, rows: int, width: int) -> torch.Tensor:
    """Draws `(rows, width)` of the standard logistic distribution, of 16 bits each: none is beyond 11.8."""
    bits = np.frombuffer(generator.bytes(2 * rows * width), dtype=np.uint16).reshape(rows, width)
    return torch.from_numpy(bits.astype(np.float32)).add_(0.5).div_(65536).logit_()


def shift_for(logits: torch.Tensor, probabilities: Callable[[torch.Tensor], torch.Tensor], count: float) -> float:
    """The c for which `probabilities(logits + c)`, rising from 0 to 1, sum to `count`; by bisection, to within 1e-6."""
    logits = logits.double()
    low, high = -float(logits.max()) - 40.0, 40.0 - float(logits.min())
    for _ in range(math.ceil(math.log2((high - low) / 1e-6))):
        middle = (low + high) / 2
        low, high = (middle, high) if float(probabilities(logits + middle).sum()) < count else (low, middle)
    return (low + high) / 2


class Learner:
    """Adam on one tensor `(H,)` or `(H, K)` per group of units; all its state is in `tensors()`."""

    def __init__(self, values: list[torch.Tensor]) -> None:
        self.values = [vector.detach().clone().requires_grad_(True) for vector in values]
        self.means = [torch.zeros_like(vector) for vector in values]
        self.squares = [torch.zeros_like(vector) for vector in values]
        self.steps = 0

    @torch.no_grad()
    def step(self, rate: float, low: float = float("-inf"), high: float = float("inf")) -> None:
        """Follow the gradients of the values and clear them; the values stay between `low` and `high`."""
        self.steps += 1
        first, second = ADAM_DECAYS
        for value, mean, square in zip(self.values, self.means, self.squares):
            gradient = torch.zeros_like(value) if value.grad is None else value.grad
            mean.mul_(first).add_(gradient, alpha=1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            spread = (square / (1 - second**self.steps)).sqrt_().add_(1e-12)
            value.addcdiv_(mean, spread, value=-rate / (1 - first**self.steps)).clamp_(low, high)
            value.grad = None

    def keep(self, kept: list[torch.Tensor]) -> None:
        """Forget the units that left; `kept` has a bool `(H,)` per group."""
        self.values = [vector.detach()[own].requires_grad_(True) for vector, own in zip(self.values, kept)]
        self.means, self.squares = ([vector[own] for vector, own in zip(vectors, kept)] for vectors in (self.means, self.squares))

    def tensors(self) -> dict[str, torch.Tensor]:
        """State for the training checkpoint."""
        groups = zip(self.values, self.means, self.squares)
        state = {f"learner.{index}": torch.stack([vector.detach() for vector in vectors]) for index, vectors in enumerate(groups)}
        return {"learner.steps": torch.tensor(self.steps), **state}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Learner:
        """Restore what `tensors` returned."""
        count = sum(name.startswith("learner.") for name in tensors) - 1
        learner = cls([tensors[f"learner.{index}"][0] for index in range(count)])
        learner.means, learner.squares = ([tensors[f"learner.{index}"][row].clone() for index in range(count)] for row in (1, 2))
        learner.steps = int(tensors["learner.steps"])
        return learner


class LearnedGates(GradualRemoval):
    """Logits are `stretch` times `learner.values` plus `shifts`; `scales` hold the gates of the test-time net when units are removed."""

    own_schedule = True
    ranks_inputs = True
    stretch = 1.0
    """How fast logits move with what is learned."""
    limit = float("inf")
    """Largest size of a logit without the controller, which needs them free."""

    def __init__(self, options: GateOptions, schedule: Schedule) -> None:
        super().__init__(options, schedule)
        self.learner = Learner([])
        self.shifts: list[float] = []
        self.progress = 0.0

    @classmethod
    def learns_units(cls, options: GateOptions) -> bool:
        return True

    @property
    def meets_budget(self) -> bool:
        return self.options.controller == "budget"

    @property
    def first_logit(self) -> float:
        """Logit of all units when learning starts."""
        raise NotImplementedError

    def blank(self, width: int) -> torch.Tensor:
        """What is learned for so many units, before anything is: `(H,)`, or `(H, K)` where a unit has K logits."""
        return torch.zeros(width)

    def order(self, logits: torch.Tensor) -> torch.Tensor:
        """By what `(H,)` units are ranked: the largest stay."""
        return logits

    def draw(self, logits: torch.Tensor, rows: int) -> torch.Tensor:
        """Fresh gates `(rows, H)`, or one row for all, with gradients for the logits `(H,)`."""
        raise NotImplementedError

    def open_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Probability `(H,)` that a gate is not 0."""
        raise NotImplementedError

    def test_gates(self, logits: torch.Tensor) -> torch.Tensor:
        """Gates `(H,)` of the net that is evaluated while it learns."""
        return self.open_probabilities(logits)

    def final_gates(self, logits: torch.Tensor) -> torch.Tensor:
        """Gates `(H,)` that units keep when the others have left; they are folded into the weights."""
        return self.test_gates(logits)

    def closed(self, logits: torch.Tensor) -> torch.Tensor:
        """Which units `(H,)`, bool, leave whatever the budget."""
        raise NotImplementedError

    def free_shift(self) -> float:
        """What is added to the learned logits by now, without the controller."""
        return self.first_logit

    def fallen(self) -> float:
        """How far the wanted number of units has come by now from what it was at first, 0, to the target, 1."""
        return min(self.progress / self.options.fall, 1.0)

    def group_penalty(self, index: int) -> torch.Tensor:
        """What is added to the objective (nats per frame, or per token under CTC) for the gates of a group."""
        raise NotImplementedError

    def logits(self, index: int) -> torch.Tensor:
        """Logits `(H,)`, or `(H, K)`, of a group, with gradients for its learned values."""
        return self.stretch * self.learner.values[index] + self.shifts[index]

    @property
    def learning_steps(self) -> float:
        """Training steps between `start` and `end`."""
        return max((self.options.end - self.options.start) * self.schedule.epochs * self.schedule.steps_per_epoch, 1.0)

    def begin_removal(self, net: AcousticModel, trained: bool) -> None:
        super().begin_removal(net, trained)
        self.learner = Learner([self.blank(width) for width in net.widths])
        self.shifts = [self.first_logit] * len(self.scales)
        if trained:
            # Trained units are about to be multiplied by their gates: keep what the layers above read.
            fold_scales(net.unit_groups(), [1 / gate.clamp(min=FLOOR) for gate in self.present_scales()])

    def training_mode(self, net: AcousticModel, epoch: int) -> None:
        super().training_mode(net, epoch)
        if self.phase != "learning":
            return
        with torch.no_grad():
            units = [self.open_probabilities(self.logits(index)) for index in range(len(self.scales))]
        self.report.keep = float(torch.cat(units).mean())
        for index, group in enumerate(net.unit_groups()):
            group.gate.multiplier = self._sampler(index, shared=net.reads_chunks)

    def _sampler(self, index: int, shared: bool):
        def multiplier(units: torch.Tensor) -> torch.Tensor:
            return self.draw(self.logits(index), 1 if shared else units.shape[0])

        return multiplier

    def inference_mode(self, net: AcousticModel) -> None:
        super().inference_mode(net)
        if self.phase == "learning":
            for index, group in enumerate(net.unit_groups()):
                group.gate.multiplier = self.test_gates(self.logits(index).detach())

    def before_step(self, net: AcousticModel, epoch: int, step: int) -> None:
        if self.phase != "learning":
            return
        begin, end = self.options.start * self.schedule.epochs, self.options.end * self.schedule.epochs
        time = epoch + step / self.schedule.steps_per_epoch
        self.progress = min(max((time - begin) / (end - begin), 0.0), 1.0)
        self.shifts = [self._shift(index) for index in range(len(self.scales))]

    def _shift(self, index: int) -> float:
        if not self.targets:
            return self.free_shift()
        first = self.initial_units[index] * float(self.open_probabilities(self.blank(1).double() + self.first_logit))
        wanted = first + (self.targets[index] - first) * self.fallen()
        # Units that are closed may have left already; those that are there can all be open.
        wanted = min(wanted, self.scales[index].numel() - 1e-3)
        return shift_for(self.stretch * self.learner.values[index].detach(), self.open_probabilities, wanted)

    def penalty(self, net: AcousticModel) -> Union[torch.Tensor, None]:
        if self.phase != "learning":
            return None
        return sum(self.group_penalty(index) for index in range(len(self.scales)))

    def after_step(
        self, net: AcousticModel, epoch: int, step: int, optimiser: torch.optim.Optimizer, held_out: Union[HeldOut, None]
    ) -> None:
        # Nothing has gradients in the step after which learning begins, or without a step.
        if self.phase == "learning" and any(vector.grad is not None for vector in self.learner.values):
            rate = self.options.reach / (self.stretch * self.learning_steps)
            limit, shift = float("inf") if self.targets else self.limit, self.free_shift()
            self.learner.step(rate, (-limit - shift) / self.stretch, (limit - shift) / self.stretch)
        super().after_step(net, epoch, step, optimiser, held_out)

    def present_scales(self) -> list[torch.Tensor]:
        return [self.test_gates(self.logits(index).detach()) for index in range(len(self.scales))]

    @torch.no_grad()
    def run_pass(self, net: AcousticModel, number: int, time: float, held_out: HeldOut) -> None:
        last = number == self.options.passes
        floor = self.targets or [self.options.min_units] * len(self.scales)
        for index, units in enumerate(floor):
            logits = self.logits(index).detach()
            gates = self.final_gates(logits) if last else self.test_gates(logits)
            # With a budget the last removal leaves the units with the largest logits, as many as wanted.
            leaves = torch.ones(len(logits), dtype=torch.bool) if last and self.targets else self.closed(logits)
            leaves[self.order(logits).topk(min(units, len(logits))).indices] = False
            self.scales[index] = gates.clamp(min=FLOOR).masked_fill(leaves, 0.0)

    def _remove(self, net: AcousticModel, optimiser: torch.optim.Optimizer, held_out: HeldOut, fold: bool) -> None:
        kept = [scales > 0 for scales in self.scales]
        super()._remove(net, optimiser, held_out, fold)
        self.learner.keep(kept)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {**super().tensors(), **self.learner.tensors(), "shifts": torch.tensor(self.shifts, dtype=torch.float64)}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        super().load_tensors(tensors)
        self.learner = Learner.from_tensors(tensors)
        self.shifts = tensors["shifts"].tolist()
