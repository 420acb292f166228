"""Annealed dropout and the controller of dropout compaction, against what they are defined to do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from removal_case import make_net, run
from scipy import stats

from dropasr.errors import CompactionError, ConfigError
from dropasr.methods import build_method, learns_units, makes_smaller, method_options
from dropasr.methods.base import Schedule


def test_annealed_dropout_rises_linearly_to_one_and_keeps_the_mean():
    method = build_method(
        "annealed_dropout", {"method": "annealed_dropout", "initial_keep": 0.5, "annealed_share": 0.5}, Schedule(10, 1, 0)
    )
    assert [method.keep(epoch) for epoch in range(7)] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])
    net = make_net(widths=[50, 50])
    method.begin_epoch(net, 1, np.random.Generator(np.random.SFC64(0)))
    method.training_mode(net, 1)
    factor = net.gates[0].multiplier(torch.ones(20_000, 50))
    assert factor.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert float(factor.mean()) == pytest.approx(1.0, abs=0.01)
    method.training_mode(net, 6)
    assert net.gates[0].multiplier is None


COMPACTION = {"method": "dropout_compaction", "frames_per_update": 64, "signal_frames": 0, "masks": True}


@pytest.mark.parametrize("target", [0.5, 0.25, 0.125])
def test_controller_meets_the_budget_gradually(target):
    net = make_net(widths=[120] * 3)
    full = net.macs_per_frame()
    _, history = run(net, target, **COMPACTION, start=0.2, end=0.6)
    assert net.macs_per_frame() / full == pytest.approx(target, rel=0.03)
    assert history[1] == [120] * 3 and history[6] == net.widths
    assert any(widths not in ([120] * 3, net.widths) for widths in history), "units must leave while training, not only at the end"
    assert all(gate.multiplier is None for gate in net.gates)


def test_no_layer_collapses_without_the_controller():
    """A prior that drives everything to zero (separatrix above the start) leaves min_units per layer."""
    options = {"controller": "none", "alpha": 0.5, "beta": 0.95, "initial_retention": 0.5, "start": 0.0, "end": 1.0, "min_units": 5}
    net = make_net(widths=[40] * 3)
    run(net, None, **COMPACTION, **options, prior_strength=5.0, learning_rate=0.05, gradient_scale="none")
    assert min(net.widths) == 5 and max(net.widths) < 40


def test_pace_is_the_growth_of_deviations_per_pass():
    net = make_net(widths=[100])
    options = {"method": "dropout_compaction", "pace": 1.2, "learning_rate": 1e-9, "updates_per_pass": 50, "threshold": 1e-6}
    method = build_method("c", options, Schedule(10, 1, 0, 0.5 * net.macs_per_frame()))
    retention = 0.6 + torch.linspace(-1e-4, 1e-4, 100)
    moved = retention
    for _ in range(50):
        moved = method._update(moved, torch.zeros(100), 50)
    growth = float((moved.max() - moved.min()) / (retention.max() - retention.min()))
    assert math.log(growth) == pytest.approx(1.2, rel=0.05)


def test_the_published_update_climbs_evidence_and_prior():
    """`zeta + nu (g + k d log Beta(zeta; alpha, beta) / d zeta)`, the density by scipy; what reaches an end stays there."""
    values = {"alpha": 0.7, "beta": 0.4, "prior_strength": 0.3, "learning_rate": 0.02, "threshold": 0.02}
    options = {"method": "dropout_compaction", "controller": "none", "gradient_scale": "none", **values}
    method = build_method("c", options, Schedule(10, 1, 0))
    retention = torch.tensor([0.0, 0.021, 0.3, 0.5, 0.8, 0.979, 1.0], dtype=torch.float64)
    gradient = torch.tensor([5.0, -1.0, 2.0, -3.0, 0.5, 1.0, -5.0], dtype=torch.float64)
    prior = stats.beta(0.7, 0.4)
    wanted = [0.0]
    for at, slope in zip(retention[1:-1].tolist(), gradient[1:-1].tolist()):
        force = (prior.logpdf(at + 1e-7) - prior.logpdf(at - 1e-7)) / 2e-7
        moved = at + 0.02 * (slope + 0.3 * force)
        wanted.append(0.0 if moved <= 0.02 else 1.0 if moved >= 0.98 else moved)
    found = method._update(retention, gradient, None)
    assert wanted[1] == 0 and wanted[-1] == 1 and 0 < wanted[2] < wanted[4] < 1
    np.testing.assert_allclose(found.numpy(), [*wanted, 1.0], atol=1e-6)


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
