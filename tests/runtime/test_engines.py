"""Every engine gives the scores of the net, or close to them where it computes in less precision; damaged and wrong files are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from exported_case import card
from graphs_case import FEATURES, OUTPUTS, SCALE, expected, feedforward, net_of, prior, utterance

from dropasr.errors import ExportError, UsageError
from dropasr.runtime import engines
from dropasr.runtime.engines import engine_module, engine_names, load_engine, why_not
from dropasr.runtime.export import check, write_files
from dropasr.runtime.exported import DYNAMIC_INT8, STATIC_INT8, STREAM, TORCHSCRIPT, WEIGHTS, WHOLE, Exported
from dropasr.runtime.graphs import layout_of

EXACT = ["torch", "torch_onednn", "onnx"]
ROUGH = {"torch_bf16": 0.05, "onnx_int8": 0.1, "onnx_int8_static": 0.1}
"""Mean difference of scores, relative to their standard deviation, that lower precision may make on nets with random weights."""


def exported_net(folder: Path, net, stride: int) -> Exported:
    layout = layout_of(net, stride)
    about = card(
        dims=net.dims,
        stride=stride,
        left_context=layout.left_context,
        right_context=layout.right_context,
        output_delay=layout.output_delay,
        acoustic_scale=SCALE,
        units=OUTPUTS,
        recurrent=net.reads_chunks,
        frames_scored=net.frames_scored,
    )
    calibration = [utterance(frames, frames) for frames in (20, 30, 40)]
    return write_files(net.float(), torch.from_numpy(prior()), about, folder, calibration)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported")
    exported_net(path, feedforward(widths=[40, 30]), 1)
    return path


def test_every_engine_is_tested():
    assert sorted([*EXACT, *ROUGH]) == engine_names()
    titles = [engine_module(name).TITLE for name in engine_names()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", [*EXACT, *ROUGH])
@pytest.mark.parametrize(
    ("kind", "stride"), [("feedforward-sigmoid-norm", 3), ("feedforward-low-rank", 1), ("lstmp-all", 3), ("blstm", 1), ("frames", 3)]
)
def test_engines_agree_with_the_net(tmp_path: Path, name: str, kind: str, stride: int):
    net = net_of(kind)
    exported = exported_net(tmp_path, net, stride)
    reason = why_not(name, exported)
    if reason is not None:
        assert name == "onnx_int8_static" and exported.recurrent or name == "torch_bf16", reason
        with pytest.raises(ExportError, match=name):
            load_engine(tmp_path, name)
        return
    features, mean, std = utterance(40, 7)
    scores = exported.spread(load_engine(tmp_path, name).scores(features, mean, std), len(features))
    wanted = expected(net, stride, features, mean, std)
    assert scores.dtype == np.float32 and scores.shape == wanted.shape
    if name in EXACT:
        np.testing.assert_allclose(scores, wanted, rtol=0, atol=2e-4)
    else:
        assert np.abs(scores - wanted).mean() < ROUGH[name] * wanted.std()


def test_files_of_a_feedforward_and_of_a_bidirectional_net(folder: Path, tmp_path: Path):
    assert set(Exported.read(folder).files) == {WHOLE, STREAM, DYNAMIC_INT8, STATIC_INT8, TORCHSCRIPT, WEIGHTS}
    assert set(exported_net(tmp_path, net_of("blstm"), 1).files) == {WHOLE, DYNAMIC_INT8, TORCHSCRIPT, WEIGHTS}
    with pytest.raises(ExportError, match="from their ends"):
        load_engine(tmp_path).stream(*utterance(9), parts=[3])


@pytest.mark.parametrize("kind", ["lstm", "state"])
def test_a_stream_carries_its_state(tmp_path: Path, kind: str):
    net = net_of(kind)
    exported_net(tmp_path, net, 3)
    item = utterance(50, 3)
    engine = load_engine(tmp_path)
    np.testing.assert_allclose(engine.stream(*item, parts=[1, 5]), engine.scores(*item), atol=1e-5)


def test_a_wrong_graph_is_found(folder: Path):
    net, log_prior = feedforward(widths=[40, 30]).float(), torch.from_numpy(prior())
    exported = Exported.read(folder)
    differences = check(net, log_prior, exported, folder, [utterance(60, 1)])
    assert set(differences) == {WHOLE, STREAM, DYNAMIC_INT8, STATIC_INT8, TORCHSCRIPT}
    assert differences[WHOLE] < 1e-5 and differences[DYNAMIC_INT8] > 1e-4
    net.hidden[0].bias.data[0] += 0.5
    with pytest.raises(ExportError, match=f"{WHOLE} differs by"):
        check(net, log_prior, exported, folder, [utterance(60, 1)])


def test_a_damaged_graph_is_refused(folder: Path, tmp_path: Path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = bytearray((folder / WHOLE).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / WHOLE).write_bytes(damaged)
    with pytest.raises(ExportError, match=WHOLE):
        load_engine(tmp_path)
    (tmp_path / WHOLE).write_bytes(b"not a graph")
    card(stride=1).write(tmp_path, [WHOLE])
    with pytest.raises(ExportError, match="cannot load the graph"):
        load_engine(tmp_path)


def test_an_unknown_engine_and_a_missing_file(folder: Path):
    with pytest.raises(UsageError, match="did you mean 'onnx_int8'"):
        load_engine(folder, "onx_int8")
    lean = card().write(folder.parent, [])
    assert WEIGHTS in why_not("torch", lean)


def test_onnx_engines_import_neither_torch_nor_the_toolkit(folder: Path):
    script = f"""
import sys, numpy
from dropasr.runtime.engines import load_engine
zeros = numpy.zeros((9, {FEATURES}), "f4")
for name in ("onnx", "onnx_int8", "onnx_int8_static"):
    load_engine({str(folder)!r}, name).scores(zeros, zeros[0], zeros[0] + 1)
print(*{{name.split(".")[0] for name in sys.modules}})
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert not set(run.stdout.split()) & {"torch", "k2", "lhotse", "pydantic", "scipy", "kaldialign", "onnx"}


def test_engines_that_cannot_run_say_why(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines.engine_module("onnx"), "requirement", lambda: "it is not installed")
    with pytest.raises(ExportError, match="it is not installed"):
        load_engine(folder, "onnx")


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_static_int8_is_as_close_as_dynamic(tmp_path: Path, activation: str):
    net = feedforward(widths=[60, 60], activation=activation)
    exported_net(tmp_path, net, 1)
    item = utterance(300, 11)
    wanted = expected(net, 1, *item)
    dynamic, static = (np.abs(load_engine(tmp_path, name).scores(*item) - wanted).mean() for name in ("onnx_int8", "onnx_int8_static"))
    # Logits in 8 bits would make it several times as far.
    assert static < 1.6 * dynamic
