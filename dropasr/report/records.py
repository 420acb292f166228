"""Parts of the records that `results.json` is made of."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from dropasr.scoring.bootstrap import Bounds


class Record(BaseModel):
    """Base of what is written: no other keys, no NaN."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Difference(Record):
    """Difference of two error rates on the same test utterances, percent absolute."""

    to: str
    """Name of the row that is subtracted."""
    mean: float
    """The difference; below 0, this row has fewer errors."""
    interval: Bounds
    """95 % interval, paired, over speakers (over utterances where there is one speaker)."""


class Rate(NamedTuple):
    """An error rate (percent), its interval, and its difference to the reference row."""

    value: float
    interval: Bounds
    difference: Difference


class Rtf(Record):
    """Real-time factors: sum of times over sum of durations; one thread, batch 1, warmed up, nets interleaved."""

    features: float
    """Feature extraction."""
    model: float
    """Acoustic model."""
    search: float
    """Search."""
    total: float
    """The three together."""


class ModelTotalRtf(Record):
    """A statistic of the real-time factors of single utterances."""

    model: float
    """Acoustic model."""
    total: float
    """Whole decode."""


class Speedup(Record):
    """How many times faster than the reference row, same utterances, interleaved."""

    model: float
    """Acoustic model."""
    total: float
    """Whole decode."""
    interval: Bounds
    """95 % interval of `model`, paired bootstrap over utterances."""
    total_interval: Bounds
    """95 % interval of `total`."""


class Counts(Record):
    """Words and errors of the test set."""

    words: int
    """Words of the references."""
    substitutions: int
    """Words recognised as others."""
    deletions: int
    """Words missed."""
    insertions: int
    """Words too many."""
