"""Inputs that leave as units do: how many, which, exactly, and where it is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dropasr.adapt.adapter import Adapter
from dropasr.errors import ConfigError
from dropasr.methods import build_method, check_method
from dropasr.methods.base import HeldOut, Schedule
from dropasr.models.base import widths_for_budget
from dropasr.models.checkpoint import load_net, save_net
from dropasr.models.feedforward import FeedForward

sys.path.insert(0, str(Path(__file__).parent))
from removal_case import make_net, run  # noqa: E402 (the folder is on the path only now)

USERS_NET = Adapter.of(nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3))).net(torch.float32)
METHODS = ["online_compaction", "dropout_compaction", "norm_removal", "l0_hard_concrete"]


@pytest.mark.parametrize("power", [0.0, 0.25, 1.0])
def test_inputs_that_stay_are_a_power_of_the_units_that_stay(power: float):
    net = FeedForward(40, (8, 8), [512] * 4, 130)
    full = net.macs_per_frame()
    net.gate_inputs()
    inputs, *hidden = widths_for_budget(net, 0.125 * full, powers=[power, 1, 1, 1, 1])
    assert inputs * hidden[0] + sum(a * b for a, b in zip(hidden, hidden[1:])) + hidden[-1] * 130 == pytest.approx(full / 8, rel=0.01)
    assert inputs / 680 == pytest.approx((hidden[1] / 512) ** power, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_the_net_meets_its_budget_with_fewer_inputs_and_is_an_ordinary_one(method: str, tmp_path: Path):
    net = make_net()
    full = net.macs_per_frame()
    trained, history = run(net, 0.3, method=method, masks=True, input_power=0.5, start=0.1, end=0.6)
    assert len(history[1]) == 3 and history[1][0] <= 12  # the inputs stand first while they may leave, and then no more
    assert history[-1] == net.widths and len(net.widths) == 2
    assert len(net.inputs) < 12 and net.hidden[0].in_features == len(net.inputs)
    assert net.macs_per_frame() == pytest.approx(0.3 * full, rel=0.05)
    assert [group.name for group in net.unit_groups()] == ["hidden0", "hidden1"]
    assert all(len(epoch["layers"]) == 2 for epoch in trained.report.retention)
    save_net(tmp_path, net.eval(), {"row": "x"})
    frames = torch.randn(9, 4)
    assert torch.equal(load_net(tmp_path).logits(frames), net.logits(frames))


def test_inputs_that_say_nothing_leave():
    """Six of twelve inputs are noise; learnt probabilities find them, from the gradient of the scaled net alone."""
    rng = np.random.default_rng(0)
    useful = np.sort(rng.permutation(12)[:6])
    torch.manual_seed(0)
    net = FeedForward(12, (0, 0), [24, 24], 4)
    truth = rng.standard_normal((6, 4))

    def draw(generator: np.random.Generator, count: int):
        inputs = generator.standard_normal((count, 12)).astype(np.float32)
        return torch.from_numpy(inputs), torch.from_numpy((inputs[:, useful] @ truth).argmax(axis=1))

    epochs, steps = 6, 60
    values = {"method": "online_compaction", "input_power": 1.0, "start": 0.0, "end": 0.8, "min_units": 2}
    method = build_method("m", values, Schedule(epochs, steps, 0, 0.3 * net.macs_per_frame()))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(epochs):
        method.begin_epoch(net, epoch, np.random.Generator(np.random.SFC64([0, epoch])))
        method.training_mode(net, epoch)
        for step in range(steps):
            method.before_step(net, epoch, step)
            inputs, labels = draw(rng, 128)
            optimiser.zero_grad()
            functional.cross_entropy(net(inputs), labels).backward()
            optimiser.step()
            method.after_step(net, epoch, step, optimiser, HeldOut(draw, 1000))
    assert 5 <= len(net.inputs) <= 6
    assert set(net.inputs) <= set(useful.tolist())


@pytest.mark.parametrize(
    ("net", "method", "told"),
    [
        (make_net("lstm"), "online_compaction", "reads all its inputs"),
        (
            Adapter.of(nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3))).net(torch.float32),
            "norm_removal",
            "reads all its inputs",
        ),
        (make_net(), "criterion_removal", "ranks hidden units alone"),
        (make_net(), "dropneuron", "ranks hidden units alone"),
    ],
)
def test_it_is_refused_before_the_training(net, method: str, told: str):
    check_method("m", {"method": method}, net)
    with pytest.raises(ConfigError, match=told):
        check_method("m", {"method": method, "input_power": 0.5}, net)
