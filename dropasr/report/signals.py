"""Signal of the gradient estimators over the updates of retention learning: the record that `signal_updates` leaves, in short."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dropasr.report.inputs import SignalUpdate
from dropasr.report.schema import Signal


def estimators_of(updates: Sequence[SignalUpdate]) -> list[str]:
    """The estimators that a record has figures of."""
    return list(dict.fromkeys(name for update in updates for name in update.split_half))


def over_updates(updates: Sequence[SignalUpdate], name: str) -> np.ndarray:
    """Split-half correlation of an estimator at every update `(T,)`, mean over layers; NaN where it could not be measured."""
    means = []
    for update in updates:
        values = [value for value in update.split_half.get(name, []) if value is not None]
        means.append(np.mean(values) if values else np.nan)
    return np.array(means)


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def short_signals(updates: Sequence[SignalUpdate]) -> dict[str, Signal]:
    """First, median and last of every estimator."""
    found = {}
    for name in estimators_of(updates):
        values = over_updates(updates, name)
        measured = values[~np.isnan(values)]
        median = _finite(np.median(measured)) if len(measured) else None
        found[name] = Signal(first=_finite(values[0]), median=median, last=_finite(values[-1]))
    return found
