"""Removal by a criterion, on the schedule of dropout compaction: norm of the weights, Taylor expansion, or importance in projection.

`l1`: `s_u = sum |w|` over the weights that feed the unit (Li et al. 2017). `taylor`: `s_u = |mean_t (dL_t / da_u) a_u|`, the change of
the objective when the unit is removed, to first order (Molchanov et al. 2017); the mean is of signed terms, so it is the mean-field
gradient of dropout compaction at retention 1 without its sign. `vip`: variable importance in projection of partial least squares from the
activations of the layer to the labels of the frames; under CTC, which has no such labels, to the outputs that the net itself finds best.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch.nn import functional

from dropasr.compaction.partial_least_squares import vip
from dropasr.compaction.reconstruction import saliencies
from dropasr.compaction.retention import mean_field
from dropasr.compaction.unit_statistics import observe, summed, weight_blocks
from dropasr.methods.base import open_gates
from dropasr.methods.base_ranking import FrameRankedRemoval, RankingOptions
from dropasr.models.base import AcousticModel


class MethodOptions(RankingOptions):
    """Keys of conf/method/criterion_removal.yaml."""

    criterion: Literal["l1", "taylor", "vip", "saliency"] = "taylor"
    """What a unit is worth."""
    components: int = Field(default=8, ge=1)
    """Components of partial least squares (criterion vip)."""


class Method(FrameRankedRemoval):
    """The unit of the lowest criterion leaves first. `vip` of 1024 units and 4096 frames takes 2 s per layer and pass."""

    def ranks(self, net: AcousticModel) -> list[torch.Tensor]:
        groups = net.unit_groups()
        if self.options.criterion == "l1":
            with torch.no_grad():
                return [summed(weight_blocks(group, outgoing=False), torch.abs)[0] for group in groups]
        if self.options.criterion == "taylor":
            ones = [torch.ones(width) for width in net.widths]
            gradients = mean_field(net, self.inputs, self.targets_of_rows, ones, self.generator)
            open_gates(net)
            return [gradient.abs() for gradient in gradients]
        if self.options.criterion == "saliency":
            return [saliencies(group, units) for group, units in zip(groups, observe(net, self.inputs))]
        labels = self.targets_of_rows if torch.is_tensor(self.targets_of_rows) else self._best(net)
        targets = functional.one_hot(labels.long())
        return [vip(units, targets, self.options.components) for units in observe(net, self.inputs)]

    @torch.no_grad()
    def _best(self, net: AcousticModel) -> torch.Tensor:
        """Number of the best output `(N,)` of each row."""
        return net(self.inputs).argmax(dim=1)
