"""Copies of the training cuts at other speeds, and other volumes, through lhotse; audio is changed as it is read."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from lhotse import MonoCut

Volume = Union[tuple[float, float], None]


def _at_speed(cut: MonoCut, speed: float) -> MonoCut:
    """The cut at another speed, pitch changed with it as by `sox speed`, with an id and a speaker of its own."""
    from lhotse.utils import fastcopy

    copy = cut.perturb_speed(speed, affix_id=False)
    prefix = f"sp{speed:g}-"
    # Another speed is another voice: its mean and variance are not those of the speaker.
    supervisions = [
        fastcopy(supervision, id=prefix + supervision.id, speaker=supervision.speaker and prefix + supervision.speaker)
        for supervision in copy.supervisions
    ]
    return fastcopy(copy, id=prefix + copy.id, supervisions=supervisions)


def _at_volume(cut: MonoCut, volume: Volume) -> MonoCut:
    if volume is None:
        return cut
    return cut.perturb_volume(random.Random(f"volume of {cut.id}").uniform(*volume), affix_id=False)


def perturbed(cuts: Iterable[MonoCut], speeds: Sequence[float], volume: Volume) -> list[tuple[MonoCut, str]]:
    """The cuts, then a copy of all for each of `speeds`, every one with the id of its original.

    A copy at speed 0.9 lasts 1/0.9 of the time; its id and speaker begin with `sp0.9-`. The volume of each cut, copies included, is
    multiplied by a factor between the two of `volume`, drawn from its id alone, so that the same cuts always sound the same.
    """
    cuts = list(cuts)
    result = [(_at_volume(cut, volume), cut.id) for cut in cuts]
    for speed in speeds:
        result += [(_at_volume(_at_speed(cut, speed), volume), cut.id) for cut in cuts]
    return result
