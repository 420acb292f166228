"""Removal by norm: the units leave that the next layer reads least (He et al. 2014, node pruning by outgoing weights)."""

from __future__ import annotations

import torch

from dropasr.methods.base_removal import RankedRemoval, RemovalOptions
from dropasr.models.base import AcousticModel, UnitGroup


class MethodOptions(RemovalOptions):
    """Keys of conf/method/norm_removal.yaml: only the common ones."""


@torch.no_grad()
def outgoing_norms(group: UnitGroup) -> torch.Tensor:
    """Euclidean norm `(H,)` of all weights that read each unit of a group."""
    total = torch.zeros(group.gate.width)
    for slice_ in group.slices:
        if slice_.consumer:
            tensor = getattr(slice_.module, slice_.name).movedim(slice_.dim, 0)
            own = tensor[slice_.offset : slice_.offset + slice_.blocks * group.gate.width]
            total += own.reshape(slice_.blocks, group.gate.width, -1).float().square().sum(dim=(0, 2))
    return total.sqrt()


class Method(RankedRemoval):
    """The unit with the smallest outgoing norm leaves first."""

    def ranks(self, net: AcousticModel) -> list[torch.Tensor]:
        return [outgoing_norms(group) for group in net.unit_groups()]
