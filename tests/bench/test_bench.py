"""The benchmark of exported nets: what is measured together, what is refused, and what the table says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from bench_case import Exported
from conftest import TINY

from dropasr import verbs
from dropasr.bench import candidates, choice, memory, roofline, rtf
from dropasr.bench.rtf import Plan, check_load
from dropasr.bench.table import markdown
from dropasr.bench.throughput import throughput
from dropasr.cli import main
from dropasr.errors import DataError, MeasurementError, StageError, UsageError
from dropasr.files import read_json
from dropasr.runtime.engines import CHOICE, chosen_engine, engine_names, load_engine
from dropasr.runtime.export import export, raw_utterances, training_moments
from dropasr.runtime.exported import WEIGHTS
from dropasr.runtime.exported import Exported as Card
from dropasr.scoring.wer import score


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return Exported(folder, folder / "tiny.yaml")


def test_export_tells_what_the_row_was_decoded_with(exported: Exported):
    card = Card.read(exported.folders[0])
    scores = read_json(exported.paths.scores("dense"))
    assert card.acoustic_scale == scores["acoustic_scale"]
    assert card.wer == {"dev": scores["dev"]["wer"], "test": scores["test"]["wer"], "noisy": scores["extra"]["noisy"]["wer"]}
    assert (card.corpus, card.row, card.widths, card.rtf) == ("tiny", "dense", [exported.store().num_features], None)
    with pytest.raises(StageError, match="--stage 7"):
        (scores_file := exported.paths.scores("dense")).rename(scores_file.with_suffix(".away"))
        try:
            export(exported.config, exported.paths, "dense", exported.folders[0])
        finally:
            scores_file.with_suffix(".away").rename(scores_file)


def test_export_leaves_other_folders_alone(exported: Exported, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for folder in (tmp_path, exported.paths.net("dense")):  # a trained net has a model.json and a model.safetensors, too
        before = sorted(path.name for path in folder.iterdir())
        with pytest.raises(DataError, match="other files"):
            export(exported.config, exported.paths, "dense", folder)
        assert sorted(path.name for path in folder.iterdir()) == before


def test_export_replaces_an_earlier_one(exported: Exported):
    folder = exported.folders[1]
    (folder / CHOICE).write_text("{}")
    assert export(exported.config, exported.paths, "annealed_dropout", folder).files == Card.read(folder).files
    assert not (folder / CHOICE).exists()


def test_moments_of_the_training_set_are_those_of_raw_frames(exported: Exported):
    store = exported.store("train")
    frames = np.concatenate([features for features, _, _ in raw_utterances(store, 10**9)])
    mean, std = training_moments(store)
    assert len(frames) == store.num_frames and mean.dtype == np.float32
    # This store has no statistics of groups: its frames count as normalised.
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(std, 1)


def test_figures_of_all_candidates(exported: Exported, monkeypatch: pytest.MonkeyPatch):
    exported.without_audio(monkeypatch, rtf)
    plan = Plan(tuple(exported.folders), ("torch", "onnx", "onnx_int8"), threads=2, batch=3)
    result = rtf.measure(exported.config, exported.paths, plan)
    assert [(row["row"], row["engine"]) for row in result["rows"]] == [
        (row, engine) for row in ("dense", "annealed_dropout") for engine in plan.engines
    ]
    for row in result["rows"]:
        decoded = read_json(exported.paths.scores(row["row"]))["test"]
        assert row["words"] == decoded["words"]
        if row["engine"] != "onnx_int8":
            assert row["wer"]["estimate"] == decoded["wer"]
        assert len(row["rtf"]["passes"]) == 2 and row["rtf"]["total"] > 0
        assert row["throughput"]["median"] > 0 and row["bytes"] > 0 and row["peak_memory_mib"] > 10
        size = exported.store().num_features
        assert row["macs_per_second"] == pytest.approx(100 * 2 * size * size)
    first = result["rows"][0]
    assert first["wer_difference"]["estimate"] == 0 and first["speedup"]["model"]["estimate"] == 1
    logged = [line for line in exported.experiment.log() if line["event"].startswith("bench")]
    assert len(logged) == 2 * len(result["rows"]) and logged[-1]["engine"] == "onnx_int8" and "wer" in logged[-1]
    text = markdown(result)
    assert len([line for line in text.splitlines() if line.startswith("| dense | ")]) == 3
    assert "ONNX Runtime, int8 dynamic" in text and "2 threads, 3 at once" in text and "under load" not in text
    assert "Measured under load" in markdown({**result, "under_load": True})
    assert "| dense, each score for 2 frames | torch |" in markdown({**result, "rows": [{**first, "shared": 2}, *result["rows"][1:]]})
    json.dumps(result)


def test_the_words_of_an_engine_are_those_of_stage_7(exported: Exported):
    searches = rtf.Searches(exported.config, exported.paths)
    (candidate,) = candidates.candidates(exported.folders[:1], ["onnx"], exported.config, exported.paths, searches)
    store = exported.store()
    everything = candidates.positions_of(store, None, [])
    found = candidate.words(store, everything)
    scale = candidate.exported.acoustic_scale
    assert list(found.values()) == exported.experiment.words("dense", "test", scale)
    assert score(dict(zip(store.ids, store.texts)), found).wer == candidate.result(store, everything).wer


def test_a_busy_machine_is_announced_and_refused_and_words_are_kept(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    exported.without_audio(monkeypatch, rtf)
    monkeypatch.setattr(rtf, "check_load", check_load)
    monkeypatch.setattr(rtf, "busy_share", lambda: 0.6)
    plan = Plan(tuple(exported.folders), ("onnx",), utterances=6)
    with pytest.raises(MeasurementError, match="60 % of one core.*--under-load"):
        rtf.measure(exported.config, exported.paths, plan)
    assert "60 % of one core. Words are found all the same" in caplog.text
    monkeypatch.setattr(rtf, "busy_share", lambda: 0.0)
    monkeypatch.setattr(candidates.Candidate, "words", lambda *_: pytest.fail("searched again"))
    found = rtf.measure(exported.config, exported.paths, plan)
    logged = [line for line in exported.experiment.log() if line["event"] == "bench end" and line["engine"] == "onnx"][-2:]
    assert found["scored_utterances"] == 6 and [row["wer"]["estimate"] for row in found["rows"]] == [line["wer"] for line in logged]
    with pytest.raises(pytest.fail.Exception, match="searched again"):
        rtf.measure(exported.config, exported.paths, Plan(plan.folders, plan.engines, utterances=7))
    assert rtf.check_load(under_load=True) == 0.0


def test_an_utterance_without_transcript_is_refused(exported: Exported):
    store = exported.store()
    assert candidates.positions_of(store, 3, [store.ids[4]])[:3] != [0, 1, 2] and 4 in candidates.positions_of(store, 3, [store.ids[4]])
    store.texts[4] = []
    with pytest.raises(MeasurementError, match=store.ids[4]):
        candidates.positions_of(store, None, [store.ids[4]])


def test_nets_of_another_experiment_are_refused(exported: Exported, tmp_path: Path):
    names = [path.name for path in exported.folders[0].iterdir() if path.name != "model.json"]
    for name in names:
        (tmp_path / name).write_bytes((exported.folders[0] / name).read_bytes())
    card = Card.read(exported.folders[0])
    for change, words in (({"corpus": "other"}, "'tiny', found 'other'"), ({"stride": 3}, "frame_subsampling=3")):
        dataclasses.replace(card, **change).write(tmp_path, names)
        with pytest.raises(UsageError, match=words):
            candidates.read_folder(tmp_path, exported.config)
    other = {**card.normalisation, "prior_frames": 17.0}
    for change, words in (
        ({"normalisation": other}, "features.prior_frames .*found 17"),
        ({"features": {**card.features, "low_freq": 1}}, "low"),
    ):
        dataclasses.replace(card, **change).write(tmp_path, names)
        with pytest.raises(UsageError, match=words):
            candidates.read_folder(tmp_path, exported.config)
    with pytest.raises(UsageError, match="same name"):
        list(candidates.candidates([exported.folders[0]] * 2, [], exported.config, exported.paths, None))


def test_throughput_counts_every_utterance_once_a_pass():
    class Net:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def scores(self, features, mean, std):
            self.seen.append(len(features))

    nets, items = {"a": Net(), "b": Net()}, [(np.zeros((length, 2)), None, None) for length in range(1, 8)]
    found = throughput(nets, items, 70.0, threads=2, batch=3, repeats=4)
    assert all(sorted(net.seen) == sorted(list(range(1, 8)) * 5) for net in nets.values())
    assert found["a"]["least"] <= found["a"]["median"] <= found["a"]["most"] and found["b"]["batch"] == 3


def test_memory_is_that_of_the_engine(exported: Exported):
    onnx, torch = (memory.peak_memory(exported.folders[0], engine, 50) for engine in ("onnx", "torch"))
    assert 10 < onnx < torch
    with pytest.raises(MeasurementError, match="failed while its memory"):
        memory.peak_memory(exported.folders[0] / "nowhere", "onnx", 50)


def test_the_fastest_within_the_tolerance():
    figures = {"exact": {"wer": 5.0, "seconds": 3.0}, "close": {"wer": 5.1, "seconds": 2.0}, "rough": {"wer": 5.4, "seconds": 1.0}}
    assert [choice.fastest(figures, tolerance) for tolerance in (0.0, 0.1, 0.3, 0.4)] == ["exact", "close", "close", "rough"]


def test_a_choice_is_kept_for_this_processor(exported: Exported, monkeypatch: pytest.MonkeyPatch):
    exported.without_audio(monkeypatch, choice)
    folder = exported.folders[0]
    with pytest.raises(UsageError, match="no engine was chosen"):
        load_engine(folder, "auto")
    value = choice.choose(exported.config, exported.paths, Plan((folder,), ("onnx", "torch")), folder, 0.1)
    assert set(value["figures"]) == {"onnx", "torch"} and value["engine"] == chosen_engine(folder)
    assert value["figures"]["onnx"]["wer"] == read_json(exported.paths.scores("dense"))["dev"]["wer"]
    assert value["engine"] in choice.told(value) and not value["under_load"] and "under load" not in choice.told(value)
    shares = iter([0.0, 1.5])
    monkeypatch.setattr(choice, "check_load", lambda under_load: next(shares))
    loaded = choice.choose(exported.config, exported.paths, Plan((folder,), ("onnx",), under_load=True), folder, 0.1)
    assert loaded["under_load"] and "Measured under load" in choice.told(loaded)
    features = exported.store().utterance(0)
    mean, std = Card.read(folder).training_statistics()
    assert load_engine(folder, "auto").scores(features, mean, std).shape == (len(features), features.shape[1])
    (folder / CHOICE).write_text(json.dumps({**value, "cpu": "another"}))
    with pytest.raises(UsageError, match="another processor"):
        load_engine(folder, "auto")
    (folder / CHOICE).unlink()


def test_shapes_of_products_are_all_multiply_adds(exported: Exported):
    card = Card.read(exported.folders[0])
    size = exported.store().num_features
    assert roofline.shapes_of(card, 9) == [(9, size, size), (9, size, size)]
    dims = {"model": "lstm", "num_features": 4, "widths": [6, 3], "num_outputs": 5, "bidirectional": False, "projected": True}
    dims |= {"output_delay": 0, "subsampling": 1, "layer_norm": False, "splice": 0, "learned_state": False}
    shapes = roofline.shapes_of(dataclasses.replace(card, dims=dims, stride=3), 2)
    # Six steps, two scores.
    assert sorted(shapes) == sorted([(6, 4, 24), *[(1, 3, 24)] * 6, *[(1, 6, 3)] * 6, (2, 3, 5)])


def test_roofline_of_small_nets(exported: Exported, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(roofline, "check_load", lambda under_load: 0.0)
    monkeypatch.setattr(roofline, "LEAST_SECONDS", 1e-4)
    result = roofline.measure(exported.config, exported.paths, Plan((exported.folders[0],), ("onnx", "torch")))
    assert [(row["engine"], row["length"]) for row in result["rows"]] == [(e, s) for s in ("utterance", "part") for e in ("onnx", "torch")]
    for row in result["rows"]:
        assert row["share_of_peak"] == pytest.approx(row["gflops"] / row["peak_gflops"])
    assert "share of the peak" in roofline.markdown(result)


def test_the_command_line(exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path):
    exported.without_audio(monkeypatch, rtf)
    monkeypatch.setattr(verbs, "load", lambda invocation: (exported.config, exported.paths))
    monkeypatch.setattr(verbs, "_check_row", lambda config, paths, row: None)  # the nets here are made, not trained
    monkeypatch.setenv("DROPASR_CALLER_DIR", str(exported.folders[0].parent))
    assert main(["bench", "rtf", "dense", "annealed_dropout", "--engines", "onnx", "--out", str(tmp_path), "--utterances", "6"]) == 0
    assert "6 of 12 utterances" in (tmp_path / "rtf.md").read_text() and read_json(tmp_path / "rtf.json")["scored_utterances"] == 6
    assert "| dense | ONNX Runtime, float32 |" in capsys.readouterr().out
    assert main(["export", "dense", str(tmp_path / "net"), "--licence", "CC0"]) == 0
    assert Card.read(tmp_path / "net").licence == "CC0" and WEIGHTS in capsys.readouterr().out
    wrong = [
        (["bench", "rtf"], "too few words"),
        (["bench", "rft", "dense"], "did you mean 'rtf'"),
        (["bench", "rtf", "dense", "--engines", "onyx"], f"Engines: {', '.join(engine_names())}"),
        (["bench", "rtf", "dense", "--repeats", "1"], "at least 2"),
        (["bench", "auto", "dense", "--tolerance", "x"], "'--tolerance'"),
        (["bench", "rtf", "nowhere"], "nowhere"),
        (["export", "dense"], "row or folder is missing"),
        (["plan", "--licence", "CC0"], "it belongs to package and export"),
    ]
    for command, words in wrong:
        assert main(command) in (1, 2)
        assert words in capsys.readouterr().err
