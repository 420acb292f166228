"""Adaptive dropout (Kubo, Cai, Bacchiani 2024): hard gates with a logit per unit, which a falling target pulls down.

    m_u = H(b_u + e), e ~ Logistic(0, 1); backwards m_u = sigmoid(b_u + e)          (straight through, temperature 1)
    R = alpha sum_u (b_u - c(t))^2,   c(t) = max((t / K) c_inf + (1 - t / K) c_0, c_inf)

as weight decay gamma on v, with b = sqrt(gamma / alpha) v + c(t): the target carries all logits along, and data hold up those that
matter. In the end units below c_inf leave, and the others have m = 1; nothing is tuned afterwards (`controller: none`, `end: 1`).

With `controller: budget` (base_gates.py) c(t) is the shift of each group that makes the expected number of open gates fall from all to
the target, along the path that the published c(t) gives to gates that data do not hold up, and the epochs after `end` train what is left.
The learning rate of the logits, which the paper shares with the weights, is given by `reach`. Dev figures while learning are those of the
net whose units are scaled by sigmoid(b).
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, model_validator

from dropasr.methods.base import Schedule
from dropasr.methods.base_gates import GateOptions, LearnedGates, logistic_noise, straight_through


class MethodOptions(GateOptions):
    """Keys of conf/method/adaptive_dropout.yaml."""

    first_target: float = 10.0
    """c_0: target of all logits when learning starts."""
    last_target: float = -2.0
    """c_inf: target after the share `fall` of learning, and the threshold below which units leave."""
    alpha: float = Field(default=1e-7, gt=0)
    """Weight of the squared distance between logits and target in the objective."""
    gamma: float = Field(default=1e-5, gt=0)
    """The same as weight decay of what is learned: logits are sqrt(gamma / alpha) times that, plus the target."""

    @model_validator(mode="after")
    def _check(self) -> MethodOptions:
        if self.last_target >= self.first_target:
            raise ValueError(f"last_target: expected less than first_target ({self.first_target:g}), found {self.last_target:g}")
        return self


class Method(LearnedGates):
    """`learner.values` are v of the equations, `shifts` c(t)."""

    def __init__(self, options: MethodOptions, schedule: Schedule) -> None:
        super().__init__(options, schedule)
        self.stretch = math.sqrt(options.gamma / options.alpha)

    @property
    def first_logit(self) -> float:
        return self.options.first_target

    def draw(self, logits: torch.Tensor, rows: int) -> torch.Tensor:
        return straight_through(logistic_noise(self.generator, rows, logits.numel()).add_(logits).sigmoid_())

    def open_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits)

    def final_gates(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(logits)

    def closed(self, logits: torch.Tensor) -> torch.Tensor:
        return logits < self.options.last_target

    def group_penalty(self, index: int) -> torch.Tensor:
        return self.options.gamma * self.learner.values[index].square().sum()

    def free_shift(self) -> float:
        first, last = self.options.first_target, self.options.last_target
        return max(first + (last - first) * self.progress / self.options.fall, last)

    def fallen(self) -> float:
        now, first, last = (1 / (1 + math.exp(-c)) for c in (self.free_shift(), self.options.first_target, self.options.last_target))
        return (first - now) / (first - last)
