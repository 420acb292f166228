"""The graphs of an exported net in ONNX Runtime: whole utterances, and streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dropasr.errors import DataError, UsageError
from dropasr.runtime.exported import DYNAMIC_INT8, STATIC_INT8, STREAM, WHOLE, Exported

ENGINES = {"onnx": WHOLE, "onnx_int8": DYNAMIC_INT8, "onnx_int8_static": STATIC_INT8}
"""Engines by name, and the graph that each runs: float32, and the two kinds of 8-bit integers."""


def open_session(path: Path, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` on the processor. Raises DataError naming a file that it cannot read."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # The memory of an utterance is given back after it: pieces differ in length, and a pool would keep room for each length it has seen.
    options.enable_cpu_mem_arena = False
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises kinds of its own
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: ONNX Runtime cannot load this graph ({reason}). Make the package again, or use another engine.") from None


class Scorer:
    """Scores of frames: `whole` for pieces that are there, `stream` for parts of one recording."""

    def __init__(self, folder: Path, exported: Exported, engine: str = "onnx", threads: int = 1) -> None:
        if engine not in ENGINES:
            raise UsageError(f"option '--engine': expected {', '.join(ENGINES)}, found '{engine}'.")
        if ENGINES[engine] not in exported.files:
            there = ", ".join(name for name, file in ENGINES.items() if file in exported.files)
            raise UsageError(f"option '--engine': {folder} has no {ENGINES[engine]}, which {engine} runs. It has {there}.")
        self._folder, self._exported, self._threads = folder, exported, threads
        self._whole = open_session(folder / ENGINES[engine], threads)

    def whole(self, frames: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """Scores `(⌈T/stride⌉, K)` of raw log-mels `(T, F)`."""
        return self._whole.run(["scores"], {"features": frames, "mean": mean, "std": std})[0]

    def stream(self) -> StreamScorer:
        """The scorer of one stream. Raises DataError for a net that reads a recording from its end, too."""
        if not self._exported.streams:
            raise DataError(f"{self._folder}: its net has no {STREAM}: it reads recordings from the end, too. Transcribe whole files.")
        return StreamScorer(open_session(self._folder / STREAM, self._threads), self._exported)


class StreamScorer:
    """Scores of frames as they come. Only the frames that later scores need are kept."""

    def __init__(self, session: Any, exported: Exported) -> None:
        self._session, self._exported = session, exported
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
        return max(0, (self.received - 1 - self._exported.right_context) // self._exported.stride + 1 - self._computed)

    def feed(self, frames: np.ndarray) -> None:
        """Take in raw log-mels `(T, F)`."""
        self._frames = np.concatenate([self._frames, frames])

    def advance(self, mean: np.ndarray, std: np.ndarray, last: bool = False) -> np.ndarray:
        """The scores `(m, K)` that the frames so far allow; with `last`, all that are left."""
        exported = self._exported
        count = exported.num_scores(self.received) + exported.output_delay - self._computed if last else self.ready
        if count <= 0 or not self.received:
            return np.zeros((0, exported.units), np.float32)
        numbers = exported.window(self._computed, count, self.received)
        window = self._frames[numbers - self._base]
        names = list(self._states)
        inputs = {"window": window, "mean": mean, "std": std, **{f"state_in_{name}": self._states[name] for name in names}}
        scores, *states = self._session.run(["scores", *(f"state_out_{name}" for name in names)], inputs)
        self._states = dict(zip(names, states))
        belong = max(0, exported.output_delay - self._computed)
        self._computed += count
        done = min(max(self._computed * exported.stride - exported.left_context, self._base), self.received - 1) - self._base
        self._frames, self._base = self._frames[done:], self._base + done
        return scores[belong:]
