"""Graphs with matrices of 8-bit integers, made of float32 ones by ONNX Runtime's quantiser.

Weights are signed, with a scale per output unit; activations unsigned. `dynamic`: the range of the activations is found anew for every
utterance (and in recurrent layers, too); `static`: it is fixed to what calibration utterances showed, which saves looking for it. What is
not a product of matrices stays float32, log softmax included.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

Inputs = dict[str, np.ndarray]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises on the root logger; what it advises was done."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def dynamic_int8(model: bytes) -> bytes:
    """The model `(file content)` with int8 weights; ranges of activations are found while it runs."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            onnx.load_from_string(model),
            path,
            op_types_to_quantize=["MatMul", "Gemm", "LSTM"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"EnableSubgraph": True},
        )
        return path.read_bytes()


def static_int8(model: bytes, utterances: Sequence[Inputs]) -> bytes:
    """The model `(file content)` with int8 weights and ranges of activations fixed to those of the inputs given."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(utterances)

        def get_next(self) -> Inputs | None:
            return next(self._left, None)

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            onnx.load_from_string(model),
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # What a product gives is rounded where the next one reads it, behind the non-linearity, and logits not at all.
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
        return path.read_bytes()
