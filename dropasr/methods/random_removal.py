"""Random removal: units leave by lot, on the schedule of dropout compaction. What choosing well is worth shows against this."""

from __future__ import annotations

import torch

from dropasr.methods.base_removal import RankedRemoval, RemovalOptions
from dropasr.models.base import AcousticModel


class MethodOptions(RemovalOptions):
    """Keys of conf/method/random_removal.yaml: only the common ones."""


class Method(RankedRemoval):
    """Every unit that is left may leave, all equally likely."""

    def ranks(self, net: AcousticModel) -> list[torch.Tensor]:
        return [torch.from_numpy(self.generator.random(width)) for width in net.widths]
