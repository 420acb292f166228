"""SVD restructuring (Xue, Li, Gong 2013; for LSTM nets Prabhavalkar et al. 2016): low ranks in place of fewer units.

The large net is trained as it is until `start`; then every matrix becomes a product of two, with ranks that explain the same share of the
squared singular values of each and together meet the budget of multiply-adds; the rest of the epochs retunes them. A step of retuning
costs what the smaller net costs; the decomposition runs once. How, and what becomes of an LSTM: dropasr/compaction/low_rank.py.
"""

from __future__ import annotations

from typing import Any, Literal, Union

import torch
from pydantic import Field

from dropasr.compaction.low_rank import become, check_factorable, factored, fixed_macs, matrices_of, ranks_for_budget
from dropasr.errors import CompactionError
from dropasr.methods.base import BaseMethod, CommonOptions, HeldOut, Schedule
from dropasr.models.base import AcousticModel


class MethodOptions(CommonOptions):
    """Keys of conf/method/svd.yaml."""

    start: float = Field(default=0.5, gt=0, lt=1)
    """Share of the training steps after which the matrices are factored; the other steps retune them."""
    matrices: Literal["all", "hidden"] = "all"
    """`hidden`: leave whole what reads the inputs and, of feed-forward nets, what makes the logits."""


class Method(BaseMethod):
    """All gates open, before and after."""

    makes_smaller = True
    own_schedule = True

    @classmethod
    def check(cls, options: MethodOptions, net: AcousticModel, teacher: Any = None) -> None:
        check_factorable(net)

    def __init__(self, options: MethodOptions, schedule: Schedule) -> None:
        super().__init__(options, schedule)
        if schedule.target_macs is None:
            raise CompactionError(f"{options.method} needs a budget: use it in experiment.compact.")
        self.factored = False

    def after_step(
        self, net: AcousticModel, epoch: int, step: int, optimiser: torch.optim.Optimizer, held_out: Union[HeldOut, None]
    ) -> None:
        now = epoch + (step + 1) / self.schedule.steps_per_epoch
        if self.factored or now < self.options.start * self.schedule.epochs:
            return
        before, matrices = net.macs_per_frame(), matrices_of(net, ends=self.options.matrices == "all")
        ranks, share = ranks_for_budget(matrices, fixed_macs(net, matrices), float(self.schedule.target_macs))
        become(net, factored(net, matrices, ranks), optimiser)
        self.factored = True
        told = ", ".join(f"{matrix.name} {rank or 'whole'} of {len(matrix.spectrum)}" for matrix, rank in zip(matrices, ranks))
        self.report.messages.append(
            f"factored: multiply-adds per frame {before} -> {net.macs_per_frame()}, {100 * share:.1f} % of the squared singular values; "
            f"ranks {told}"
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"factored": torch.tensor(self.factored)}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        self.factored = bool(tensors["factored"])
