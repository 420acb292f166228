"""Retention gradients against exact enumeration of all masks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.compaction.retention import (
    ESTIMATORS,
    mean_field,
    prior_curvature,
    prior_gradient,
    score,
    separatrix,
    split_half,
)
from dropasr.models.feedforward import FeedForward
from dropasr.models.gates import sample_mask

sys.path.insert(0, str(Path(__file__).parent))
from retention_case import all_masks, central_differences, direction  # noqa: E402 (the folder above is on the path only now)

WIDTHS = [5, 4]


@pytest.fixture()
def problem():
    torch.manual_seed(3)
    net = FeedForward(6, (0, 0), WIDTHS, 3).double().eval()
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.standard_normal((6, 6)))
    with torch.no_grad():
        labels = net(inputs).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 3
    retention = [torch.from_numpy(rng.uniform(0.3, 0.9, width)) for width in WIDTHS]
    return net, inputs, labels, retention


def log_correct(net, inputs, labels, multipliers):
    """log p(label) per frame, (N,), with the given unit multipliers."""
    for group, multiplier in zip(net.unit_groups(), multipliers):
        group.gate.multiplier = multiplier
    with torch.no_grad():
        return torch.log_softmax(net(inputs), dim=1).gather(1, labels[:, None])[:, 0]


def marginals(net, inputs, labels, retention):
    """p(label | x, Pi), (N,), by summing over all masks."""
    total = torch.zeros(len(labels), dtype=torch.float64)
    for mask, probability in all_masks(retention):
        total += probability * log_correct(net, inputs, labels, mask).exp()
    return total


def exact_gradient(net, inputs, labels, retention):
    """d/dpi of the mean log marginal, by central differences of the enumerated objective."""
    return central_differences(lambda moved: marginals(net, inputs, labels, moved).log().mean(), retention, step=1e-5)


def test_expected_score_gradient_is_the_exact_one_up_to_the_frame_factor(problem):
    """Per frame, E[(w - 1) s_u] is the exact gradient times pbar / p~ (the control variate adds nothing on average)."""
    net, inputs, labels, retention = problem
    reference = log_correct(net, inputs, labels, retention)
    expected = torch.zeros(len(labels), sum(WIDTHS), dtype=torch.float64)
    for mask, probability in all_masks(retention):
        weight = (log_correct(net, inputs, labels, mask) - reference).exp() - 1
        expected += probability * weight[:, None] * direction(mask, retention)[None]
    pbar = marginals(net, inputs, labels, retention)
    for frame in range(len(labels)):
        exact = exact_gradient(net, inputs[frame : frame + 1], labels[frame : frame + 1], retention)
        factor = float(pbar[frame] / reference[frame].exp())
        assert torch.allclose(expected[frame], exact * factor, atol=1e-7)
    # and the implementation samples exactly this expectation
    count = 40_000
    x, y = inputs[:1].repeat(count, 1), labels[:1].repeat(count)
    rng = np.random.default_rng(1)
    runs = torch.stack([torch.cat(score(net, x, y, retention, rng)) for _ in range(8)])
    error = runs.std(dim=0) / 8**0.5
    assert bool(((runs.mean(dim=0) - expected[0]).abs() <= 5 * error + 1e-4).all())
    assert float(expected[0].abs().max()) > 20 * float(error.max())


def test_mean_field_gradient_against_finite_differences(problem):
    net, inputs, labels, retention = problem
    found = torch.cat(mean_field(net, inputs, labels, retention, np.random.default_rng(0)))
    expected = central_differences(lambda moved: log_correct(net, inputs, labels, moved).mean(), retention, step=1e-6)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name,least", [("score", 0.98), ("mean_field", 0.85), ("gumbel_st", 0.85)])
def test_every_estimator_points_along_the_exact_gradient(problem, name, least):
    net, inputs, labels, retention = problem
    exact = exact_gradient(net, inputs, labels, retention)
    x, y = inputs.repeat(20_000, 1), labels.repeat(20_000)
    found = torch.cat([gradient.double() for gradient in ESTIMATORS[name](net, x, y, retention, np.random.default_rng(5))])
    cosine = float(found @ exact / (found.norm() * exact.norm()))
    assert cosine >= least


def test_control_variate_lowers_the_variance(problem):
    """Without the subtracted 1 the same samples scatter more (methods table: 2.00 against 0.85 in a toy)."""
    net, inputs, labels, retention = problem
    rng = np.random.default_rng(2)
    masks = [sample_mask(rng, 4000, p).double() for p in retention]
    x, y = inputs[:1].repeat(4000, 1), labels[:1].repeat(4000)
    reference = log_correct(net, x, y, retention)
    weight = (log_correct(net, x, y, masks) - reference).exp()
    towards = direction(masks, retention)
    plain, controlled = (weight[:, None] * towards).std(dim=0), ((weight - 1)[:, None] * towards).std(dim=0)
    assert bool((controlled < plain).all())


def test_units_that_nothing_reads_get_exactly_no_score_gradient(problem):
    """With the control variate a weight of 1 counts nothing; without it every mask would leave its own noise."""
    net, inputs, labels, retention = problem
    with torch.no_grad():
        net.output.weight.zero_()
    for gradient in score(net, inputs, labels, retention, np.random.default_rng(0)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_score_scatters_less_than_the_formula_without_control_variate(problem):
    """`score` itself against mean `w d log p(M) / d pi` over equally many masks of the same frame."""
    net, inputs, labels, retention = problem
    count, runs = 50, 200
    x, y = inputs[:1].repeat(count, 1), labels[:1].repeat(count)
    rng = np.random.default_rng(2)
    found = torch.stack([torch.cat(score(net, x, y, retention, rng)) for _ in range(runs)])
    reference, plain = log_correct(net, x, y, retention), []
    for _ in range(runs):
        masks = [sample_mask(rng, count, p).double() for p in retention]
        plain.append((log_correct(net, x, y, masks) - reference).exp() @ direction(masks, retention) / count)
    assert float(found.var(dim=0).sum()) < 0.7 * float(torch.stack(plain).var(dim=0).sum())


@pytest.mark.parametrize("alpha,beta", [(0.9, 0.9), (0.85, 0.95), (0.95, 0.8)])
def test_prior_is_zero_at_the_separatrix_and_repels(alpha, beta):
    at = separatrix(alpha, beta)
    value = prior_gradient(torch.tensor([at - 0.05, at, at + 0.05], dtype=torch.float64), alpha, beta)
    assert value[0] < 0 < value[2] and abs(float(value[1])) < 1e-12
    pi = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    log_prior = (alpha - 1) * pi.log() + (beta - 1) * (1 - pi).log()
    (slope,) = torch.autograd.grad(log_prior.sum(), pi)
    assert float(prior_gradient(pi.detach(), alpha, beta)) == pytest.approx(float(slope))
    step = 1e-6
    forces = prior_gradient(torch.tensor([at - step, at + step], dtype=torch.float64), alpha, beta)
    assert float(forces[1] - forces[0]) / (2 * step) == pytest.approx(prior_curvature(at, beta), rel=1e-4)


def test_prior_gradient_is_finite_at_the_ends():
    assert bool(torch.isfinite(prior_gradient(torch.tensor([0.0, 1.0]), 0.9, 0.9)).all())


def test_masks_have_the_stated_probabilities():
    retention = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0])
    masks = sample_mask(np.random.default_rng(0), 200_000, retention).float()
    assert torch.allclose(masks.mean(dim=0), retention, atol=5e-3)
    assert float(masks[:, 0].max()) == 0 and float(masks[:, 4].min()) == 1
    centred = masks[:, 1:4] - masks[:, 1:4].mean(dim=0)
    correlation = (centred.T @ centred) / len(masks)
    assert float((correlation - torch.diag(correlation.diag())).abs().max()) < 3e-3


def test_split_half_sees_signal_and_noise(problem):
    net, _, _, retention = problem
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.standard_normal((4000, 6)))
    for group in net.unit_groups():
        group.gate.multiplier = None
    labels = net(inputs).argmax(dim=1)
    strong = split_half("mean_field", net, inputs, labels, retention, rng)
    few = [split_half("score", net, inputs[:8], labels[:8], retention, np.random.default_rng(seed))[0] for seed in range(30)]
    assert min(strong) > 0.95
    assert np.mean(few) < 0.6
    assert split_half("score", net, inputs[:1], labels[:1], retention, rng) == [None] * len(retention)
