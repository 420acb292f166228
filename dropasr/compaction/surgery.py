"""Removing units from a net exactly: the rows and columns go, the outputs stay.

A model says where the units of a group lie (`unit_groups`); this module slices every such tensor, and the optimiser state beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Union

import torch
from torch import nn

from dropasr.errors import CompactionError
from dropasr.models.base import AcousticModel, Slice, UnitGroup


def _replace(module: nn.Module, name: str, value: torch.Tensor, optimiser: torch.optim.Optimizer | None, change) -> None:
    old = getattr(module, name)
    if not isinstance(old, nn.Parameter):
        setattr(module, name, value)
        return
    new = nn.Parameter(value, requires_grad=old.requires_grad)
    setattr(module, name, new)
    if optimiser is None:
        return
    for group in optimiser.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    state = optimiser.state.pop(old, None)
    if state is not None:
        same = {key: change(item) if torch.is_tensor(item) and item.shape == old.shape else item for key, item in state.items()}
        optimiser.state[new] = same


def _check(group: UnitGroup, kept: torch.Tensor) -> None:
    width = group.gate.width
    if kept.numel() == 0:
        raise CompactionError(f"{group.name}: all {width} units would be removed; at least one must stay (raise min_units).")
    if int(kept.min()) < 0 or int(kept.max()) >= width or bool((kept[1:] <= kept[:-1]).any()):
        raise CompactionError(f"{group.name}: expected increasing unit indices below {width}, found {kept.tolist()[:10]}.")


class _Cuts:
    """What stays of one tensor. Offsets are those of the uncut tensor, so all groups are noted before anything is cut."""

    def __init__(self, slice_: Slice) -> None:
        self.module, self.name = slice_.module, slice_.name
        self.stays: dict[int, torch.Tensor] = {}

    def note(self, slice_: Slice, width: int, kept: torch.Tensor) -> None:
        size = getattr(self.module, self.name).shape[slice_.dim]
        stays = self.stays.setdefault(slice_.dim, torch.ones(size, dtype=torch.bool))
        own = stays[slice_.offset : slice_.offset + slice_.blocks * width].view(slice_.blocks, width)
        own[:] = torch.zeros(width, dtype=torch.bool).index_fill(0, kept, True)

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        values = values.detach()
        for dim, stays in self.stays.items():
            values = values.index_select(dim, torch.nonzero(stays).flatten())
        return values.contiguous()


@torch.no_grad()
def remove_units(
    net: AcousticModel,
    keep: dict[str, torch.Tensor],
    optimiser: torch.optim.Optimizer | None = None,
    groups: Sequence[UnitGroup] | None = None,
) -> None:
    """Remove all units but `keep` (group name → sorted unit indices `(kept,)`) from `net`, in place.

    Every tensor of the group is sliced: rows, biases, normalisation parameters and statistics, columns of the layers that read the
    units, and the optimiser's state of each. Raises CompactionError for an unknown group, an empty layer, or indices out of range.
    """
    groups = list(net.unit_groups() if groups is None else groups)
    names = [group.name for group in groups]
    unknown = sorted(set(keep) - set(names))
    if unknown:
        raise CompactionError(f"no group of units '{unknown[0]}' in this net; it has {', '.join(names)}.")
    groups = [group for group in groups if group.name in keep]
    cuts: dict[tuple[int, str], _Cuts] = {}
    for group in groups:
        _check(group, keep[group.name])
        for slice_ in group.slices:
            cuts.setdefault((id(slice_.module), slice_.name), _Cuts(slice_)).note(slice_, group.gate.width, keep[group.name])
    for cut in cuts.values():
        _replace(cut.module, cut.name, cut.apply(getattr(cut.module, cut.name)), optimiser, cut.apply)
    for group in groups:
        group.gate.width = keep[group.name].numel()
        if torch.is_tensor(group.gate.multiplier):
            group.gate.multiplier = group.gate.multiplier[..., keep[group.name]]
    net.resized(keep)


@torch.no_grad()
def fold_scales(groups: Iterable[UnitGroup], scales: Sequence[torch.Tensor]) -> None:
    """Multiply the weights that read each unit by the unit's scale `(H,)`, so that the gate can be opened: `W'[:, u] = pi_u W[:, u]`.

    Source: Kubo et al. 2016; exact for the expectation-scaled net. What the optimiser holds of older gradients is not rescaled with the
    weights: momentum is gone within a few steps, the mean square of Adam after some thousand, until when the steps on these weights are
    up to 1 / scale times as large as they would be. The outputs never depend on it.
    """
    for group, scale in zip(groups, scales):
        for slice_ in group.slices:
            if not slice_.consumer:
                continue
            tensor = getattr(slice_.module, slice_.name)
            ones = torch.ones(tensor.shape[slice_.dim], dtype=tensor.dtype)
            for block in range(slice_.blocks):
                start = slice_.offset + block * group.gate.width
                ones[start : start + group.gate.width] = scale.to(tensor.dtype)
            shape = [1] * tensor.dim()
            shape[slice_.dim] = -1
            tensor.mul_(ones.view(shape))


def _bias(slice_: Slice) -> Union[torch.Tensor, None]:
    return getattr(slice_.module, slice_.name.replace("weight", "bias"), None)


def has_biases(group: UnitGroup) -> bool:
    """Whether all that reads the units has biases, so that `fold_constants` can be called."""
    return all(_bias(slice_) is not None for slice_ in group.slices if slice_.consumer)


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def fold_constants(group: UnitGroup, values: torch.Tensor) -> None:
    """Add to the biases of the layers above what they read where unit u always says `values[u]`, `(H,)`: `b' = b + W v`.

    Exact for units that never change, whose output is `values`; for others `values` may be the mean, 0 adds nothing. The units still
    have to leave. Raises CompactionError where a layer that reads the units has no bias, as between the cells and a projection.
    """
    for slice_ in group.slices:
        if not slice_.consumer:
            continue
        bias = _bias(slice_)
        if bias is None:
            raise CompactionError(f"{group.name}: nothing can be folded into a layer without biases ({slice_.name}).")
        read = getattr(slice_.module, slice_.name).narrow(slice_.dim, slice_.offset, slice_.blocks * group.gate.width)
        bias += read @ values.to(read).repeat(slice_.blocks)
