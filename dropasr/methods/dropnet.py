"""DropNet (Tan and Motani 2020): train, remove the fraction of units that say least, rewind to the initial weights, and again.

A unit is worth `E |a_u|` over frames of train, which is meant for ReLU. A sigmoid that is always 1 says nothing, so that for such nets it
is `E |a_u - E a_u|`, or the variance, and the mean moves into the biases above. LSTM outputs are around 0: they are worth `E |h_u|`, and
leave as 0 without their mean (it would have to be folded into a bias that also acts at the first step, and through layer norm).

Rounds are spread evenly between `start` and `end`: each leaves `1 - fraction` of the units, the last one as many as the budget does. With
`rewind` the weights that stay go back to where they were before the first step, momentum to 0; what follows `end` is then all the training
that the final net has, at the learning rates of the end, because the epochs are those of all rows. Without it training simply goes on.
"""

from __future__ import annotations

import copy
import math
from typing import Literal, Union

import numpy as np
import torch
from pydantic import Field

from dropasr.compaction import unit_statistics as statistics
from dropasr.compaction.surgery import remove_units
from dropasr.methods.base import HeldOut, Schedule
from dropasr.methods.base_ranking import FrameRankedRemoval, RankingOptions
from dropasr.models.base import AcousticModel


class MethodOptions(RankingOptions):
    """Keys of conf/method/dropnet.yaml."""

    score: Literal["auto", "magnitude", "deviation", "variance"] = "auto"
    """What a unit is worth: mean |a|, mean |a - mean|, or its variance; auto: deviation for sigmoid units, else magnitude."""
    scope: Literal["layer", "global"] = "layer"
    """Whether the lowest leave of every layer, or of the net, with at least `min_units` in each layer."""
    rewind: bool = True
    """Whether the weights go back to their initial values after each round."""
    fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the units that leave in a round."""
    start: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training steps from which rounds are counted: the first ends an interval later."""
    end: float = Field(default=0.5, gt=0, le=1)
    """Share of the training steps after which the net has its final size."""
    passes: Union[int, None] = Field(default=None, ge=1)
    """Rounds; null: as many as lead to the budget with `fraction`. With a number, the fraction is what leads there."""


def _score(options: MethodOptions, net: AcousticModel) -> str:
    if options.score != "auto":
        return options.score
    return "deviation" if statistics.has_sigmoid_units(net) else "magnitude"


class Method(FrameRankedRemoval):
    """`initial`: the net as it was before the first step, with the units that are left."""

    own_schedule = True

    def __init__(self, options: MethodOptions, schedule: Schedule) -> None:
        super().__init__(options, schedule)
        self.initial: Union[AcousticModel, None] = None
        self._loaded: dict[str, torch.Tensor] = {}

    @property
    def passes(self) -> int:
        if self.options.passes is not None:
            return self.options.passes
        share = sum(self.targets) / sum(self.initial_units)
        return max(1, math.ceil(math.log(share) / math.log(1 - self.options.fraction) - 1e-9))

    @classmethod
    def folds_means(cls, options: MethodOptions, net: AcousticModel) -> bool:
        return _score(options, net) != "magnitude" and not options.rewind

    def begin_epoch(self, net: AcousticModel, epoch: int, generator: np.random.Generator) -> None:
        super().begin_epoch(net, epoch, generator)
        if self.options.rewind and self.phase != "after" and self.initial is None:
            self.initial = copy.deepcopy(net)
            if self._loaded:
                self.initial.load_state_dict(self._loaded)
                self._loaded = {}

    def ranks(self, net: AcousticModel) -> list[torch.Tensor]:
        score = getattr(statistics, _score(self.options, net))
        return [score(units) for units in statistics.observe(net, self.inputs)]

    def run_pass(self, net: AcousticModel, number: int, time: float, held_out: HeldOut) -> None:
        if self.options.scope == "layer":
            super().run_pass(net, number, time, held_out)
        else:
            self.draw(held_out)
            self._drop_globally(net, number)

    def planned(self, first: int, last: int, number: int) -> int:
        rate = last / first if number == self.passes else max(last / first, self._kept_per_round**number)
        return round(first * rate)

    @property
    def _kept_per_round(self) -> float:
        if self.options.passes is None:
            return 1 - self.options.fraction
        return (sum(self.targets) / sum(self.initial_units)) ** (1 / self.passes)

    def _drop_globally(self, net: AcousticModel, number: int) -> None:
        """Drop the lowest units of the net: as many as the round wants, but no more than lead closest to the budget."""
        ranks, widths = self.ranks(net), torch.tensor([scales.numel() for scales in self.scales])
        for index, (units, scales) in enumerate(zip(ranks, self.scales)):
            units = units.masked_fill(scales == 0, -torch.inf)
            ranks[index] = units.index_fill(0, units.topk(min(self.options.min_units, len(units))).indices, torch.inf)
        order = torch.cat(ranks).argsort(stable=True)
        group = torch.repeat_interleave(torch.arange(len(ranks)), widths)[order]
        free = int((torch.cat(ranks) < torch.inf).sum())

        def macs(dropped: int) -> float:
            left = widths - torch.bincount(group[:dropped], minlength=len(ranks))
            return net.macs_per_frame(left.tolist())

        low, high, target = 0, free, float(self.schedule.target_macs)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if macs(middle) <= target else (middle, high)
        dropped = min((low, high), key=lambda count: abs(macs(count) - target))
        if number < self.passes:
            dropped = min(dropped, int(widths.sum()) - self.planned(sum(self.initial_units), sum(self.targets), number))
        lowest = torch.zeros(len(order)).index_fill(0, order[: max(dropped, 0)], 1.0)
        for scales, leaves in zip(self.scales, lowest.split(widths.tolist())):
            scales[leaves > 0] = 0

    def decide(self) -> None:
        """Nothing is left to decide: the last round leaves what the budget does, of which the targets by layer are no part if global."""

    def _remove(self, net: AcousticModel, optimiser: torch.optim.Optimizer, held_out: HeldOut, fold: bool) -> None:
        keep = {group.name: torch.nonzero(scales > 0).flatten() for group, scales in zip(net.unit_groups(), self.scales)}
        super()._remove(net, optimiser, held_out, fold)
        if self.initial is None or net.widths == self.initial.widths:
            return
        remove_units(self.initial, keep)
        for now, first in zip(net.state_dict().values(), self.initial.state_dict().values()):
            now.copy_(first)
        optimiser.state.clear()
        self.report.messages.append("rewound to the initial weights")
        if fold:
            self.initial = None

    def tensors(self) -> dict[str, torch.Tensor]:
        initial = {} if self.initial is None else self.initial.state_dict()
        return {**super().tensors(), **{f"initial.{name}": tensor for name, tensor in initial.items()}}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        super().load_tensors(tensors)
        self._loaded = {name.removeprefix("initial."): tensor for name, tensor in tensors.items() if name.startswith("initial.")}
