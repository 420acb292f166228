"""Users' nets of every kind that can be adapted, with random values, and the same nets with units masked by torch's own means."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

INPUTS, OUTPUTS = 7, 5


class Recurrent(nn.Module):
    """Two nn.LSTM, the first of `layers` layers, and a linear output."""

    def __init__(self, layers: int, bidirectional: bool, batch_first: bool, cells: tuple[int, int] = (8, 6)) -> None:
        super().__init__()
        ways = 1 + bidirectional
        self.lower = nn.LSTM(INPUTS, cells[0], layers, bidirectional=bidirectional, batch_first=batch_first, dropout=0.1 * (layers > 1))
        self.upper = nn.LSTM(ways * cells[0], cells[1], bidirectional=bidirectional, batch_first=batch_first)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(ways * cells[1], OUTPUTS)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.out(self.drop(self.upper(self.lower(frames)[0])[0]))


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random values in every tensor, in float64."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            scale = 1.5 / tensor.shape[1] ** 0.5 if tensor.dim() > 1 else 0.5
            values = scale * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(values.abs() + 0.3 if name.endswith("running_var") else values)
    return module


def sequential(rng: np.random.Generator) -> nn.Sequential:
    """A feed-forward net: one to three hidden layers, each with norm before, behind or not at all, any activation, bias or none."""
    sizes = [INPUTS, *rng.integers(2, 12, rng.integers(1, 4)).tolist()]
    parts = [nn.BatchNorm1d(INPUTS)] if rng.random() < 0.3 else []
    for below, width in zip(sizes, sizes[1:]):
        activation = [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), None][rng.integers(4)]
        norm = nn.BatchNorm1d(width, eps=1e-3) if rng.random() < 0.6 else None
        own = [part for part in ((norm, activation) if rng.random() < 0.5 else (activation, norm)) if part is not None]
        linear = nn.Linear(below, width, bias=bool(rng.random() < 0.7))
        parts += [linear, *own, nn.Dropout(0.2)] if rng.random() < 0.5 else [nn.Sequential(linear, *own)]
    end = [[], [nn.LogSoftmax(dim=-1)], [nn.Sigmoid()]][rng.integers(3)]
    return nn.Sequential(*parts, nn.Linear(sizes[-1], OUTPUTS), *end)


def masks_for(widths: list[int], rng: np.random.Generator) -> list[torch.Tensor]:
    """A mask `(H,)` per group that leaves at least one unit."""
    masks = []
    for width in widths:
        mask = (rng.random(width) < 0.6).astype(float)
        mask[rng.integers(width)] = 1.0
        masks.append(torch.from_numpy(mask))
    return masks


def masked_sequential(module: nn.Sequential, masks: list[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    """Outputs of the user's own module whose linear layers read masked units."""
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    hooks = [
        part.register_forward_pre_hook(lambda _, given, mask=mask: (given[0] * mask,)) for part, mask in zip(linear[1:], masks, strict=True)
    ]
    found = module(rows)
    for hook in hooks:
        hook.remove()
    return found


def masked_recurrent(module: Recurrent, masks: list[torch.Tensor]) -> Recurrent:
    """The user's own module with weights of 0 wherever a masked unit is read: by the next step, and by the layers above."""
    module, below, remaining = copy.deepcopy(module), None, list(masks)
    for lstm in (module.lower, module.upper):
        suffixes = ["", "_reverse"][: 1 + lstm.bidirectional]
        for layer in range(lstm.num_layers):
            own = []
            for suffix in suffixes:
                if below is not None:
                    getattr(lstm, f"weight_ih_l{layer}{suffix}").data.mul_(below)
                own.append(remaining.pop(0))
                getattr(lstm, f"weight_hh_l{layer}{suffix}").data.mul_(own[-1])
            below = torch.cat(own)
    module.out.weight.data.mul_(below)
    return module
