"""Log-mel energies and their normalisation without torch, on audio that arrives in parts.

The filterbank is kaldi-native-fbank's, with the options that make it lhotse's, which training extracts with: the two differ by less than
0.001 in log units (tests/runtime/test_frontend.py). Normalisation is that of training, too (dropasr/data/normalisation.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from dropasr.data.normalisation import Moments, moments
from dropasr.errors import DataError
from dropasr.runtime.exported import Exported

STREAM_PRIOR_FRAMES = 300.0
"""Least weight of the training set's statistics in those of a stream, which begins without any of its own."""
STREAM_MEMORY_FRAMES = 6000.0
"""Largest weight of what a stream has heard: older frames fade, as speakers and rooms change."""


class LogMel:
    """A stream of samples in, log-mel energies `(T, F)` out; in all T is S over the frame shift, rounded. Edges are reflected."""

    def __init__(self, features: dict[str, float], sample_rate: int) -> None:
        import kaldi_native_fbank

        options = kaldi_native_fbank.FbankOptions()
        frame = options.frame_opts
        frame.samp_freq, frame.dither, frame.snip_edges = sample_rate, 0.0, False
        frame.frame_length_ms, frame.frame_shift_ms = 1000 * features["frame_length"], 1000 * features["frame_shift"]
        options.mel_opts.num_bins = int(features["num_mel_bins"])
        options.mel_opts.low_freq, options.mel_opts.high_freq = features["low_freq"], features["high_freq"]
        options.use_energy = False
        self._fbank: Any = kaldi_native_fbank.OnlineFbank(options)
        self._rate, self._given, self._received = sample_rate, 0, 0
        self._num_bins = options.mel_opts.num_bins
        self._shortest = int(features["frame_length"] * sample_rate)

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """The frames that these samples, float32 `(S,)` in [-1, 1], complete, float32 `(T, F)`; T may be 0."""
        self._received += len(samples)
        if len(samples):
            self._fbank.accept_waveform(self._rate, samples.tolist())
        return self._ready()

    def finish(self) -> np.ndarray:
        """The frames left. Raises DataError for audio shorter than one frame."""
        if self._received < self._shortest:
            raise DataError(f"expected at least {self._shortest} samples (one frame) at {self._rate} Hz, found {self._received}")
        self._fbank.input_finished()
        return self._ready()

    def _ready(self) -> np.ndarray:
        until = self._fbank.num_frames_ready
        frames = np.zeros((until - self._given, self._num_bins), np.float32)
        for row, number in enumerate(range(self._given, until)):
            frames[row] = self._fbank.get_frame(number)  # it lies in the memory that pop gives back
        self._fbank.pop(len(frames))
        self._given = until
        return frames


def log_mels(blocks: Iterable[np.ndarray], exported: Exported) -> Iterator[np.ndarray]:
    """Log-mel energies of audio that comes in blocks, in parts `(T, F)`. Raises DataError for audio shorter than one frame."""
    extractor = LogMel(exported.features, exported.sample_rate)
    for block in blocks:
        yield extractor.feed(block)
    yield extractor.finish()


def _prior(exported: Exported) -> Moments:
    mean, std = exported.training_statistics()
    return Moments(1.0, mean.astype(np.float64), np.square(std.astype(np.float64)))


class Statistics:
    """Mean and standard deviation of frames that are added bit by bit, smoothed by those of the training set as in training."""

    def __init__(self, exported: Exported, least_prior: float = 0.0, memory: float = float("inf")) -> None:
        """`least_prior`: frames that the training set's statistics weigh at least; `memory`: what the frames heard weigh at most."""
        self._prior, self._memory = _prior(exported), memory
        self._weight = max(float(exported.normalisation["prior_frames"]), least_prior)
        self._found: Moments | None = None

    def add(self, frames: np.ndarray) -> None:
        """Take in frames `(T, F)`."""
        if not len(frames):
            return
        self._join(moments([frames]))

    def join(self, other: Statistics) -> None:
        """Take in the frames that another one has seen."""
        if other._found is not None:
            self._join(other._found)

    def _join(self, new: Moments) -> None:
        old = self._found
        self._found = new if old is None else replace(old, frames=min(old.frames, self._memory)).joined(new)

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Float32 `(F,)` each; before the first frame those of the training set."""
        if self._found is None:
            return self._prior.mean_and_std()
        return self._found.smoothed(self._prior, self._weight).mean_and_std()


def stream_statistics(exported: Exported) -> Statistics:
    """Running statistics of a stream: what was heard so far, with a prior of three seconds at least, and a memory of a minute."""
    return Statistics(exported, STREAM_PRIOR_FRAMES, STREAM_MEMORY_FRAMES)
