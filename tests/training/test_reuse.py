"""Trials of a search that are nets of the table are those that training them again would make, and no others."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rows_case import SMALL, tiny_data

from dropasr.config import Row, load_config, rows
from dropasr.files import read_json
from dropasr.models.checkpoint import load_net
from dropasr.training.rate_search import Family, trial_config, with_rates
from dropasr.training.reuse import reuse, training_identity
from dropasr.training.rows import is_trained, row_by_name, train_row

CONF = Path(__file__).resolve().parents[2] / "conf" / "synth_commands.yaml"
FAMILIES = {
    "large": Family(kind="large", methods=["dense", "dropout"]),
    "scratch": Family(kind="small", methods=["dense"]),
    "distilled": Family(kind="small", methods=["distilled"]),
    "removal": Family(kind="compact", methods=["norm_removal", "random_removal"]),
}


def config(*settings: str):
    lists = ("experiment.large=[dense,dropout]", "experiment.small=[dense,distilled]", "experiment.compact=[norm_removal,random_removal]")
    units = ("methods.norm_removal.min_units=1", "methods.random_removal.min_units=1", "experiment.budget_tolerance=0.15")
    rest = ("experiment.budgets=[0.25,0.125]", "train.learning_rate=0.05")
    return load_config(CONF, settings=[*SMALL, "model.width=64", *lists, *units, *rest, *settings])


def train(values, paths, name: str):
    train_row(values, paths, row_by_name(values, name), lambda text: None, lambda figures: None)


def test_chosen_trials_are_the_nets_that_training_again_would_make(tmp_path):
    paths = tiny_data(tmp_path)
    again = replace(paths, exp_dir=tmp_path / "again")
    shutil.copytree(paths.align, again.align)
    rates = {"large": [0.05, 0.2], "scratch": [0.05, 0.1], "distilled": [0.1], "removal": [0.1]}
    trial = trial_config(config(), FAMILIES, rates, 0.125)
    for row in rows(trial):
        train(trial, paths, row.name)
    table = with_rates(config(), FAMILIES, {"large": 0.2, "scratch": 0.1, "distilled": 0.1, "removal": 0.1})
    # What an older net of the row left behind must not be taken for the new one's.
    old = paths.net("dense")
    shutil.copytree(paths.net("dense-rate0.05"), old)
    for name in ("posteriors-train.npy", "training.json", "training-1.safetensors"):
        (old / name).write_bytes(b"old")
    found = reuse(table, trial, paths)
    assert not (old / "posteriors-train.npy").exists() and not list(old.glob("training*"))
    # Neither other budgets, nor methods that were not tried, nor those whose teacher has another rate in the table
    assert sorted(found) == ["dense", "norm_removal@0.125", "small_dense@0.125"]
    assert {row.name for row in rows(table) if is_trained(table, paths, row)} == set(found)
    for name in found:
        train(table, again, name)
        one, other = load_net(paths.net(name)).state_dict(), load_net(again.net(name)).state_dict()
        assert all(torch.equal(one[key], other[key]) for key in other) and one.keys() == other.keys()
        summaries = [read_json(folder.net(name) / "summary.json") for folder in (paths, again)]
        for summary in summaries:
            del summary["train_seconds"], summary["train_cpu_seconds"]
            for figures in summary["history"]:
                del figures["seconds"], figures["cpu_seconds"], figures["frames_per_second"]
        assert summaries[0] == summaries[1]
    assert reuse(table, trial, paths) == []
    # A table whose teacher has the rate of the trials' teacher has the distilled net, too. Rows know their method's other rate, so that
    # the small net is written again.
    usual = with_rates(config(), FAMILIES, {"large": 0.05, "scratch": 0.1, "distilled": 0.1, "removal": 0.1})
    assert sorted(reuse(usual, trial, paths)) == ["dense", "small_dense@0.125", "small_distilled@0.125"]


@pytest.mark.parametrize(
    "other",
    [
        "train.learning_rate=0.1",
        "methods.dense.small_training_rate=0.1",
        "train.epochs=2",
        "experiment.budget_tolerance=0.04",
        "model.width=24",
    ],
)
def test_another_training_is_another_identity(tmp_path, other):
    paths, row = tiny_data(tmp_path), Row("small_dense@0.25", "dense", "small", 0.25)
    identity = training_identity(config(), paths, row)
    assert training_identity(config(other), paths, row) != identity
    assert training_identity(config(), replace(paths, seed=2), row) != identity
    # What the rate of another kind is does not matter, nor by which option the same rate is given.
    assert training_identity(config("methods.dense.training_rate=0.9", "methods.dense.small_training_rate=0.05"), paths, row) == identity
