"""Flat start: its Gaussians against scipy, its boundary figure against a hand count."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from dropasr.lang.units import OutputUnits
from dropasr.training.flat_start import boundary_shift, log_prior
from dropasr.training.gaussians import Gaussians, cepstra


def test_gaussians_against_scipy():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, 400)
    features = rng.standard_normal((400, 5)) * [1, 2, 3, 1, 1] + labels[:, None]
    parts = zip(np.array_split(features.astype(np.float32), 3), np.array_split(labels, 3))
    found = Gaussians.estimate(parts, 4).log_likelihoods(features.astype(np.float32))
    for unit in range(3):
        own = features[labels == unit]
        expected = norm.logpdf(features, own.mean(axis=0), own.std(axis=0)).sum(axis=1)
        assert np.allclose(found[:, unit], expected, atol=1e-2)
    used = features[labels >= 0]  # a unit never seen gets the statistics of all frames
    assert np.allclose(found[:, 3], norm.logpdf(features, used.mean(axis=0), used.std(axis=0)).sum(axis=1), atol=1e-2)


def test_boundary_shift_by_hand():
    units = OutputUnits(("A", "B"), 2, 1)  # units: SIL 0, A 1 2, B 3 4
    old = np.array([0, 0, 1, 2, 3, 4, 4, 1, 2])
    new = np.array([0, 1, 1, 2, 2, 2, 3, 4, 4])
    assert np.isnan(boundary_shift(old, new, units))  # A B A against A B
    new = np.array([0, 1, 2, 2, 2, 3, 4, 1, 2])  # starts 1, 5, 7 against 2, 4, 7
    assert boundary_shift(old, new, units) == pytest.approx(2 / 3)
    assert np.isnan(boundary_shift(np.full(9, -1), new, units))


def test_log_prior_sums_to_one_and_never_excludes_a_unit():
    prior = log_prior(np.array([0, 0, 1, -1]), 3)
    assert np.exp(prior).sum() == pytest.approx(1) and np.exp(prior) == pytest.approx([3 / 6, 2 / 6, 1 / 6])


def test_cepstra_are_level_and_slope():
    frames = np.tile(np.linspace(0, 1, 12)[:, None], (1, 40))
    values = cepstra(frames)
    assert values.shape == (12, 32)
    assert np.allclose(values[:, 0], frames[:, 0] * np.sqrt(40), atol=1e-4) and np.allclose(values[:, 1:16], 0, atol=1e-5)
    assert np.allclose(values[2:-2, 16], 4 / 11 * np.sqrt(40), atol=1e-4)
