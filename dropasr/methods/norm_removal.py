"""Removal by norm: the units leave that the next layer reads least (He et al. 2014, node pruning by outgoing weights)."""

from __future__ import annotations

import torch

from dropasr.compaction.unit_statistics import unit_norms
from dropasr.methods.base_removal import RankedRemoval, RemovalOptions
from dropasr.models.base import AcousticModel


class MethodOptions(RemovalOptions):
    """Keys of conf/method/norm_removal.yaml: only the common ones."""


class Method(RankedRemoval):
    """The unit with the smallest outgoing norm leaves first."""

    ranks_inputs = True

    def ranks(self, net: AcousticModel) -> list[torch.Tensor]:
        return [unit_norms(group, makes=False, reads=True) for group in net.unit_groups()]
