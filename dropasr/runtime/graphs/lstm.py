"""The nodes of a recurrent net.

Layers without projection are ONNX's LSTM operator, whose gates come in the order i, o, f, c (torch: i, f, g, o). It knows no projection.
Where there is one, `h = P m` for the outputs m of the cells, either the recurrent matrix is multiplied out, `R h = (R P) m`, and the
operator runs on m with one product `P m` over all steps behind it; or a Scan writes the step out. The first does `4 H^2` multiply-adds a
step instead of `5 H R`, the second costs a few microseconds a step: `folds` weighs the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dropasr.models.lstm import Lstm
from dropasr.models.recurrence import Recurrence
from dropasr.runtime.graph import Graph
from dropasr.runtime.graphs import Layout, State, States

SCAN_COST = {False: (1.0, 90_000), True: (2.0, 300_000)}
"""What a step of a Scan costs in multiply-adds of the operator, in float32 and (True) in int8: a factor for its own, and a constant.

Measured at one thread, 64 to 768 cells; in int8 the operator is one kernel, where a Scan quantises the inputs of two products a step.
"""


def layout(net: Lstm, stride: int) -> Layout:
    """A step for every `net.step` frames."""
    return Layout(net.step, net.window, net.output_delay, max(1, stride // net.step), net.bidirectional)


def _double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def _gates(tensor: torch.Tensor | np.ndarray, order: Sequence[int]) -> np.ndarray:
    """The four blocks of gate rows, of which torch's order is i, f, g, o, in another order."""
    blocks = np.split(tensor if isinstance(tensor, np.ndarray) else _double(tensor), 4)
    return np.concatenate([blocks[number] for number in order])


def folds(half: Recurrence, int8: bool = False) -> bool:
    """Whether the recurrent matrix and the projection are multiplied out. A learned first output need not be `P m` for any m."""
    cells, outputs = half.cells, half.outputs
    factor, constant = SCAN_COST[int8]
    return half.first_output is None and 4 * cells * cells <= factor * 5 * cells * outputs + constant


def _states(half: Recurrence, name: str, outputs: int) -> tuple[State, State]:
    learned = half.first_output is not None
    first = (_double(half.first_output), _double(half.first_cells)) if learned else (None, None)
    return State(f"{name}_output", (1, 1, outputs), first[0]), State(f"{name}_cells", (1, 1, half.cells), first[1])


def _operator(graph: Graph, half: Recurrence, recurrent: np.ndarray, inputs: str, name: str, backward: bool, states: States) -> str:
    """Outputs `(S, H)` of the cells by the LSTM operator; `recurrent` `(4 H, H)` reads them."""
    order = (0, 3, 1, 2)
    weight = graph.constant(_gates(half.weight_ih, order)[None].astype(np.float32))
    recurrent = graph.constant(_gates(recurrent, order)[None].astype(np.float32))
    bias = _gates(_double(half.bias_ih) + _double(half.bias_hh), order)
    bias = graph.constant(np.concatenate([bias, np.zeros_like(bias)])[None].astype(np.float32))
    entered = _states(half, name, half.cells)
    if backward:
        first = [graph.constant(state.first) for state in entered]
    else:
        first = [states.enter(state) for state in entered]
    sequence = graph.add("Unsqueeze", inputs, graph.integers([1]))
    direction = "reverse" if backward else "forward"
    outputs, *left = graph.add_many(
        "LSTM", sequence, weight, recurrent, bias, "", *first, outputs=3, hidden_size=half.cells, direction=direction
    )
    if not backward:
        for state, value in zip(entered, left):
            states.leave(state, value)
    return graph.add("Reshape", outputs, graph.integers([-1, half.cells]))


def _step(half: Recurrence) -> Graph:
    """The body of a Scan: from outputs `(1, R)`, cells `(1, H)` and what the gates read of the inputs `(1, 4 H)` to the next two."""
    body, cells = Graph("s"), half.cells
    outputs = body.input("output", (1, half.outputs))
    memory = body.input("memory", (1, cells))
    above = body.input("above", (1, 4 * cells))
    recurrent = body.constant(_gates(half.weight_hh, (0, 1, 3, 2)).T.astype(np.float32))
    gates = body.add("Gemm", outputs, recurrent, above)
    open_, candidates = body.add_many("Split", gates, body.integers([3 * cells, cells]), outputs=2, axis=1)
    i, f, o = body.add_many("Split", body.add("Sigmoid", open_), body.integers([cells] * 3), outputs=3, axis=1)
    memory = body.add("Add", body.add("Mul", f, memory), body.add("Mul", i, body.add("Tanh", candidates)))
    read = body.add("Mul", o, body.add("Tanh", memory))
    outputs = body.add("MatMul", read, body.constant(_double(half.weight_hr).T.astype(np.float32)))
    body.output("next_output", outputs, (1, half.outputs))
    body.output("next_memory", memory, (1, cells))
    body.output("passed", outputs, (1, half.outputs))
    return body


def _scanned(graph: Graph, half: Recurrence, inputs: str, name: str, backward: bool, states: States) -> str:
    """Outputs `(S, R)` of the projection, step by step."""
    bias = _gates(_double(half.bias_ih) + _double(half.bias_hh), (0, 1, 3, 2))
    above = graph.affine(inputs, _gates(half.weight_ih, (0, 1, 3, 2)).T, bias)
    above = graph.add("Unsqueeze", above, graph.integers([1]))
    entered, first = _states(half, name, half.outputs), []
    for state in entered:
        value = graph.constant(state.first) if backward else states.enter(state)
        first.append(graph.add("Squeeze", value, graph.integers([0])))
    way = [1 if backward else 0]
    *left, passed = graph.add_many(
        "Scan",
        *first,
        above,
        outputs=3,
        body=_step(half).proto(f"{name}_step"),
        num_scan_inputs=1,
        scan_input_directions=way,
        scan_output_directions=way,
    )
    if not backward:
        for state, value in zip(entered, left):
            states.leave(state, graph.add("Unsqueeze", value, graph.integers([0])))
    return graph.add("Reshape", passed, graph.integers([-1, half.outputs]))


def _half(graph: Graph, half: Recurrence, inputs: str, name: str, backward: bool, states: States) -> str:
    """What one direction of a layer passes up, `(S, R)`."""
    if half.weight_hr is None:
        outputs = _operator(graph, half, _double(half.weight_hh), inputs, name, backward, states)
    elif folds(half, graph.for_int8):
        projection = _double(half.weight_hr)
        cells = _operator(graph, half, _double(half.weight_hh) @ projection, inputs, name, backward, states)
        outputs = graph.affine(cells, projection.T)
    else:
        outputs = _scanned(graph, half, inputs, name, backward, states)
    if half.norm is None:
        return outputs
    weight, bias = (graph.constant(_double(tensor).astype(np.float32)) for tensor in (half.norm.weight, half.norm.bias))
    return graph.add("LayerNormalization", outputs, weight, bias, axis=-1, epsilon=half.norm.eps)


def hidden(graph: Graph, net: Lstm, inputs: str, states: States) -> str:
    """Outputs `(S, R)` of the last layer."""
    if net.reduction is not None:
        inputs = graph.affine(inputs, _double(net.reduction.weight).T)
    for number, layer in enumerate(net.layers):
        passed = [_half(graph, half, inputs, f"layer{number}", way == 1, states) for way, half in enumerate(layer)]
        inputs = passed[0] if len(passed) == 1 else graph.add("Concat", *passed, axis=1)
    return inputs


def logits(graph: Graph, net: Lstm, units: str) -> str:
    """Logits `(M, K)` of the outputs `(M, R)`."""
    return graph.affine(units, _double(net.output.weight).T, _double(net.output.bias))


def torch_logits(net: Lstm, inputs: torch.Tensor, rows: slice) -> torch.Tensor:
    """The same by the net itself: logits `(M, K)` of those `rows` of the steps whose inputs are `(S, I)`."""
    return net.output(net.run_layers(inputs[:, None])[0][rows, 0])
