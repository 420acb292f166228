"""Dropout compaction that learns at every step: its gradient is that of the expectation-scaled net, by differences."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from dropasr.errors import ConfigError
from dropasr.methods import build_method, method_options
from dropasr.methods.base import Schedule
from dropasr.models.feedforward import FeedForward


def test_logits_follow_the_gradient_of_the_scaled_net():
    torch.manual_seed(0)
    net = FeedForward(4, (1, 1), [12, 10], 5).double().eval()
    method = build_method(
        "online_compaction", {"method": "online_compaction", "min_units": 2}, Schedule(10, 6, 0, 0.3 * net.macs_per_frame())
    )
    method.training_mode(net, 0)
    method.before_step(net, 0, 0)
    method.learner.values = [torch.randn(len(values), dtype=torch.float64, requires_grad=True) for values in method.learner.values]
    inputs, targets = torch.randn(64, 12, dtype=torch.float64), torch.randint(0, 5, (64,))
    functional.cross_entropy(net(inputs), targets).backward()
    found = [values.grad.clone() for values in method.learner.values]

    def loss() -> float:
        """The net with weights that read a unit multiplied by its probability: no gates."""
        plain = FeedForward(4, (1, 1), [12, 10], 5).double().eval()
        plain.load_state_dict(net.state_dict())
        scales = [torch.sigmoid(method.logits(index).detach()) for index in range(2)]
        plain.hidden[1].weight.data.mul_(scales[0])
        plain.output.weight.data.mul_(scales[1])
        return float(functional.cross_entropy(plain(inputs), targets))

    for index, values in enumerate(method.learner.values):
        for unit in (0, 5, len(values) - 1):
            sides = []
            for step in (1e-5, -1e-5):
                values.data[unit] += step
                sides.append(loss())
                values.data[unit] -= step
            assert float(found[index][unit]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4, abs=1e-9)


def test_it_needs_a_budget():
    with pytest.raises(ConfigError, match="controller"):
        method_options("o", {"method": "online_compaction", "controller": "none"})
