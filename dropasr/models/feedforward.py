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
    """`h_l = gate_l(norm_l(a(W_l h_{l-1} + b_l)))`, logits `W h_L + b`.

    `inputs`: which entries of the spliced frames, `frame * num_features + feature`, the net reads; None: all. `gated_inputs`: they are a
    group of units, too, the first one, whose gate stands before the first matrix. `ranks`: of each matrix, that of the output last, the
    rank of the two that stand in its place (`W = U V`), or 0 where it is whole.
    """

    knows_patterns = True
    can_drop_inputs = True

    def __init__(
        self,
        num_features: int,
        context: tuple[int, int],
        widths: Sequence[int],
        num_outputs: int,
        activation: str = "relu",
        batch_norm: bool = False,
        ranks: Sequence[int] | None = None,
        inputs: Sequence[int] | None = None,
        gated_inputs: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(f"model.activation: there is no activation '{activation}'{nearest(str(activation), list(ACTIVATIONS))}.")
        self.num_features = num_features
        self._context = tuple(context)
        self._read: torch.Tensor | None = None if inputs is None else torch.tensor(list(inputs))
        self.input_gate = Gate(self.num_inputs) if gated_inputs else None
        self.num_outputs = num_outputs
        self.activation = activation
        self.batch_norm = batch_norm
        below = [self.num_inputs, *widths]
        self.ranks = [0] * len(below) if ranks is None else list(ranks)
        if len(self.ranks) != len(below):
            raise ConfigError(f"ranks: expected one for each of the {len(below)} matrices, found {len(self.ranks)}.")
        layers = [_layer(*sizes) for sizes in zip(below, [*widths, num_outputs], self.ranks)]
        self.hidden = nn.ModuleList(layers[:-1])
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if batch_norm else nn.Identity() for width in widths)
        self.gates = nn.ModuleList(Gate(width) for width in widths)
        self.output = layers[-1]
        for layer in self.hidden:
            last = parts_of(layer)[-1]
            nn.init.kaiming_normal_(last.weight, nonlinearity="relu") if activation == "relu" else nn.init.xavier_normal_(last.weight)
            nn.init.zeros_(last.bias)
        nn.init.xavier_normal_(parts_of(self.output)[-1].weight)
        nn.init.zeros_(parts_of(self.output)[-1].bias)

    @property
    def inputs(self) -> list[int] | None:
        """The entries of the spliced frames that the net reads, or None: all."""
        return None if self._read is None else self._read.tolist()

    @property
    def num_inputs(self) -> int:
        """How many entries of the spliced frames the net reads."""
        return self.num_features * (self._context[0] + 1 + self._context[1]) if self._read is None else len(self._read)

    def gate_inputs(self) -> None:
        """Make the inputs a group of units that may be removed; `open_inputs` ends it."""
        self.input_gate = Gate(self.num_inputs)

    def open_inputs(self) -> None:
        """Let the inputs that are left be inputs again, and no group of units."""
        self.input_gate = None

    @property
    def dims(self) -> dict[str, Any]:
        return {
            "model": "feedforward",
            "num_features": self.num_features,
            "context": list(self._context),
            "widths": [gate.width for gate in self.gates],
            "num_outputs": self.num_outputs,
            "activation": self.activation,
            "batch_norm": self.batch_norm,
            **({"ranks": self.ranks} if any(self.ranks) else {}),
            **({} if self._read is None else {"inputs": self.inputs}),
            **({} if self.input_gate is None else {"gated_inputs": True}),
        }

    @property
    def context(self) -> tuple[int, int]:
        return self._context

    def forward(self, spliced: torch.Tensor) -> torch.Tensor:
        return linear(self.output, self._hidden(spliced), (self.gates[-1],))

    def _hidden(self, spliced: torch.Tensor, found: list[torch.Tensor] | None = None) -> torch.Tensor:
        """What the output layer reads; `found` is given the activations of all layers, before their gates."""
        units = spliced if self._read is None else spliced.index_select(1, self._read)
        if self.input_gate is not None:
            if found is not None:
                found.append(units)
            units = self.input_gate(units)
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
        if self.input_gate is not None:
            read = Slice(parts_of(self.hidden[0])[0], "weight", 1, consumer=True)
            groups.append(UnitGroup("inputs", self.input_gate, [read]))
        for index, gate in enumerate(self.gates):
            above = self.hidden[index + 1] if index + 1 < len(self.hidden) else self.output
            last = parts_of(self.hidden[index])[-1]
            slices = [Slice(last, name, 0) for name in ("weight", "bias") if getattr(last, name) is not None]
            if isinstance(self.norms[index], nn.BatchNorm1d):
                slices += [Slice(self.norms[index], name, 0) for name in ("weight", "bias", "running_mean", "running_var")]
            slices.append(Slice(parts_of(above)[0], "weight", 1, consumer=True))
            groups.append(UnitGroup(f"hidden{index}", gate, slices))
        return groups

    def resized(self, keep: dict[str, torch.Tensor]) -> None:
        if "inputs" in keep:
            self._read = keep["inputs"] if self._read is None else self._read[keep["inputs"]]
        for layer in [*self.hidden, self.output]:
            for part in parts_of(layer):
                part.out_features, part.in_features = part.weight.shape
        for norm in self.norms:
            if isinstance(norm, nn.BatchNorm1d):
                norm.num_features = norm.weight.shape[0]

    def macs_per_frame(self, widths: Sequence[int] | None = None) -> int:
        sizes = [*(self.widths if widths is None else widths), self.num_outputs]
        if self.input_gate is None:
            sizes = [self.num_inputs, *sizes]
        shapes = zip(sizes, sizes[1:], self.ranks)
        return sum(rank * (below + above) if rank else below * above for below, above, rank in shapes)

    def with_widths(self, widths: Sequence[int]) -> FeedForward:
        dims = self.dims
        if self.input_gate is not None:
            number, *widths = widths
            dims["inputs"] = (list(range(self.num_inputs)) if self._read is None else self.inputs)[:number]
        return from_dims({**dims, "widths": list(widths)})


def _layer(inputs: int, outputs: int, rank: int) -> nn.Module:
    if not rank:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))


def build(options: ModelOptions, num_features: int, num_outputs: int) -> FeedForward:
    """A randomly initialised net for `num_features` log-mel channels and `num_outputs` output units."""
    widths = [options.width] * options.layers
    context = (options.left_context, options.right_context)
    return FeedForward(num_features, context, widths, num_outputs, options.activation, options.batch_norm)


def from_dims(dims: dict[str, Any]) -> FeedForward:
    """The net that `FeedForward.dims` describes, randomly initialised."""
    own = {key: value for key, value in dims.items() if key not in ("model", "channels")}  # older nets named the features that they read
    return FeedForward(**{**own, "context": tuple(dims["context"])})
