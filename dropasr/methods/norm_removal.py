"""Removal by norm: the units leave that the next layer reads least (He et al. 2014, node pruning by outgoing weights)."""

from __future__ import annotations

import torch

from dropasr.compaction.unit_statistics import summed, weight_blocks
from dropasr.methods.base_removal import RankedRemoval, RemovalOptions
from dropasr.models.base import AcousticModel, UnitGroup


class MethodOptions(RemovalOptions):
    """Keys of conf/method/norm_removal.yaml: only the common ones."""


@torch.no_grad()
def outgoing_norms(group: UnitGroup) -> torch.Tensor:
    """Euclidean norm `(H,)` of all weights that read each unit of a group."""
    total, _ = summed(weight_blocks(group, outgoing=True), lambda weight: weight.float().square())
    return total.sqrt()


class Method(RankedRemoval):
    """The unit with the smallest outgoing norm leaves first."""

    def ranks(self, net: AcousticModel) -> list[torch.Tensor]:
        return [outgoing_norms(group) for group in net.unit_groups()]
