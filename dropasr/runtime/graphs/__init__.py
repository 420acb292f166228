"""ONNX graphs of nets, written node by node: one file per model, found by the name that its dims give.

A file defines `layout(net, stride)`: which frames a step reads; `hidden(graph, net, inputs, states)`: the nodes from the inputs of the
steps to what the last matrix reads; `logits(graph, net, units)`.
What all nets share stands here: normalisation, windows, choice of steps, log softmax, prior and scale.

torch's own exporter is not used: what it can export and how differs between the versions that the toolkit runs on, and it unrolls or
refuses what decides the speed (the recurrent operator, windows over time).
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from dropasr.errors import ExportError
from dropasr.models.base import AcousticModel
from dropasr.runtime.graph import Graph


@dataclass(frozen=True)
class Layout:
    """Which frames the steps of a net read: step s reads frame `step * s + offset` for every offset in `window`."""

    step: int
    window: range
    delay: int = 0
    """Steps after that of a frame until its logits come."""
    every: int = 1
    """Every so many steps one has logits that are asked for."""
    both_ends: bool = False
    """The net must see all steps of an utterance at once."""

    @property
    def stride(self) -> int:
        """Frames per score."""
        return self.step * self.every

    @property
    def left_context(self) -> int:
        """Frames before that of a score that a part of a stream has to have."""
        return -self.window.start

    @property
    def right_context(self) -> int:
        """Frames after it."""
        return self.step * (self.every - 1) + self.window.stop - 1

    @property
    def output_delay(self) -> int:
        """Scores of a stream before that of its first frame."""
        return self.delay // self.every


@dataclass(frozen=True)
class State:
    """A recurrent state of a stream: float32 of this shape, 0 at first where it is not learned."""

    name: str
    shape: tuple[int, ...]
    initial: np.ndarray | None = None

    @property
    def first(self) -> np.ndarray:
        """The state before the first step."""
        return np.zeros(self.shape, np.float32) if self.initial is None else self.initial.astype(np.float32).reshape(self.shape)

    def about(self) -> dict[str, Any]:
        """The state as the card of an exported net describes it."""
        learned = {} if self.initial is None else {"initial": self.first.tolist()}
        return {"name": self.name, "shape": list(self.shape), **learned}


class States:
    """The states that the nodes of a net ask for: constants in a graph of whole utterances, inputs and outputs in that of a stream."""

    def __init__(self, graph: Graph, stream: bool) -> None:
        self.found: list[State] = []
        self._left: list[tuple[State, str]] = []
        self._graph, self._stream = graph, stream

    def enter(self, state: State) -> str:
        """The name of the value that holds the state before the first step of the graph."""
        self.found.append(state)
        if self._stream:
            return self._graph.input(f"state_in_{state.name}", state.shape)
        return self._graph.constant(state.first)

    def leave(self, state: State, value: str) -> None:
        """Pass on the state after the last step."""
        self._left.append((state, value))

    def write_outputs(self) -> None:
        """Make outputs of the states that were left."""
        for state, value in self._left if self._stream else ():
            self._graph.output(f"state_out_{state.name}", value, state.shape)


def graphs_of(net: AcousticModel) -> ModuleType:
    """The file of this folder that belongs to the net. Raises ExportError where there is none."""
    name = net.dims["model"]
    if importlib.util.find_spec(f"{__name__}.{name}") is None:
        raise ExportError(f"model '{name}': there is no dropasr/runtime/graphs/{name}.py, which would write its nodes as ONNX. Add one.")
    return importlib.import_module(f"{__name__}.{name}")


def layout_of(net: AcousticModel, stride: int) -> Layout:
    """Which frames the steps of the net read where every stride-th frame has scores."""
    return graphs_of(net).layout(net, stride)


def write_graph(
    net: AcousticModel, stride: int, log_prior: np.ndarray, scale: float, stream: bool, for_int8: bool = False
) -> tuple[bytes, list[State]]:
    """The ONNX file of a net for whole utterances or for a stream, and the states of the latter.

    `log_prior` `(K,)` or `()`; `scale` multiplies what the graph gives. The normalised frames are those of `normalise`, the windows those
    that the net itself reads. `for_int8`: it will be quantised.
    """
    module, graph = graphs_of(net), Graph(for_int8=for_int8)
    layout = module.layout(net, stride)
    num_features, num_outputs = net.dims["num_features"], net.dims["num_outputs"]
    frames = graph.input("window" if stream else "features", ("frames", num_features))
    mean, std = graph.input("mean", (num_features,)), graph.input("std", (num_features,))
    frames = graph.add("Div", graph.add("Sub", frames, mean), std)
    states = States(graph, stream)
    inputs = _stream_inputs(graph, frames, net, layout) if stream else _whole_inputs(graph, frames, net, layout)
    hidden = module.hidden(graph, net, inputs, states)
    first = layout.delay % layout.every if stream else layout.delay
    if first or layout.every > 1:
        hidden = graph.add("Slice", hidden, *map(graph.integers, ([first], [np.iinfo(np.int64).max], [0], [layout.every])))
    logits = module.logits(graph, net, hidden)
    if net.frames_scored > 1:
        logits = graph.add("Reshape", logits, graph.integers([-1, net.frames_scored, num_outputs]))
    log_posteriors = graph.add("LogSoftmax", logits, axis=-1)
    # The prior cannot move into the bias of the last layer: log softmax is over logits without it. Scaled, it costs one pass, not two.
    scores = graph.add("Mul", log_posteriors, graph.constant(np.float32(scale)))
    if np.any(log_prior):
        scores = graph.add("Sub", scores, graph.constant((scale * log_prior.astype(np.float64)).astype(np.float32)))
    if net.frames_scored > 1:
        scores = graph.add("Flatten", scores, axis=1)
    graph.output("scores", scores, ("scores", net.frames_scored * num_outputs))
    states.write_outputs()
    return graph.serialized(), states.found


def _count(graph: Graph, frames: str) -> str:
    """The number of frames, int64 `()`."""
    return graph.add("Squeeze", graph.add("Shape", frames, start=0, end=1))


def _windows(graph: Graph, frames: str, first_of_step: str, layout: Layout, offsets: list[int], last: str | None) -> str:
    """The frames that steps read side by side, `(S, W * F)`; `first_of_step` int64 `(S,)`; with `last`, edges repeated."""
    numbers = graph.add("Add", graph.add("Unsqueeze", first_of_step, graph.integers([1])), graph.integers([offsets]))
    if last is not None:
        numbers = graph.add("Clip", numbers, graph.integers(0), last)
    gathered = graph.add("Gather", frames, numbers, axis=0)
    return graph.add("Flatten", gathered, axis=1)


def _whole_inputs(graph: Graph, frames: str, net: AcousticModel, layout: Layout) -> str:
    if layout.step == layout.every == len(layout.window) == 1 and not layout.delay:
        return frames
    count = _count(graph, frames)
    last = graph.add("Sub", count, graph.integers(1))
    if layout.both_ends:
        end = count
    else:
        # The last score's frame, and the delay after its step.
        last_score = graph.add("Div", last, graph.integers(layout.stride))
        end = graph.add("Mul", last_score, graph.integers(layout.stride))
        end = graph.add("Add", end, graph.integers(layout.step * layout.delay + 1))
    first_of_step = graph.add("Range", graph.integers(0), end, graph.integers(layout.step))
    return _windows(graph, frames, first_of_step, layout, list(layout.window), last)


def _stream_inputs(graph: Graph, frames: str, net: AcousticModel, layout: Layout) -> str:
    if layout.step == len(layout.window) == 1:
        return frames
    # Steps that fit: the first frame of a window goes up to frames - len(window).
    end = graph.add("Sub", _count(graph, frames), graph.integers(len(layout.window) - 1))
    first_of_step = graph.add("Range", graph.integers(0), end, graph.integers(layout.step))
    return _windows(graph, frames, first_of_step, layout, list(range(len(layout.window))), None)
