"""What methods that remove units while they train have in common: when, how many, and the proof that the outputs stayed."""

from __future__ import annotations

from typing import Any, Union

import torch
from pydantic import Field

from dropasr.compaction.proof import compact
from dropasr.compaction.reconstruction import take_over
from dropasr.compaction.surgery import has_biases
from dropasr.compaction.unit_statistics import feeds_itself, observe
from dropasr.data.chunks import Inputs
from dropasr.errors import CompactionError, ConfigError
from dropasr.methods.base import BaseMethod, CommonOptions, HeldOut, Schedule, open_gates
from dropasr.models.base import AcousticModel, widths_for_budget


class RemovalOptions(CommonOptions):
    """Keys of every method that removes units gradually."""

    start: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training steps before the first removal."""
    end: float = Field(default=0.25, gt=0, le=1)
    """Share of the training steps after which the net has its final size."""
    passes: int = Field(default=9, ge=1)
    """Passes between `start` and `end`, evenly spread, after each of which units may leave."""
    min_units: int = Field(default=8, ge=1)
    """Units that every layer keeps."""
    width_multiple: int = Field(default=1, ge=1)
    """With a budget, units of a layer are a multiple of it, as processors may prefer (benchmarks/width_latency.py); 1: what is closest."""
    reconstruction_frames: int = Field(default=0, ge=0)
    """Frames of the held-out slice of train by which, at every removal, the units that stay take over what those that leave gave the
    layers above; 0: they take over nothing."""
    input_power: float = Field(default=0.0, ge=0, le=1)
    """Inputs, single features of the spliced frames, leave, too, as units do: with a budget as many as leave the share of the hidden units
    raised to this power. 0: all inputs stay. Feed-forward nets only (an extension of ours)."""


class GradualRemoval(BaseMethod):
    """Three phases: plain training until `start`, then passes that decide about units and remove some, from `end` on plain training.

    `scales`: one tensor `(H,)` per group of units, following the net as it shrinks; a unit of scale 0 leaves after the pass.
    """

    makes_smaller = True
    ranks_inputs = False
    """Whether what the method says of units can be said of inputs."""

    @classmethod
    def check(cls, options: Any, net: AcousticModel, teacher: Any = None) -> None:
        if options.input_power and not (cls.ranks_inputs and net.can_drop_inputs):
            who = "this method ranks hidden units alone" if net.can_drop_inputs else "a net of this kind reads all its inputs"
            raise ConfigError(
                f"{options.method}: input_power {options.input_power:g}: {who}. Set it to 0, or train a feed-forward net with "
                "online_compaction, dropout_compaction or norm_removal."
            )
        if options.reconstruction_frames and getattr(net, "layer_norm", False):
            raise ConfigError(
                f"{options.method}: reconstruction_frames {options.reconstruction_frames} with model.layer_norm: what the layers above "
                "read is not what the next step reads, so that none can take over for both. Set one of them to 0 or false."
            )
        without = [group.name for group in net.unit_groups() if not feeds_itself(group) and not has_biases(group)]
        if without and (options.reconstruction_frames or cls.folds_means(options, net)):
            raise ConfigError(
                f"{options.method}: what reads the units of {without[0]} has no biases, into which the means of units that leave could go. "
                "Give that layer biases (of 0), or choose a method that leaves means alone, such as dropout_compaction."
            )

    @classmethod
    def folds_means(cls, options: Any, net: AcousticModel) -> bool:
        """Whether the layers above go on reading the mean of a unit that leaves, by their biases; recurrent units always leave as 0."""
        return False

    def __init__(self, options: RemovalOptions, schedule: Schedule) -> None:
        super().__init__(options, schedule)
        if options.end <= options.start:
            raise CompactionError(f"{options.method}: end ({options.end}) must come after start ({options.start}).")
        if self.meets_budget and schedule.target_macs is None:
            raise CompactionError(f"{options.method} needs a budget: use it in experiment.compact, or set controller: none if it has one.")
        self.scales: list[torch.Tensor] = []
        self.targets: list[int] = []
        self.initial_units: list[int] = []
        self.phase = "before"

    @property
    def meets_budget(self) -> bool:
        """Whether the final size is that of the row's budget."""
        return True

    @property
    def passes(self) -> int:
        """Passes between `start` and `end`."""
        return self.options.passes

    def constants(self, net: AcousticModel) -> Union[list[torch.Tensor], None]:
        """Which of the units that are about to leave never change, bool `(H,)` per group; None is none of them."""
        return None

    def begin_removal(self, net: AcousticModel, trained: bool) -> None:
        """Called once, at `start`; `trained`: the net has learnt by then."""
        if self.options.input_power:
            net.gate_inputs()
        self.scales = [torch.ones(width) for width in net.widths]
        self.initial_units = list(net.widths)
        if self.meets_budget:
            macs, widths = float(self.schedule.target_macs), self.schedule.target_widths
            units, multiple = self.options.min_units, self.options.width_multiple
            powers = [self.options.input_power if group.name == "inputs" else 1.0 for group in net.unit_groups()]
            self.targets = list(widths) if widths else widths_for_budget(net, macs, None, units, multiple, powers=powers)
        self.phase = "learning"

    def run_pass(self, net: AcousticModel, number: int, time: float, held_out: HeldOut) -> None:
        """Pass `number` (from 1) at `time` (epochs): set scales. The last pass is followed by `decide`."""
        raise NotImplementedError

    def present_scales(self) -> list[torch.Tensor]:
        """What the units `(H,)` of each group are multiplied by before a pass, in the net that is evaluated."""
        return [values.clone() for values in self.scales]

    def planned(self, first: int, last: int, number: int) -> int:
        """Units left after pass `number` (from 1) of a group that begins with `first` and ends with `last`."""
        return round(first + (last - first) * number / self.passes)

    def decide(self) -> None:
        """Leave as many scales above 0 as the targets say, the largest ones."""
        for index, (scales, target) in enumerate(zip(self.scales, self.targets)):
            kept = torch.zeros_like(scales)
            best = scales.topk(target).indices
            kept[best] = scales[best]
            self.scales[index] = kept

    def training_mode(self, net: AcousticModel, epoch: int) -> None:
        if self.phase == "before" and self.options.start == 0:
            self.begin_removal(net, self.schedule.trained)
        open_gates(net)

    def after_step(
        self, net: AcousticModel, epoch: int, step: int, optimiser: torch.optim.Optimizer, held_out: Union[HeldOut, None]
    ) -> None:
        begin, end = self.options.start * self.schedule.epochs, self.options.end * self.schedule.epochs
        before, now = (epoch + (step + done) / self.schedule.steps_per_epoch for done in (0, 1))
        if self.phase == "before" and now >= begin:
            self.begin_removal(net, trained=True)
            self.training_mode(net, epoch)
        if self.phase != "learning" or before >= end:
            return
        interval = (end - begin) / self.passes
        # A small excess guards against rounding: the last pass must fall on the last step before `end`.
        passed, due = (min(max(int((time - begin) / interval + 1e-9), 0), self.passes) for time in (before, now))
        if due <= passed:
            return
        assert held_out is not None  # what learns or ranks units has been given them
        scales = self.present_scales()
        for number in range(passed, due):
            self.run_pass(net, number + 1, now, held_out)
        decided = due >= self.passes
        if decided and self.targets:
            self.decide()
        self.note_histogram(now)
        if self.options.reconstruction_frames:
            self._reconstruct(net, scales, held_out)
        self._remove(net, optimiser, held_out, fold=decided)
        if decided:
            self._end(net)
        self.training_mode(net, epoch)

    def _end(self, net: AcousticModel) -> None:
        self.phase = "after"
        if self.options.input_power:
            net.open_inputs()

    def _reconstruct(self, net: AcousticModel, before: list[torch.Tensor], held_out: HeldOut) -> None:
        """Let the units whose scale is not 0 take over from those that had one `before` this step, one layer after the other."""
        inputs, _ = held_out.draw(self.generator, min(self.options.reconstruction_frames, held_out.num_rows))
        groups = net.unit_groups()
        for group, old in zip(groups, before):
            group.gate.multiplier = old
        for index, (group, old, new) in enumerate(zip(groups, before, self.scales)):
            if bool((new == 0).any()):
                units = observe(net, inputs)[index] * torch.where(new > 0, new, old)
                take_over(group, units, new > 0)
            group.gate.multiplier = new

    def _remove(self, net: AcousticModel, optimiser: torch.optim.Optimizer, held_out: HeldOut, fold: bool) -> None:
        """Remove units of scale zero; `fold` then opens the gates."""
        if not fold and all(bool((scales > 0).all()) for scales in self.scales):
            return
        inputs, _ = held_out.draw(self.generator, 512)
        proof = compact(net, self.scales, inputs, optimiser, fold=fold, constants=self.constants(net))
        self.scales = [scales[scales > 0] for scales in self.scales]
        self.report.proofs.append(proof)
        before, after = ("/".join(map(str, units)) for units in (proof.units_before, proof.units_after))
        self.report.messages.append(
            f"removed units: {before} -> {after}; masked and compacted logits differ by {proof.max_difference:.1e} "
            f"(largest logit {proof.largest_logit:.3g})"
        )

    def note_histogram(self, epochs: float) -> None:
        """Note the scales of all hidden units that the net had at the start; those that left stay in the first bin."""
        layers, first = [], bool(self.options.input_power)
        for scales, units in list(zip(self.scales, self.initial_units))[first:]:
            counts = torch.histc(scales, bins=20, min=0, max=1).int().tolist()
            counts[0] += units - scales.numel()
            layers.append({"counts": counts, "kept": int((scales > 0).sum()), "total": units})
        self.report.retention.append({"epoch": round(epochs, 3), "layers": layers})

    def finish(self, net: AcousticModel, frames: Inputs, held_out: HeldOut) -> None:
        if self.phase == "learning":
            self.report.proofs.append(compact(net, self.scales, frames, fold=True))
            self._end(net)
        open_gates(net)

    def tensors(self) -> dict[str, torch.Tensor]:
        phase = torch.tensor(["before", "learning", "after"].index(self.phase))
        scales = {f"scales.{index}": values for index, values in enumerate(self.scales)}
        sizes = {"targets": torch.tensor(self.targets), "initial_units": torch.tensor(self.initial_units)}
        return {"phase": phase, **sizes, **scales}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        self.phase = ["before", "learning", "after"][int(tensors["phase"])]
        self.targets, self.initial_units = (tensors[name].int().tolist() for name in ("targets", "initial_units"))
        self.scales = [tensors[f"scales.{index}"].clone() for index in range(sum(name.startswith("scales.") for name in tensors))]


class RankedRemoval(GradualRemoval):
    """Removes at every pass the units that `ranks` puts lowest, as many as lead evenly from the first widths to the final ones."""

    def ranks(self, net: AcousticModel) -> list[torch.Tensor]:
        """What each unit of each group is worth, one tensor `(H,)` per group; the lowest leave first."""
        raise NotImplementedError

    def run_pass(self, net: AcousticModel, number: int, time: float, held_out: HeldOut) -> None:
        for scales, ranks, first, last in zip(self.scales, self.ranks(net), self.initial_units, self.targets):
            surplus = scales.numel() - self.planned(first, last, number)
            # Units that left in this very step, when two passes fall on it, count among the surplus.
            ranks = ranks.masked_fill(scales == 0, -torch.inf)
            scales[ranks.topk(max(surplus, 0), largest=False).indices] = 0
