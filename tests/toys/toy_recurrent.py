"""The smallest net that reads sequences: one recurrent layer, run step by step, with a gate on what it hands on in time and upwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dropasr.config import Options
from dropasr.data.chunks import Chunks
from dropasr.models.base import AcousticModel, Slice, UnitGroup
from dropasr.models.gates import Gate


class ModelOptions(Options):
    """Keys of the `model` section."""

    width: int = 8
    """Units."""
    subsampling: int = 1
    """Frames per step."""


class ToyRecurrent(AcousticModel):
    """`h_t = gate(tanh(W x_t + V h_{t-1} + b))`, logits `U h_t + c`, at one of `stride` frames."""

    reads_chunks = True

    def __init__(self, num_features: int, width: int, num_outputs: int, context: Sequence[int] = (4, 2), stride: int = 1) -> None:
        super().__init__()
        self._context, self.stride, self.step = tuple(context), stride, stride
        self.input = nn.Linear(num_features, width)
        self.recurrent = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, num_outputs)
        self.gate = Gate(width)

    @property
    def dims(self) -> dict[str, Any]:
        features, outputs = self.input.in_features, self.output.out_features
        sizes = {"num_features": features, "width": self.gate.width, "num_outputs": outputs}
        return {"model": "toy_recurrent", **sizes, "context": list(self._context), "stride": self.stride}

    @property
    def context(self) -> tuple[int, int]:
        return self._context

    def _run(self, frames: torch.Tensor, seen: list[torch.Tensor] | None = None) -> torch.Tensor:
        """Logits `(B, ⌈S/stride⌉, K)` of `(B, S, F)`; `seen` is given the units of each step before their gate."""
        factor, below, found = self.gate.factor(len(frames), frames), self.input(frames[:, :: self.stride]), []
        units = below.new_zeros(len(frames), self.gate.width)
        for step in range(below.shape[1]):
            units = torch.tanh(below[:, step] + self.recurrent(units))
            if seen is not None:
                seen.append(units)
            units = units if factor is None else units * factor
            found.append(units)
        return self.output(torch.stack(found, dim=1))

    def forward(self, inputs: Chunks) -> torch.Tensor:
        return self._run(inputs.frames)[self._places(inputs)]

    def unit_activations(self, inputs: Chunks) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []
        self._run(inputs.frames, seen)
        return [torch.stack(seen, dim=1)[self._places(inputs)]]

    def _places(self, inputs: Chunks) -> tuple[torch.Tensor, torch.Tensor]:
        place = inputs.rows % inputs.frames.shape[1]
        assert bool((place % self.stride == 0).all()), "scored frames lie on the grid of the net"
        return inputs.piece_of_row, torch.div(place, self.stride, rounding_mode="floor")

    def logits(self, frames: torch.Tensor, stride: int = 1) -> torch.Tensor:
        assert stride == self.stride
        return self._run(frames[None])[0]

    def unit_groups(self) -> list[UnitGroup]:
        slices = [Slice(self.input, "weight", 0), Slice(self.input, "bias", 0), Slice(self.recurrent, "weight", 0)]
        read = [Slice(self.recurrent, "weight", 1, consumer=True), Slice(self.output, "weight", 1, consumer=True)]
        return [UnitGroup("hidden", self.gate, [*slices, *read])]

    def resized(self, keep: dict[str, torch.Tensor]) -> None:
        for layer in (self.input, self.recurrent, self.output):
            layer.out_features, layer.in_features = layer.weight.shape

    def macs_per_frame(self, widths: Sequence[int] | None = None) -> int:
        (width,) = self.widths if widths is None else widths
        return width * (self.input.in_features + width + self.output.out_features)

    def with_widths(self, widths: Sequence[int]) -> ToyRecurrent:
        return from_dims({**self.dims, "width": widths[0]})


def build(options: ModelOptions, num_features: int, num_outputs: int) -> ToyRecurrent:
    """A randomly initialised net."""
    return ToyRecurrent(num_features, options.width, num_outputs, stride=options.subsampling)


def from_dims(dims: dict[str, Any]) -> ToyRecurrent:
    """The net that `ToyRecurrent.dims` describes."""
    return ToyRecurrent(*(dims[key] for key in ("num_features", "width", "num_outputs", "context", "stride")))
