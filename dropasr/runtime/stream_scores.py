"""Scores of frames as they come, from the streaming graph of an exported net. Only the frames that later scores need are kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from dropasr.errors import ExportError
from dropasr.runtime.exported import Exported


class StreamScores:
    """One stream through an engine that computes parts (`OnnxEngine.part`)."""

    def __init__(self, engine: Any, exported: Exported) -> None:
        if not exported.streams:
            raise ExportError("this net reads recordings from their end, too, and cannot follow a stream. Transcribe whole files.")
        if not hasattr(engine, "part"):
            raise ExportError("this engine computes whole recordings alone. Follow a stream with the engine onnx.")
        self._engine, self._exported = engine, exported
        self._states = exported.first_states()
        self._frames = np.zeros((0, int(exported.features["num_mel_bins"])), np.float32)
        self._base = 0  # number of the first frame that is kept
        self._computed = 0

    @property
    def received(self) -> int:
        """Frames so far."""
        return self._base + len(self._frames)

    @property
    def ready(self) -> int:
        """Scores that `advance` would give now, those of no frame included."""
        return self._exported.shared * self._exported.frames_scored * self._ready

    @property
    def _ready(self) -> int:
        exported = self._exported
        # A score waits for all frames that share it, so that none is given to frames that never come.
        later = max(exported.right_context, exported.stride - exported.search_stride)
        return max(0, (self.received - 1 - later) // exported.stride + 1 - self._computed)

    def feed(self, frames: np.ndarray) -> None:
        """Take in raw log-mels `(T, F)`."""
        self._frames = np.concatenate([self._frames, frames])

    def advance(self, mean: np.ndarray, std: np.ndarray, last: bool = False) -> np.ndarray:
        """The scores `(m, K)` that the frames so far allow; with `last`, all that are left. Frames are normalised as given here."""
        exported = self._exported
        count = exported.num_scores(self.received) + exported.output_delay - self._computed if last else self._ready
        if count <= 0 or not self.received:
            return np.zeros((0, exported.units), np.float32)
        numbers = exported.window(self._computed, count, self.received)
        scores, self._states = self._engine.part(self._frames[numbers - self._base], mean, std, self._states)
        of_no_frame = max(0, exported.output_delay - self._computed)
        earlier = exported.stride * max(0, self._computed - exported.output_delay)
        self._computed += count
        done = min(max(self._computed * exported.stride - exported.left_context, self._base), self.received - 1) - self._base
        self._frames, self._base = self._frames[done:].copy(), self._base + done
        return exported.spread(scores[of_no_frame:], self.received - earlier)
