"""What methods have in common that rank units by frames of train: how many frames, and what becomes of the mean of a unit that leaves."""

from __future__ import annotations

import torch
from pydantic import Field

from dropasr.compaction.retention import Targets
from dropasr.compaction.surgery import fold_constants
from dropasr.compaction.unit_statistics import feeds_itself, observe
from dropasr.data.chunks import Inputs
from dropasr.methods.base import HeldOut
from dropasr.methods.base_removal import RankedRemoval, RemovalOptions
from dropasr.models.base import AcousticModel


class RankingOptions(RemovalOptions):
    """Keys of every method that ranks units by frames."""

    frames: int = Field(default=4096, ge=2)
    """Frames of the held-out slice of train, drawn anew at every pass, by which units are ranked; the net trains on them, too."""


class FrameRankedRemoval(RankedRemoval):
    """Removal by ranks that may use `inputs` and `targets`, `frames` rows of the slice that others hold out.

    A pass costs a forward pass over these frames (for gradients a backward pass, too): a few training steps, at most some ten times.
    Outputs of projections take a loop over time.
    """

    inputs: Inputs
    targets_of_rows: Targets

    def draw(self, held_out: HeldOut) -> None:
        """Take the frames of a pass."""
        self.inputs, self.targets_of_rows = held_out.draw(self.generator, min(self.options.frames, held_out.num_rows))

    def run_pass(self, net: AcousticModel, number: int, time: float, held_out: HeldOut) -> None:
        self.draw(held_out)
        super().run_pass(net, number, time, held_out)

    def _remove(self, net: AcousticModel, optimiser: torch.optim.Optimizer, held_out: HeldOut, fold: bool) -> None:
        if self.folds_means(self.options, net) and any(bool((scales == 0).any()) for scales in self.scales):
            for group, scales, units in zip(net.unit_groups(), self.scales, observe(net, self.inputs)):
                if not feeds_itself(group):
                    fold_constants(group, units.mean(dim=0) * (scales == 0))
        super()._remove(net, optimiser, held_out, fold)
