"""Gradients of the log marginal likelihood with respect to retention probabilities, the prior over them, and their signal.

Source of objective, prior and score estimator: Kubo, Tucker, Wiesler 2016. All gradients are means per frame.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from dropasr.models.base import AcousticModel
from dropasr.models.gates import sample_mask

EDGE = 1e-3
"""Retention probabilities are clipped to [EDGE, 1 - EDGE] inside gradients, which diverge at 0 and 1."""
LOG_RATIO_CAP = math.log(20.0)
"""Largest log of the likelihood ratio of the score estimator: a frame that the mean-field net finds improbable would outweigh all."""


def clipped(retention: torch.Tensor) -> torch.Tensor:
    """Retention probabilities kept away from 0 and 1, for gradients only."""
    return retention.clamp(EDGE, 1 - EDGE)


def separatrix(alpha: float, beta: float) -> float:
    """The probability at which the powered beta prior exerts no force: `(1 - alpha) / (2 - alpha - beta)`."""
    return (1 - alpha) / (2 - alpha - beta)


def prior_gradient(retention: torch.Tensor, alpha: float | torch.Tensor, beta: float) -> torch.Tensor:
    """Gradient of the log powered beta prior per unit of strength: `(alpha - 1) / pi - (beta - 1) / (1 - pi)`."""
    q = clipped(retention)
    return (alpha - 1) / q - (beta - 1) / (1 - q)


def prior_curvature(at: float, beta: float) -> float:
    """Slope of `prior_gradient` at its own separatrix `at`: deviations from there grow by exp(step * strength * curvature)."""
    return (1 - beta) / (at * (1 - at) ** 2)


def _log_correct(net: AcousticModel, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return -functional.cross_entropy(net(inputs).float(), labels, reduction="none")


def _with_gates(net: AcousticModel, multipliers: list[torch.Tensor]) -> None:
    for group, multiplier in zip(net.unit_groups(), multipliers):
        group.gate.multiplier = multiplier


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def score(net: AcousticModel, inputs: torch.Tensor, labels: torch.Tensor, retention: list[torch.Tensor], generator: np.random.Generator):
    """The paper's score-function gradient with control variate 1: mean of `(w - 1) d log p(M) / d pi`, a fresh mask per frame.

    `w = p(k | x, M) / p~(k | x)`, with the expectation-scaled net below the line; two forward passes and no backward pass.
    Always in full precision: the ratio is so close to 1 that bfloat16 would round the signal away.
    Returns one tensor `(H,)` per group.
    """
    _with_gates(net, retention)
    reference = _log_correct(net, inputs, labels)
    masks = [sample_mask(generator, inputs.shape[0], probabilities).float() for probabilities in retention]
    _with_gates(net, masks)
    weight = torch.exp((_log_correct(net, inputs, labels) - reference).clamp(max=LOG_RATIO_CAP)) - 1
    gradients = []
    for mask, probabilities in zip(masks, retention):
        q = clipped(probabilities)
        kept = weight @ mask
        gradients.append((kept / q - (weight.sum() - kept) / (1 - q)) / inputs.shape[0])
    return gradients


def mean_field(
    net: AcousticModel, inputs: torch.Tensor, labels: torch.Tensor, retention: list[torch.Tensor], generator: np.random.Generator
):
    """Gradient of the expectation-scaled net's log likelihood: `a_u d log p~ / d h~_u`; one backward pass, no mask variance, biased."""
    variables = [probabilities.clone().requires_grad_(True) for probabilities in retention]
    _with_gates(net, variables)
    with torch.enable_grad():
        objective = _log_correct(net, inputs, labels).mean()
    return [gradient.detach() for gradient in torch.autograd.grad(objective, variables)]


def gumbel_st(
    net: AcousticModel, inputs: torch.Tensor, labels: torch.Tensor, retention: list[torch.Tensor], generator: np.random.Generator
):
    """Straight-through gradient of `E log p` with logistic noise: hard masks forward, sigmoid backward (Kubo, Cai, Bacchiani 2024)."""
    logits, masks = [], []
    for probabilities in retention:
        logit = torch.logit(clipped(probabilities)).requires_grad_(True)
        uniform = torch.from_numpy(generator.random((inputs.shape[0], probabilities.numel()), dtype=np.float32)).clamp(1e-6, 1 - 1e-6)
        with torch.enable_grad():
            soft = torch.sigmoid(logit + torch.logit(uniform).to(logit.dtype))
            masks.append((soft > 0.5).to(soft.dtype) + soft - soft.detach())
        logits.append(logit)
    _with_gates(net, masks)
    with torch.enable_grad():
        objective = _log_correct(net, inputs, labels).mean()
    gradients = torch.autograd.grad(objective, logits)
    return [gradient / (clipped(p) * (1 - clipped(p))) for gradient, p in zip(gradients, retention)]


ESTIMATORS = {"score": score, "mean_field": mean_field, "gumbel_st": gumbel_st}


def split_half(
    name: str,
    net: AcousticModel,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    retention: list[torch.Tensor],
    generator: np.random.Generator,
    batch: int = 2048,
) -> list[float]:
    """Correlation over units between the gradients of two halves of the frames, one figure per group: how much signal, how much noise.

    Frames `(N, D)` alternate between the halves; masks are drawn independently. 1 is all signal, 0 a coin flip.
    """
    halves = []
    for half in (0, 1):
        x, y = inputs[half::2], labels[half::2]
        total = [torch.zeros_like(probabilities) for probabilities in retention]
        for start in range(0, x.shape[0], batch):
            part = x[start : start + batch]
            gradients = ESTIMATORS[name](net, part, y[start : start + batch], retention, generator)
            total = [sum_ + gradient * (part.shape[0] / x.shape[0]) for sum_, gradient in zip(total, gradients)]
        halves.append(total)
    result = []
    for first, second in zip(*halves):
        a, b = first - first.mean(), second - second.mean()
        norm = float(a.norm() * b.norm())
        result.append(float(a @ b) / norm if norm > 0 else 0.0)
    return result
