"""Node pruning (He, Fan, Qian, Tan, Yu 2014): train, score every hidden node, remove the worst, and go on training what is left.

Importance of a node, of which the lowest leave: `entropy` of whether it is on, `-q log q - (1-q) log (1-q)` with q the share of frames in
which a sigmoid is above 0.5 (ReLU and LSTM outputs: above 0); `output_norm` and `input_norm`, the mean magnitude of the weights that read
it and that feed it (published as best: output_norm); `variance` of its activation, where its mean moves into the biases above, so that
what is lost is what the rank measures (recurrent units leave without it). With `passes: 1` all leave at `end`, as published; with more
the scores are taken again between removals. The epochs are those of all rows: those after `end` retune.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from dropasr.compaction import unit_statistics as statistics
from dropasr.methods.base_ranking import FrameRankedRemoval, RankingOptions
from dropasr.models.base import AcousticModel


class MethodOptions(RankingOptions):
    """Keys of conf/method/node_pruning.yaml."""

    importance: Literal["output_norm", "input_norm", "entropy", "variance"] = "output_norm"
    """What a node is worth."""
    start: float = Field(default=0.4, ge=0, lt=1)
    """Share of the training steps from which passes are counted: the first comes an interval later."""
    end: float = Field(default=0.5, gt=0, le=1)
    """Share of the training steps after which the net has its final size; what follows is retuning."""
    passes: int = Field(default=1, ge=1)
    """1: all nodes leave at once, at `end`; more: iterative, evenly spread between `start` and `end`."""


class Method(FrameRankedRemoval):
    """The node of least importance leaves first, in every layer the same share."""

    own_schedule = True

    @classmethod
    def folds_means(cls, options: MethodOptions, net: AcousticModel) -> bool:
        return options.importance == "variance"

    def ranks(self, net: AcousticModel) -> list[torch.Tensor]:
        groups, importance = net.unit_groups(), self.options.importance
        if importance.endswith("norm"):
            return [statistics.mean_magnitude(group, outgoing=importance == "output_norm") for group in groups]
        seen = statistics.observe(net, self.inputs)
        if importance == "variance":
            return [statistics.variance(units) for units in seen]
        return [statistics.entropy(units, statistics.on_threshold(net, group)) for group, units in zip(groups, seen)]
