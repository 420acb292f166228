"""Change of the sample rate without torch: the windowed sinc of torchaudio, with its defaults, on audio that arrives in parts.

Training resamples with torchaudio (`corpus.resample`), so that a net hears the same here. Interpolation with a sinc under a Hann window
(Smith, Digital Audio Resampling Home Page, 2002), six zero crossings on either side, cut off at 0.99 of the lower half rate.
"""

from __future__ import annotations

import math

import numpy as np

ZERO_CROSSINGS = 6
ROLLOFF = 0.99


def _kernel(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights `(target, taps)` of the `target` outputs that stand for `source` inputs, and the first input `(target,)` of each.

    Both rates without their common divisor. An output reads the inputs within six zero crossings; torchaudio's rows hold zeros beside.
    """
    base = min(source, target) * ROLLOFF
    width = math.ceil(ZERO_CROSSINGS * source / base)
    place = np.arange(target) * source / target  # of the outputs, in inputs
    first = np.floor(place).astype(np.int64) - width
    distance = (first[:, None] + np.arange(2 * width + 2) - place[:, None]) / source * base
    window = np.cos(np.clip(distance, -ZERO_CROSSINGS, ZERO_CROSSINGS) * math.pi / ZERO_CROSSINGS / 2) ** 2
    return (np.sinc(distance) * window * base / source).astype(np.float32), first


class Resampler:
    """Audio at `source` Hz in, at `target` Hz out: `feed` gives what can be computed, `finish` the rest.

    In all, S samples become ⌈S · target / source⌉, the same in whatever parts they come.
    """

    def __init__(self, source: int, target: int) -> None:
        divisor = math.gcd(source, target)
        self._source, self._target = source // divisor, target // divisor
        self._weights, self._first = _kernel(self._source, self._target)
        self._taps = self._weights.shape[1]
        self._margin = -int(self._first[0])
        self._waiting = np.zeros(self._margin, np.float32)  # silence before the first sample
        self._begin = -self._margin  # number of the first waiting sample
        self._received = self._given = 0

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Output samples, float32, that are complete with these input samples, float32 `(S,)`."""
        self._received += len(samples)
        self._waiting = np.concatenate([self._waiting, samples.astype(np.float32, copy=False)])
        # Output k is complete when all of its inputs are there.
        last = self._begin + len(self._waiting) - self._taps
        periods, rest = divmod(last, self._source)
        ready = periods * self._target + int(np.searchsorted(self._first + self._margin, rest + self._margin, side="right"))
        return self._output(max(ready, self._given))

    def finish(self) -> np.ndarray:
        """The output samples left, with silence after the last input sample."""
        total = -(-self._received * self._target // self._source)
        self._waiting = np.concatenate([self._waiting, np.zeros(self._taps + self._source, np.float32)])
        return self._output(total)

    def _output(self, until: int) -> np.ndarray:
        if until <= self._given:
            return np.zeros(0, np.float32)
        periods, phases = np.divmod(np.arange(self._given, until), self._target)
        starts = periods * self._source + self._first[phases] - self._begin
        windows = np.lib.stride_tricks.sliding_window_view(self._waiting, self._taps)[starts]
        result = np.einsum("nt,nt->n", windows, self._weights[phases])
        self._given = until
        # What the next output reads first.
        period, phase = divmod(until, self._target)
        done = max(period * self._source + int(self._first[phase]) - self._begin, 0)
        self._waiting, self._begin = self._waiting[done:], self._begin + done
        return result
