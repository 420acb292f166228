"""Targeted dropout of weights (Gomez et al. 2019): the smallest weights of each unit are dropped often, and pruned in the end.

At every step the lowest share gamma(t) of each row of the matrices that make units (all but that of the logits) is targeted, by absolute
value, and each targeted weight dropped with probability alpha(t), the same for all frames of the step; nothing is rescaled, biases stay.
After the last step the lowest int(share * inputs) weights of every row become 0.

The net is sparse but stays dense at run time: its matrices have their sizes, so it is no smaller and no faster, and stands under
`experiment.large`. The log says how many weights are not 0. Dev figures before the last epoch are those of the net that is not yet pruned.

Cost per step: 16 random bits per weight and a product, about 20 % of a 4 x 1024 net (512 frames, bfloat16). Ranks, whose selection costs
as much as half a step, are taken every `rank_every` steps (published: every step), as the threshold of each row.
"""

from __future__ import annotations

from typing import Union

import torch
from pydantic import Field
from torch import nn

from dropasr.data.chunks import Inputs
from dropasr.methods.base import BaseMethod, CommonOptions, HeldOut, Schedule
from dropasr.methods.base_targets import TargetOptions
from dropasr.methods.base_weights import WeightView, unit_matrices
from dropasr.models.base import AcousticModel
from dropasr.models.gates import sample_mask


class MethodOptions(TargetOptions, CommonOptions):
    """Keys of conf/method/targeted_weight_dropout.yaml."""

    share: float = Field(default=0.9, gt=0, lt=1)
    """gamma: share of the weights of every unit that is targeted in the end, and pruned."""
    rank_every: int = Field(default=10, ge=1)
    """Steps after which weights are ranked anew."""


@torch.no_grad()
def lowest(weight: torch.Tensor, count: int) -> torch.Tensor:
    """Largest of the `count` smallest absolute values of each row of `(rows, inputs)`, `(rows, 1)`; below 0 where there are none."""
    if count == 0:
        return torch.full((len(weight), 1), -1.0)
    return weight.abs().kthvalue(count, dim=1, keepdim=True).values


@torch.no_grad()
def prune(weight: torch.Tensor, count: int) -> None:
    """Set the `count` smallest weights of each row to 0, in place; of equal ones, any."""
    weight.scatter_(1, weight.abs().topk(count, dim=1, largest=False).indices, 0.0)


class Method(BaseMethod):
    """`thresholds` of the rows are taken at the first step of each epoch, too, so that a resumed run has the same ones."""

    def __init__(self, options: MethodOptions, schedule: Schedule) -> None:
        super().__init__(options, schedule)
        self.view = WeightView()
        self.thresholds: list[torch.Tensor] = []

    def before_step(self, net: AcousticModel, epoch: int, step: int) -> None:
        progress = (epoch + step / self.schedule.steps_per_epoch) / self.schedule.epochs
        share, rate = self.options.share * self.options.ramped_share(progress), self.options.ramped_rate(progress)
        self.report.keep = 1 - share * rate
        places = unit_matrices(net)
        if step % self.options.rank_every == 0:
            weights = [getattr(*place).detach() for place in places]
            self.thresholds = [lowest(weight, int(share * weight.shape[1])) for weight in weights]
        if rate > 0:
            self.view.apply(places, lambda index, weight: self._dropped(weight, self.thresholds[index], rate))

    def _dropped(self, weight: nn.Parameter, threshold: torch.Tensor, rate: float) -> torch.Tensor:
        stays = sample_mask(self.generator, len(weight), torch.full((weight.shape[1],), 1 - rate)).bool()
        return weight * (stays | (weight.detach().abs() > threshold))

    def after_step(
        self, net: AcousticModel, epoch: int, step: int, optimiser: torch.optim.Optimizer, held_out: Union[HeldOut, None]
    ) -> None:
        self.view.restore()

    def finish(self, net: AcousticModel, frames: Inputs, held_out: HeldOut) -> None:
        super().finish(net, frames, held_out)
        matrices = [getattr(*place) for place in unit_matrices(net)]
        for weight in matrices:
            prune(weight, int(self.options.share * weight.shape[1]))
        left, total = sum(int(weight.count_nonzero()) for weight in matrices), sum(weight.numel() for weight in matrices)
        self.report.messages.append(
            f"pruned weights: {left} of {total} in the matrices that make units are not 0, beside {net.num_parameters() - total} other "
            "parameters; the matrices keep their sizes, so the net is no faster"
        )
