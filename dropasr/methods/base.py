"""The interface between the training loop and a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Union

import numpy as np
import torch
from pydantic import Field

from dropasr.compaction.proof import Proof
from dropasr.compaction.retention import Targets
from dropasr.config import Options
from dropasr.data.chunks import Inputs
from dropasr.models.base import AcousticModel


class CommonOptions(Options):
    """Keys that every method has."""

    method: str
    """File of dropasr/methods."""
    teacher: Union[str, None] = None
    """Row whose posteriors this net also learns from (a large row, such as `dense`)."""
    teacher_weight: float = Field(default=0.7, ge=0, le=1)
    """Share of the teacher's cross-entropy in the loss."""
    training_rate: Union[float, None] = Field(default=None, gt=0)
    """Learning rate of the weights at the start; null: train.learning_rate."""
    small_training_rate: Union[float, None] = Field(default=None, gt=0)
    """The same of nets from scratch at the size of a budget; null: training_rate."""

    def rate_of(self, kind: str) -> Union[float, None]:
        """Learning rate of the weights that a row of a kind (large, small, compact) has of its own; None: that of all rows."""
        return self.small_training_rate if kind == "small" and self.small_training_rate is not None else self.training_rate


@dataclass(frozen=True)
class Schedule:
    """What a method must know of the run: length, seed, and the multiply-adds per frame that it has to reach (None: keep the size).

    `target_widths`: units of each group that have those multiply-adds, where they were chosen already; None: in the net's proportions.
    `optimiser`: as `train.optimiser`. `trained`: the net has learnt before the first step.
    """

    epochs: int
    steps_per_epoch: int
    seed: int
    target_macs: Union[float, None] = None
    target_widths: Union[tuple[int, ...], None] = None
    optimiser: str = "sgd"
    trained: bool = False

    def with_steps(self, steps_per_epoch: int) -> Schedule:
        """The same schedule with another number of steps per epoch."""
        return replace(self, steps_per_epoch=steps_per_epoch)


@dataclass
class HeldOut:
    """Data for retention learning: `draw(generator, count)` returns inputs and targets of the criterion.

    Inputs are spliced frames `(N, D)` or pieces with N scored frames, where N is `count` or, with pieces and whole utterances, a few more.
    Under cross-entropy the targets are labels `(N,)`; under CTC they are `SequenceTargets`. `num_rows` is the largest N there is.
    """

    draw: Callable[[np.random.Generator, int], tuple[Inputs, Targets]]
    num_rows: int


@dataclass
class MethodReport:
    """What a method has to tell about the last epoch."""

    keep: Union[float, None] = None
    retention: list[dict[str, Any]] = field(default_factory=list)
    estimators: dict[str, Any] = field(default_factory=dict)
    signals: list[dict[str, Any]] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


class BaseMethod:
    """Plain training: all gates open. Methods override what they change.

    A method holds its own state in `tensors()` / `load_tensors()`; random numbers come from the generator that the loop hands over at
    the start of each epoch, so that a resumed run draws the same ones.
    """

    makes_smaller = False
    own_schedule = False
    """Whether start, end and passes are part of the method, as published, and need not be those of dropout compaction."""
    masks_teacher = False
    """Whether the teacher is masked by `mask_teacher`, so that its posteriors must be computed anew for every batch."""

    @classmethod
    def learns_units(cls, options: Any) -> bool:
        """Whether it learns, with these options, which units leave the net; if not, one that makes nets smaller is a control."""
        return False

    @classmethod
    def check(cls, options: Any, net: AcousticModel, teacher: Any = None) -> None:
        """Raise ConfigError where the options do not suit a net, or those of the method that trains the teacher, if there is one."""

    def __init__(self, options: CommonOptions, schedule: Schedule) -> None:
        self.options = options
        self.schedule = schedule
        self.generator = np.random.Generator(np.random.SFC64(schedule.seed))
        self.report = MethodReport()

    def meet_teacher(self, net: AcousticModel, teacher: AcousticModel) -> None:
        """Called with a fresh net before the first step of all, where `masks_teacher`."""

    def mask_teacher(self, teacher: AcousticModel) -> None:
        """Set the gates of the teacher before the steps of an epoch, where `masks_teacher`."""

    def holds_out(self, epoch: int) -> bool:
        """Whether this epoch must leave the held-out slice of train alone."""
        return False

    def begin_epoch(self, net: AcousticModel, epoch: int, generator: np.random.Generator) -> None:
        """Called before each epoch (0-based)."""
        self.generator = generator
        self.report = MethodReport()

    def training_mode(self, net: AcousticModel, epoch: int) -> None:
        """Set the gates for training steps."""
        open_gates(net)

    def inference_mode(self, net: AcousticModel) -> None:
        """Set the gates for evaluation."""
        open_gates(net)

    def before_step(self, net: AcousticModel, epoch: int, step: int) -> None:
        """Called before each training step (0-based `step` within the epoch)."""

    def rate_factor(self, epoch: int, step: int) -> float:
        """What multiplies the learning rate of the schedule in a step, for methods that train in phases."""
        return 1.0

    def penalty(self, net: AcousticModel) -> Union[torch.Tensor, None]:
        """What is added to the objective of the step, a scalar with gradients for weights or for tensors of the method; None is nothing."""
        return None

    def after_step(
        self, net: AcousticModel, epoch: int, step: int, optimiser: torch.optim.Optimizer, held_out: Union[HeldOut, None]
    ) -> None:
        """Called after each training step (0-based `step` within the epoch)."""

    def finish(self, net: AcousticModel, frames: Inputs, held_out: HeldOut) -> None:
        """Called after the last epoch: leave a net whose gates can be opened for good, and do what is done to a trained net.

        `frames`: real inputs for a proof; `held_out` has more, with targets, from the slice of train that `holds_out` keeps out of training
        for as long as it says.
        """
        open_gates(net)

    def tensors(self) -> dict[str, torch.Tensor]:
        """State for the training checkpoint."""
        return {}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what `tensors` returned."""


def open_gates(net: AcousticModel) -> None:
    """Let all units pass unchanged."""
    for group in net.unit_groups():
        group.gate.open()
