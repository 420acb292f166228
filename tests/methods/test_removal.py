"""Removal of units by lot and by norm, on the schedule of dropout compaction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dropasr.compaction.unit_statistics import unit_norms
from dropasr.errors import CompactionError
from dropasr.methods import build_method, makes_smaller
from dropasr.methods.base import HeldOut, Schedule
from dropasr.models.feedforward import FeedForward

HELD_OUT = HeldOut(lambda generator, count: (torch.randn(count, 12), torch.zeros(count, dtype=torch.long)), 1000)


def run(name, widths=(60, 40), target=0.25, epochs=10, steps=6, seed=0, **options):
    torch.manual_seed(0)
    net = FeedForward(4, (1, 1), list(widths), 5)
    values = {"method": name, "start": 0.2, "end": 0.6, "passes": 4, "min_units": 2, **options}
    method = build_method(name, values, Schedule(epochs, steps, seed, target * net.macs_per_frame()))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    history = []
    for epoch in range(epochs):
        method.begin_epoch(net, epoch, np.random.Generator(np.random.SFC64([seed, epoch])))
        method.training_mode(net, epoch)
        for step in range(steps):
            method.after_step(net, epoch, step, optimiser, HELD_OUT)
            assert all(gate.multiplier is None for gate in net.gates), "nothing is dropped at random in training"
        history.append(list(net.widths))
    method.finish(net, HELD_OUT.draw(None, 64)[0], HELD_OUT)
    return net, method, history


@pytest.mark.parametrize("name", ["random_removal", "norm_removal"])
@pytest.mark.parametrize("target", [0.5, 0.125])
def test_the_budget_is_met_in_even_steps(name, target):
    net, method, history = run(name, widths=(120, 120), target=target)
    full = FeedForward(4, (1, 1), [120, 120], 5).macs_per_frame()
    assert makes_smaller(name, {"method": name})
    assert net.macs_per_frame() / full == pytest.approx(target, rel=0.03)
    removed = -np.diff([120, *(widths[0] for widths in history)])
    assert removed[:2].tolist() == [0, 0] and removed[6:].tolist() == [0] * 4
    assert removed[2:6].min() > 0 and removed.max() - removed[2:6].min() <= 1
    assert not method.holds_out(3)


def test_several_removals_may_fall_on_one_step():
    net, method, _ = run("random_removal", steps=1, passes=16)
    assert net.widths == method.targets


def test_the_last_step_of_a_short_run_removes_no_more_than_wanted():
    # One step is longer than what is left until `end`: 1.6 epochs begin in the second step and end in the third.
    net, method, _ = run("random_removal", epochs=6, steps=1, start=0.1, end=0.25, passes=9)
    assert net.widths == method.targets


def test_the_lot_depends_on_the_seed():
    first, again, other = (run("random_removal", seed=seed)[0].hidden[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_units_with_the_smallest_outgoing_norm_leave():
    torch.manual_seed(0)
    full = FeedForward(4, (1, 1), [60, 40], 5)
    norms = full.hidden[1].weight.norm(dim=0)
    assert torch.allclose(unit_norms(full.unit_groups()[0], makes=False, reads=True), norms)
    net, method, _ = run("norm_removal", passes=1)
    best = norms.topk(method.targets[0]).indices.sort().values
    assert torch.equal(net.hidden[0].weight, full.hidden[0].weight[best])


def test_a_budget_is_needed():
    with pytest.raises(CompactionError, match="random_removal needs a budget"):
        build_method("r", {"method": "random_removal"}, Schedule(10, 1, 0))
