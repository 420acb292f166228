"""Dropout distillation (Rota Bulo, Porzi, Kontschieder 2016): a net that learns the average over all masks of a net trained with dropout.

Scaled weights only approximate that average `p(k|x) = E_M p(k|x, M)`. The student q minimises, over inputs and masks of the teacher,

    E_x E_M KL(p(.|x, M) || q(.|x)) = const + E_x KL(p(.|x) || q(.|x)),

so that one mask per example and step gives unbiased gradients of the distance from the whole average. The teacher is a large row trained
with dropout: it stays as it is, with its dropout on; the student has none. Labels count by 1 - `teacher_weight`, 0 as published.

A student of the size of the teacher (under experiment.large) starts with its weights, as published, and so has had its epochs, too, which
tables do not count; a narrow one (under experiment.small) starts at random.
A step costs a forward pass of the teacher more. The objective is the cross-entropy with p(.|x, M), whose gradients are those of the KL.
"""

from __future__ import annotations

from typing import Any, Literal, Union

from pydantic import Field

from dropasr.errors import ConfigError
from dropasr.methods.base import BaseMethod, CommonOptions
from dropasr.methods.dropout import set_dropout
from dropasr.models.base import AcousticModel


class MethodOptions(CommonOptions):
    """Keys of conf/method/dropout_distillation.yaml."""

    teacher: Union[str, None] = "dropout"
    """Large row trained with dropout."""
    teacher_weight: float = Field(default=1.0, ge=0, le=1)
    """Share of the teacher in the loss; the rest is the cross-entropy with the labels."""
    rate: float = Field(default=0.5, gt=0, lt=1)
    """Probability with which units of the teacher are left out: the one that it was trained with."""
    initial: Literal["teacher", "random"] = "teacher"
    """What a student of the teacher's own shape starts with."""


class Method(BaseMethod):
    """Masks per frame (of nets that read sequences, per piece; projections: per batch) and unit, in the teacher alone."""

    masks_teacher = True

    @classmethod
    def check(cls, options: MethodOptions, net: AcousticModel, teacher: Any = None) -> None:
        rate = getattr(teacher, "rate", None)
        if rate is None:
            raise ConfigError(
                f"{options.method}: expected a teacher trained with dropout, whose options have a rate, found '{options.teacher}'. "
                "Add 'dropout' to experiment.large and name it as the teacher."
            )
        if rate != options.rate:
            raise ConfigError(
                f"{options.method}: expected the rate {rate:g} of the teacher '{options.teacher}', found {options.rate:g}. "
                f"Set methods.{options.method}.rate={rate:g}."
            )

    def meet_teacher(self, net: AcousticModel, teacher: AcousticModel) -> None:
        if self.options.initial == "teacher" and net.dims == teacher.dims:
            net.load_state_dict(teacher.state_dict())
            self.report.messages.append(f"starts with the weights of {self.options.teacher}")

    def mask_teacher(self, teacher: AcousticModel) -> None:
        set_dropout(teacher, self.options.rate, self.generator)
