"""The net itself in torch, rebuilt from the weights of an exported folder; shared by the engines that run it in different ways."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dropasr.runtime.exported import WEIGHTS, Exported


def requirement() -> str | None:
    """What is missing on this machine, or None."""
    return None if importlib.util.find_spec("torch") else "torch is not installed"


class TorchEngine:
    """An exported net in torch; `prepare` gives the net another form, `convert` the frames."""

    def __init__(self, folder: Path, exported: Exported, threads: int, prepare: Callable | None = None, dtype: str = "float32") -> None:
        import torch

        from dropasr.models.checkpoint import read_tensors, rebuild

        # torch has one number of threads for the whole process.
        torch.set_num_threads(threads)
        tensors = read_tensors(folder / WEIGHTS, exported.files[WEIGHTS])
        self._log_prior = tensors.pop("log_prior")
        net = rebuild(folder / WEIGHTS, exported.dims, tensors).eval()
        self._net = net if prepare is None else prepare(net)
        self._dtype = getattr(torch, dtype)
        self.exported = exported

    def scores(self, features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """See `dropasr.runtime.engines.Engine.scores`."""
        import torch

        with torch.no_grad():
            frames = torch.from_numpy((features - mean) / std).to(self._dtype)
            logits = self._net.logits(frames, self.exported.stride // self.exported.frames_scored).float()
            scores = (torch.log_softmax(logits, dim=1) - self._log_prior) * self.exported.acoustic_scale
            return self.exported.by_step(scores.numpy())
