"""L0 regularisation with hard concrete gates (Louizos, Welling, Kingma 2018).

    s = sigmoid((log u - log(1 - u) + log a) / beta),   z = clip(s (zeta - gamma) + gamma, 0, 1)
    P(z > 0) = sigmoid(log a - beta log(-gamma / zeta)),   test: z = clip(sigmoid(log a) (zeta - gamma) + gamma, 0, 1)

One gate per unit; the penalty is the expected number of multiply-adds that are read or fed by open gates, as a share of those of the
large net: `strength` here is the published lambda / N times the number of weights. Units whose test gate is 0 leave; the gates of the
others are folded into the weights. The published averages of weights over steps are left out, since no other method has them.

With `controller: budget` (base_gates.py) the constraint on the expected number of open gates takes the place of the penalty.

Recurrent nets: one draw per mini-batch (base_gates.py), which is what the published code does for all nets.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field

from dropasr.methods.base import Schedule
from dropasr.methods.base_gates import GateOptions, LearnedGates, logistic_noise
from dropasr.models.base import AcousticModel


class MethodOptions(GateOptions):
    """Keys of conf/method/l0_hard_concrete.yaml."""

    passes: int = Field(default=8, ge=1)
    """Removals between `start` and `end`; before the last, only units that are closed leave."""
    temperature: float = Field(default=2 / 3, gt=0, lt=1)
    """beta: the smaller, the more often gates are exactly 0 or 1."""
    stretch_low: float = Field(default=-0.1, lt=0)
    """gamma: lower end of the stretched gates."""
    stretch_high: float = Field(default=1.1, gt=1)
    """zeta: upper end of the stretched gates."""
    initial_drop: float = Field(default=0.5, gt=0, lt=1)
    """d: the first log a is log((1 - d) / d)."""
    strength: float = Field(default=0.1, ge=0)
    """Without the controller: nats per frame that all multiply-adds cost."""


class Method(LearnedGates):
    """Logits are log a; `costs` are the multiply-adds of a unit of each group, as shares of those of all units."""

    limit = math.log(100)

    def __init__(self, options: MethodOptions, schedule: Schedule) -> None:
        super().__init__(options, schedule)
        self.costs = torch.zeros(0)

    def begin_removal(self, net: AcousticModel, trained: bool) -> None:
        super().begin_removal(net, trained)
        self.costs = torch.tensor(unit_costs(net))

    @property
    def first_logit(self) -> float:
        drop = self.options.initial_drop
        return math.log((1 - drop) / drop)

    def _stretched(self, soft: torch.Tensor) -> torch.Tensor:
        low, high = self.options.stretch_low, self.options.stretch_high
        return torch.add(soft.new_tensor(low), soft, alpha=high - low).clamp(0, 1)

    def draw(self, logits: torch.Tensor, rows: int) -> torch.Tensor:
        noise = logistic_noise(self.generator, rows, logits.numel())
        return self._stretched(noise.add_(logits).div_(self.options.temperature).sigmoid_())

    def open_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        options = self.options
        return torch.sigmoid(logits - options.temperature * math.log(-options.stretch_low / options.stretch_high))

    def test_gates(self, logits: torch.Tensor) -> torch.Tensor:
        return self._stretched(torch.sigmoid(logits))

    def closed(self, logits: torch.Tensor) -> torch.Tensor:
        return self.test_gates(logits) == 0

    def group_penalty(self, index: int) -> torch.Tensor:
        if self.targets:
            return torch.zeros(())
        return self.options.strength * self.costs[index] * self.open_probabilities(self.logits(index)).sum()

    def tensors(self) -> dict[str, torch.Tensor]:
        return {**super().tensors(), "costs": self.costs}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        super().load_tensors(tensors)
        self.costs = tensors["costs"].clone()


def unit_costs(net: AcousticModel) -> list[float]:
    """Multiply-adds that a unit of each group saves by leaving alone, as shares: over all units they sum to 1."""
    widths, full = net.widths, net.macs_per_frame()
    single = [full - net.macs_per_frame([width - (place == index) for place, width in enumerate(widths)]) for index in range(len(widths))]
    total = sum(cost * width for cost, width in zip(single, widths))
    return [cost / total for cost in single]
