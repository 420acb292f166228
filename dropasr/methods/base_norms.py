"""Norms of the weights that belong to each unit of a group."""

from __future__ import annotations

import torch

from dropasr.models.base import UnitGroup


@torch.no_grad()
def unit_norms(group: UnitGroup, makes: bool, reads: bool) -> torch.Tensor:
    """Euclidean norm `(H,)` of the matrix entries of each unit of a group: of those that make it, those that read it, or both.

    Both is the norm of intrinsic sparse structures (Wen et al. 2018): of an LSTM cell the rows of four gates, its column of the recurrent
    matrix and those of the layers above. Biases and normalisation do not count.
    """
    width = group.gate.width
    total = torch.zeros(width)
    for slice_ in group.slices:
        tensor = getattr(slice_.module, slice_.name)
        if tensor.dim() == 2 and (reads if slice_.consumer else makes):
            own = tensor.movedim(slice_.dim, 0)[slice_.offset : slice_.offset + slice_.blocks * width]
            total += own.reshape(slice_.blocks, width, -1).float().square().sum(dim=(0, 2))
    return total.sqrt()
