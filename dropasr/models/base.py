"""What training, surgery and decoding expect of an acoustic model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dropasr.data.chunks import Inputs
from dropasr.errors import ConfigError
from dropasr.models.gates import Gate


@dataclass(frozen=True)
class Slice:
    """One place where the units of a group lie inside a tensor.

    Dimension `dim` of `module.name` has, from `offset` on, `blocks` consecutive runs of one entry per unit (four for the gate rows
    of an LSTM, one per spliced frame for input channels). `consumer` marks weights that read the units: a unit's scale folds in there.
    """

    module: nn.Module
    name: str
    dim: int
    offset: int = 0
    blocks: int = 1
    consumer: bool = False


@dataclass(frozen=True)
class UnitGroup:
    """Units that are kept or removed together with everything that belongs to them: one gate, and all their slices."""

    name: str
    gate: Gate
    slices: Sequence[Slice]


class AcousticModel(nn.Module):
    """Base of all acoustic models: frames of one or more utterances in, logits of output units out."""

    reads_chunks: bool = False
    """Whether `forward` reads `Chunks`, and not spliced frames."""
    stride: int = 1
    """The net has logits for the first of every `stride` frames of an utterance."""
    step: int = 1
    """Frames per step of the net."""
    frames_scored: int = 1
    """Frames that a step has logits for: `step`, or one."""
    knows_patterns: bool = False
    """Whether the net computes, where a gate has a `pattern`, only the units that are there."""
    can_drop_inputs: bool = False
    """Whether `gate_inputs` can make its inputs a group of units, which methods may then remove, and `open_inputs` end that."""

    @property
    def dims(self) -> dict[str, Any]:
        """What `model_from_dims` needs to rebuild this net, JSON-serialisable; `model` names the file."""
        raise NotImplementedError

    @property
    def context(self) -> tuple[int, int]:
        """Frames to the left and right of a frame that its spliced input holds, or that a chunk should have around what is scored."""
        raise NotImplementedError

    def forward(self, inputs: Inputs) -> torch.Tensor:
        """Logits `(N, K)` of spliced frames `(N, (left + 1 + right) * F)`, or of the `rows` `(N,)` of chunks."""
        raise NotImplementedError

    def logits(self, frames: torch.Tensor, stride: int = 1) -> torch.Tensor:
        """Logits `(⌈T/stride⌉, K)` of every stride-th frame, from the first on, of one utterance `(T, F)`."""
        raise NotImplementedError

    def unit_activations(self, inputs: Inputs) -> list[torch.Tensor]:
        """Activations `(N, H)` of each group's units, as its gate finds them, for the N rows of the inputs that `forward` scores."""
        raise NotImplementedError

    def unit_groups(self) -> list[UnitGroup]:
        """Groups of units that surgery may remove, input side first: the hidden ones, and before them the inputs where they have a gate."""
        raise NotImplementedError

    def resized(self, keep: dict[str, torch.Tensor]) -> None:
        """Called by surgery after it replaced the tensors: update whatever states sizes. `keep` maps group name to kept units."""
        raise NotImplementedError

    def macs_per_frame(self, widths: Sequence[int] | None = None) -> int:
        """Multiply-adds per step over all matrices, for this net or for other widths of its unit groups."""
        raise NotImplementedError

    def with_widths(self, widths: Sequence[int]) -> AcousticModel:
        """A freshly initialised net of the same kind with other widths."""
        raise NotImplementedError

    @property
    def widths(self) -> list[int]:
        """Units per group."""
        return [group.gate.width for group in self.unit_groups()]

    def num_parameters(self) -> int:
        """Weights, biases and normalisation parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


def check_skip(net: AcousticModel, skip: int) -> None:
    """Raise ConfigError where frames are to be skipped (`decode.frame_skip`) by a net that has to see every one."""
    if skip > 1 and net.reads_chunks:
        raise ConfigError(
            f"decode.frame_skip: a recurrent net (model '{net.dims['model']}') reads every frame on its way, so skipping saves nothing; "
            f"found {skip}. Set it to 1, or build the net for a slower rate (model.subsampling)."
        )


def widths_for_budget(
    net: AcousticModel,
    target_macs: float,
    shapes: Sequence[float] | None = None,
    min_units: int = 1,
    multiple: int = 1,
    together: Sequence[int] | None = None,
    powers: Sequence[float] | None = None,
) -> list[int]:
    """Widths proportional to `shapes` (default: the net's own widths) whose multiply-adds per frame come closest to `target_macs`.

    Bisection on the common factor; afterwards each group, the widest first, gets one unit more where that comes closer. `multiple`: widths
    are multiples of it, but for groups that stay whole; `together`: a number per group, and groups of one number get units together;
    `powers`: what the common factor is raised to, per group, by default 1.
    """
    full = net.widths
    shapes = list(shapes) if shapes is not None else [float(width) for width in full]
    together = list(range(len(full))) if together is None else together
    powers = [1.0] * len(full) if powers is None else powers
    least = -(-min_units // multiple) * multiple

    def scaled(factor: float) -> list[int]:
        wanted = [int(factor**power * shape) for shape, power in zip(shapes, powers)]
        return [max(min(least, width), min(width, units // multiple * multiple)) for width, units in zip(full, wanted)]

    low, high = 0.0, max(width / max(shape, 1e-9) for width, shape in zip(full, shapes)) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if net.macs_per_frame(scaled(middle)) <= target_macs else (low, middle)
    widths = scaled(low)
    for number in dict.fromkeys(together[i] for i in sorted(range(len(widths)), key=lambda i: -shapes[i])):
        more = [min(width + multiple, most) if own == number else width for width, most, own in zip(widths, full, together)]
        if abs(net.macs_per_frame(more) - target_macs) < abs(net.macs_per_frame(widths) - target_macs):
            widths = more
    return widths
