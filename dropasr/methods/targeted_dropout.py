"""Targeted dropout of units (Gomez et al. 2019): what ranks low is dropped often, so that the rest learns to do without it.

At every step the lowest share gamma(t) of the units of each group is targeted, and each targeted unit dropped with probability alpha(t);
kept units are not rescaled. At `end` the lowest units leave for good: gamma ends at the share that the budget takes from each group.
Ranks, per group: `fan_in`, the norm of the weights that make a unit, as published, for ReLU units; `outgoing`, the norm of the weights
that read it times its mean absolute activation, for sigmoid units, which are constant, but not 0, where their fan-in is small; `group`,
the norm of both (intrinsic sparse structures), for recurrent nets.

The published code draws for each weight of a targeted unit; here a unit is dropped as a whole, per frame (recurrent nets: per piece, in
torch's fused kernel, since such masks have no gradients). Cost per step: the norms, one pass over all weights, and a mask; 9 % of a
4 x 1024 net (512 frames, bfloat16).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from dropasr.compaction.unit_statistics import has_sigmoid_units, unit_norms
from dropasr.errors import ConfigError
from dropasr.methods.base import HeldOut, Schedule
from dropasr.methods.base_removal import RankedRemoval, RemovalOptions
from dropasr.methods.base_targets import TargetOptions
from dropasr.models.base import AcousticModel
from dropasr.models.gates import sampled

ACTIVATION_DECAY = 0.99
"""Decay per step of the mean absolute activation of units."""


class MethodOptions(TargetOptions, RemovalOptions):
    """Keys of conf/method/targeted_dropout.yaml."""

    start: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training steps before anything is targeted."""
    end: float = Field(default=1.0, gt=0, le=1)
    """Share of the training steps after which the units left are those of the final net."""
    passes: int = Field(default=1, ge=1)
    """Removals between `start` and `end`; the published method has one, at the end."""
    ranking: Literal["auto", "fan_in", "outgoing", "group"] = "auto"
    """What ranks units; `auto`: `group` for recurrent nets, `outgoing` for sigmoid units, else `fan_in`."""


class Method(RankedRemoval):
    """`activations`: mean absolute activations `(H,)` per group, where they rank units."""

    own_schedule = True

    def __init__(self, options: MethodOptions, schedule: Schedule) -> None:
        super().__init__(options, schedule)
        self.activations: list[torch.Tensor] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    @classmethod
    def learns_units(cls, options: MethodOptions) -> bool:
        return True

    def ranking(self, net: AcousticModel) -> str:
        """What ranks the units of this net; ConfigError where that is not known of it."""
        chosen = self.options.ranking
        if chosen == "outgoing" and net.reads_chunks:
            raise ConfigError(
                "targeted_dropout: ranking 'outgoing' needs the activations of units, which the kernels of recurrent nets do not show; "
                "set ranking: group (or auto)."
            )
        if chosen != "auto":
            return chosen
        if net.reads_chunks:
            return "group"
        return "outgoing" if has_sigmoid_units(net) else "fan_in"

    def begin_removal(self, net: AcousticModel, trained: bool) -> None:
        super().begin_removal(net, trained)
        if self.ranking(net) == "outgoing":
            self.activations = [torch.zeros(width) for width in net.widths]

    def ranks(self, net: AcousticModel) -> list[torch.Tensor]:
        ranking, groups = self.ranking(net), net.unit_groups()
        if ranking == "outgoing":
            return [unit_norms(group, makes=False, reads=True) * mean for group, mean in zip(groups, self.activations)]
        return [unit_norms(group, makes=True, reads=ranking == "group") for group in groups]

    def training_mode(self, net: AcousticModel, epoch: int) -> None:
        super().training_mode(net, epoch)
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self.phase == "learning":
            gates = [group.gate for group in net.unit_groups()]
            self._hooks = [gate.register_forward_pre_hook(_follower(mean)) for gate, mean in zip(gates, self.activations)]

    def before_step(self, net: AcousticModel, epoch: int, step: int) -> None:
        if self.phase != "learning":
            return
        epochs = self.schedule.epochs
        progress = (epoch + step / self.schedule.steps_per_epoch) / epochs - self.options.start
        progress /= self.options.end - self.options.start
        share, kept = self.options.ramped_share(progress), 1 - self.options.ramped_rate(progress)
        self.report.keep = kept
        for group, ranks, first, last in zip(net.unit_groups(), self.ranks(net), self.initial_units, self.targets):
            # Units that have left already count among the targeted ones.
            targeted = int(share * (first - last)) - (first - ranks.numel())
            retention = torch.ones_like(ranks)
            retention[ranks.topk(max(targeted, 0), largest=False).indices] = kept
            group.gate.multiplier = sampled(self.generator, retention) if targeted > 0 else None

    def _remove(self, net: AcousticModel, optimiser: torch.optim.Optimizer, held_out: HeldOut, fold: bool) -> None:
        kept = [scales > 0 for scales in self.scales]
        super()._remove(net, optimiser, held_out, fold)
        self.activations = [mean[own] for mean, own in zip(self.activations, kept)]

    def tensors(self) -> dict[str, torch.Tensor]:
        return {**super().tensors(), **{f"activations.{index}": mean for index, mean in enumerate(self.activations)}}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        super().load_tensors(tensors)
        count = sum(name.startswith("activations.") for name in tensors)
        self.activations = [tensors[f"activations.{index}"].clone() for index in range(count)]


def _follower(mean: torch.Tensor):
    """A hook on a gate that keeps `mean` `(H,)` up to date in training, and not while the net is evaluated."""

    @torch.no_grad()
    def follow(gate: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if gate.training:
            mean.mul_(ACTIVATION_DECAY).add_(inputs[0].float().abs().mean(dim=0), alpha=1 - ACTIVATION_DECAY)

    return follow
