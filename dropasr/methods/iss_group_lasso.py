"""Intrinsic sparse structures of LSTMs (Wen et al. 2018): group lasso on all that belongs to a cell.

    J = loss + lambda sum_u sqrt(sum of squares of the group of u + 1e-8)

The group of cell u is its four gate rows in both matrices, its column of the recurrent matrix and of the layers above: whatever surgery
removes with it, biases aside. With a projection the cells (gate rows, column of the projection) and the projected outputs (row of the
projection, recurrent and upper columns) are groups of their own. Published with lambda 0.00245, learning rate 1.0 and weights below 1e-4
set to 0 at each step. Of a feed-forward net the groups are the joint ones of DropNeuron.
"""

from __future__ import annotations

from pydantic import Field

from dropasr.methods.base_group_lasso import GroupLasso, GroupLassoOptions


class MethodOptions(GroupLassoOptions):
    """Keys of conf/method/iss_group_lasso.yaml."""

    strength: float = Field(default=0.00245, gt=0)
    """lambda; with the controller only until the first pass."""
    zero_below: float = Field(default=1e-4, ge=0)
    """Single weights below this magnitude become 0 after each step."""


class Method(GroupLasso):
    """A unit leaves when its whole group is nearly 0."""
