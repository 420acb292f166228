"""Feed-forward acoustic model: spliced frames, `layers x width` sigmoid or ReLU units, optional batch norm, one softmax.

Gates sit after the non-linearity, and after batch norm where there is one: a removed channel must not leave its shift behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from dropasr.config import Options, nearest
from dropasr.data.batches import splice
from dropasr.errors import ConfigError
from dropasr.models.base import AcousticModel, Slice, UnitGroup
from dropasr.models.gates import Gate
from dropasr.models.patterns import batch_norm, linear, parts_of

ACTIVATIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid}


class ModelOptions(Options):
    """Keys of conf/model/feedforward.yaml."""

    layers: int = Field(default=4, ge=1)
    """Hidden layers."""
    width: int = Field(default=1024, ge=1)
    """Units per hidden layer."""
    left_context: int = Field(default=8, ge=0)
    """Frames before the current one in the input."""
    right_context: int = Field(default=8, ge=0)
    """Frames after the current one in the input."""
    activation: Literal["relu", "sigmoid"] = "relu"
    """Non-linearity of the hidden units."""
    batch_norm: bool = False
    """Batch normalisation after each non-linearity."""


class FeedForward(AcousticModel):
    """`h_l = gate_l(norm_l(a(W_l h_{l-1} + b_l)))`, logits `W h_L + b`. `channels`: the input features that the net reads.

    `ranks`: of each matrix, that of the output last, the rank of the two that stand in its place (`W = U V`), or 0 where it is whole.
    """

    knows_patterns = True

    def __init__(
        self,
        channels: Sequence[int],
        context: tuple[int, int],
        widths: Sequence[int],
        num_outputs: int,
        activation: str = "relu",
        batch_norm: bool = False,
        num_features: int | None = None,
        ranks: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(f"model.activation: there is no activation '{activation}'{nearest(str(activation), list(ACTIVATIONS))}.")
        self.channels = list(channels)
        self.num_features = num_features if num_features is not None else len(self.channels)
        self._context = tuple(context)
        self.num_outputs = num_outputs
        self.activation = activation
        self.batch_norm = batch_norm
        inputs = [len(self.channels) * self._frames, *widths]
        self.ranks = [0] * len(inputs) if ranks is None else list(ranks)
        if len(self.ranks) != len(inputs):
            raise ConfigError(f"ranks: expected one for each of the {len(inputs)} matrices, found {len(self.ranks)}.")
        layers = [_layer(*sizes) for sizes in zip(inputs, [*widths, num_outputs], self.ranks)]
        self.hidden = nn.ModuleList(layers[:-1])
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if batch_norm else nn.Identity() for width in widths)
        self.gates = nn.ModuleList(Gate(width) for width in widths)
        self.output = layers[-1]
        self._select: torch.Tensor | None = None
        self._update_selection()
        for layer in self.hidden:
            last = parts_of(layer)[-1]
            nn.init.kaiming_normal_(last.weight, nonlinearity="relu") if activation == "relu" else nn.init.xavier_normal_(last.weight)
            nn.init.zeros_(last.bias)
        nn.init.xavier_normal_(parts_of(self.output)[-1].weight)
        nn.init.zeros_(parts_of(self.output)[-1].bias)

    @property
    def _frames(self) -> int:
        return self._context[0] + 1 + self._context[1]

    def _update_selection(self) -> None:
        everything = self.channels == list(range(self.num_features))
        columns = [frame * self.num_features + channel for frame in range(self._frames) for channel in self.channels]
        self._select = None if everything else torch.tensor(columns)

    @property
    def dims(self) -> dict[str, Any]:
        return {
            "model": "feedforward",
            "channels": self.channels,
            "num_features": self.num_features,
            "context": list(self._context),
            "widths": self.widths,
            "num_outputs": self.num_outputs,
            "activation": self.activation,
            "batch_norm": self.batch_norm,
            **({"ranks": self.ranks} if any(self.ranks) else {}),
        }

    @property
    def context(self) -> tuple[int, int]:
        return self._context

    def forward(self, spliced: torch.Tensor) -> torch.Tensor:
        return linear(self.output, self._hidden(spliced), (self.gates[-1],))

    def _hidden(self, spliced: torch.Tensor, found: list[torch.Tensor] | None = None) -> torch.Tensor:
        """What the output layer reads; `found` is given the activations of all layers, before their gates."""
        units = spliced if self._select is None else spliced[:, self._select]
        below: tuple[Gate, ...] = ()
        for index, (layer, gate) in enumerate(zip(self.hidden, self.gates)):
            units = self._units(index, linear(layer, units, below, gate))
            if found is not None:
                found.append(units)
            units, below = gate(units), (gate,)
        return units

    def _units(self, index: int, sums: torch.Tensor) -> torch.Tensor:
        """Activations of a layer, as its gate finds them, of the weighted sums of what it reads."""
        return batch_norm(self.norms[index], ACTIVATIONS[self.activation](sums), self.gates[index])

    def unit_activations(self, spliced: torch.Tensor) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        self._hidden(spliced, found)
        return found

    def logits(self, frames: torch.Tensor, stride: int = 1) -> torch.Tensor:
        return self(splice(frames, *self._context, stride))

    def unit_groups(self) -> list[UnitGroup]:
        groups = []
        for index, gate in enumerate(self.gates):
            above = self.hidden[index + 1] if index + 1 < len(self.hidden) else self.output
            last = parts_of(self.hidden[index])[-1]
            slices = [Slice(last, name, 0) for name in ("weight", "bias") if getattr(last, name) is not None]
            if isinstance(self.norms[index], nn.BatchNorm1d):
                slices += [Slice(self.norms[index], name, 0) for name in ("weight", "bias", "running_mean", "running_var")]
            slices.append(Slice(parts_of(above)[0], "weight", 1, consumer=True))
            groups.append(UnitGroup(f"hidden{index}", gate, slices))
        return groups

    def input_group(self) -> UnitGroup:
        """The input channels as a group: removing one removes its column of every spliced frame."""
        first = parts_of(self.hidden[0])[0]
        return UnitGroup("input", Gate(len(self.channels)), [Slice(first, "weight", 1, blocks=self._frames, consumer=True)])

    def resized(self, keep: dict[str, torch.Tensor]) -> None:
        if "input" in keep:
            self.channels = [self.channels[index] for index in keep["input"].tolist()]
            self._update_selection()
        for layer in [*self.hidden, self.output]:
            for part in parts_of(layer):
                part.out_features, part.in_features = part.weight.shape
        for norm in self.norms:
            if isinstance(norm, nn.BatchNorm1d):
                norm.num_features = norm.weight.shape[0]

    def macs_per_frame(self, widths: Sequence[int] | None = None) -> int:
        sizes = [len(self.channels) * self._frames, *(self.widths if widths is None else widths), self.num_outputs]
        shapes = zip(sizes, sizes[1:], self.ranks)
        return sum(rank * (below + above) if rank else below * above for below, above, rank in shapes)

    def with_widths(self, widths: Sequence[int]) -> FeedForward:
        return from_dims({**self.dims, "widths": list(widths)})


def _layer(inputs: int, outputs: int, rank: int) -> nn.Module:
    if not rank:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))


def build(options: ModelOptions, num_features: int, num_outputs: int) -> FeedForward:
    """A randomly initialised net for `num_features` log-mel channels and `num_outputs` output units."""
    widths = [options.width] * options.layers
    context = (options.left_context, options.right_context)
    return FeedForward(range(num_features), context, widths, num_outputs, options.activation, options.batch_norm)


def from_dims(dims: dict[str, Any]) -> FeedForward:
    """The net that `FeedForward.dims` describes, randomly initialised."""
    return FeedForward(
        dims["channels"],
        tuple(dims["context"]),
        dims["widths"],
        dims["num_outputs"],
        dims["activation"],
        dims["batch_norm"],
        dims["num_features"],
        dims.get("ranks"),
    )
