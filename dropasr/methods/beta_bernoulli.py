"""Beta-Bernoulli dropout (Lee et al. 2018, arXiv 1805.10896): a posterior over each unit's retention probability, learned with the weights.

    pi_u = (1 - v^(1/b_u))^(1/a_u), v ~ U(0, 1)         (Kumaraswamy), one draw per mini-batch: pi is common to all frames
    z = sigmoid((logit pi_u + noise) / T), noise logistic, one draw per frame and unit (per mini-batch in recurrent nets)
    R = strength sum_u KL(q(pi_u) || Beta(alpha, 1)),  E[pi_u] = b_u B(1 + 1 / a_u, b_u)
    KL = (1 - alpha / a)(-gamma - psi(b) - 1 / b) + log(a b / alpha) - (b - 1) / b

Units with E[pi] below `threshold` leave, the others are multiplied by theirs, which is folded into the weights. Prior, temperature and
threshold are the published ones; the first posterior is our own, since nets here start with most units open.

What is learned are log a and -log b, so that a shift common to both, which the budget controller wants (base_gates.py), moves E[pi] from
0 to 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field

from dropasr.methods.base_gates import GateOptions, LearnedGates, logistic_noise, shift_for

_LARGEST = 15.0
"""Beyond that of log a or log b, E[pi] is 0 or 1 and its terms cancel badly."""


class MethodOptions(GateOptions):
    """Keys of conf/method/beta_bernoulli.yaml."""

    passes: int = Field(default=8, ge=1)
    """Removals between `start` and `end`; before the last, only units that are closed leave."""
    alpha: float = Field(default=1e-4, gt=0)
    """Prior Beta(alpha, 1): the smaller, the fewer units it wants."""
    prior_strength: float = Field(default=1e-4, ge=0)
    """Weight of the divergence of a unit against the loss per frame; 1 / frames would be the posterior's."""
    temperature: float = Field(default=0.1, gt=0, le=1)
    """T: the smaller, the nearer are gates to 0 and 1."""
    initial_retention: float = Field(default=0.75, gt=0, lt=1)
    """E[pi] when learning starts."""
    threshold: float = Field(default=1e-3, gt=0, lt=0.5)
    """Units with E[pi] below it leave."""


class Method(LearnedGates):
    """Logits are `(H, 2)`: log a and -log b."""

    limit = 8.0

    @property
    def first_logit(self) -> float:
        return shift_for(self.blank(1), self.open_probabilities, self.options.initial_retention)

    def blank(self, width: int) -> torch.Tensor:
        return torch.zeros(width, 2)

    def order(self, logits: torch.Tensor) -> torch.Tensor:
        return log_mean(logits)

    def draw(self, logits: torch.Tensor, rows: int) -> torch.Tensor:
        log_a, minus_log_b = logits.clamp(-_LARGEST, _LARGEST).unbind(dim=1)
        log_uniform = torch.nn.functional.logsigmoid(logistic_noise(self.generator, 1, len(logits)))
        power = (log_uniform * minus_log_b.exp()).clamp(max=-1e-7)
        log_retention = (torch.log(-torch.expm1(power)) * (-log_a).exp()).clamp(min=-80.0, max=-1e-7)
        log_odds = log_retention - torch.log(-torch.expm1(log_retention))
        noise = logistic_noise(self.generator, rows, len(logits))
        return noise.add_(log_odds).div_(self.options.temperature).sigmoid_()

    def open_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return log_mean(logits).exp().to(logits.dtype)

    def closed(self, logits: torch.Tensor) -> torch.Tensor:
        return self.open_probabilities(logits) < self.options.threshold

    def group_penalty(self, index: int) -> torch.Tensor:
        log_a, minus_log_b = self.logits(index).double().clamp(-_LARGEST, _LARGEST).unbind(dim=1)
        return self.options.prior_strength * divergence(log_a.exp(), (-minus_log_b).exp(), self.options.alpha).sum().float()


def log_mean(logits: torch.Tensor) -> torch.Tensor:
    """log E[pi] `(H,)`, float64, from log a and -log b `(H, 2)`."""
    log_a, minus_log_b = logits.double().clamp(-_LARGEST, _LARGEST).unbind(dim=1)
    first, b = 1 + (-log_a).exp(), (-minus_log_b).exp()
    return (torch.lgamma(first) + torch.lgamma(1 + b) - torch.lgamma(first + b)).clamp(max=0.0)


def divergence(a: torch.Tensor, b: torch.Tensor, alpha: float) -> torch.Tensor:
    """KL(Kumaraswamy(a, b) || Beta(alpha, 1)) (Nalisnick and Smyth 2017, whose sum ends at its first term for this prior), elementwise."""
    pull = (1 - alpha / a) * (-np.euler_gamma - torch.digamma(b) - 1 / b)
    return pull + a.log() + b.log() - math.log(alpha) - (b - 1) / b
