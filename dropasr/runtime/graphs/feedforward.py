"""The nodes of a feed-forward net.

Inputs that surgery removed are left out of the spliced frames. Batch norm, which stands behind the non-linearity, is an affine map
of each unit and becomes part of the matrix above: `W (a * h + b) + c = (W a) h + (W b + c)`, computed in float64.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from dropasr.models.feedforward import FeedForward
from dropasr.models.patterns import parts_of
from dropasr.runtime.graph import Graph
from dropasr.runtime.graphs import Layout, States

OPERATORS = {"relu": "Relu", "sigmoid": "Sigmoid"}
Affine = tuple[np.ndarray, np.ndarray]


def layout(net: FeedForward, stride: int) -> Layout:
    """A step for every score, which reads the frames around its own."""
    left, right = net.context
    return Layout(step=stride, window=range(-left, right + 1))


def _double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def _scale_and_shift(norm: nn.Module) -> Affine | None:
    """What batch norm multiplies units by and then adds, or None where there is none."""
    if not isinstance(norm, nn.BatchNorm1d):
        return None
    scale = _double(norm.weight) / np.sqrt(_double(norm.running_var) + norm.eps)
    return scale, _double(norm.bias) - scale * _double(norm.running_mean)


def _matrices(layer: nn.Module, below: Affine | None) -> list[Affine]:
    """Weights `(I, O)` and biases `(O,)` of a layer, or of the two that stand for it, after the batch norm `below`; float64."""
    found = []
    for part in parts_of(layer):
        weight = _double(part.weight)
        bias = np.zeros(len(weight)) if part.bias is None else _double(part.bias)
        if below is not None:
            weight, bias, below = weight * below[0], bias + weight @ below[1], None
        found.append((weight.T, bias))
    return found


def _affine(graph: Graph, units: str, layer: nn.Module, below: Affine | None) -> str:
    for weight, bias in _matrices(layer, below):
        units = graph.affine(units, weight, bias)
    return units


def hidden(graph: Graph, net: FeedForward, inputs: str, states: States) -> str:
    """The units `(S, H)` of the last hidden layer, before its batch norm."""
    units, below = inputs if net.inputs is None else graph.add("Gather", inputs, graph.integers(net.inputs), axis=1), None
    for layer, norm in zip(net.hidden, net.norms):
        units = graph.add(OPERATORS[net.activation], _affine(graph, units, layer, below))
        below = _scale_and_shift(norm)
    return units


def logits(graph: Graph, net: FeedForward, units: str) -> str:
    """Logits `(M, K)` of the units `(M, H)`."""
    return _affine(graph, units, net.output, _scale_and_shift(net.norms[-1]))


def torch_logits(net: FeedForward, inputs: torch.Tensor, rows: slice) -> torch.Tensor:
    """The same by the net itself: logits `(M, K)` of those `rows` of the spliced frames `(S, I)`."""
    return net(inputs[rows])
