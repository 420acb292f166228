"""Annealed dropout and the controller of dropout compaction, against what they are defined to do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dropasr.errors import CompactionError, ConfigError
from dropasr.methods import build_method, learns_units, makes_smaller, method_options
from dropasr.methods.base import HeldOut, Schedule
from dropasr.models.feedforward import FeedForward


def net_of(widths):
    torch.manual_seed(0)
    return FeedForward(range(4), (1, 1), widths, 5)


def held_out(net):
    def draw(generator, count):
        inputs = torch.from_numpy(generator.standard_normal((count, 12)).astype(np.float32))
        return inputs, torch.from_numpy(generator.integers(0, 5, count))

    return HeldOut(draw, 1000)


def test_annealed_dropout_rises_linearly_to_one_and_keeps_the_mean():
    method = build_method(
        "annealed_dropout", {"method": "annealed_dropout", "initial_keep": 0.5, "annealed_share": 0.5}, Schedule(10, 1, 0)
    )
    assert [method.keep(epoch) for epoch in range(7)] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])
    net = net_of([50, 50])
    method.begin_epoch(net, 1, np.random.Generator(np.random.SFC64(0)))
    method.training_mode(net, 1)
    factor = net.gates[0].multiplier(torch.ones(20_000, 50))
    assert factor.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert float(factor.mean()) == pytest.approx(1.0, abs=0.01)
    method.training_mode(net, 6)
    assert net.gates[0].multiplier is None


def run_compaction(options, widths=(40, 40, 40), target=None, epochs=10, steps=6):
    net = net_of(list(widths))
    target_macs = None if target is None else target * net.macs_per_frame()
    method = build_method(
        "c",
        {"method": "dropout_compaction", "frames_per_update": 64, "signal_frames": 0, **options},
        Schedule(epochs, steps, 0, target_macs),
    )
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    history = []
    for epoch in range(epochs):
        method.begin_epoch(net, epoch, np.random.Generator(np.random.SFC64([0, epoch])))
        method.training_mode(net, epoch)
        for step in range(steps):
            method.after_step(net, epoch, step, optimiser, held_out(net))
        history.append(list(net.widths))
    method.finish(net, held_out(net).draw(np.random.default_rng(0), 64)[0])
    return net, method, history


@pytest.mark.parametrize("target", [0.5, 0.25, 0.125])
def test_controller_meets_the_budget_gradually(target):
    net, method, history = run_compaction({"start": 0.2, "end": 0.6, "min_units": 2}, widths=(120, 120, 120), target=target)
    full = net_of([120] * 3).macs_per_frame()
    assert net.macs_per_frame() / full == pytest.approx(target, rel=0.03)
    assert history[1] == [120] * 3 and history[6] == net.widths
    assert any(widths not in ([120] * 3, net.widths) for widths in history), "units must leave while training, not only at the end"
    assert all(gate.multiplier is None for gate in net.gates)


def test_no_layer_collapses_without_the_controller():
    """A prior that drives everything to zero (separatrix above the start) leaves min_units per layer."""
    options = {"controller": "none", "alpha": 0.5, "beta": 0.95, "initial_retention": 0.5, "start": 0.0, "end": 1.0, "min_units": 5}
    net, _, _ = run_compaction({**options, "prior_strength": 5.0, "learning_rate": 0.05, "gradient_scale": "none"})
    assert min(net.widths) == 5 and max(net.widths) < 40


def test_pace_is_the_growth_of_deviations_per_pass():
    net = net_of([100])
    options = {"method": "dropout_compaction", "pace": 1.2, "learning_rate": 1e-9, "updates_per_pass": 50, "threshold": 1e-6}
    method = build_method("c", options, Schedule(10, 1, 0, 0.5 * net.macs_per_frame()))
    retention = 0.6 + torch.linspace(-1e-4, 1e-4, 100)
    moved = retention
    for _ in range(50):
        moved = method._update(moved, torch.zeros(100), 50)
    growth = float((moved.max() - moved.min()) / (retention.max() - retention.min()))
    assert math.log(growth) == pytest.approx(1.2, rel=0.05)


def test_refusals():
    with pytest.raises(CompactionError, match="budget"):
        build_method("c", {"method": "dropout_compaction"}, Schedule(10, 1, 0))
    with pytest.raises(CompactionError, match="end"):
        build_method("c", {"method": "dropout_compaction", "start": 0.5, "end": 0.4}, Schedule(10, 1, 0, 10.0))
    with pytest.raises(ConfigError, match="did you mean 'estimator'"):
        method_options("c", {"method": "dropout_compaction", "estimater": "score"})
    with pytest.raises(ConfigError, match="did you mean 'dropout_compaction'"):
        method_options("c", {"method": "dropout_compation"})
    assert makes_smaller("c", {"method": "dropout_compaction"}) and not makes_smaller("d", {"method": "dense"})


def test_methods_that_remove_units_without_learning_which_are_controls():
    assert learns_units("c", {"method": "dropout_compaction"}) and learns_units("c", {"method": "dropout_compaction", "estimator": "score"})
    controls = ({"method": "dropout_compaction", "estimator": "random"}, {"method": "random_removal"}, {"method": "norm_removal"})
    assert not any(learns_units("control", values) for values in controls)
