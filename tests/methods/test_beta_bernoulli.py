"""Beta-Bernoulli dropout: mean, divergence, draws and their gradients against scipy's integrals of the Kumaraswamy distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from dropasr.errors import ConfigError
from dropasr.methods import build_method, method_options
from dropasr.methods.base import Schedule
from dropasr.methods.beta_bernoulli import divergence, log_mean
from dropasr.models.feedforward import FeedForward

SHAPES = [(0.3, 2.0), (1.0, 1.0), (2.5, 0.7), (0.8, 4.0)]


def build(target=0.3, **options):
    torch.manual_seed(0)
    net = FeedForward(4, (1, 1), [40, 30], 5)
    macs = None if target is None else target * net.macs_per_frame()
    method = build_method("beta_bernoulli", {"method": "beta_bernoulli", "min_units": 2, **options}, Schedule(10, 6, 0, macs))
    method.training_mode(net, 0)
    method.before_step(net, 0, 0)
    return method


def density(x, a, b):
    return a * b * x ** (a - 1) * (1 - x**a) ** (b - 1)


def logits_of(shapes, requires_grad=False):
    return torch.tensor([[math.log(a), -math.log(b)] for a, b in shapes], dtype=torch.float32, requires_grad=requires_grad)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_mean_and_divergence_are_the_integrals(a, b):
    expected = integrate.quad(lambda x: x * density(x, a, b), 0, 1, limit=500)[0]
    assert float(log_mean(logits_of([(a, b)])).exp()) == pytest.approx(expected, rel=1e-5)
    for alpha in (0.5, 1e-4):

        def difference(v, alpha=alpha):  # over the uniform variable, where nothing is singular but the ends
            x = (1 - v ** (1 / b)) ** (1 / a)
            return math.log(density(x, a, b)) - stats.beta.logpdf(x, alpha, 1)

        expected = integrate.quad(difference, 1e-12, 1 - 1e-12, limit=1000)[0]
        found = divergence(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), alpha)
        assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_prior_itself_has_no_divergence():
    assert float(divergence(torch.tensor(0.4, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64), 0.4)) == pytest.approx(
        0, abs=1e-9
    )


def test_a_common_shift_moves_the_mean_from_0_to_1_without_a_step_back():
    logits = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double()
    means = torch.stack([log_mean(logits + shift).exp() for shift in np.linspace(-30, 30, 301)])
    assert (means.diff(dim=0) >= -1e-9).all() and float(means[0].max()) < 1e-6 and float(means[-1].min()) > 1 - 1e-5


def test_masks_of_low_temperature_are_open_as_often_as_their_mean_says():
    """One retention probability for all rows of a draw: the mean over many draws."""
    method = build(temperature=0.01)
    with torch.no_grad():
        gates = torch.stack([method.draw(logits_of(SHAPES), 4).mean(dim=0) for _ in range(20_000)])
    expected = [integrate.quad(lambda x, a=a, b=b: x * density(x, a, b), 0, 1, limit=500)[0] for a, b in SHAPES]
    np.testing.assert_allclose(gates.mean(dim=0).numpy(), expected, atol=0.012)
    shared = method.draw(logits_of([(1.0, 1.0)] * 2000), 400).mean(dim=0)
    assert stats.kstest(shared.numpy(), "uniform").pvalue > 1e-3, "the probability itself is drawn, from U(0, 1) for a = b = 1"


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_draws_have_the_gradient_of_their_mean(a, b):
    """Mean of the relaxed mask by quadrature over both noises, its slope by central differences."""
    method, temperature = build(temperature=0.5), 0.5
    grid = (np.arange(2000) + 0.5) / 2000
    noise = np.log(grid) - np.log1p(-grid)

    def mean(log_a, minus_log_b):
        retention = (1 - grid ** math.exp(minus_log_b)) ** math.exp(-log_a)
        odds = np.log(retention) - np.log1p(-retention)
        return float(np.mean(1 / (1 + np.exp(-(odds[:, None] + noise[None, :]) / temperature))))

    variable = logits_of([(a, b)] * 3000, requires_grad=True)
    draws = method.draw(variable, 100)
    draws.mean().backward()
    x, y = math.log(a), -math.log(b)
    assert float(draws.mean()) == pytest.approx(mean(x, y), abs=0.015)
    slopes = [(mean(x + 1e-3, y) - mean(x - 1e-3, y)) / 2e-3, (mean(x, y + 1e-3) - mean(x, y - 1e-3)) / 2e-3]
    np.testing.assert_allclose(variable.grad.sum(dim=0).numpy(), slopes, atol=0.012)


def test_the_penalty_is_the_divergence_of_the_units_that_are_left():
    method = build(target=None, controller="none", prior_strength=0.01, alpha=0.3)
    assert float(log_mean(method.logits(0).detach()).exp()[0]) == pytest.approx(0.75, abs=1e-5)
    a, b = method.logits(0).detach()[0, 0].exp(), (-method.logits(0).detach()[0, 1]).exp()
    assert float(method.group_penalty(0)) == pytest.approx(0.4 * float(divergence(a, b, 0.3)), rel=1e-4)
    method.learner.values[0].data[:7] = -9.0
    method.run_pass(None, 1, 1.0, None)
    assert int((method.scales[0] == 0).sum()) == 7 and float(method.scales[0][7]) == pytest.approx(0.75, abs=1e-4)


@pytest.mark.parametrize("logit", [-200.0, -20.0, 20.0, 200.0])
def test_logits_that_have_gone_too_far_do_no_harm(logit):
    method = build()
    method.learner.values[0] = torch.full((40, 2), logit, requires_grad=True)
    method.shifts = [0.0, 0.0]
    penalty = method.group_penalty(0) + method.draw(method.logits(0), 3).sum()
    penalty.backward()
    assert math.isfinite(float(penalty)) and bool(method.learner.values[0].grad.isfinite().all())
    assert bool(method.open_probabilities(method.logits(0)).isfinite().all())


def test_refusals():
    with pytest.raises(ConfigError, match="temperature"):
        method_options("b", {"method": "beta_bernoulli", "temperature": 0})
