"""Annealed dropout (Rennie, Goel, Thomas 2014): one keep probability for all units, rising to 1 while training goes on.

Inverted dropout (kept units are divided by the keep probability), so that the net needs no rescaling while the probability moves.
"""

from __future__ import annotations

import torch
from pydantic import Field

from dropasr.methods.base import BaseMethod, CommonOptions, open_gates
from dropasr.models.base import AcousticModel
from dropasr.models.gates import sampled


class MethodOptions(CommonOptions):
    """Keys of conf/method/annealed_dropout.yaml."""

    initial_keep: float = Field(default=0.5, gt=0, le=1)
    """Keep probability of the first epoch."""
    annealed_share: float = Field(default=0.6, gt=0, le=1)
    """Share of the epochs after which the keep probability is 1; it rises linearly."""


class Method(BaseMethod):
    """Masks per frame (of nets that read sequences, per piece) and unit; off once the keep probability is 1."""

    def keep(self, epoch: int) -> float:
        """Keep probability of an epoch (0-based)."""
        options = self.options
        last = options.annealed_share * self.schedule.epochs
        return min(1.0, options.initial_keep + (1 - options.initial_keep) * epoch / max(last, 1e-9))

    def training_mode(self, net: AcousticModel, epoch: int) -> None:
        keep = self.keep(epoch)
        self.report.keep = keep
        if keep >= 1:
            open_gates(net)
            return
        for group in net.unit_groups():
            retention = torch.full((group.gate.width,), keep)
            group.gate.multiplier = sampled(self.generator, retention, inverse_scale=True)
