"""ONNX Runtime on the processor, shared by the engines for graphs of different precision."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dropasr.errors import ExportError
from dropasr.runtime.exported import STREAM, Exported


def requirement() -> str | None:
    """What is missing on this machine, or None."""
    return None if importlib.util.find_spec("onnxruntime") else "onnxruntime is not installed (pip install onnxruntime)"


def open_session(path: Path, threads: int) -> Any:
    """A session of ONNX Runtime with so many threads. Raises ExportError that names the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Threads that spin between operators would show as load to whoever measures beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI, sums of products of unsigned and signed 8 bits overflow in 16 bits; where that is so, weights become unsigned as well.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exception types are not public
        raise ExportError(f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load the graph: {error}. Export the net again.") from None


class OnnxEngine:
    """An exported net in ONNX Runtime."""

    def __init__(self, folder: Path, exported: Exported, name: str, threads: int) -> None:
        self.exported = exported
        self._folder, self._threads = folder, threads
        self._session = open_session(folder / name, threads)
        self._part: Any = None

    def scores(self, features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """See `dropasr.runtime.engines.Engine.scores`."""
        return self._session.run(["scores"], {"features": features, "mean": mean, "std": std})[0]

    def part(self, window: np.ndarray, mean: np.ndarray, std: np.ndarray, states: dict[str, np.ndarray]) -> tuple[np.ndarray, dict]:
        """Scores `(m, K)` of a part of a stream (float32 graph), and the states after it; see `Exported.window` and `first_states`."""
        if self._part is None:
            if not self.exported.streams:
                raise ExportError(f"{self._folder}: a net that reads utterances from their ends, too, cannot run on a stream.")
            self._part = open_session(self._folder / STREAM, self._threads)
        fed = {f"state_in_{name}": value for name, value in states.items()}
        scores, *left = self._part.run(None, {"window": window, "mean": mean, "std": std, **fed})
        return scores, dict(zip([item.name.removeprefix("state_out_") for item in self._part.get_outputs()[1:]], left))

    def stream(self, features: np.ndarray, mean: np.ndarray, std: np.ndarray, parts: Sequence[int]) -> np.ndarray:
        """The same scores as `scores`, computed in parts of so many scores, by turns."""
        exported, states, found, first = self.exported, self.exported.first_states(), [], 0
        total = exported.num_scores(len(features)) + exported.output_delay
        while first < total:
            count = min(parts[len(found) % len(parts)], total - first)
            scores, states = self.part(features[exported.window(first, count, len(features))], mean, std, states)
            found.append(scores)
            first += count
        return np.concatenate(found)[exported.output_delay :]
