"""Training criteria: cross-entropy on aligned frames, and CTC on whole utterances, behind one interface."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol, Union

import torch
from torch.nn import functional

from dropasr.config import TrainConfig
from dropasr.data.batches import FrameSampler
from dropasr.data.chunks import ChunkSampler
from dropasr.data.sequences import SequenceSampler, SequenceTargets
from dropasr.lang.ctc import best_path, sequence_losses, spread_labels
from dropasr.models.base import AcousticModel
from dropasr.scoring.wer import score_utterance
from dropasr.training.schedules import autocast

Sampler = Union[FrameSampler, ChunkSampler, SequenceSampler]
FRAMES, SEQUENCE_FRAMES = 16384, 65536
"""Frames of dev that figures between the epochs come from: of nets that score frames, and of those that score whole utterances."""
Soft = Union[torch.Tensor, None]
"""Posteriors `(N, K)` of a teacher, if there is one."""


class Loss(NamedTuple):
    """`objective` is what is minimised; `value`, the loss without a teacher's part, goes into the figures, a mean over `count` frames or
    tokens."""

    objective: torch.Tensor
    value: float
    count: int


class Criterion(Protocol):
    """What training needs to know of a criterion. Figures are means per frame (`frames`) or per token (`ctc`)."""

    loss_name: str
    error_name: str

    def loss(self, logits: torch.Tensor, targets: Any, progress: float, soft: Soft, soft_weight: float) -> Loss:
        """Loss of a batch with logits `(N, K)`, when the share `progress` of all steps is done."""

    def figures(self, net: AcousticModel, sampler: Any, config: TrainConfig, everything: bool = False) -> tuple[float, float]:
        """Loss in nats and error in percent on evenly spaced parts of a sampler, or on all of it, gates as they are."""


def frame_loss(logits: torch.Tensor, labels: torch.Tensor, teacher: Soft, teacher_weight: float) -> torch.Tensor:
    """Mean cross-entropy in nats of logits `(N, K)` with labels `(N,)`, mixed with that of the teacher's posteriors `(N, K)` if given."""
    logits = logits.float()
    if teacher is None:
        return functional.cross_entropy(logits, labels)
    log_posteriors = functional.log_softmax(logits, dim=1)
    soft = _soft_losses(log_posteriors, teacher).mean()
    return (1 - teacher_weight) * functional.nll_loss(log_posteriors, labels) + teacher_weight * soft


def _soft_losses(log_posteriors: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Cross-entropy `(N,)` of each row with the teacher's posteriors."""
    return -(teacher * log_posteriors).sum(dim=1)


class FrameCriterion:
    """Cross-entropy of each frame with its label."""

    loss_name, error_name = "CE", "frame error"

    def __init__(self, config: TrainConfig) -> None:
        """There is nothing to configure."""

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, progress: float, soft: Soft, soft_weight: float) -> Loss:
        loss = frame_loss(logits, targets, soft, soft_weight)
        value = loss if soft is None else functional.cross_entropy(logits.detach().float(), targets)
        return Loss(loss, float(value.detach()), len(targets))

    @torch.no_grad()
    def figures(
        self, net: AcousticModel, sampler: Union[FrameSampler, ChunkSampler], config: TrainConfig, everything: bool = False
    ) -> tuple[float, float]:
        net.eval()
        loss = errors = 0.0
        frames = 0
        for inputs, labels, _ in sampler.sample(math.inf if everything else FRAMES):
            with autocast(config.precision):
                logits = net(inputs)
            loss += float(functional.cross_entropy(logits.float(), labels, reduction="sum"))
            errors += float((logits.argmax(dim=1) != labels).sum())
            frames += len(labels)
        return loss / frames, 100 * errors / frames


class CtcCriterion:
    """CTC of whole utterances, per token, after a start with tokens spread evenly (`train.flat_start`).

    Both parts of a loss with a teacher are sums over whole utterances divided by the same number, so that `teacher_weight` is their ratio
    whatever the frames per token: that of the tokens, so that CTC has the step size that it has without a teacher; in the flat start,
    which is a cross-entropy of frames, that of the rows.
    """

    loss_name, error_name = "CTC loss per token", "token error"

    def __init__(self, config: TrainConfig) -> None:
        self.flat_start = config.flat_start

    def loss(self, logits: torch.Tensor, targets: SequenceTargets, progress: float, soft: Soft, soft_weight: float) -> Loss:
        log_posteriors = functional.log_softmax(logits.float(), dim=1)
        loss = sequence_losses(log_posteriors, targets).sum() / len(targets.tokens)
        value, unit = float(loss.detach()), len(targets.tokens)
        if progress < self.flat_start:
            loss, unit = functional.nll_loss(log_posteriors, spread_labels(targets)), len(log_posteriors)
        if soft is not None:
            loss = (1 - soft_weight) * loss + soft_weight * _soft_losses(log_posteriors, soft).sum() / unit
        return Loss(loss, value, len(targets.tokens))

    @torch.no_grad()
    def figures(self, net: AcousticModel, sampler: SequenceSampler, config: TrainConfig, everything: bool = False) -> tuple[float, float]:
        net.eval()
        loss = errors = tokens = 0.0
        for inputs, targets, _ in sampler.sample(math.inf if everything else SEQUENCE_FRAMES):
            with autocast(config.precision):
                logits = net(inputs)
            log_posteriors = functional.log_softmax(logits.float(), dim=1)
            loss += float(sequence_losses(log_posteriors, targets).sum())
            references = targets.tokens.split(targets.lengths.tolist())
            for reference, scores in zip(references, log_posteriors.split(targets.frames.tolist())):
                errors += score_utterance("", reference.tolist(), best_path(scores)).errors
            tokens += len(targets.tokens)
        return loss / tokens, 100 * errors / tokens


CRITERIA: dict[str, type] = {"frames": FrameCriterion, "ctc": CtcCriterion}


def make_criterion(config: TrainConfig) -> Criterion:
    """The criterion that `train.criterion` names."""
    return CRITERIA[config.criterion](config)
