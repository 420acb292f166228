"""Generalised dropout (Srinivas and Babu 2016): a retention probability per unit with a beta prior, learned straight through.

    m_u ~ Bernoulli(p_u), p_u = sigmoid(k_u); backwards dm_u / dp_u = 1
    R = strength sum_u ((1 - alpha) log p_u + (1 - beta) log(1 - p_u))              (minus the log of the prior)

alpha = beta = 1 learns a rate per unit and removes none (Dropout++); below 1 the prior has poles at 0 and 1 and chooses units
(stochastic architecture learning). Units whose probability falls below `threshold` leave, the others are scaled by theirs, which is
folded into the weights. The defaults of prior, threshold and first probability are those of a public implementation; the paper's own are
not known here. With k, and not p, as what is learned, the force of the prior is bounded: (1 - alpha)(1 - p) - (1 - beta) p.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch.nn import functional

from dropasr.methods.base_gates import GateOptions, LearnedGates
from dropasr.models.gates import sample_mask


class MethodOptions(GateOptions):
    """Keys of conf/method/generalised_dropout.yaml."""

    passes: int = Field(default=8, ge=1)
    """Removals between `start` and `end`; before the last, only units that are closed leave."""
    alpha: float = Field(default=1e-4, gt=0)
    """Beta prior: below 1 it has a pole at 0."""
    beta: float = Field(default=0.5, gt=0)
    """Beta prior: below 1 it has a pole at 1."""
    prior_strength: float = Field(default=1e-4, ge=0)
    """Weight of the log prior of a unit against the loss per frame; 1 / frames would be the posterior's."""
    initial_retention: float = Field(default=0.632, gt=0, lt=1)
    """Retention probability when learning starts."""
    threshold: float = Field(default=1e-3, gt=0, lt=0.5)
    """Units with a probability below it leave."""


class Method(LearnedGates):
    """Logits are k."""

    limit = 8.0
    """Beyond that, masks of 16 random bits hardly differ from open and closed ones."""

    @property
    def first_logit(self) -> float:
        retention = self.options.initial_retention
        return math.log(retention / (1 - retention))

    def draw(self, logits: torch.Tensor, rows: int) -> torch.Tensor:
        retention = torch.sigmoid(logits)
        mask = sample_mask(self.generator, rows, retention).to(retention.dtype)
        return mask + (retention - retention.detach())

    def open_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits)

    def closed(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits) < self.options.threshold

    def group_penalty(self, index: int) -> torch.Tensor:
        options, logits = self.options, self.logits(index)
        prior = (1 - options.alpha) * functional.logsigmoid(logits).sum() + (1 - options.beta) * functional.logsigmoid(-logits).sum()
        return options.prior_strength * prior
