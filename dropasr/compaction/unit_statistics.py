"""What methods rank units by: the weights that belong to a unit, and statistics of its activations over frames.

Weights are found through `unit_groups`, activations through `unit_activations`, so both hold for every model. Of an LSTM the incoming
weights of a unit are its four gate rows of both matrices, the outgoing ones its recurrent column and its columns in the layers above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

import torch
from torch import nn

from dropasr.data.chunks import Inputs
from dropasr.models.base import AcousticModel, UnitGroup


def weight_blocks(group: UnitGroup, outgoing: bool) -> list[torch.Tensor]:
    """Views `(blocks, H, n)` of the matrices that read the units (`outgoing`) or feed them, without biases; writing to them is allowed."""
    blocks = []
    for slice_ in group.slices:
        tensor = getattr(slice_.module, slice_.name)
        if slice_.consumer == outgoing and tensor.dim() == 2:
            own = tensor.movedim(slice_.dim, 0)[slice_.offset : slice_.offset + slice_.blocks * group.gate.width]
            blocks.append(own.unflatten(0, (slice_.blocks, group.gate.width)))
    return blocks


def summed(blocks: list[torch.Tensor], entry: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Sum `(H,)` of a function of each weight over all weights of a unit, and how many weights that are."""
    return sum(entry(block).sum(dim=(0, 2)) for block in blocks), sum(block.shape[0] * block.shape[2] for block in blocks)


@torch.no_grad()
def unit_norms(group: UnitGroup, makes: bool, reads: bool) -> torch.Tensor:
    """Euclidean norm `(H,)` of the matrix entries of each unit: of those that make it, those that read it, or both.

    Both is the norm of intrinsic sparse structures (Wen et al. 2018): of an LSTM cell the rows of four gates, its column of the recurrent
    matrix and those of the layers above. Biases and normalisation do not count.
    """
    sides = [outgoing for outgoing, wanted in ((False, makes), (True, reads)) if wanted]
    blocks = [block for outgoing in sides for block in weight_blocks(group, outgoing)]
    return summed(blocks, lambda weight: weight.float().square())[0].sqrt()


@torch.no_grad()
def mean_magnitude(group: UnitGroup, outgoing: bool) -> torch.Tensor:
    """Mean magnitude `(H,)` of the outgoing or incoming weights: onorm and inorm of He et al. 2014."""
    total, count = summed(weight_blocks(group, outgoing), torch.abs)
    return total.float() / count


def feeds_itself(group: UnitGroup) -> bool:
    """Whether what the units say reaches them again: recurrent units, whose output is no constant even where nothing feeds them."""
    fed, reading = ({id(slice_.module) for slice_ in group.slices if slice_.consumer == reads} for reads in (False, True))
    return bool(fed & reading)


@torch.no_grad()
def observe(net: AcousticModel, inputs: Inputs) -> list[torch.Tensor]:
    """Activations `(N, H)` of every group in evaluation mode and full precision, in float64: sums over many frames stay exact."""
    training = net.training
    net.eval()
    with torch.autocast("cpu", enabled=False):
        found = [units.double() for units in net.unit_activations(inputs)]
    net.train(training)
    return found


def magnitude(activations: torch.Tensor) -> torch.Tensor:
    """Mean of |a| `(H,)` over frames (Tan and Motani 2020)."""
    return activations.abs().mean(dim=0)


def variance(activations: torch.Tensor) -> torch.Tensor:
    """Variance `(H,)` over frames: the error of putting the mean in the place of a unit."""
    return activations.var(dim=0, unbiased=False)


def deviation(activations: torch.Tensor) -> torch.Tensor:
    """Mean of |a - mean| `(H,)` over frames."""
    return (activations - activations.mean(dim=0)).abs().mean(dim=0)


def entropy(activations: torch.Tensor, threshold: Union[float, torch.Tensor]) -> torch.Tensor:
    """Entropy `(H,)` in bits of whether a unit is above `threshold` (a number, or `(H,)`), after He et al. 2014."""
    on = (activations > threshold).double().mean(dim=0)
    return -(torch.xlogy(on, on) + torch.xlogy(1 - on, 1 - on)) / torch.log(torch.tensor(2.0))


def activation_of(net: AcousticModel, group: UnitGroup) -> Union[str, None]:
    """Name of the function that makes the units of a group; None for cells."""
    return getattr(net, "activations", {}).get(group.name, getattr(net, "activation", None))


def has_sigmoid_units(net: AcousticModel) -> bool:
    """Whether there are units that say something other than 0 where nothing feeds them."""
    return any(activation_of(net, group) == "sigmoid" for group in net.unit_groups())


@torch.no_grad()
def on_threshold(net: AcousticModel, group: UnitGroup) -> Union[float, torch.Tensor]:
    """Above it a unit counts as on, as its gate finds it: 0.5 for sigmoid units, 0 for others, moved as batch norm behind it moves them."""
    threshold = 0.5 if activation_of(net, group) == "sigmoid" else 0.0
    if group.name in getattr(net, "norm_first", ()):
        return threshold
    norms = {id(slice_.module): slice_.module for slice_ in group.slices if isinstance(slice_.module, nn.BatchNorm1d)}
    for norm in norms.values():
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return (threshold - norm.running_mean) * scale + norm.bias
    return threshold
