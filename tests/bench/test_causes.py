"""The speed-up by cause: which lines there are, what each is made of, and that their figures fit together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from bench_case import Exported
from conftest import TINY

from dropasr import cli, options, verbs
from dropasr.bench import causes
from dropasr.bench.rtf import Plan
from dropasr.config import system_folder
from dropasr.errors import ConfigError, StageError, UsageError
from dropasr.files import read_json
from dropasr.training import evaluate

LAST = ("decode.frame_skip=2", "decode.beam=25", "decode.max_active=500", "rtf.utterances=5", "rtf.repeats=2")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("causes")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return Exported(folder, folder / "tiny.yaml")


def test_a_line_for_each_cause_that_changes_something(exported: Exported):
    first, last = exported.experiment.config(), exported.experiment.config(*LAST)

    def lines(last, engine: str) -> list[tuple[str, str, str, float, int]]:
        found = causes.steps_of(first, last, "big", "tiny", engine)
        return [(step.cause, step.row, step.engine, step.config.decode.beam, step.config.decode.frame_skip) for step in found]

    assert lines(last, "onnx") == [
        ("first decoder", "big", "torch", 30, 1),
        ("net", "tiny", "torch", 30, 1),
        ("engine", "tiny", "onnx", 30, 1),
        ("search", "tiny", "onnx", 25, 1),
        ("subsampling", "tiny", "onnx", 25, 2),
        ("large net beside it", "big", "onnx", 25, 2),
    ]
    assert [line[0] for line in lines(first, "torch")] == ["first decoder", "net", "large net beside it"]
    third = exported.experiment.config("train.frame_subsampling=3")
    assert [line[0] for line in lines(third, "onnx")] == ["first decoder", "net", "engine", "subsampling", "large net beside it"]


def test_the_first_decoder_is_that_of_the_file(exported: Exported):
    bench = verbs.VERBS["bench"]
    command = ["causes", "a", "b", "--conf", str(exported.experiment.yaml), "--set", "decode.beam=5", "--set", "decode.prior_scale=0.5"]

    def first(*more: str):
        invocation = options.parse(
            [*command, "--set", "train.frame_subsampling=3", *more], max_arguments=9, known=[*bench.takes, *bench.own]
        )
        return causes.first_system(exported.experiment.config("decode.beam=5", "decode.prior_scale=0.5"), invocation)

    assert (first().decode.beam, first().train.frame_subsampling, first().decode.prior_scale) == (12, 1, 0.5)
    assert first("--first", "decode.beam=14", "--first", "decode.max_active=77").decode.max_active == 77
    with pytest.raises(UsageError, match="'--first': expected one of .*found 'train.epochs=3'"):
        first("--first", "train.epochs=3")
    with pytest.raises(ConfigError, match="beam"):
        first("--first", "decode.beam=-1")


def test_figures_of_all_lines(exported: Exported, monkeypatch: pytest.MonkeyPatch):
    exported.without_audio(monkeypatch, causes)
    first, last = exported.experiment.config(), exported.experiment.config(*LAST)
    paths = dataclasses.replace(exported.paths, system=system_folder(last))
    with pytest.raises(StageError, match="--stage 7"):
        causes.measure(first, last, paths, Plan(()), "dense", "annealed_dropout")
    evaluate.decode(last, paths, 1)
    result = causes.measure(first, last, paths, Plan(()), "dense", "annealed_dropout")
    rows = result["rows"]
    assert len(rows) == 6 and [row["system"] for row in rows] == [""] * 4 + ["scores shared by 2 frames"] * 2
    # Beam 30 and 25 find the same here; what stage 7 found with each net and rate is what each line must find.
    for row, at in zip(rows, [exported.paths] * 4 + [paths] * 2):
        decoded = read_json(at.scores(row["row"]))
        assert row["wer"]["estimate"] == decoded["test"]["wer"] and row["dev_wer"]["estimate"] == decoded["dev"]["wer"]
    product = 1.0
    for row in rows[1:-1]:
        product *= row["factor"]["total"]["estimate"]
        assert row["speedup"]["total"]["estimate"] == pytest.approx(product)
    totals = [row["rtf"]["total"] for row in rows]
    assert rows[-1]["factor"]["total"]["estimate"] == pytest.approx(totals[-2] / totals[-1], rel=1e-6)
    log = [line for line in exported.experiment.log() if line["event"] == "bench end"]
    assert [line["row"] for line in log] == [row["row"] for row in rows]
    text = causes.markdown(result)
    assert text.count("ONNX Runtime, float32") == 4 and "| search " in text and "| subsampling " in text and "under load" not in text
    with pytest.raises(UsageError, match="one engine, found onnx, torch"):
        causes.measure(first, last, paths, Plan((), ("onnx", "torch")), "dense", "annealed_dropout")


def test_the_command_line(exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path):
    exported.without_audio(monkeypatch, causes)
    monkeypatch.setattr(verbs, "load", lambda invocation: (exported.config, exported.paths))
    conf = ["--conf", str(exported.experiment.yaml), "--first", "decode.beam=29", "--out", str(tmp_path)]
    assert cli.main(["bench", "causes", "dense", "annealed_dropout", *conf, "--engines", "torch"]) == 0
    rows = read_json(tmp_path / "causes.json")["rows"]
    assert [row["cause"] for row in rows] == [
        "first decoder",
        "net",
        "search",
        "large net beside it",
    ]
    assert (tmp_path / "causes.md").read_text() in capsys.readouterr().out
    assert cli.main(["bench", "causes", "dense", *conf]) == 2
    assert "LARGE_ROW SMALL_ROW" in capsys.readouterr().err
