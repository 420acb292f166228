"""Weights that a net sees through a function for one step: masks on single weights, exact for gradients, momentum and decay.

A method calls `WeightView.apply` in `before_step` and `WeightView.restore` in `after_step`. In between the net computes with what the
function returns, such as `weight * mask`, in the place of the parameter, which stays whole: autograd gives the gradient of the parameter
itself (0 where the mask is), the norm of all gradients is clipped as ever, the optimiser moves every weight, masked or not, by its own
momentum and decay, and no value has to be put back. Autocast converts what the function returned once per use; torch's fused LSTM takes it
like a parameter.

Weights that are masked are multiplied by 0 at run time: nets stay dense and are not faster.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dropasr.models.base import AcousticModel

Place = tuple[nn.Module, str]
"""A module and the name of one of its parameters."""


def unit_matrices(net: AcousticModel) -> list[Place]:
    """The matrices `(rows, inputs)` that make the units of the net, input side first: all but that of the logits."""
    places = {}
    for group in net.unit_groups():
        for slice_ in group.slices:
            if not slice_.consumer and slice_.dim == 0 and getattr(slice_.module, slice_.name).dim() == 2:
                places[id(slice_.module), slice_.name] = (slice_.module, slice_.name)
    return list(places.values())


class WeightView:
    """What stands in the place of parameters during a step."""

    def __init__(self) -> None:
        self._places: list[Place] = []

    def apply(self, places: list[Place], see: Callable[[int, nn.Parameter], torch.Tensor]) -> None:
        """Let the net see `see(index, parameter)` at each place, until `restore`."""
        for index, (module, name) in enumerate(places):
            # An attribute of the module itself is found before the parameter, which stays registered under its name.
            module.__dict__[name] = see(index, getattr(module, name))
            self._places.append((module, name))

    def restore(self) -> None:
        """Let the net see its parameters again."""
        for module, name in self._places:
            del module.__dict__[name]
        self._places.clear()
