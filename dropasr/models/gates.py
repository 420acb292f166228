"""Gates: every prunable group of units passes through one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Union

import numpy as np
import torch
from torch import nn

from dropasr.errors import ConfigError

if TYPE_CHECKING:
    from dropasr.models.patterns import Pattern

Multiplier = Union[torch.Tensor, Callable[[torch.Tensor], torch.Tensor], None]
Noise = Union[Callable[[torch.Tensor], torch.Tensor], None]


class Gate(nn.Module):
    """Multiplies the activations `(N, H)` of a group of units by what the method in charge asks for.

    `multiplier` is None (units pass unchanged), a tensor that broadcasts to `(N, H)` (retention probabilities, a fixed mask), or a
    function from the activations to such a tensor (a freshly sampled mask). Layers that cannot multiply activations one by one, because
    a kernel runs over a whole sequence, ask for the `factor` and work it into their weights.

    `noise`, a function from the activations `(N, H)` (multiplied, if there is a multiplier) to what stands in their place, is for what no
    multiplier can do: something added, or a change of several units together. Recurrent nets have no place for it and raise ConfigError.

    `pattern`, in place of both, says which units there are, for the whole batch or for its parts (patterns.py): nets that know
    patterns compute those alone, and the gate multiplies them by the scale of the pattern.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.multiplier: Multiplier = None
        self.noise: Noise = None
        self.pattern: Union[Pattern, None] = None

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        if self.pattern is not None:
            return units if self.pattern.scale == 1 else units * self.pattern.scale
        if self.multiplier is not None:
            factor = self.multiplier(units) if callable(self.multiplier) else self.multiplier
            units = units * factor.to(units.dtype)
        return units if self.noise is None else self.noise(units)

    def open(self) -> None:
        """Let all units pass unchanged."""
        self.multiplier = self.noise = self.pattern = None

    def factor(self, rows: int, like: torch.Tensor) -> Union[torch.Tensor, None]:
        """What the units of `rows` sequences are multiplied by: None (open), `(H,)` for all or `(rows, H)`, of the type of `like`.

        A function is called once, for `(rows, H)` activations without values: it may use their shape and type only.
        """
        if self.noise is not None:
            raise ConfigError(
                "noise on units: a recurrent net multiplies its units and does nothing else to them. Use --model feedforward."
            )
        if self.multiplier is None:
            return None
        factor = self.multiplier(like.new_empty(rows, self.width)) if callable(self.multiplier) else self.multiplier
        factor = factor.to(like)
        return factor[0] if factor.dim() == 2 and len(factor) == 1 else factor

    def extra_repr(self) -> str:
        return f"width={self.width}"


def sample_mask(generator: np.random.Generator, count: int, retention: torch.Tensor) -> torch.Tensor:
    """Independent masks `(count, H)` of 0 and 1 (uint8); unit u is 1 with probability `retention[u]`, to within 2**-16.

    Sixteen random bits a unit, because drawing 32-bit floats costs a quarter of a training step.
    """
    width = retention.numel()
    bits = np.frombuffer(generator.bytes(2 * count * width), dtype=np.uint16).reshape(count, width)
    threshold = np.rint(retention.detach().numpy().astype(np.float64) * 65536).astype(np.int64)
    below = bits < np.minimum(threshold, 65535).astype(np.uint16)
    below |= threshold >= 65536
    return torch.from_numpy(below.view(np.uint8))


def sampled(generator: np.random.Generator, retention: torch.Tensor, inverse_scale: bool = False) -> Callable[[torch.Tensor], torch.Tensor]:
    """A multiplier that draws fresh masks, one per row; `inverse_scale` divides by the retention probability (inverted dropout)."""

    def multiplier(units: torch.Tensor) -> torch.Tensor:
        mask = sample_mask(generator, units.shape[0], retention)
        return mask.to(units.dtype) / retention.to(units.dtype) if inverse_scale else mask

    return multiplier
