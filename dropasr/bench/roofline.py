"""`dropasr bench roofline`: how close engines come to what the processor can do with matrices of the same shapes.

The peak of a net is that of its products alone: for each of its matrices a product of the same size, measured in every library and number
type at hand, best of several passes; their times added up give the least time that a net could take. What an engine takes is compared with
the peak of its own number type. Whole utterances and parts of a stream have different shapes, so both are given.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dropasr.bench.rtf import Plan, check_load
from dropasr.config import Config
from dropasr.errors import MeasurementError
from dropasr.models import model_from_dims
from dropasr.paths import Paths
from dropasr.report.tables import MISSING, Table
from dropasr.runtime.busy import BUSY_SHARE, busy_caution
from dropasr.runtime.engines import Engine, engine_module, engine_names, load_engine, why_not
from dropasr.runtime.exported import Exported
from dropasr.runtime.graphs import layout_of
from dropasr.runtime.machine import hardware, has_bfloat16, pinned, versions
from dropasr.runtime.timing import order_of_pass

SECONDS = {"utterance": 5.0, "part": 0.32}
"""Speech of a whole utterance, and of a part of a stream."""
LEAST_SECONDS = 0.02
"""Products are repeated until a measurement takes as long."""
PASSES = 7
TYPES = {"onnx_int8": "int8", "onnx_int8_static": "int8", "torch_bf16": "bfloat16"}
"""Number type of the products of an engine, where it is not float32."""
Shape = tuple[int, int, int]
Work = Callable[[], Any]
Key = tuple[Any, ...]


def shapes_of(exported: Exported, scores: int) -> list[Shape]:
    """Rows, inner and outer size of the products for so many scores: one for each matrix of the net, recurrent ones row by row."""
    net = model_from_dims(exported.dims)
    steps = scores * layout_of(net, exported.stride).every
    found: list[Shape] = []
    for name, weight in net.named_parameters():
        if weight.dim() == 2:
            outer, inner = weight.shape
            # Of recurrent matrices (and the projections behind them) each step waits for the one before.
            stepwise = name.endswith(("weight_hh", "weight_hr"))
            rows = scores if name.startswith("output") else steps
            found += [(1, inner, outer)] * rows if stepwise else [(rows, inner, outer)]
    return found


def _torch_product(shape: Shape, dtype: torch.dtype) -> Work:
    from torch.utils.mkldnn import MkldnnLinear

    rows, inner, outer = shape
    inputs = torch.randn(rows, inner).to(dtype)
    layer = torch.nn.Linear(inner, outer, bias=False).to(dtype)
    if dtype == torch.float32 and torch.backends.mkldnn.is_available():
        layer = MkldnnLinear(torch.nn.Linear(inner, outer), torch.float32)
        inputs = inputs.to_mkldnn()
    return lambda: layer(inputs)


def _onnx_product(shape: Shape, int8: bool) -> Work:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rows, inner, outer = shape
    generator = np.random.default_rng(0)
    kind, number, result = ("MatMulInteger", TensorProto.UINT8, TensorProto.INT32) if int8 else ("MatMul", *[TensorProto.FLOAT] * 2)
    inputs = generator.integers(0, 255, (rows, inner)).astype(np.uint8) if int8 else generator.standard_normal((rows, inner), np.float32)
    weight = (
        generator.integers(-100, 100, (inner, outer)).astype(np.int8) if int8 else generator.standard_normal((inner, outer), np.float32)
    )
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", number, [rows, inner])],
        [helper.make_tensor_value_info("y", result, [rows, outer])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # Inputs and outputs are bound once: copying them is no part of the product.
    binding = session.io_binding()
    binding.bind_cpu_input("x", inputs)
    binding.bind_output("y")
    return lambda: session.run_with_iobinding(binding)


def products(shape: Shape) -> dict[tuple[str, str], Work]:
    """One product of this shape, by number type and library."""
    found: dict[tuple[str, str], Work] = {
        ("float32", "torch"): _torch_product(shape, torch.float32),
        ("float32", "onnxruntime"): _onnx_product(shape, int8=False),
        ("int8", "onnxruntime"): _onnx_product(shape, int8=True),
    }
    if has_bfloat16():
        found["bfloat16", "torch"] = _torch_product(shape, torch.bfloat16)
    return found


def best_seconds(works: dict[Key, Work], passes: int = PASSES) -> dict[Key, float]:
    """Seconds of one run of each work: the fastest of several passes, each long enough for the clock.

    Works take turns, so that what other processes take away is taken from all of them.
    """
    runs, best = {}, dict.fromkeys(works, float("inf"))
    for key, work in works.items():
        work()
        begin = time.perf_counter()
        work()
        runs[key] = max(1, round(LEAST_SECONDS / max(time.perf_counter() - begin, 1e-7)))
    for number in range(passes):
        for key in order_of_pass(list(works), number):
            begin = time.perf_counter()
            for _ in range(runs[key]):
                works[key]()
            best[key] = min(best[key], (time.perf_counter() - begin) / runs[key])
    return best


def _scoring(net: Engine, frames: int, exported: Exported) -> Work:
    mean, std = exported.training_statistics()
    features = np.random.default_rng(0).standard_normal((frames, len(mean))).astype(np.float32) * std + mean
    return lambda: net.scores(features, mean, std)


def measure(config: Config, paths: Paths, plan: Plan) -> dict[str, Any]:
    """Peaks of all shapes, and for every folder and engine the share of the peak. Raises MeasurementError on a busy machine."""
    busy = check_load(plan.under_load)
    peaks: dict[Shape, dict[str, dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    with pinned(), torch.no_grad():
        for folder in plan.folders:
            for length, seconds in SECONDS.items():
                rows += _rows(folder, plan, length, seconds, peaks)
    if not rows:
        raise MeasurementError("no engine can run any of the folders. Install onnxruntime, or export again.")
    busy = max(busy, check_load(plan.under_load))
    load = {"busy_share": round(busy, 3), "under_load": busy > BUSY_SHARE}
    return {
        "hardware": hardware(),
        "versions": versions(),
        **load,
        "peaks": [{"shape": list(shape), **kinds} for shape, kinds in peaks.items()],
        "rows": rows,
    }


def _rows(folder: Path, plan: Plan, length: str, seconds: float, peaks: dict[Shape, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The engines of a folder on so much speech; what their products reach is added to `peaks`."""
    exported = Exported.read(folder)
    names = [name for name in plan.engines or engine_names() if why_not(name, exported) is None]
    scores = max(1, round(seconds / exported.features["frame_shift"] / exported.stride))
    shapes = shapes_of(exported, scores)
    works: dict[Key, Work] = {
        (name,): _scoring(load_engine(folder, name, 1, exported), scores * exported.stride, exported) for name in names
    }
    for shape in set(shapes):
        works |= {(shape, *key): work for key, work in products(shape).items()}
    best = best_seconds(works)
    own: dict[Shape, dict[str, float]] = {}
    for shape in set(shapes):
        found = [(best[key], key[1], key[2]) for key in works if key[0] == shape]
        own[shape] = {kind: min(item for item in found if item[1] == kind)[0] for _, kind, _ in found}
        peaks[shape] = {kind: _peak(shape, min(item for item in found if item[1] == kind)) for kind in own[shape]}
    work = 2e-9 * sum(int(np.prod(shape)) for shape in shapes)
    rows = []
    for name in names:
        kind, taken = TYPES.get(name, "float32"), best[(name,)]
        least = sum(own[shape][kind] for shape in shapes)
        about = {"folder": folder.name, "engine": name, "length": length, "scores": scores, "number_type": kind}
        speeds = {"gflops": work / taken, "peak_gflops": work / least, "share_of_peak": least / taken}
        rows.append({**about, "seconds": taken, "rtf": taken / seconds, **speeds})
    return rows


def _peak(shape: Shape, found: tuple[float, str, str]) -> dict[str, Any]:
    return {"gflops": 2e-9 * int(np.prod(shape)) / found[0], "library": found[2]}


def markdown(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    header = ["net", "engine", "speech", "scores at once", "model RTF", "GFLOP/s", "peak of these products", "share of the peak"]
    lines = [
        [
            row["folder"],
            engine_module(row["engine"]).TITLE,
            row["length"],
            str(row["scores"]),
            f"{row['rtf']:.5f}",
            f"{row['gflops']:.0f}",
            f"{row['peak_gflops']:.0f} ({row['number_type']})",
            f"{100 * row['share_of_peak']:.0f} %",
        ]
        for row in result["rows"]
    ]
    kinds = [kind for kind in ("float32", "bfloat16", "int8") if any(kind in peak for peak in result["peaks"])]

    def cell(peak: dict[str, Any], kind: str) -> str:
        return f"{peak[kind]['gflops']:.0f} ({peak[kind]['library']})" if kind in peak else MISSING

    shapes = [["×".join(map(str, peak["shape"])), *(cell(peak, kind) for kind in kinds)] for peak in result["peaks"]]
    notes = [
        "One thread on one core; an operation is a multiplication or an addition. The peak of a net is what its products alone reach, each "
        "in the fastest library at hand; int8 products give 32-bit integers, to which an engine adds the quantising.",
        f"{result['hardware']['cpu']}; " + ", ".join(f"{name} {version}" for name, version in result["versions"].items()) + ".",
    ]
    if result["under_load"]:
        notes.insert(0, f"**Measured under load.** {busy_caution(result['busy_share'])}")
    tables = [Table(header, lines, frozenset({0, 1, 2})).markdown(), Table(["rows × in × out", *kinds], shapes).markdown()]
    return "\n\n".join([*tables, *notes]) + "\n"
