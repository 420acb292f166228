"""Retention gradients of utterances under CTC, a mask per utterance, against enumeration and finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dropasr.compaction.retention import ESTIMATORS, mean_field, score, split_half
from dropasr.data.sequences import SequenceTargets
from dropasr.lang.ctc import sequence_losses
from dropasr.models.feedforward import FeedForward

WIDTHS = [4, 3]
FRAMES, TOKENS = [5, 7, 6], [[1, 2], [2, 2, 1], [1]]


@pytest.fixture()
def problem():
    torch.manual_seed(3)
    net = FeedForward(range(6), (0, 0), WIDTHS, 3).double().eval()
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


def all_masks(retention):
    flat = torch.cat(retention)
    for bits in itertools.product([0.0, 1.0], repeat=flat.numel()):
        mask = torch.tensor(bits, dtype=torch.float64)
        yield mask, float(torch.where(mask > 0, flat, 1 - flat).prod())


def exact_gradient(net, inputs, targets, retention):
    """d/dpi of the expected log probability per token, a mask per utterance: sum over masks of p(M) f(M) s_u(M)."""
    flat = torch.cat(retention)
    gradient = torch.zeros_like(flat)
    for mask, probability in all_masks(retention):
        value = per_token(net, inputs, targets, list(mask.split(WIDTHS))).mean()
        gradient += probability * value * (mask / flat - (1 - mask) / (1 - flat))
    return gradient


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
    step, expected = 1e-6, []
    for index, probabilities in enumerate(retention):
        for unit in range(probabilities.numel()):
            values = []
            for sign in (1, -1):
                moved = [p.clone() for p in retention]
                moved[index][unit] += sign * step
                values.append(float(per_token(net, inputs, targets, moved).mean()))
            expected.append((values[0] - values[1]) / (2 * step))
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-5)


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
