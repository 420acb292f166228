"""Which rows may stand together, and what decides that a row must be trained again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rows_case import SMALL, tiny_data

from dropasr.config import TrainConfig, load_config, rows
from dropasr.data.sequences import TokenSequences
from dropasr.data.store import FrameStoreWriter
from dropasr.errors import ConfigError, DivergedError, StageError
from dropasr.files import read_json
from dropasr.models.checkpoint import load_net
from dropasr.paths import Paths
from dropasr.training import jobs
from dropasr.training.ctc_targets import tokens_file
from dropasr.training.row_checks import check_rows
from dropasr.training.rows import is_trained, row_by_name, row_identity, train_row

CONF = Path(__file__).resolve().parents[2] / "conf" / "synth_commands.yaml"
FREE = "dropout_compaction_published"


def config(*settings):
    return load_config(CONF, settings=list(settings))


def test_rows_of_the_default_table():
    names = [row.name for row in rows(config())]
    assert names == [
        "dense",
        "annealed_dropout",
        "small_dense@0.25",
        "dropout_compaction@0.25",
        "small_dense@0.125",
        "dropout_compaction@0.125",
    ]


def test_a_method_without_controller_makes_one_row_without_budget():
    found = rows(config("experiment.compact=[dropout_compaction_published,dropout_compaction]"))
    compact = [(row.name, row.budget) for row in found if row.kind == "compact"]
    assert compact == [("dropout_compaction@0.25", 0.25), ("dropout_compaction@0.125", 0.125), (FREE, 0.0)]
    assert [row.name for row in rows(config("methods.dropout_compaction.controller=none"))].count("dropout_compaction") == 1


def summary_of(values, paths: Paths, name: str):
    train_row(values, paths, row_by_name(values, name), lambda text: None, lambda figures: None)
    return read_json(paths.net(name) / "summary.json")


def test_rows_may_have_learning_rates_of_their_own(tmp_path):
    rates = ("methods.dense.training_rate=0.2", "methods.dense.small_training_rate=0.3")
    values, paths = config(*SMALL, *rates, "experiment.large=[dense,dropout]", "train.constant_share=1"), tiny_data(tmp_path)
    for name, rate in {"dense": 0.2, "small_dense@0.25": 0.3, "dropout": 0.05}.items():
        assert summary_of(values, paths, name)["history"][0]["learning_rate"] == rate, name
    only = config(*SMALL, rates[0], "train.constant_share=1")
    assert summary_of(only, paths, "small_dense@0.25")["history"][0]["learning_rate"] == 0.2


def test_rows_are_jobs_of_their_own_after_their_teachers(tmp_path, monkeypatch):
    values, paths = config(*SMALL, "experiment.small=[dense,distilled]", "experiment.compact=[norm_removal]"), tiny_data(tmp_path)
    assert [sorted(row.name for row in wave) for wave in jobs.waves(values, paths)] == [
        sorted(["annealed_dropout", "dense", "norm_removal@0.125", "norm_removal@0.25", "small_dense@0.125", "small_dense@0.25"]),
        ["small_distilled@0.125", "small_distilled@0.25"],
    ]
    with pytest.raises(StageError, match="small_distilled@0.25: its teacher 'dense' is not trained.*--row dense"):
        jobs.train_one(values, paths, "small_distilled@0.25")
    with pytest.raises(ConfigError, match="no row 'dens'"):
        jobs.train_one(values, paths, "dens")

    def here(values, paths, wanted, nj):
        for row in wanted:
            train_row(values, paths, row, lambda text: None, lambda figures: None)

    monkeypatch.setattr(jobs, "run_jobs", here)
    jobs.train_one(values, paths, "dense")
    jobs.train_one(values, paths, "small_distilled@0.25")
    (wave,) = jobs.waves(values, paths)
    assert {row.name for row in wave}.isdisjoint({"dense", "small_distilled@0.25"}) and len(wave) == 6


def test_stages_5_and_6_in_one_queue_leave_nothing_to_train(tmp_path):
    removal = ("experiment.small=[dense,distilled]", "experiment.compact=[norm_removal]", "methods.norm_removal.min_units=1")
    values, paths = config(*SMALL, *removal), tiny_data(tmp_path)
    jobs.train_all(values, paths, 2)
    assert jobs.waves(values, paths) == [] and len(rows(values)) == 8


def test_rows_that_diverge_are_named_and_can_be_passed_over(tmp_path):
    diverging = ("methods.norm_removal.training_rate=1e30", "methods.norm_removal.min_units=1")
    values = config(*SMALL, "experiment.compact=[norm_removal]", *diverging)
    paths, wanted = tiny_data(tmp_path), [row for row in rows(values) if row.budget == 0.25]
    assert jobs.run_jobs(values, paths, wanted, 1, spared=DivergedError) == {"norm_removal@0.25"}
    assert [is_trained(values, paths, row) for row in wanted] == [row.kind == "small" for row in wanted] == [True, False]
    with pytest.raises(DivergedError, match="training diverged. Lower the learning rate"):
        jobs.run_jobs(values, paths, wanted, 1)


def test_figures_on_dev_are_those_of_the_present_dev(tmp_path):
    """A net is not trained again for another dev; its figures are those that training with that dev would have given."""
    values = config(*SMALL, "experiment.large=[dense]", "experiment.small=[]", "experiment.compact=[]")
    paths, other = tiny_data(tmp_path / "a"), tiny_data(tmp_path / "b")
    write_dev(other, 5)
    for place in (paths, other):
        summary_of(values, place, "dense")
    wanted, path = rows(values), paths.net("dense") / "summary.json"
    before = read_json(path)
    jobs.run_jobs(values, paths, wanted, 1)
    assert read_json(path) == before
    write_dev(paths, 5)
    jobs.run_jobs(values, paths, wanted, 1)
    after, fresh = read_json(path), read_json(other.net("dense") / "summary.json")
    assert after["dev"] == fresh["dev"] != before["dev"]
    for name in ("dev_ce", "dev_frame_error"):
        assert after["history"][-1][name] == pytest.approx(fresh["history"][-1][name]) != before["history"][-1][name]
    assert after["history"][-1]["train_ce"] == before["history"][-1]["train_ce"]


def write_dev(paths: Paths, seed: int) -> None:
    """Other frames for dev."""
    with FrameStoreWriter(paths.features("dev"), 8, "float32") as writer:
        for number in range(10):
            values = np.random.default_rng([seed, number]).standard_normal((20, 8)).astype(np.float32)
            writer.add(f"dev{number}", f"s{number}", ["A"], 0.2, values)


def test_students_of_a_net_that_diverges_are_passed_over_with_it(tmp_path):
    """They do not learn from a net of another configuration that lies where their teacher's would."""
    settings = (*SMALL, "experiment.small=[dense,distilled]", "experiment.compact=[]")
    before, paths = config(*settings, "train.momentum=0.0"), tiny_data(tmp_path)
    train_row(before, paths, row_by_name(before, "dense"), lambda text: None, lambda figures: None)
    values = config(*settings, "methods.dense.training_rate=1e30")
    names = {"dense", "small_distilled@0.25"}
    assert jobs.run_jobs(values, paths, [row for row in rows(values) if row.name in names], 1, spared=DivergedError) == names
    with pytest.raises(StageError, match="no net 'dense' of this configuration to learn from"):
        train_row(values, paths, row_by_name(values, "small_distilled@0.25"), lambda text: None, lambda figures: None)


@pytest.mark.parametrize("method", ["l0_hard_concrete", "svd", "dense"])
def test_every_method_says_that_it_diverged(tmp_path, method):
    compact = "norm_removal" if method == "dense" else method
    smallest = [] if method == "svd" else [f"methods.{compact}.min_units=1"]
    values = config(*SMALL, f"experiment.compact=[{compact}]", f"methods.{method}.training_rate=1e30", *smallest)
    name = "dense" if method == "dense" else f"{method}@0.25"
    with pytest.raises(DivergedError, match="training diverged"):
        train_row(values, tiny_data(tmp_path), row_by_name(values, name), lambda text: None, lambda figures: None)


def test_a_summary_counts_what_is_not_0(tmp_path):
    values, paths = config(*SMALL, "experiment.large=[dense,targeted_weight_dropout]"), tiny_data(tmp_path)
    dense, sparse = (summary_of(values, paths, name) for name in ("dense", "targeted_weight_dropout"))
    inputs = 17 * 8  # one layer of 16 units reads them; of each unit, int(0.9 * 136) weights are 0 in the end
    assert dense["nonzeros"] > 0.95 * dense["parameters"]
    assert 16 * (inputs - 122) + 16 <= sparse["nonzeros"] <= sparse["parameters"] - 16 * 122


def test_a_summary_says_which_inputs_are_left(tmp_path):
    values = config(*SMALL, "train.epochs=2", "experiment.compact=[input_compaction]", "methods.input_compaction.min_units=1")
    paths = tiny_data(tmp_path)
    assert summary_of(values, paths, "dense")["inputs_left"] is None
    left = summary_of(values, paths, "input_compaction@0.25")["inputs_left"]
    net = load_net(paths.net("input_compaction@0.25"))
    assert (left["num_features"], left["context"]) == (8, [8, 8]) and 0 < len(left["inputs"]) < 17 * 8
    frames = torch.randn(40, 17 * 8)
    unread = [entry for entry in range(17 * 8) if entry not in left["inputs"]]
    changed = frames.clone()
    changed[:, unread] += 10.0
    read = frames.clone()
    read[:, left["inputs"][:1]] += 10.0
    with torch.no_grad():
        assert torch.equal(net(frames), net(changed)) and not torch.equal(net(frames), net(read))


def test_a_row_without_budget_keeps_the_size_that_it_learned(tmp_path):
    published = [f"methods.{FREE}.{value}" for value in ("passes=1", "updates_per_pass=1", "signal_frames=0", "frames_per_update=16")]
    values, paths = config(*SMALL, f"experiment.compact=[{FREE}]", *published), tiny_data(tmp_path)
    row = row_by_name(values, FREE)
    train_row(values, paths, row, lambda text: None, lambda figures: None)
    summary = read_json(paths.net(FREE) / "summary.json")
    assert summary["budget"] == 0.0 and 0 < summary["macs_share"] <= 1
    assert is_trained(values, paths, row)


@pytest.mark.parametrize(
    "setting,message",
    [
        ("experiment.large=[dense,dropout_compaction]", "belongs under experiment.compact"),
        ("experiment.compact=[dense]", "does not make nets smaller"),
        ("methods.dropout_compaction.teacher=dens", "not among experiment.large"),
        ("methods.dropout_compaction.teacher=dense", "Add 'distilled' to experiment.small"),
    ],
)
def test_unfair_or_senseless_tables_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        check_rows(config(setting))


METHODS = "experiment.compact=[dropout_compaction,norm_removal,random_removal,dropout_compaction_published]"


@pytest.mark.parametrize("key,value", [("start", 0.05), ("end", 0.5), ("passes", 4), ("min_units", 3)])
def test_compared_methods_share_their_schedule(key, value):
    check_rows(config(METHODS))
    with pytest.raises(
        ConfigError, match=f"'norm_removal' has {key} {value}, but 'dropout_compaction' has .*Set methods.norm_removal.{key}="
    ):
        check_rows(config(METHODS, f"methods.norm_removal.{key}={value}"))
    labels = ("dropout_compaction", "norm_removal", "random_removal")
    check_rows(config(METHODS, *(f"methods.{label}.{key}={value}" for label in labels)))


TAUGHT = ("experiment.compact=[dropout_compaction,distilled_compaction]", "experiment.small=[dense,distilled]")


def test_what_a_compacted_net_is_taught_a_net_from_scratch_is_taught_too():
    check_rows(config("methods.dropout_compaction.teacher=dense", "experiment.small=[dense,distilled]"))
    check_rows(config(*TAUGHT))
    check_rows(config(*TAUGHT, *(f"methods.{label}.teacher=annealed_dropout" for label in ("distilled", "distilled_compaction"))))
    with pytest.raises(ConfigError, match="'distilled_compaction' learns from 'dense'.*found none.*methods.distilled.teacher=dense"):
        check_rows(config(*TAUGHT, "methods.distilled.teacher=annealed_dropout"))
    with pytest.raises(ConfigError, match="'distilled_compaction' has teacher_weight 0.5, but 'dropout_compaction', which.* has 0.7. Set"):
        taught = ("methods.dropout_compaction.teacher=dense", "methods.distilled_compaction.teacher_weight=0.5")
        check_rows(config(*TAUGHT, *taught))
    with pytest.raises(ConfigError, match="has teacher_weight 0.7, but those from scratch that learn from 'dense' have 0.1"):
        check_rows(config(*TAUGHT, "methods.distilled.teacher_weight=0.1"))


def test_identity_changes_with_what_decides_a_row_and_nothing_else(tmp_path):
    paths = Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1)
    with FrameStoreWriter(paths.features("train"), 2, "float32") as writer:
        writer.add("u", "s", ["A"], 0.1, np.zeros((10, 2), dtype=np.float32))
    paths.align.mkdir(parents=True, exist_ok=True)
    np.save(paths.align / "train.npy", np.zeros(10, dtype=np.int32))

    def identity(name, *settings, seed=1):
        values = config(*settings)
        return row_identity(values, Paths(paths.data_dir, paths.exp_dir, "feedforward", seed), row_by_name(values, name))

    base = identity("small_dense@0.25")
    assert base == identity("small_dense@0.25", "experiment.budgets=[0.5,0.25]", "decode.beam=5")
    assert base == identity("small_dense@0.25", "methods.dropout_compaction.estimator=score")
    assert base == identity("small_dense@0.25", "train.frame_subsampling=3", "train.batch_frames=50", "train.flat_start=0.3")
    assert base != identity("small_dense@0.25", "train.epochs=5")
    assert base != identity("small_dense@0.25", "train.chunk_frames=50")
    assert base != identity("small_dense@0.25", "model.width=512")
    assert base != identity("small_dense@0.25", seed=2)
    distilled = ("experiment.small=[dense,distilled]", "experiment.large=[dense,annealed_dropout]")
    with_teacher = identity("small_distilled@0.25", *distilled)
    assert with_teacher != identity("small_distilled@0.25", *distilled, "methods.dense.teacher_weight=0.5")
    np.save(paths.align / "train.npy", np.ones(10, dtype=np.int32))
    assert base != identity("small_dense@0.25")
    TokenSequences.from_lists([[1]]).save(tokens_file(paths, "train"))
    ctc = ("train.criterion=ctc", "lang.units=chars")
    changes = ("train.frame_subsampling=3", "train.batch_frames=50", "train.flat_start=0.3")
    assert len({identity("dense", *ctc), *(identity("dense", *ctc, change) for change in changes)}) == 4
    assert identity("dense", *ctc) == identity("dense", *ctc, "train.chunk_frames=50", "train.chunk_batch_frames=50")


def test_the_usual_pieces_leave_the_identity_of_older_nets_as_it_was():
    for criterion in ("frames", "ctc"):
        assert not [key for key in TrainConfig(criterion=criterion).training_values() if key.startswith("chunk")]
    assert TrainConfig(chunk_batch_frames=50).training_values()["chunk_batch_frames"] == 50
