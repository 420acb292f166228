"""What an exact retention gradient is found by: every mask with its probability, and central differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch

Tensors = list[torch.Tensor]


def all_masks(retention: Tensors) -> Iterator[tuple[Tensors, float]]:
    """Every mask of all units, by group, with its probability."""
    flat = torch.cat(retention)
    for bits in itertools.product([0.0, 1.0], repeat=flat.numel()):
        mask = torch.tensor(bits, dtype=torch.float64)
        probability = torch.where(mask > 0, flat, 1 - flat).prod()
        yield list(mask.split([len(group) for group in retention])), float(probability)


def direction(mask: Tensors, retention: Tensors) -> torch.Tensor:
    """d log p(mask) / d pi of every unit in a row, of one mask or of several (`(N, U)` then)."""
    bits, flat = torch.cat(mask, dim=-1), torch.cat(retention)
    return bits / flat - (1 - bits) / (1 - flat)


def central_differences(objective: Callable[[Tensors], float], retention: Tensors, step: float) -> torch.Tensor:
    """The gradient of an objective of the retention probabilities, every unit in a row."""
    gradient = []
    for index, probabilities in enumerate(retention):
        for unit in range(probabilities.numel()):
            values = []
            for sign in (1, -1):
                moved = [group.clone() for group in retention]
                moved[index][unit] += sign * step
                values.append(float(objective(moved)))
            gradient.append((values[0] - values[1]) / (2 * step))
    return torch.tensor(gradient, dtype=torch.float64)
