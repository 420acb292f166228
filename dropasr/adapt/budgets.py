"""Budgets as engineers of devices think of them, and the widths that meet them.

    macs=1/8            multiply-adds per frame: a share of the net's, or a number (macs=2M)
    params=1/4          parameters, alike
    bytes=200k          bytes of the tensors in the state dict (k, M: thousands; Ki, Mi: 1024), or a share
    latency=1/4         time of a call on this machine, one thread, measured: a share, or 0.5ms, 0.5ms/frame (us, ms, s)
    dev-loss=+0.05      the smallest net whose loss on dev is at most that much above the net's own
    error=+0.5%         the same with the frame error in percent, absolute
    wer-loss=+0.5       the same with the WER, absolute, of whoever can decode (`evaluate`), or of the rows of a finished experiment

The last three are found by a search: one compaction per size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Union

import torch

from dropasr.errors import CompactionError, ConfigError
from dropasr.models.base import AcousticModel, widths_for_budget

SIZES = ("macs", "params", "bytes", "latency")
LOSSES = ("dev-loss", "error", "wer-loss")
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Budget:
    """`relative`: `value` is a share of the large net's; `per_frame`: it is the latency of a frame, not of a call. Latencies in seconds."""

    kind: str
    value: float
    relative: bool
    per_frame: bool = False

    @property
    def is_search(self) -> bool:
        """Whether it takes a compaction per size to find it."""
        return self.kind in LOSSES


def parse_budget(text: str) -> Budget:
    """Read `KIND=VALUE`. Raises ConfigError that says what the kind takes."""
    kind, equals, value = (part.strip() for part in str(text).partition("="))
    if kind not in SIZES + LOSSES or not equals:
        raise ConfigError(f"budget: expected one of {', '.join(SIZES + LOSSES)} and '=', such as macs=1/8, found '{text}'.")
    if kind in LOSSES:
        match = re.fullmatch(r"\+?(\d+(?:\.\d*)?|\.\d+)\s*(%?)", value)
        if not match or (match[2] and kind == "dev-loss"):
            raise ConfigError(f"budget {kind}: expected an allowed rise such as +0.5{'' if kind == 'dev-loss' else ' %'}, found '{value}'.")
        return Budget(kind, float(match[1]), relative=False)
    share = re.fullmatch(r"(\d+)\s*/\s*(\d+)|0?\.\d+", value)
    if share:
        found = Fraction(value.replace(" ", "")) if not value.endswith("/0") else Fraction(0)
        if not 0 < found < 1:
            raise ConfigError(f"budget {kind}: expected a share between 0 and 1, found '{value}'.")
        return Budget(kind, float(found), relative=True)
    units = SECONDS if kind == "latency" else UNITS
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-zµ]*?)(B?)(/frame|/call)?", value)
    if not match or match[2] not in units or (match[3] and kind != "bytes") or (match[4] and kind != "latency"):
        known = (
            "0.5ms, 0.5ms/frame or a share such as 1/4"
            if kind == "latency"
            else f"a number with {', '.join(list(UNITS)[1:])}, or a share such as 1/4"
        )
        raise ConfigError(f"budget {kind}: expected {known}, found '{value}'.")
    number = float(match[1]) * units[match[2]]
    if not number > 0:
        raise ConfigError(f"budget {kind}: expected more than 0, found '{value}'.")
    return Budget(kind, number, relative=False, per_frame=match[4] == "/frame")


def shapes_at(net: AcousticModel, widths: Sequence[int]) -> dict[str, list[int]]:
    """Shapes of the tensors of the state dict of `net` if its groups had `widths` units: what surgery would leave, without doing it."""
    names = {id(tensor): name for name, tensor in net.state_dict(keep_vars=True).items()}
    shapes = {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
    for group, width in zip(net.unit_groups(), widths, strict=True):
        for slice_ in group.slices:
            name = names[id(getattr(slice_.module, slice_.name))]
            shapes[name][slice_.dim] -= slice_.blocks * (group.gate.width - width)
    return shapes


def num_bytes(net: AcousticModel, widths: Sequence[int]) -> int:
    """Bytes of all tensors of the state dict at these widths."""
    sizes = {name: tensor.element_size() for name, tensor in net.state_dict().items()}
    return sum(sizes[name] * int(torch.Size(shape).numel()) for name, shape in shapes_at(net, widths).items())


def num_parameters(net: AcousticModel, widths: Sequence[int]) -> int:
    """Parameters at these widths."""
    shapes, own = shapes_at(net, widths), dict(net.named_parameters())
    return sum(int(torch.Size(shape).numel()) for name, shape in shapes.items() if name in own)


def widths_at_most(
    net: AcousticModel, cost: Callable[[list[int]], float], limit: float, at: Callable[[float], list[int]], what: str, steps: int = 24
) -> list[int]:
    """The widest of the widths `at(share)`, shares from 0 to 1, whose cost is at most `limit`, by bisection of the share.

    Raises CompactionError where the narrowest cost more than that. `what` names the cost and its unit.
    """
    least = at(0.0)
    if cost(least) > limit:
        raise CompactionError(
            f"budget: expected at least {cost(least):.4g} {what}, which the narrowest net has "
            f"({'/'.join(map(str, least))} units), found {limit:.4g}. Lower min_units (options), or allow more."
        )
    low, high, widths = 0.0, 1.0, least
    for _ in range(steps):
        middle = (low + high) / 2
        tried = at(middle)
        if tried == widths:
            low = middle
        elif cost(tried) <= limit:
            low, widths = middle, tried
        else:
            high = middle
    return widths


def widths_of(
    budget: Budget,
    net: AcousticModel,
    min_units: int = 8,
    multiple: int = 1,
    together: Union[Sequence[int], None] = None,
    seconds: Union[Callable[[list[int]], float], None] = None,
) -> list[int]:
    """Widths that meet a budget of SIZES: multiply-adds as closely as possible, the others from below.

    `seconds`: measures a call of the net of some widths, or of the large one; `multiple`, `together`: as for `widths_for_budget`.
    Raises CompactionError where the net is small enough already, or the budget cannot be met.
    """
    macs = net.macs_per_frame()

    def at(share: float) -> list[int]:
        return widths_for_budget(net, share * macs, None, min_units, multiple, together)

    costs: dict[str, Callable[[list[int]], float]] = {
        "macs": lambda widths: net.macs_per_frame(widths),
        "params": lambda widths: num_parameters(net, widths),
        "bytes": lambda widths: num_bytes(net, widths),
        "latency": seconds,
    }
    cost, what = costs[budget.kind], "seconds per call" if budget.kind == "latency" else budget.kind
    large = cost(net.widths)
    limit = budget.value * large if budget.relative else budget.value
    if limit >= large:
        raise CompactionError(
            f"budget {budget.kind}: the net has {large:.4g} {what} already, {limit:.4g} are allowed: there is nothing to remove."
        )
    if budget.kind != "macs":
        # Times are measured anew at each step, so fewer steps than where sizes are counted.
        return widths_at_most(net, cost, limit, at, what, steps=8 if budget.kind == "latency" else 24)
    widths = at(limit / macs)
    if net.macs_per_frame(widths) > 1.05 * limit and widths == at(0.0):
        widths_at_most(net, cost, limit, at, what)
    return widths
