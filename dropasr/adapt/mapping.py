"""Which tensor of a user's net is which of the adapted net, and the dims of that, from a list of layers and a state dict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import torch

from dropasr.adapt.layers import Layer, split_end
from dropasr.errors import ConfigError
from dropasr.models.stack import FUNCTIONS

Tensors = dict[str, torch.Tensor]
LSTM_TENSORS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass
class Mapping:
    """`active`: layers up to the output layer that do something; `names`: of the adapted net's tensors, by the user's; `dims`: of the net.

    `modules`: for each nn.LSTM the positions of its groups of units (layers, and directions in them) among those of the net.
    """

    active: list[Layer]
    dims: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)
    modules: dict[str, list[int]] = field(default_factory=dict)

    @property
    def output(self) -> Layer:
        """The last linear layer."""
        return self.active[-1]


def map_net(tensors: Tensors, layers: Sequence[Layer]) -> Mapping:
    """Map a net. Raises ConfigError where layers and tensors do not fit together, or where the net is of no kind that can be adapted."""
    active, end = split_end(layers)
    if all(layer.kind != "lstm" for layer in active):
        return _map_stack(tensors, active, end)
    kinds = [layer.kind for layer in active]
    if end is not None or kinds[:-1] != ["lstm"] * (len(kinds) - 1):
        raise ConfigError(f"layers: with lstm expected lstm layers and then one linear, found {', '.join(layer.kind for layer in layers)}.")
    return _map_lstm(tensors, active)


def _tensor(tensors: Tensors, name: str, layer: Layer) -> torch.Tensor:
    if name not in tensors:
        known = ", ".join(list(tensors)[:12]) + (", …" if len(tensors) > 12 else "")
        raise ConfigError(f"layers: {layer.kind} '{layer.name}' needs the tensor '{name}', found {known} in the state dict.")
    return tensors[name]


def _map_stack(tensors: Tensors, active: list[Layer], end: Union[str, None]) -> Mapping:
    linear = [layer for layer in active if layer.kind == "linear"]
    if len(linear) < 2:
        raise ConfigError("layers: expected two linear layers or more (there are no hidden units otherwise), found one.")
    sizes = [tuple(_tensor(tensors, f"{layer.name}.weight", layer).shape) for layer in linear]
    for below, above, (made, _), (_, read) in zip(linear, linear[1:], sizes, sizes[1:]):
        if made != read:
            raise ConfigError(
                f"layers: '{below.name}' makes {made} values, but '{above.name}', the next one, reads {read}. Is the order right?"
            )
    dims = {
        "num_inputs": sizes[0][1],
        "widths": [size[0] for size in sizes[:-1]],
        "num_outputs": sizes[-1][0],
        "steps": [[] for _ in sizes[:-1]],
        "norms": [None] * (len(sizes) - 1),
        "biases": [f"{layer.name}.bias" in tensors for layer in linear],
        "input_norm": None,
        "end": end,
    }
    mapping, position = Mapping(active, dims), -1
    for layer in active:
        if layer.kind == "linear":
            position += 1
            own = "output" if layer is mapping.output else f"hidden.{position}"
            keys = ("weight", "bias")[: 1 + dims["biases"][position]]
            mapping.names.update({f"{layer.name}.{key}": f"{own}.{key}" for key in keys})
        elif layer.kind == "batch_norm":
            _map_norm(tensors, mapping, layer, position)
        elif position < 0 or layer.kind not in FUNCTIONS:
            raise ConfigError(f"layers: between linear layers expected batch_norm, {', '.join(FUNCTIONS)}, found {layer.kind}.")
        else:
            dims["steps"][position].append(layer.kind)
    return mapping


def _map_norm(tensors: Tensors, mapping: Mapping, layer: Layer, position: int) -> None:
    """A batch norm behind linear layer `position`, -1 being the inputs."""
    dims, own = mapping.dims, "input_norm" if position < 0 else f"norms.{position}"
    if (dims["input_norm"] if position < 0 else dims["norms"][position]) is not None:
        raise ConfigError(f"layers: expected at most one batch norm between two linear layers, found '{layer.name}' as a second.")
    for key in NORM_TENSORS:
        _tensor(tensors, f"{layer.name}.{key}", layer)
        mapping.names[f"{layer.name}.{key}"] = f"{own}.{key}"
    numbers = [float(layer.eps), layer.momentum]
    if position < 0:
        dims["input_norm"] = numbers
    else:
        dims["norms"][position] = numbers
        dims["steps"][position].append("batch_norm")


def _map_lstm(tensors: Tensors, active: list[Layer]) -> Mapping:
    bidirectional = any(name.startswith(f"{active[0].name}.") and name.endswith("_reverse") for name in tensors)
    mapping = Mapping(active, {"widths": [], "bidirectional": bidirectional})
    below, index = None, 0
    for layer in active[:-1]:
        mapping.modules[layer.name] = []
        for number in range(_num_layers(tensors, layer, bidirectional)):
            for half, suffix in enumerate(("", "_reverse")[: 1 + bidirectional]):
                for key in LSTM_TENSORS:
                    name = f"{layer.name}.{key}_l{number}{suffix}"
                    _tensor(tensors, name, layer)
                    mapping.names[name] = f"layers.{index}.{half}.{key}"
                rows, read = tensors[f"{layer.name}.weight_ih_l{number}{suffix}"].shape
                if below not in (None, read):
                    raise ConfigError(f"layers: '{layer.name}' reads {read} values, but what comes before it makes {below}.")
                mapping.modules[layer.name].append(len(mapping.dims["widths"]))
                mapping.dims["widths"].append(rows // 4)
            below = mapping.dims["widths"][-1] * (1 + bidirectional)
            index += 1
    output = mapping.output
    weight = _tensor(tensors, f"{output.name}.weight", output)
    _tensor(tensors, f"{output.name}.bias", output)
    mapping.names.update({f"{output.name}.{key}": f"output.{key}" for key in ("weight", "bias")})
    if weight.shape[1] != below:
        raise ConfigError(f"layers: '{output.name}' reads {weight.shape[1]} values, but the lstm before it makes {below}.")
    mapping.dims["num_features"] = tensors[f"{active[0].name}.weight_ih_l0"].shape[1]
    mapping.dims["num_outputs"] = len(weight)
    return mapping


def _num_layers(tensors: Tensors, layer: Layer, bidirectional: bool) -> int:
    """Layers of an nn.LSTM. Raises ConfigError for one that cannot be adapted."""
    pattern = re.compile(re.escape(layer.name) + r"\.(weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?$")
    found = [match for match in map(pattern.match, tensors) if match]
    wrong = {
        "without tensors": not found,
        "with a projection (proj_size)": any(match[2] == "hr" for match in found),
        "without biases": all(match[1] != "bias" for match in found),
        "of another number of directions than the first": any(match[4] for match in found) != bidirectional,
    }
    for what, holds in wrong.items():
        if holds:
            raise ConfigError(f"layers: expected '{layer.name}' to be an nn.LSTM with biases and without projection, found one {what}.")
    return 1 + max(int(match[3]) for match in found)
