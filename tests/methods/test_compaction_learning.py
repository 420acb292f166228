"""Retention learning of dropout compaction on nets of which it is known which units matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dropasr.methods import build_method
from dropasr.methods.base import HeldOut, Schedule
from dropasr.models.feedforward import FeedForward

USEFUL, DEAD = 6, 18


@torch.no_grad()
def planted(seed):
    """A net that names the largest of its inputs by one unit per input and layer, all of them needed, and the biases of those units.

    The other units read the inputs at random, and what they pass on is weak noise. Surgery leaves biases alone, so they tell units apart.
    """
    torch.manual_seed(seed)
    net = FeedForward(USEFUL, (0, 0), [USEFUL + DEAD] * 2, USEFUL)
    places = [torch.randperm(USEFUL + DEAD)[:USEFUL] for _ in range(2)]
    for layer in net.hidden:
        layer.bias.copy_(0.5 + torch.rand(USEFUL + DEAD))
    for layer in (net.hidden[1], net.output):
        layer.weight.mul_(0.02)
    net.hidden[0].weight[places[0]] = torch.eye(USEFUL)
    net.hidden[1].weight[places[1][:, None], places[0]] = torch.eye(USEFUL)
    net.output.weight[:, places[1]] = 2 * torch.eye(USEFUL)
    for layer, place in zip(net.hidden, places):
        layer.bias[place] = 1 + torch.arange(USEFUL) / 1000
    return net, [set(layer.bias[place].tolist()) for layer, place in zip(net.hidden, places)]


def draw(generator, count):
    inputs = torch.from_numpy(generator.standard_normal((count, USEFUL)).astype(np.float32))
    return inputs, inputs.argmax(dim=1)


HELD_OUT = HeldOut(draw, 10_000)


@pytest.mark.parametrize("estimator,frames,lost", [("mean_field", 256, 0), ("gumbel_st", 512, 0), ("score", 2048, 1)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_useful_units_survive(estimator, frames, lost, seed):
    """Every layer is cut to the number of planted units; at most `lost` of them per layer leave, where chance would keep one or two."""
    net, useful = planted(seed)
    options = {"estimator": estimator, "frames_per_update": frames, "signal_frames": 0, "start": 0.2, "end": 1.0, "min_units": 2}
    target = float(net.macs_per_frame([USEFUL, USEFUL]))
    method = build_method("c", {"method": "dropout_compaction", **options}, Schedule(10, 1, 0, target))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for epoch in range(10):
        method.begin_epoch(net, epoch, np.random.Generator(np.random.SFC64([seed, epoch])))
        method.training_mode(net, epoch)
        method.after_step(net, epoch, 0, optimiser, HELD_OUT)
    assert net.widths == [USEFUL, USEFUL]
    survivors = [useful_ & set(layer.bias.tolist()) for layer, useful_ in zip(net.hidden, useful)]
    assert min(map(len, survivors)) >= USEFUL - lost


@pytest.mark.parametrize("pace", [0.1, 3.0])
def test_on_an_even_path_units_leave_in_equal_parts_whatever_the_pace(pace):
    """24 units become 6 over six passes, three at a time, by a prior that is too slow as well as by one that is too fast for that."""
    net, useful = planted(seed=0)
    options = {"path": "even", "pace": pace, "frames_per_update": 256, "signal_frames": 0, "start": 0.0, "end": 0.75, "passes": 6}
    target = float(net.macs_per_frame([USEFUL, USEFUL]))
    method = build_method("c", {"method": "dropout_compaction", "min_units": 2, **options}, Schedule(8, 1, 0, target))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    widths = []
    for epoch in range(8):
        method.begin_epoch(net, epoch, np.random.Generator(np.random.SFC64([0, epoch])))
        method.training_mode(net, epoch)
        method.after_step(net, epoch, 0, optimiser, HELD_OUT)
        widths.append(net.widths)
    assert widths == [[units, units] for units in (21, 18, 15, 12, 9, 6, 6, 6)]
    assert all(len(useful_ & set(layer.bias.tolist())) >= USEFUL - 1 for layer, useful_ in zip(net.hidden, useful))


@pytest.mark.parametrize("activation,batch_norm", [("relu", False), ("sigmoid", True)])
def test_the_warm_start_leaves_the_expectation_scaled_logits(activation, batch_norm):
    torch.manual_seed(0)
    net = FeedForward(8, (1, 1), [20, 30], 6, activation, batch_norm).eval()
    spliced = torch.randn(50, 3 * 8)
    options = {"method": "dropout_compaction", "initial_retention": 0.6}
    method = build_method("c", options, Schedule(10, 1, 0, 0.5 * net.macs_per_frame()))
    with torch.no_grad():
        before = net(spliced)
        method.begin_removal(net, trained=True)
        method.inference_mode(net)
        assert all(bool((gate.multiplier == 0.6).all()) for gate in net.gates)
        assert torch.allclose(net(spliced), before, rtol=1e-4, atol=1e-5)


def test_the_signal_is_measured_before_the_first_pass_even_if_two_fall_on_one_step():
    net, _ = planted(seed=1)
    options = {"signal_frames": 64, "frames_per_update": 32, "start": 0.0, "end": 1.0, "passes": 9}
    method = build_method("c", {"method": "dropout_compaction", **options}, Schedule(4, 1, 0, 0.5 * net.macs_per_frame()))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for epoch in range(2):
        method.begin_epoch(net, epoch, np.random.default_rng(epoch))
        method.training_mode(net, epoch)
        method.after_step(net, epoch, 0, optimiser, HELD_OUT)
        assert set(method.report.estimators) == ({"score", "mean_field", "gumbel_st"} if epoch == 0 else set())
