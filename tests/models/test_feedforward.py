"""The feed-forward net, its multiply-adds, and widths for a budget."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dropasr.config import Options
from dropasr.errors import ConfigError
from dropasr.models import build_model, model_from_dims, model_options
from dropasr.models.base import widths_for_budget
from dropasr.models.feedforward import FeedForward


def test_multiply_adds_of_the_published_net():
    """544-H-H-H-H-2500: 37.66 M at 3072 and 11.75 M at 1536 (published counts)."""
    for width, millions in ((3072, 37.66), (1536, 11.75), (768, 4.11)):
        net = FeedForward(32, (8, 8), [1] * 4, 2500)
        assert net.macs_per_frame([width] * 4) / 1e6 == pytest.approx(millions, abs=0.01)


def test_utterance_and_spliced_frames_agree():
    net = FeedForward(3, (2, 1), [8], 4)
    frames = torch.randn(6, 3)
    padded = torch.cat([frames[:1], frames[:1], frames, frames[-1:]])
    spliced = torch.stack([padded[t : t + 4].reshape(-1) for t in range(6)])
    assert torch.allclose(net.logits(frames), net(spliced), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(width=st.integers(200, 1500), layers=st.integers(1, 6), outputs=st.integers(50, 1000), budget=st.floats(0.06, 0.9))
def test_widths_for_budget_come_within_two_percent(width, layers, outputs, budget):
    net = FeedForward(40, (8, 8), [1] * layers, outputs)
    full = [width] * layers
    for gate, units in zip(net.gates, full):
        gate.width = units
    target = budget * net.macs_per_frame()
    widths = widths_for_budget(net, target)
    assert all(1 <= units <= width for units in widths)
    # A layer of 12 units cannot come closer than one unit allows.
    assert net.macs_per_frame(widths) / target == pytest.approx(1, abs=max(0.02, 1 / min(widths)))


def test_dims_rebuild_the_net():
    net = FeedForward(3, (3, 0), [4, 6], 5, "sigmoid", True, inputs=[1, 2, 7], gated_inputs=True)
    rebuilt = model_from_dims(net.dims)
    assert rebuilt.dims == net.dims and rebuilt.widths == [3, 4, 6]
    net.open_inputs()
    assert model_from_dims(net.dims).widths == [4, 6]
    # Nets of before inputs could leave one by one named the features that they read.
    assert model_from_dims({**FeedForward(3, (1, 0), [4], 2).dims, "channels": [0, 1, 2]}).inputs is None


def test_unknown_model_and_option_name_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'feedforward'"):
        build_model({"name": "feedfoward"}, 40, 10)
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        model_options({"name": "feedforward", "widht": 3})
    assert isinstance(model_options({"name": "feedforward"}), Options)


def test_activations_of_units_are_what_the_gates_multiply():
    torch.manual_seed(0)
    net = FeedForward(4, (1, 1), [5, 6], 3, "sigmoid", batch_norm=True).double().eval()
    spliced, scale = torch.randn(7, 12, dtype=torch.float64), torch.tensor([0, 0.5, 1, 1, 2], dtype=torch.float64)
    net.gates[0].multiplier = scale
    first = net.norms[0](torch.sigmoid(spliced @ net.hidden[0].weight.t() + net.hidden[0].bias))
    second = net.norms[1](torch.sigmoid((first * scale) @ net.hidden[1].weight.t() + net.hidden[1].bias))
    found = net.unit_activations(spliced)
    assert torch.allclose(found[0], first) and torch.allclose(found[1], second)
