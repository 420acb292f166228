"""The proof that a compaction changed nothing: the masked net and the compacted net give the same logits on real frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dropasr.compaction.surgery import fold_constants, fold_scales, remove_units
from dropasr.data.chunks import Inputs
from dropasr.errors import CompactionError, DivergedError
from dropasr.models.base import AcousticModel

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


@dataclass(frozen=True)
class Proof:
    """Largest difference between the logits of the masked and the compacted net, and the largest logit."""

    max_difference: float
    largest_logit: float
    units_before: list[int]
    units_after: list[int]


def compact(
    net: AcousticModel,
    scales: list[torch.Tensor],
    frames: Inputs,
    optimiser: torch.optim.Optimizer | None = None,
    fold: bool = False,
    constants: list[torch.Tensor] | None = None,
) -> Proof:
    """Remove every unit whose scale is 0 from `net`, in place, and prove on `frames` (spliced `(N, D)`, or chunks) that the logits stay.

    `scales`: one tensor `(H,)` per group; the masked net multiplies its units by them. After the call the gates multiply by the
    scales of the units that stayed, or, with `fold`, are open with the scales folded into the weights that read the units.
    `constants`: bool, `(H,)` per group, units of scale 0 that leave although they are not masked, because they never change; what they
    say is folded into the biases above, and is part of the proof.
    Raises CompactionError over 1e-4 of the largest logit (float32; 1e-10 in float64), DivergedError where logits are not finite before.
    """
    groups = net.unit_groups()
    before = net.widths
    training = net.training
    net.eval()
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        noises = [group.gate.noise for group in groups]
        for group, scale in zip(groups, scales):
            group.gate.multiplier, group.gate.noise = scale, None
        if constants is not None:
            for group, constant in zip(groups, constants):
                group.gate.multiplier = torch.where(constant, torch.ones_like(group.gate.multiplier), group.gate.multiplier)
        masked = net(frames)
        if not bool(torch.isfinite(masked).all()):
            raise DivergedError(
                f"the net's logits on {len(masked)} frames are not finite before units are removed: its training diverged. Lower the "
                "learning rate (train.learning_rate, or training_rate of the method) and run this again."
            )
        for group, constant, units in zip(groups, constants or [], net.unit_activations(frames) if constants else []):
            if bool(constant.any()):
                fold_constants(group, torch.where(constant, units[0], torch.zeros_like(units[0])))
        if fold:
            fold_scales(groups, scales)
        keep = {group.name: torch.nonzero(scale > 0).flatten() for group, scale in zip(groups, scales)}
        remove_units(net, keep, optimiser)
        if fold:
            for group in net.unit_groups():
                group.gate.multiplier = None
        compacted = net(frames)
        for group, noise in zip(net.unit_groups(), noises):
            group.gate.noise = noise
    net.train(training)
    difference = float((masked - compacted).abs().max())
    largest = float(masked.abs().max())
    tolerance = TOLERANCE[masked.dtype]
    if not difference <= tolerance * max(largest, 1e-30):
        raise CompactionError(
            f"the compacted net differs from the masked one by {difference:.3g} on {len(masked)} frames; at most {tolerance:g} of the "
            f"largest logit ({largest:.3g}) is allowed. The net was not saved; please report this with the configuration."
        )
    return Proof(difference, largest, before, net.widths)
