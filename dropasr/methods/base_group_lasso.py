"""Group lasso over the weights of each unit: units whose weights the penalty drives to zero leave the net.

    J = loss + sum_u lambda_l ||w_u||_2,   ||w||_2 = sqrt(sum w^2 + 1e-8)

What belongs to a unit is read from `unit_groups`: `joint`, all weights that feed and read it, is for LSTM cells the group of intrinsic
sparse structures (four gate rows, recurrent column, columns above; an entry in both a row and the recurrent column counts twice). With
`separate` fan-in and fan-out have a term each, as published for DropNeuron; recurrent units are always joint, because one without fan-in
is no constant. With `proximal` weights shrink by `max(0, 1 - learning_rate lambda / ||w||)` after each step, exactly to 0, in place of the
gradient of the penalty; groups that share weights shrink one after the other. `l1` then takes `learning_rate l1` off the magnitude of every
weight first, at most all of it: without shared weights both together are the proximal step of the sparse group lasso (Simon et al. 2013).

What a unit is worth is the root mean square of its group, of the weaker one of two. Below `threshold` it is dead and leaves at the next
pass; the units of feed-forward nets whose fan-in is the dead one keep saying `a(b)`, which moves into the biases above.

To meet a budget, `controller: budget` sets lambda of each layer at each pass to `n / (rate * steps until end)`, with n the norm of the
strongest unit that has to leave, and `rate` what a step moves a weight by per unit of gradient (`learning_rate / (1 - momentum)`; proximal:
`learning_rate`): against no resistance it would be 0 at `end`; what the loss holds against it raises lambda at the next pass. What is not
below the threshold at `end` leaves by rank, and the log says how many those are. `none` keeps lambda, as published, and the size is what
falls below the threshold. The penalty ends with the removal; the epochs after that are plain training.
"""

from __future__ import annotations

from typing import Literal, Union

import torch
from pydantic import Field

from dropasr.compaction.surgery import has_biases
from dropasr.compaction.unit_statistics import feeds_itself, summed, weight_blocks
from dropasr.methods.base import HeldOut, Schedule
from dropasr.methods.base_removal import GradualRemoval, RemovalOptions
from dropasr.models.base import AcousticModel, UnitGroup

SMOOTHING = 1e-8
"""Added to the squared norm in the penalty, whose gradient at 0 would not exist."""
SHORTEST = 0.25
"""The controller never asks for norms to vanish within less than this share of the way from `start` to `end`: that would hit all units."""


class GroupLassoOptions(RemovalOptions):
    """Keys of every method with such a penalty."""

    controller: Literal["budget", "none"] = "budget"
    """`budget`: meet the row's share of multiply-adds; `none`: as published, the size follows from strength and threshold."""
    strength: float = Field(default=5e-5, gt=0)
    """lambda; with the controller only until the first pass."""
    l1: float = Field(default=0.0, ge=0)
    """Weight of the magnitude of every weight, added to the penalty."""
    proximal: bool = False
    """Shrink groups after each step instead of adding the penalty to the objective; with train.optimiser adam always, since Adam divides
    the gradient of a penalty by its own size."""
    size_scaled: bool = False
    """Multiply lambda by the root of the number of weights in the group."""
    threshold: float = Field(default=0.01, gt=0)
    """Root mean square of a group's weights below which its unit is dead."""
    zero_below: float = Field(default=0.0, ge=0)
    """Single weights below this magnitude become 0 after each step."""
    start: float = Field(default=0.05, ge=0, lt=1)
    """Share of the training steps from which passes are counted; the penalty acts from the first step on."""
    end: float = Field(default=0.5, gt=0, le=1)
    """Share of the training steps after which the net has its final size and no penalty."""
    passes: int = Field(default=18, ge=1)
    """Passes between `start` and `end`, at which dead units leave and lambda is set."""


class GroupLasso(GradualRemoval):
    """`strengths` `(layers,)`: lambda of each group of units.

    A step of a net of 4 x 1024 units in bfloat16, batch 1024, takes 1.3 times one without penalty; proximal, 1.02 to 1.03 times.
    """

    own_schedule = True

    def __init__(self, options: GroupLassoOptions, schedule: Schedule) -> None:
        super().__init__(options, schedule)
        self.strengths = torch.empty(0)
        self.proximal = options.proximal or schedule.optimiser == "adam"

    @classmethod
    def learns_units(cls, options: GroupLassoOptions) -> bool:
        return True

    @property
    def meets_budget(self) -> bool:
        return self.options.controller == "budget"

    @property
    def joint(self) -> bool:
        """Whether the weights that feed a unit and those that read it are one group."""
        return True

    def parts(self, group: UnitGroup) -> list[list[torch.Tensor]]:
        """Views of the weights of each unit, `(blocks, H, n)`: one list of them, or fan-in and fan-out."""
        feeding, reading = weight_blocks(group, outgoing=False), weight_blocks(group, outgoing=True)
        return [feeding + reading] if self.joint or feeds_itself(group) else [feeding, reading]

    def scale(self, count: int) -> float:
        """What multiplies lambda for a group of `count` weights."""
        return count**0.5 if self.options.size_scaled else 1.0

    def strength(self, net: AcousticModel) -> torch.Tensor:
        """lambda of each group of units."""
        if not len(self.strengths):
            self.strengths = torch.full((len(net.widths),), self.options.strength)
        return self.strengths

    def penalty(self, net: AcousticModel) -> Union[torch.Tensor, None]:
        if self.phase == "after":
            return None
        terms = []
        if not self.proximal:
            for group, strength in zip(net.unit_groups(), self.strength(net)):
                for blocks in self.parts(group):
                    squares, count = summed(blocks, torch.square)
                    terms.append(strength * self.scale(count) * torch.sqrt(squares + SMOOTHING).sum())
        if self.options.l1 and not self.proximal:
            terms += [self.options.l1 * weight.abs().sum() for weight in net.parameters() if weight.dim() == 2]
        return torch.stack(terms).sum() if terms else None

    def after_step(
        self, net: AcousticModel, epoch: int, step: int, optimiser: torch.optim.Optimizer, held_out: Union[HeldOut, None]
    ) -> None:
        self.learning_rate = float(optimiser.param_groups[0]["lr"])
        # Momentum adds the gradient of a penalty up; proximal shrinkage comes behind it.
        self.rate = self.learning_rate / (1.0 if self.proximal else 1 - optimiser.param_groups[0].get("momentum", 0.0))
        if self.phase != "after":
            self._shrink(net)
        super().after_step(net, epoch, step, optimiser, held_out)

    @torch.no_grad()
    def _shrink(self, net: AcousticModel) -> None:
        if self.options.zero_below:
            for weight in net.parameters():
                if weight.dim() == 2:
                    weight.masked_fill_(weight.abs() < self.options.zero_below, 0)
        if not self.proximal:
            return
        if self.options.l1:
            for weight in net.parameters():
                if weight.dim() == 2:
                    weight.copy_(torch.nn.functional.softshrink(weight, self.learning_rate * self.options.l1))
        for group, strength in zip(net.unit_groups(), self.strength(net)):
            for blocks in self.parts(group):
                squares, count = summed(blocks, torch.square)
                shrunk = self.learning_rate * strength * self.scale(count) / squares.sqrt().clamp(min=1e-30)
                factor = (1 - shrunk).clamp(min=0)[None, :, None]
                for block in blocks:
                    block.mul_(factor)

    @torch.no_grad()
    def worths(self, group: UnitGroup) -> tuple[torch.Tensor, torch.Tensor]:
        """Root mean square of the weights of each group, `(groups, H)`, and the norms that lambda acts on."""
        found = [summed(blocks, torch.square) for blocks in self.parts(group)]
        norms = torch.stack([squares.sqrt() for squares, _ in found])
        counts = torch.tensor([[count] for _, count in found])
        scales = torch.tensor([[self.scale(count)] for _, count in found])
        return norms / counts.sqrt(), norms / scales

    def run_pass(self, net: AcousticModel, number: int, time: float, held_out: HeldOut) -> None:
        strengths, below, ranked = self.strength(net).clone(), 0, 0
        end, window = self.options.end * self.schedule.epochs, (self.options.end - self.options.start) * self.schedule.epochs
        steps = max(end - time, SHORTEST * window) * self.schedule.steps_per_epoch
        floors = self.targets or [min(self.options.min_units, width) for width in self.initial_units]
        for index, (group, scales, floor) in enumerate(zip(net.unit_groups(), self.scales, floors)):
            worth, norm = (values.amin(dim=0).masked_fill(scales == 0, -torch.inf) for values in self.worths(group))
            surplus = max(scales.numel() - floor, 0)
            dead = min(int((worth < self.options.threshold).sum()), surplus)
            forced = surplus - dead if self.meets_budget and number == self.passes else 0
            scales[worth.topk(dead + forced, largest=False).indices] = 0
            below, ranked = below + dead, ranked + forced
            if self.meets_budget and surplus > dead:
                strengths[index] = float(norm.kthvalue(surplus).values) / (self.rate * steps)
        self.strengths = strengths
        if number == self.passes:
            self.report.messages.append(f"last pass of the group lasso: {below} units below the threshold, {ranked} more left by rank")

    @torch.no_grad()
    def constants(self, net: AcousticModel) -> Union[list[torch.Tensor], None]:
        # What is left of the fan-in of such units becomes 0 here: next to nothing where they are below the threshold, more of those that
        # leave by rank in the last pass, which training repairs.
        found = []
        for group, scales in zip(net.unit_groups(), self.scales):
            parts, leaves = self.parts(group), scales == 0
            if len(parts) == 2 and has_biases(group):
                worth, _ = self.worths(group)
                leaves = leaves & (worth[0] <= worth[1])
                for block in parts[0]:
                    block.mul_((~leaves)[None, :, None])
            else:
                leaves = torch.zeros_like(leaves)
            found.append(leaves)
        return found if any(bool(leaves.any()) for leaves in found) else None

    def tensors(self) -> dict[str, torch.Tensor]:
        return {**super().tensors(), "strengths": self.strengths}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        super().load_tensors(tensors)
        self.strengths = tensors["strengths"].clone()
