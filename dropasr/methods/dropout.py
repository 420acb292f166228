"""Dropout (Srivastava et al. 2014): every hidden unit is left out with the same probability in every step of the training.

Inverted dropout: units that stay are divided by the probability of staying, so that the trained net needs no scaling.
"""

from __future__ import annotations

import torch
from pydantic import Field

from dropasr.methods.base import BaseMethod, CommonOptions
from dropasr.models.base import AcousticModel
from dropasr.models.gates import sampled


class MethodOptions(CommonOptions):
    """Keys of conf/method/dropout.yaml."""

    rate: float = Field(default=0.5, gt=0, lt=1)
    """Probability of being left out."""


class Method(BaseMethod):
    """Masks per frame (of nets that read sequences, per piece) and unit."""

    def training_mode(self, net: AcousticModel, epoch: int) -> None:
        self.report.keep = 1 - self.options.rate
        set_dropout(net, self.options.rate, self.generator)


def set_dropout(net: AcousticModel, rate: float, generator) -> None:
    """Let every gate of a net draw fresh masks of inverted dropout, with random numbers of a numpy `generator`."""
    for group in net.unit_groups():
        group.gate.multiplier = sampled(generator, torch.full((group.gate.width,), 1 - rate), inverse_scale=True)
