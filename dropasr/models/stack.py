"""Feed-forward nets as users bring them: matrices with or without bias, and behind each any order of batch norm and non-linearity.

The gate of a layer stands last, behind all of its steps, so that a removed unit leaves nothing behind whatever their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import torch
from torch import nn

from dropasr.config import nearest
from dropasr.errors import ConfigError
from dropasr.models.feedforward import ACTIVATIONS, FeedForward

FUNCTIONS = {**ACTIVATIONS, "tanh": torch.tanh}
"""Non-linearities of hidden units, by name; a step is one of them, or `batch_norm`."""
ENDS = {
    "log_softmax": lambda logits: torch.log_softmax(logits, dim=-1),
    "softmax": lambda logits: torch.softmax(logits, dim=-1),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}
"""What may follow the output layer."""
Norm = tuple[float, Union[float, None]]
"""`eps` and `momentum` of a batch norm."""


class Stack(FeedForward):
    """`steps`: what follows each hidden matrix, in order; `norms`: for each hidden layer the batch norm among them, or None.

    `biases`: whether each matrix, that of the output last, has one; `input_norm`: a batch norm of the inputs; `end`: a function of the
    logits that the net returns in their place.
    """

    knows_patterns = False
    can_drop_inputs = False

    def __init__(
        self,
        num_inputs: int,
        widths: Sequence[int],
        num_outputs: int,
        steps: Sequence[Sequence[str]],
        norms: Sequence[Union[Norm, None]],
        biases: Sequence[bool],
        input_norm: Union[Norm, None] = None,
        end: Union[str, None] = None,
    ) -> None:
        super().__init__(num_inputs, (0, 0), widths, num_outputs)
        self.steps, self.end = [list(own) for own in steps], end
        self.norms = nn.ModuleList(_norm(width, norm) for width, norm in zip(widths, norms, strict=True))
        self.input_norm = _norm(num_inputs, input_norm)
        for layer, has_bias in zip([*self.hidden, self.output], biases, strict=True):
            if not has_bias:
                layer.register_parameter("bias", None)
        for index, (own, norm) in enumerate(zip(self.steps, norms, strict=True)):
            unknown = [step for step in own if step not in (*FUNCTIONS, "batch_norm")]
            if unknown:
                raise ConfigError(f"hidden{index}: there is no step '{unknown[0]}'{nearest(unknown[0], [*FUNCTIONS, 'batch_norm'])}.")
            if own.count("batch_norm") != (norm is not None):
                raise ConfigError(f"hidden{index}: expected at most one batch norm between two matrices, found the steps {own}.")
        self.activations = {
            f"hidden{index}": next((s for s in own[::-1] if s in FUNCTIONS), "none") for index, own in enumerate(self.steps)
        }
        self.norm_first = [f"hidden{index}" for index, own in enumerate(self.steps) if "batch_norm" in own[:-1]]

    @property
    def dims(self) -> dict[str, Any]:
        return {
            "model": "stack",
            "num_inputs": self.num_features,
            "widths": self.widths,
            "num_outputs": self.num_outputs,
            "steps": self.steps,
            "norms": [_numbers(norm) for norm in self.norms],
            "biases": [layer.bias is not None for layer in [*self.hidden, self.output]],
            "input_norm": _numbers(self.input_norm),
            "end": self.end,
        }

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = super().forward(self.input_norm(inputs))
        return logits if self.end is None else ENDS[self.end](logits)

    def unit_activations(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        return super().unit_activations(self.input_norm(inputs))

    def _units(self, index: int, sums: torch.Tensor) -> torch.Tensor:
        for step in self.steps[index]:
            sums = self.norms[index](sums) if step == "batch_norm" else FUNCTIONS[step](sums)
        return sums

    def with_widths(self, widths: Sequence[int]) -> Stack:
        return from_dims({**self.dims, "widths": list(widths)})


def _norm(width: int, norm: Union[Norm, None]) -> nn.Module:
    return nn.Identity() if norm is None else nn.BatchNorm1d(width, eps=norm[0], momentum=norm[1])


def _numbers(norm: nn.Module) -> Union[list, None]:
    return [norm.eps, norm.momentum] if isinstance(norm, nn.BatchNorm1d) else None


def from_dims(dims: dict[str, Any]) -> Stack:
    """The net that `Stack.dims` describes, randomly initialised."""
    return Stack(**{key: value for key, value in dims.items() if key != "model"})
