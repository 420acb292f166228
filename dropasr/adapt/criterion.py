"""A criterion that the user brings, as the training loop wants one."""

from __future__ import annotations

import math
from typing import Any

import torch

from dropasr.adapt.data import CROSS_ENTROPY, CriterionLike
from dropasr.compaction.retention import CriterionTargets
from dropasr.config import TrainConfig
from dropasr.errors import ConfigError
from dropasr.models.base import AcousticModel
from dropasr.training.criteria import FRAMES, Criterion, FrameCriterion, Loss, Soft
from dropasr.training.schedules import autocast


class UserCriterion:
    """`criterion(outputs (N, K), targets (N, ...))` is the mean loss of N rows, or one for each."""

    loss_name, error_name = "loss", "frame error"

    def loss(self, logits: torch.Tensor, targets: CriterionTargets, progress: float, soft: Soft, soft_weight: float) -> Loss:
        loss = targets.losses(logits.float()).mean()
        return Loss(loss, float(loss.detach()), len(targets))

    @torch.no_grad()
    def figures(self, net: AcousticModel, sampler: Any, config: TrainConfig, everything: bool = False) -> tuple[float, float]:
        """Mean loss of rows, and the share of rows in percent whose largest output is not their target; nan where targets are no labels."""
        net.eval()
        loss, errors, rows = 0.0, 0.0, 0
        for inputs, targets, _ in sampler.sample(math.inf if everything else FRAMES):
            with autocast(config.precision):
                logits = net(inputs)
            loss += float(targets.losses(logits.float()).mean()) * len(targets)
            values = targets.values
            labels = values.dim() == 1 and not values.is_floating_point()
            errors += float((logits.argmax(dim=1) != values).sum()) if labels else float("nan")
            rows += len(targets)
        return loss / rows, 100 * errors / rows


def criterion_of(criterion: CriterionLike, end: Any, train: TrainConfig) -> Criterion:
    """The criterion of a name or a function. Raises ConfigError for another name, or where the net's last layer does not suit it."""
    if criterion == CROSS_ENTROPY:
        if end not in (None, "log_softmax"):
            raise ConfigError(
                f"criterion: cross_entropy wants logits or log_softmax, but the net ends with {end}; give a function in its place."
            )
        return FrameCriterion(train)
    if not callable(criterion):
        raise ConfigError(f"criterion: expected '{CROSS_ENTROPY}' or a function of (outputs, targets), found {criterion!r}.")
    return UserCriterion()
