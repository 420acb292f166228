"""An ONNX graph under construction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

OPSET = 17
"""The first operator set with LayerNormalization; ONNX Runtime has had it since 1.12."""
IR_VERSION = 8
Shape = Sequence["int | str"]


class Graph:
    """Nodes, constants, inputs and outputs; values are known by the names that the methods return.

    `for_int8`: the matrices will be quantised, which changes what is cheap.
    """

    def __init__(self, prefix: str = "v", for_int8: bool = False) -> None:
        self.for_int8 = for_int8
        self._prefix = prefix
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._known: dict[tuple[Any, ...], str] = {}

    def input(self, name: str, shape: Shape) -> str:
        """A float32 input; a dimension that is text may be of any size."""
        from onnx import TensorProto, helper

        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def output(self, name: str, value: str, shape: Shape) -> None:
        """Give a float32 value as output `name`."""
        from onnx import TensorProto, helper

        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def constant(self, value: np.ndarray | np.generic) -> str:
        """A constant; equal small ones are stored once."""
        from onnx import numpy_helper

        array = np.ascontiguousarray(value).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 16 else None
        if key is not None and key in self._known:
            return self._known[key]
        name = f"{self._prefix}c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        if key is not None:
            self._known[key] = name
        return name

    def integers(self, value: Any) -> str:
        """A constant of type int64."""
        return self.constant(np.array(value, np.int64))

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns its name."""
        return self.add_many(kind, *inputs, outputs=1, **attributes)[0]

    def add_many(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs; returns their names."""
        from onnx import helper

        names = [f"{self._prefix}{len(self._nodes)}_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=f"{self._prefix}{len(self._nodes)}", **attributes))
        return names

    def affine(self, inputs: str, weight: np.ndarray, bias: np.ndarray | None = None) -> str:
        """`inputs` `(N, I)` times `weight` `(I, O)`, plus `bias` `(O,)`, in float32."""
        weights = self.constant(weight.astype(np.float32))
        if bias is None or not bias.any():
            return self.add("MatMul", inputs, weights)
        return self.add("Gemm", inputs, weights, self.constant(bias.astype(np.float32)))

    def proto(self, name: str) -> Any:
        """The graph as ONNX's own structure, to be the body of a Scan or the whole of a model."""
        from onnx import helper

        return helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants)

    def serialized(self) -> bytes:
        """The file of a model with this graph, checked by ONNX."""
        import onnx
        from onnx import helper

        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(self.proto("dropasr"), opset_imports=opset, ir_version=IR_VERSION, producer_name="dropasr")
        onnx.checker.check_model(model)
        return model.SerializeToString()
