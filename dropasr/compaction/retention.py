"""Gradients of the log marginal likelihood with respect to retention probabilities, the prior over them, and their signal.

Source of objective, prior and score estimator: Kubo, Tucker, Wiesler 2016. All gradients are means over items: frames with their labels
(a mask per frame), or, under CTC, utterances with the log probability per token of their tokens (a mask per utterance). Nets that read
sequences have a mask per piece. The objective of frames, the mean of `log E p(k | x, M)`, stays as it is where frames of a piece share M:
each frame weighs the same direction `d log p(M) / d pi`. Fewer masks mean more noise: many short pieces are better than few long ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Union

import numpy as np
import torch
from torch.nn import functional

from dropasr.data.chunks import Chunks, Inputs
from dropasr.data.sequences import SequenceTargets
from dropasr.errors import CompactionError
from dropasr.lang.ctc import sequence_losses
from dropasr.models.base import AcousticModel
from dropasr.models.gates import sample_mask


@dataclass(frozen=True)
class CriterionTargets:
    """Targets `(N, ...)` of the N rows of a batch under a criterion that the user brings.

    `criterion(logits, values)` returns the mean loss of the rows, or one for each, `(N,)`.
    """

    values: torch.Tensor
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, chosen) -> CriterionTargets:
        return CriterionTargets(self.values[chosen], self.criterion)

    def losses(self, logits: torch.Tensor) -> torch.Tensor:
        """Losses `(N,)` of the rows, or their mean `()`. Raises CompactionError where the criterion returns something else."""
        found = self.criterion(logits, self.values)
        if not torch.is_tensor(found) or found.shape not in ((), (1,), (len(self),)):
            said = f"shape {tuple(found.shape)}" if torch.is_tensor(found) else type(found).__name__
            raise CompactionError(f"criterion: expected a tensor with the mean loss, or ({len(self)},) losses, found {said}.")
        return found


Targets = Union[torch.Tensor, SequenceTargets, CriterionTargets]
"""Labels `(N,)` of the frames, the token sequences of whole utterances, or what a criterion of the user's compares rows with."""

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


def _log_correct(net: AcousticModel, inputs: Inputs, targets: Targets) -> torch.Tensor:
    """Log probability of each item's target: of a frame's label, of an utterance's tokens divided by their number; or minus a loss."""
    logits = net(inputs).float()
    if isinstance(targets, SequenceTargets):
        return -sequence_losses(functional.log_softmax(logits, dim=1), targets) / targets.lengths
    if isinstance(targets, CriterionTargets):
        return -targets.losses(logits)
    return -functional.cross_entropy(logits, targets, reduction="none")


def _num_masks(inputs: Inputs, targets: Targets) -> int:
    """Independent masks: one per piece, utterance, or frame."""
    return inputs.num_pieces if isinstance(inputs, Chunks) else len(targets)


def _for_gates(masks: list[torch.Tensor], inputs: Inputs, targets: Targets) -> list[torch.Tensor]:
    """The masks as the gates of the net take them: of utterances in spliced rows, each repeated for the rows `(N, H)` of its own."""
    if isinstance(targets, SequenceTargets) and not isinstance(inputs, Chunks):
        return [mask[targets.utterance_of_row] for mask in masks]
    return masks


def _per_mask(weight: torch.Tensor, inputs: Inputs, targets: Targets) -> torch.Tensor:
    """Sums of the weights of all items `(items,)` that share a mask."""
    if isinstance(inputs, Chunks) and not isinstance(targets, SequenceTargets):
        return weight.new_zeros(inputs.num_pieces).index_add_(0, inputs.piece_of_row, weight)
    return weight


def _with_gates(net: AcousticModel, multipliers: list[torch.Tensor]) -> None:
    for group, multiplier in zip(net.unit_groups(), multipliers):
        group.gate.multiplier = multiplier


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def score(net: AcousticModel, inputs: Inputs, targets: Targets, retention: list[torch.Tensor], generator: np.random.Generator):
    """The paper's score-function gradient with control variate 1: mean of `(w - 1) d log p(M) / d pi`, fresh masks.

    `w = p(k | x, M) / p~(k | x)`, with the expectation-scaled net below the line; two forward passes and no backward pass. Of utterances
    the ratio would degenerate, and `log w`, which it equals near 1, stands in the place of `w - 1`.
    Always in full precision: the ratio is so close to 1 that bfloat16 would round the signal away.
    Returns one tensor `(H,)` per group.
    """
    items = len(targets)
    _with_gates(net, retention)
    reference = _log_correct(net, inputs, targets)
    masks = [sample_mask(generator, _num_masks(inputs, targets), probabilities).float() for probabilities in retention]
    _with_gates(net, _for_gates(masks, inputs, targets))
    if reference.dim() == 0 or len(reference) != items:
        raise CompactionError(
            f"estimator score: expected a criterion with a loss for each of {items} rows, found their mean. Set mean_field."
        )
    log_ratio = _log_correct(net, inputs, targets) - reference
    weight = log_ratio if isinstance(targets, SequenceTargets) else torch.exp(log_ratio.clamp(max=LOG_RATIO_CAP)) - 1
    weight = _per_mask(weight, inputs, targets)
    gradients = []
    for mask, probabilities in zip(masks, retention):
        q = clipped(probabilities)
        kept = weight @ mask
        gradients.append((kept / q - (weight.sum() - kept) / (1 - q)) / items)
    return gradients


def mean_field(net: AcousticModel, inputs: Inputs, targets: Targets, retention: list[torch.Tensor], generator: np.random.Generator):
    """Gradient of the expectation-scaled net's log likelihood: `a_u d log p~ / d h~_u`; one backward pass, no mask variance, biased."""
    variables = [probabilities.clone().requires_grad_(True) for probabilities in retention]
    _with_gates(net, variables)
    with torch.enable_grad():
        objective = _log_correct(net, inputs, targets).mean()
    return [gradient.detach() for gradient in torch.autograd.grad(objective, variables)]


def gumbel_st(net: AcousticModel, inputs: Inputs, targets: Targets, retention: list[torch.Tensor], generator: np.random.Generator):
    """Straight-through gradient of `E log p` with logistic noise: hard masks forward, sigmoid backward (Kubo, Cai, Bacchiani 2024)."""
    logits, masks, count = [], [], _num_masks(inputs, targets)
    for probabilities in retention:
        logit = torch.logit(clipped(probabilities)).requires_grad_(True)
        uniform = torch.from_numpy(generator.random((count, probabilities.numel()), dtype=np.float32)).clamp(1e-6, 1 - 1e-6)
        with torch.enable_grad():
            soft = torch.sigmoid(logit + torch.logit(uniform).to(logit.dtype))
            masks.append((soft > 0.5).to(soft.dtype) + soft - soft.detach())
        logits.append(logit)
    with torch.enable_grad():
        _with_gates(net, _for_gates(masks, inputs, targets))
        objective = _log_correct(net, inputs, targets).mean()
    gradients = torch.autograd.grad(objective, logits)
    return [gradient / (clipped(p) * (1 - clipped(p))) for gradient, p in zip(gradients, retention)]


ESTIMATORS = {"score": score, "mean_field": mean_field, "gumbel_st": gumbel_st}


def _select(inputs: Inputs, targets: Targets, chosen: slice) -> tuple[Inputs, Targets]:
    """Some of the pieces, utterances or frames."""
    if isinstance(targets, SequenceTargets):
        return targets.select(inputs, chosen)
    if isinstance(inputs, Chunks):
        part, kept = inputs.select(chosen)
        return part, targets[kept]
    return inputs[chosen], targets[chosen]


def split_half(
    name: str,
    net: AcousticModel,
    inputs: Inputs,
    targets: Targets,
    retention: list[torch.Tensor],
    generator: np.random.Generator,
    batch: int = 2048,
) -> list[Union[float, None]]:
    """Correlation over units between the gradients of two halves of the data, one figure per group: how much signal, how much noise.

    Frames `(N, D)`, utterances or pieces of them alternate between the halves; masks are drawn independently; `batch` of them are computed
    at a time. 1 is all signal, 0 a coin flip; None is not measured, of a single one, which has no second half.
    """
    if _num_masks(inputs, targets) < 2:
        return [None] * len(retention)
    halves = []
    for half in (0, 1):
        x, y = _select(inputs, targets, slice(half, None, 2))
        total = [torch.zeros_like(probabilities) for probabilities in retention]
        for start in range(0, _num_masks(x, y), batch):
            part, wanted = _select(x, y, slice(start, start + batch))
            gradients = ESTIMATORS[name](net, part, wanted, retention, generator)
            total = [sum_ + gradient * (len(wanted) / len(y)) for sum_, gradient in zip(total, gradients)]
        halves.append(total)
    result: list[Union[float, None]] = []
    for first, second in zip(*halves):
        a, b = first - first.mean(), second - second.mean()
        norm = float(a.norm() * b.norm())
        result.append(float(a @ b) / norm if norm > 0 else 0.0)
    return result
