"""A user's net as a model of dropasr and back: its tensors under their own names, before and after compaction.

The adapted net has the values of the user's; what is exported afterwards are tensors of the names and the number type that the user's net
has, smaller, with the sizes that its layers need. An nn.LSTM has one size for all of its layers and directions, so where compaction left
them unequal the smaller ones get units whose weights are 0, which say 0 at every step: the outputs stay.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Union

import torch
from torch import nn

from dropasr.adapt.layers import Layer, layers_of, parse_layers
from dropasr.adapt.mapping import LSTM_TENSORS, Tensors, map_net
from dropasr.data.chunks import Chunks
from dropasr.errors import ConfigError
from dropasr.models.base import AcousticModel
from dropasr.models.lstm import Lstm
from dropasr.models.stack import Stack

Sizes = dict[str, dict[str, Any]]
Factory = Callable[[Sizes], nn.Module]


class Adapter:
    """One user's net. `is_recurrent`: it reads sequences, and not single rows."""

    def __init__(
        self, tensors: Tensors, layers: Sequence[Layer], module: Union[nn.Module, None] = None, factory: Union[Factory, None] = None
    ):
        """`tensors`: its state dict; `module`: the net itself, if there is one; `factory`: makes such a module of given sizes.

        Raises ConfigError where layers and tensors do not fit together.
        """
        self.tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        self.layers, self.module, self.factory = list(layers), module, factory
        elsewhere = next((name for name, tensor in self.tensors.items() if tensor.device.type != "cpu"), None)
        if elsewhere is not None:
            raise ConfigError(
                f"net: expected tensors on the CPU, found '{elsewhere}' on {self.tensors[elsewhere].device}. Call net.cpu() first."
            )
        self._mapping = map_net(self.tensors, layers)
        self._names, self._active, self._dims = self._mapping.names, self._mapping.active, self._mapping.dims
        self.is_recurrent = bool(self._mapping.modules)
        self._check_tensors()
        self.dtype = self.tensors[f"{self._mapping.output.name}.weight"].dtype
        if self.dtype not in (torch.float32, torch.float64):
            raise ConfigError(f"net: expected tensors of float32 or float64, found {self.dtype}. Convert it: net.float().")

    @classmethod
    def of(cls, net: Any, layers: Any = None, factory: Union[Factory, None] = None) -> Adapter:
        """The adapter of an nn.Module, or of a state dict and its list of layers (needed where there is no module)."""
        if isinstance(net, nn.Module):
            return cls(net.state_dict(), layers_of(net) if layers is None else parse_layers(layers, "layers"), net, factory)
        if isinstance(net, dict) and net and all(torch.is_tensor(tensor) for tensor in net.values()):
            return cls(net, parse_layers(layers, "layers"), None, factory)
        raise ConfigError(f"net: expected an nn.Module, or a state dict (name: tensor) with layers=[…], found {type(net).__name__}.")

    def _check_tensors(self) -> None:
        """Raise ConfigError for tensors that no layer has, unless the module itself shows what they do, and for shared ones."""
        if self.module is None:
            left = [name for name in self.tensors if name not in self._names]
            if left:
                raise ConfigError(
                    f"layers: no layer has the tensor '{left[0]}' of the state dict; expected layers for all {len(self.tensors)} tensors."
                )
        places: dict[tuple, str] = {}
        for name in self._names:
            tensor = self.tensors[name]
            if tensor.dim() and tensor.numel():
                other = places.setdefault((tensor.data_ptr(), tensor.shape), name)
                if other != name:
                    raise ConfigError(
                        f"layers: '{other}' and '{name}' share their values; expected a net whose layers have weights of their own."
                    )

    @property
    def end(self) -> Union[str, None]:
        """What follows the output layer, if anything does."""
        return self._dims.get("end")

    @property
    def num_inputs(self) -> int:
        """Values that the net reads per row or step."""
        return self._dims["num_features" if self.is_recurrent else "num_inputs"]

    @property
    def num_outputs(self) -> int:
        """Values that it returns per row or step."""
        return self._dims["num_outputs"]

    @property
    def together(self) -> Union[list[int], None]:
        """For each group of units the nn.LSTM that it belongs to, whose layers and directions have one size; None for other nets."""
        if not self.is_recurrent:
            return None
        return [number for number, own in enumerate(self._mapping.modules.values()) for _ in own]

    @property
    def batch_first(self) -> bool:
        """Whether the user's LSTM takes `(B, T, F)`, as the module says; True without one."""
        parts = [] if self.module is None else [part for part in self.module.modules() if isinstance(part, nn.LSTM)]
        return all(part.batch_first for part in parts)

    def net(self, dtype: Union[torch.dtype, None] = None) -> AcousticModel:
        """The user's net as a model of dropasr, in evaluation mode, in its own number type or in `dtype`."""
        with torch.random.fork_rng(devices=[]):
            net = Lstm(**self._dims) if self.is_recurrent else Stack(**self._dims)
        dtype = dtype or self.dtype
        net.to(dtype).load_state_dict({own: self.tensors[name] for name, own in self._names.items()})
        return net.eval()

    def inputs(self, batch: torch.Tensor, lengths: Union[torch.Tensor, None] = None) -> Any:
        """What the adapted net reads of rows `(..., D)`, or of sequences `(B, T, F)` with steps `(B,)`; all are scored, padding too."""
        if not self.is_recurrent:
            return batch.reshape(-1, batch.shape[-1])
        pieces, steps = batch.shape[:2]
        lengths = torch.full((pieces,), steps) if lengths is None else lengths
        return Chunks(batch, lengths, torch.arange(pieces * steps))

    def sizes(self, net: AcousticModel) -> Sizes:
        """Sizes of the user's layers after compaction, by prefix, under the names that torch's modules give them."""
        found: Sizes = {}
        exported = self.export(net)
        for layer in self._active:
            if layer.kind == "linear":
                rows, columns = exported[f"{layer.name}.weight"].shape
                found[layer.name] = {"in_features": columns, "out_features": rows}
            elif layer.kind == "batch_norm":
                found[layer.name] = {"num_features": len(exported[f"{layer.name}.weight"])}
            elif layer.kind == "lstm":
                rows, columns = exported[f"{layer.name}.weight_ih_l0"].shape
                halves = 1 + net.bidirectional
                found[layer.name] = {
                    "input_size": columns,
                    "hidden_size": rows // 4,
                    "num_layers": len(self._mapping.modules[layer.name]) // halves,
                    "bidirectional": net.bidirectional,
                }
        return found

    def export(self, net: AcousticModel) -> Tensors:
        """The state dict of the user's net with the values of `net`, in the user's names, order and number types."""
        values = net.state_dict()
        found = {name: values[own].detach().clone() for name, own in self._names.items()}
        if self.is_recurrent:
            self._equalise(found, net.widths)
        return {name: found[name].to(old.dtype) if name in found else old.clone() for name, old in self.tensors.items()}

    def _equalise(self, tensors: Tensors, widths: Sequence[int]) -> None:
        """Give each nn.LSTM one size: rows and columns of 0 for the layers and directions that have fewer units than its widest."""
        halves = 1 + self._dims["bidirectional"]
        below: tuple[Sequence[int], int] = ((), 0)
        for name, groups in self._mapping.modules.items():
            most = max(widths[group] for group in groups)
            for position, group in enumerate(groups):
                number, suffix = position // halves, "_reverse" if position % halves else ""
                keys = {key: f"{name}.{key}_l{number}{suffix}" for key in LSTM_TENSORS}
                for key in keys.values():
                    tensors[key] = _spread(tensors[key], 0, [widths[group]] * 4, most)
                tensors[keys["weight_hh"]] = _spread(tensors[keys["weight_hh"]], 1, [widths[group]], most)
                if below[0]:
                    tensors[keys["weight_ih"]] = _spread(tensors[keys["weight_ih"]], 1, *below)
                if position % halves == halves - 1:
                    below = ([widths[own] for own in groups[position + 1 - halves : position + 1]], most)
        output = f"{self._mapping.output.name}.weight"
        tensors[output] = _spread(tensors[output], 1, *below)

    def rebuild(self, net: AcousticModel) -> nn.Module:
        """The user's module with the values and sizes of `net`, in evaluation mode.

        By the factory, which is called with `sizes`, where there is one; else a copy of the module whose layers were made smaller.
        Raises ConfigError where there is neither, or where the factory's module does not take the tensors.
        """
        tensors, sizes = self.export(net), self.sizes(net)
        if self.factory is not None:
            made = self.factory(sizes)
            try:
                made.load_state_dict(tensors)
            except RuntimeError as error:
                raise ConfigError(
                    f"factory: its module does not take the compacted tensors ({' '.join(str(error).split())}). It got {sizes}."
                ) from None
            return made.eval()
        if self.module is None:
            raise ConfigError("factory: without an nn.Module or a factory there is no module to build; take the state dict.")
        made = copy.deepcopy(self.module)
        for prefix, size in sizes.items():
            part = made.get_submodule(prefix)
            for key, value in size.items():
                setattr(part, key, value)
            for key, old in [*part.named_parameters(recurse=False)]:
                setattr(part, key, nn.Parameter(tensors[f"{prefix}.{key}"].clone(), requires_grad=old.requires_grad))
            for key, _ in [*part.named_buffers(recurse=False)]:
                setattr(part, key, tensors[f"{prefix}.{key}"].clone())
            if isinstance(part, nn.LSTM):
                part.flatten_parameters()
        return made.eval()


def _spread(tensor: torch.Tensor, dim: int, sizes: Sequence[int], most: int) -> torch.Tensor:
    """Runs of `sizes` entries along `dim`, each lengthened to `most` by zeros."""
    parts = []
    for part in tensor.split(list(sizes), dim=dim):
        shape = list(part.shape)
        shape[dim] = most - part.shape[dim]
        parts += [part, part.new_zeros(shape)]
    return torch.cat(parts, dim=dim)


@torch.no_grad()
def difference(module: nn.Module, adapter: Adapter, net: AcousticModel, batch: torch.Tensor) -> tuple[float, float]:
    """Largest difference between the outputs of the user's module and of `net` on rows or sequences, and the largest output.

    `batch`: `(..., D)`, for recurrent nets `(B, T, F)`, whole sequences without padding. Raises ConfigError where shapes differ.
    """
    training = module.training
    module.eval()
    try:
        given = batch.to(adapter.dtype)
        try:
            theirs = module(given if adapter.batch_first else given.transpose(0, 1))
        except TypeError as error:
            raise ConfigError(
                f"net: expected a module that runs on inputs alone ({error}). Wrap it, or give its state dict and layers=[…]."
            ) from None
        if isinstance(theirs, tuple):
            theirs = theirs[0]
    finally:
        module.train(training)
    if adapter.is_recurrent and not adapter.batch_first:
        theirs = theirs.transpose(0, 1)
    ours = net(adapter.inputs(batch.to(next(net.parameters()).dtype)))
    if theirs.numel() != ours.numel():
        raise ConfigError(
            f"net: expected outputs {tuple(ours.shape)} of inputs {tuple(batch.shape)}, found {tuple(theirs.shape)} from the module."
        )
    theirs = theirs.reshape(ours.shape).to(ours.dtype)
    return float((theirs - ours).abs().max()), float(theirs.abs().max())
