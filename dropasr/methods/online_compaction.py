"""Dropout compaction that learns while it trains: our own variant of Kubo, Tucker and Wiesler (2016).

    h_u <- p_u h_u,  p_u = sigmoid(k_u + c);  k_u follows dL/dk_u of each training step, Adam

As in dropout compaction with its mean-field estimator, the gradient of the retention probabilities is that of the expectation-scaled net.
Different from it: that gradient comes from the backward pass of every training step, on all of train, instead of from some dozens of
batches of held-out frames; the net is the scaled one while it learns, no masks are drawn; and there is no prior, whose place the
budget controller takes (base_gates.py): the shift c, common to a layer, makes the probabilities sum to what is wanted at that step.
Probabilities part by themselves: what has little is read with a small weight, gets small gradients, and loses to others as c falls.

A step costs a multiplication of the activations by a vector, forwards and backwards. Recurrent nets have one vector for all steps, too.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field

from dropasr.methods.base_gates import GateOptions, LearnedGates


class MethodOptions(GateOptions):
    """Keys of conf/method/online_compaction.yaml."""

    controller: Literal["budget"] = "budget"
    """Without a budget nothing would make probabilities fall."""
    passes: int = Field(default=8, ge=1)
    """Removals between `start` and `end`; before the last, only units that are closed leave."""
    initial_retention: float = Field(default=0.75, gt=0, lt=1)
    """Retention probability of all units when learning starts."""
    threshold: float = Field(default=1e-3, gt=0, lt=0.5)
    """Units with a probability below it leave."""


class Method(LearnedGates):
    """Logits are k + c."""

    @property
    def first_logit(self) -> float:
        retention = self.options.initial_retention
        return math.log(retention / (1 - retention))

    def draw(self, logits: torch.Tensor, rows: int) -> torch.Tensor:
        return torch.sigmoid(logits)[None, :]

    def open_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits)

    def closed(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits) < self.options.threshold

    def group_penalty(self, index: int) -> torch.Tensor:
        return torch.zeros(())
