"""Retention gradients of utterances under CTC, a mask per utterance, against enumeration and finite differences."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.compaction.retention import ESTIMATORS, mean_field, score, split_half
from dropasr.data.sequences import SequenceTargets
from dropasr.lang.ctc import sequence_losses
from dropasr.models.feedforward import FeedForward

sys.path.insert(0, str(Path(__file__).parent))
from retention_case import all_masks, central_differences, direction  # noqa: E402 (the folder above is on the path only now)

WIDTHS = [4, 3]
FRAMES, TOKENS = [5, 7, 6], [[1, 2], [2, 2, 1], [1]]


@pytest.fixture()
def problem():
    torch.manual_seed(3)
    net = FeedForward(6, (0, 0), WIDTHS, 3).double().eval()
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.standard_normal((sum(FRAMES), 6)))
    lengths = torch.tensor([len(tokens) for tokens in TOKENS])
    targets = SequenceTargets(torch.tensor(FRAMES), torch.tensor(sum(TOKENS, [])), lengths)
    retention = [torch.from_numpy(rng.uniform(0.4, 0.9, width)) for width in WIDTHS]
    return net, inputs, targets, retention


@torch.no_grad()
def per_token(net, inputs, targets, multipliers):
    """Log probability per token of each utterance, in float64."""
    for group, multiplier in zip(net.unit_groups(), multipliers):
        group.gate.multiplier = multiplier
    return -sequence_losses(torch.log_softmax(net(inputs), dim=1), targets) / targets.lengths


def exact_gradient(net, inputs, targets, retention):
    """d/dpi of the expected log probability per token, a mask per utterance: sum over masks of p(M) f(M) s_u(M)."""
    parts = ((probability * per_token(net, inputs, targets, mask).mean(), mask) for mask, probability in all_masks(retention))
    return sum(value * direction(mask, retention) for value, mask in parts)


def repeated(inputs, targets, times):
    batch = SequenceTargets(targets.frames.repeat(times), targets.tokens.repeat(times), targets.lengths.repeat(times))
    return inputs.repeat(times, 1), batch


def test_the_score_gradient_is_that_of_the_expected_log_probability(problem):
    net, inputs, targets, retention = problem
    exact = exact_gradient(net, inputs, targets, retention)
    x, y = repeated(inputs, targets, 3000)
    rng = np.random.default_rng(1)
    runs = torch.stack([torch.cat([g.double() for g in score(net, x, y, retention, rng)]) for _ in range(8)])
    error = runs.std(dim=0) / 8**0.5
    assert bool(((runs.mean(dim=0) - exact).abs() <= 5 * error + 1e-4).all())
    assert float(exact.abs().max()) > 10 * float(error.max())


def test_the_mean_field_gradient_against_finite_differences(problem):
    net, inputs, targets, retention = problem
    found = torch.cat(mean_field(net, inputs, targets, retention, np.random.default_rng(0)))
    expected = central_differences(lambda moved: per_token(net, inputs, targets, moved).mean(), retention, step=1e-6)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mean_field", "gumbel_st"])
def test_biased_estimators_point_along_the_exact_gradient(problem, name):
    net, inputs, targets, retention = problem
    exact = exact_gradient(net, inputs, targets, retention)
    x, y = repeated(inputs, targets, 1000)
    found = torch.cat([gradient.double() for gradient in ESTIMATORS[name](net, x, y, retention, np.random.default_rng(5))])
    assert float(found @ exact / (found.norm() * exact.norm())) > 0.8


def test_a_mask_holds_for_a_whole_utterance(problem):
    """With the last layer masked, every frame of an utterance must see the same units of it."""
    net, inputs, targets, retention = problem
    seen = []
    net.output.register_forward_pre_hook(lambda module, given: seen.append(given[0] != 0))
    with torch.no_grad():
        net.hidden[1].weight.zero_()
        net.hidden[1].bias.fill_(1.0)
    score(net, inputs, targets, retention, np.random.default_rng(0))
    masked = [part for part in seen[-1].split(FRAMES)]
    assert all(bool((part == part[0]).all()) for part in masked)
    assert len({tuple(part[0].tolist()) for part in masked}) > 1


def test_split_half_of_utterances(problem):
    net, inputs, targets, retention = problem
    x, y = repeated(inputs, targets, 40)
    strong = split_half("mean_field", net, x, y, retention, np.random.default_rng(0), batch=16)
    assert min(strong) > 0.99  # the halves hold the same utterances nearly equally often
