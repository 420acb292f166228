"""Learning rate and criteria against their definitions."""

from __future__ import annotations

import pytest
import torch

from dropasr.config import TrainConfig
from dropasr.training.criteria import FrameCriterion, frame_loss
from dropasr.training.schedules import learning_rate


def test_learning_rate_is_constant_then_falls_exponentially():
    config = TrainConfig(learning_rate=0.1, final_learning_rate=0.01, constant_share=0.5)
    assert [learning_rate(config, p) for p in (0, 0.5, 0.75, 1.0)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_the_figure_of_a_taught_net_is_its_cross_entropy_with_labels():
    torch.manual_seed(0)
    logits, labels, teacher = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0]), torch.softmax(torch.randn(5, 4), dim=1)
    found = FrameCriterion(TrainConfig()).loss(logits, labels, 0.0, teacher, 0.7)
    assert found.value == pytest.approx(float(-torch.log_softmax(logits, dim=1)[range(5), labels].mean()), abs=1e-6)
    assert float(found.objective) == pytest.approx(float(frame_loss(logits, labels, teacher, 0.7)), abs=1e-6) != found.value


def test_frame_loss_mixes_labels_and_teacher():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 4, dtype=torch.float32), torch.tensor([0, 1, 2, 3, 0])
    teacher = torch.softmax(torch.randn(5, 4), dim=1)
    log_p = torch.log_softmax(logits, dim=1)
    hard = -log_p[range(5), labels].mean()
    entropy = -(teacher * teacher.log()).sum(dim=1).mean()
    divergence = torch.nn.functional.kl_div(log_p, teacher, reduction="batchmean")
    assert float(frame_loss(logits, labels, None, 0.7)) == pytest.approx(float(hard), abs=1e-6)
    assert float(frame_loss(logits, labels, teacher, 0.7)) == pytest.approx(float(0.3 * hard + 0.7 * (divergence + entropy)), abs=1e-5)
