"""DropNeuron (Pan, Dong, Guo 2016): group lasso on the weights that feed each unit and on those that read it, and optionally L1.

    J = loss + lambda (sum_u ||W_in[u]||_2 + sum_u ||W_out[:, u]||_2) + l1 sum |w|

Published with lambda 5e-5 (5e-4 times a fixed 0.1), l1 1e-5 and a threshold of 0.01 for Adam over 100 epochs of MNIST. Different from
that: the threshold is for the root mean square of a group and not for each weight, and input features and outputs are not removed, so
that they have no groups. `groups: joint` has one group per unit, both parts. Units without fan-in are folded into the biases above.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dropasr.methods.base_group_lasso import GroupLasso, GroupLassoOptions


class MethodOptions(GroupLassoOptions):
    """Keys of conf/method/dropneuron.yaml."""

    groups: Literal["separate", "joint"] = "separate"
    """Groups of a unit: the weights that feed it and those that read it, or all of them in one; recurrent units always have one."""
    l1: float = Field(default=1e-5, ge=0)
    """Weight of the magnitude of every weight, added to the penalty."""


class Method(GroupLasso):
    """A unit leaves when what feeds it, or what reads it, is nearly 0."""

    @property
    def joint(self) -> bool:
        return self.options.groups == "joint"
