"""Nets that read sequences in the one training loop: every method and estimator, teachers, both frame rates, whole rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rows_case import tiny_data

from dropasr.config import load_config
from dropasr.data.chunks import ChunkSampler
from dropasr.errors import ConfigError
from dropasr.files import read_json
from dropasr.methods.base_removal import GradualRemoval
from dropasr.models.checkpoint import load_net
from dropasr.training import criteria
from dropasr.training.criteria import make_criterion
from dropasr.training.row_checks import check_rows
from dropasr.training.rows import is_trained, row_by_name, train_row
from dropasr.training.teacher import FileTeacher, NetTeacher, write_posteriors

sys.path.insert(0, str(Path(__file__).parent))
from training_case import FOR_FEED_FORWARD_NETS, METHODS, ToyRecurrent, make_store, make_trainer  # noqa: E402 (the folder above is on the path only now)

CONF = Path(__file__).resolve().parents[2] / "conf" / "synth_commands.yaml"


@pytest.mark.parametrize("method", [name for name in METHODS if name not in FOR_FEED_FORWARD_NETS])
def test_every_method_learns_frames_in_pieces(tmp_path, method):
    trainer = make_trainer(tmp_path, method, "chunks", epochs=8)
    large = trainer.net.macs_per_frame()
    net = trainer.run()
    assert trainer.history[-1]["dev_frame_error"] < 30  # six classes: chance is 83 %
    if trainer.method.makes_smaller:
        assert abs(net.macs_per_frame() / (0.3 * large) - 1) < 0.1  # 32 units: one unit is 8 % of the budget
    if isinstance(trainer.method, GradualRemoval):
        assert trainer.compactions and trainer.compactions[-1]["units_after"] == net.widths
        assert all(step["max_difference"] <= 1e-4 * step["largest_logit"] for step in trainer.compactions)


def test_utterances_as_pieces_learn_tokens(tmp_path):
    trainer = make_trainer(tmp_path, "dropout_compaction", "ctc_chunks", epochs=40)
    trainer.run()
    first, last = trainer.history[0], trainer.history[-1]
    assert last["dev_ce"] < 0.75 * first["dev_ce"] and last["dev_frame_error"] < first["dev_frame_error"]


@pytest.mark.parametrize("estimator", ["score", "mean_field", "gumbel_st"])
def test_every_estimator_learns_from_pieces_and_notes_its_signal(tmp_path, estimator, monkeypatch):
    options = {**METHODS["dropout_compaction"], "estimator": estimator, "signal_updates": True, "passes": 2, "updates_per_pass": 3}
    monkeypatch.setitem(METHODS, "dropout_compaction", options)
    trainer = make_trainer(tmp_path, "dropout_compaction", "chunks")
    trainer.run()
    held_out = trainer.samplers.held_out
    assert [(item["pass"], item["update"]) for item in trainer.signals] == [(p, u) for p in (1, 2) for u in range(3)]
    # 128 frames asked for, in pieces of 12: frames are told, not pieces.
    assert all(128 <= item["frames"] < 128 + 12 for item in trainer.signals)
    assert all(256 <= figures["frames"] <= held_out.num_rows for figures in trainer.estimators.values())


def test_figures_are_those_of_all_scored_frames(tmp_path):
    trainer = make_trainer(tmp_path, "dense", "chunks")
    sampler, net = trainer.samplers.all, trainer.net.eval()
    chunks, labels, _ = sampler.gather(sampler.items)
    with torch.no_grad():
        posteriors = torch.softmax(net(chunks), dim=1).double()
    loss, error = make_criterion(trainer.config).figures(net, sampler, trainer.config)
    assert loss == pytest.approx(-float(posteriors[torch.arange(len(labels)), labels].log().mean()), rel=1e-5)
    assert error == pytest.approx(100 * float((posteriors.argmax(dim=1) != labels).double().mean()), rel=1e-6)


@pytest.mark.parametrize("kind", ["frames", "chunks"])
def test_the_last_figures_are_those_of_all_of_dev(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(criteria, "FRAMES", 20)
    trainer = make_trainer(tmp_path, "dense", kind)
    net, dev = trainer.run(), trainer.samplers.dev
    inputs, labels, _ = dev.gather(dev.items)
    part = sum(len(labels) for _, labels, _ in dev.sample(20))
    assert part < len(labels)
    with torch.no_grad():
        whole = float(torch.nn.functional.cross_entropy(net(inputs).double(), labels))
    assert trainer.history[-1]["dev_ce"] == pytest.approx(whole, rel=1e-5)
    assert make_criterion(trainer.config).figures(net, dev, trainer.config)[0] != pytest.approx(whole, rel=1e-5)


def test_the_last_figures_with_ctc_are_those_of_all_of_dev(tmp_path, monkeypatch):
    monkeypatch.setattr(criteria, "SEQUENCE_FRAMES", 20)
    trainer = make_trainer(tmp_path, "dense", "ctc_chunks")
    net, dev = trainer.run(), trainer.samplers.dev
    inputs, targets, _ = dev.gather(dev.items)
    assert sum(len(part.tokens) for _, part, _ in dev.sample(20)) < len(targets.tokens)
    with torch.no_grad():
        log_posteriors = torch.log_softmax(net(inputs).double(), dim=1).split(targets.frames.tolist())
    losses = [
        torch.nn.functional.ctc_loss(scores, tokens, torch.tensor(len(scores)), torch.tensor(len(tokens)), reduction="sum")
        for scores, tokens in zip(log_posteriors, targets.tokens.split(targets.lengths.tolist()))
    ]
    assert trainer.history[-1]["dev_ce"] == pytest.approx(float(sum(losses)) / len(targets.tokens), rel=1e-4)


def test_posteriors_of_a_teacher_are_those_of_whole_utterances(tmp_path):
    store, labels = make_store(tmp_path / "store", utterances=5)
    torch.manual_seed(0)
    net = ToyRecurrent(8, 10, 6, (60, 0)).eval()
    write_posteriors(net, store, tmp_path / "posteriors.npy", "float32")
    teacher = FileTeacher(tmp_path / "posteriors.npy")
    # With the whole past around each piece, a net on pieces says the same.
    other = NetTeacher(net, "float32")
    for chunks, _, indices in ChunkSampler(store, labels, net.context, 20, 150).epoch(0):
        torch.testing.assert_close(teacher(chunks, indices), other(chunks, indices), rtol=0, atol=2e-3)


def test_a_teacher_is_learned_from_in_pieces(tmp_path):
    trainer = make_trainer(tmp_path, "dense", "chunks", epochs=3)
    store, _ = make_store(tmp_path / "other")
    write_posteriors(make_trainer(tmp_path / "teacher", "dense", "chunks", epochs=3).run(), store, tmp_path / "posteriors.npy", "float32")
    trainer.teacher = FileTeacher(tmp_path / "posteriors.npy")
    trainer.method.options = trainer.method.options.model_copy(update={"teacher_weight": 1.0})
    trainer.run()
    assert trainer.history[-1]["dev_frame_error"] < 50  # no label was seen


def config(*settings, **model):
    values = load_config(CONF, settings=["features.num_mel_bins=8", "train.epochs=2", *settings])
    return values.model_copy(update={"model": {"name": "toy_recurrent", "width": 40, **model}})


def test_the_rate_of_the_net_is_that_of_its_evaluation():
    check_rows(config())
    check_rows(config("train.frame_subsampling=3", subsampling=3))
    with pytest.raises(ConfigError, match=r"frame_subsampling: expected 3.*'toy_recurrent'.*found 1. Set train.frame_subsampling=3"):
        check_rows(config(subsampling=3))
    with pytest.raises(ConfigError, match=r"frame_subsampling: expected 1.*found 3"):
        check_rows(config("train.frame_subsampling=3"))
    check_rows(load_config(CONF, settings=["train.frame_subsampling=3"]))


@pytest.mark.parametrize("stride", [1, 3])
def test_rows_of_a_table(tmp_path, stride):
    """Small, distilled and compacted; the small net is trained from the posteriors of the large one."""
    rows = ["experiment.small=[dense,distilled]", "experiment.budgets=[0.5]", "experiment.budget_tolerance=0.1"]
    learning = [f"methods.dropout_compaction.{value}" for value in ("passes=2", "updates_per_pass=1", "signal_frames=64", "teacher=dense")]
    pieces = ["train.chunk_frames=10", "train.chunk_batch_frames=60", "train.held_out=0.2", "train.epoch_share=1"]
    options = [f"train.frame_subsampling={stride}", *pieces]
    values = config(*rows, *learning, *options, subsampling=stride)
    check_rows(values)
    paths = tiny_data(tmp_path, "toy_recurrent", frames=32, label_frames=4)
    for name in ("dense", "small_distilled@0.5", "dropout_compaction@0.5"):
        train_row(values, paths, row_by_name(values, name), lambda text: None, lambda figures: None)
        summary = read_json(paths.net(name) / "summary.json")
        assert is_trained(values, paths, row_by_name(values, name)) and summary["history"][-1]["frames_per_second"] > 0
        assert load_net(paths.net(name)).stride == stride and summary["teacher"] == (None if name == "dense" else "dense")
    # An epoch of the large net stands for all 320 frames, on the slower grids give or take one step of 3 for each of 30 pieces.
    first = read_json(paths.net("dense") / "summary.json")["history"][0]
    assert abs(round(first["frames_per_second"] * first["seconds"]) - 320) <= (0 if stride == 1 else 90)
    kept = paths.net("dense") / "posteriors-train.npy"
    assert kept.exists() == (stride == 1), "on other grids the teacher says other things"
    assert stride > 1 or np.load(kept).any(axis=1).all()


def test_multiply_adds_of_a_step_are_those_of_all_frames_that_it_scores(tmp_path):
    model = [f"model.{value}" for value in ("cells=6", "layers=1", "subsampling=3", "frame_outputs=true", "output_delay=1")]
    options = ["features.num_mel_bins=8", "train.epochs=1", "train.chunk_batch_frames=60", "train.epoch_share=1"]
    values = load_config(CONF, model="lstm", settings=[*model, *options])
    paths = tiny_data(tmp_path, "lstm", frames=32, label_frames=4)
    train_row(values, paths, row_by_name(values, "dense"), lambda text: None, lambda figures: None)
    units = load_net(paths.net("dense")).dims["num_outputs"]
    per_step = 4 * 6 * (3 * 8 + 6) + 6 * 3 * units
    assert read_json(paths.net("dense") / "summary.json")["macs_per_frame"] == round(per_step / 3)
