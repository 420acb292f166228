"""Retention gradients under a criterion that the user brings: with cross-entropy as one, those of labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from dropasr.compaction.retention import ESTIMATORS, CriterionTargets, split_half
from dropasr.data.chunks import Chunks
from dropasr.errors import CompactionError
from dropasr.models.feedforward import FeedForward
from dropasr.models.lstm import Lstm


def case(recurrent: bool):
    torch.manual_seed(0)
    if not recurrent:
        return FeedForward(5, (0, 0), [6, 7], 4).eval(), torch.randn(40, 5), torch.randint(0, 4, (40,))
    return Lstm(5, [6, 7], 4).eval(), Chunks(torch.randn(4, 10, 5), torch.full((4,), 10), torch.arange(40)), torch.randint(0, 4, (40,))


def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.float(), labels, reduction="none")


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_gradients_are_those_of_labels(name: str, recurrent: bool):
    net, inputs, labels = case(recurrent)
    retention = [torch.full((width,), 0.7) for width in net.widths]
    plain = ESTIMATORS[name](net, inputs, labels, retention, np.random.default_rng(0))
    own = ESTIMATORS[name](net, inputs, CriterionTargets(labels, losses), retention, np.random.default_rng(0))
    assert all(torch.allclose(first, second, rtol=1e-5, atol=1e-7) for first, second in zip(plain, own))
    signals = [
        split_half(name, net, inputs, targets, retention, np.random.default_rng(0), 16)
        for targets in (labels, CriterionTargets(labels, losses))
    ]
    assert signals[0] == pytest.approx(signals[1], abs=1e-4)


def test_a_mean_loss_serves_all_but_the_score():
    net, inputs, labels = case(False)
    retention = [torch.full((width,), 0.7) for width in net.widths]
    targets = CriterionTargets(labels, functional.cross_entropy)
    found = ESTIMATORS["mean_field"](net, inputs, targets, retention, np.random.default_rng(0))
    wanted = ESTIMATORS["mean_field"](net, inputs, labels, retention, np.random.default_rng(0))
    assert all(torch.allclose(first, second, rtol=1e-5, atol=1e-7) for first, second in zip(found, wanted))
    with pytest.raises(CompactionError, match="estimator score"):
        ESTIMATORS["score"](net, inputs, targets, retention, np.random.default_rng(0))
    with pytest.raises(CompactionError, match=r"criterion: expected .* found shape \(40, 4\)"):
        ESTIMATORS["mean_field"](net, inputs, CriterionTargets(labels, lambda logits, _: logits), retention, np.random.default_rng(0))
