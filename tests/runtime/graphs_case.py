"""Nets of every kind with random values, and what their graphs must give, written with the nets themselves in double precision."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime
import torch

from dropasr.models.base import AcousticModel
from dropasr.models.feedforward import FeedForward

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
from lstm_case import FEATURES, OUTPUTS, VARIANTS, make_net  # noqa: E402

FEEDFORWARD: dict[str, dict[str, Any]] = {
    "relu": {},
    "sigmoid": {"activation": "sigmoid"},
    "norm": {"batch_norm": True},
    "sigmoid-norm": {"activation": "sigmoid", "batch_norm": True},
    "low-rank": {"ranks": [3, 0, 2], "batch_norm": True},
    "inputs": {"inputs": [0, 3, 4, 4 * FEATURES - 1]},
    "inputs-one-frame": {"context": (0, 0), "inputs": [1, 2]},
    "one-frame": {"context": (0, 0)},
    "lopsided": {"context": (3, 0)},
}
LSTM = {**VARIANTS, "rank": {"widths": [9, 7], "input_rank": 2, "splice": 1}, "lstmp-wide": {"widths": [400, 5], "projected": True}}
KINDS = [*(f"feedforward-{name}" for name in FEEDFORWARD), *LSTM]
SCALE = 0.3


def feedforward(seed: int = 0, **options: Any) -> FeedForward:
    """A net in double precision with random values in every tensor."""
    values = {"num_features": FEATURES, "context": (2, 1), "widths": [7, 5], "num_outputs": OUTPUTS, **options}
    torch.manual_seed(seed)
    net = FeedForward(**values).double().eval()
    for name, tensor in net.state_dict().items():
        if tensor.dtype == torch.float64 and tensor.dim() == 1:
            tensor.copy_(torch.randn(tensor.shape, dtype=torch.float64))
            if name.endswith("running_var"):
                tensor.exp_()
    return net


def net_of(kind: str, seed: int = 0) -> AcousticModel:
    """The net of that name, in double precision."""
    if kind.startswith("feedforward-"):
        return feedforward(seed, **FEEDFORWARD[kind.partition("-")[2]])
    with mock.patch.dict(VARIANTS, LSTM):
        return make_net(kind, seed)


def strides_of(net: AcousticModel) -> list[int]:
    """Strides at which a net can be run: its own, and every third frame."""
    return sorted({net.step, 3})


def prior() -> np.ndarray:
    return np.log(np.random.default_rng(1).dirichlet(np.ones(OUTPUTS))).astype(np.float32)


def utterance(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw features `(T, F)`, and a mean and standard deviation `(F,)`; float32."""
    rng = np.random.default_rng(seed)
    mean, std = rng.normal(-5, 3, FEATURES), rng.uniform(0.5, 4, FEATURES)
    return tuple(value.astype(np.float32) for value in (mean + std * rng.normal(size=(frames, FEATURES)), mean, std))  # type: ignore[return-value]


@torch.no_grad()
def expected(net: AcousticModel, stride: int, features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Scores `(⌈T/stride⌉, K)`, or of all frames where a step scores several, by the net itself, in double precision."""
    frames = torch.from_numpy((features.astype(np.float64) - mean) / std)
    log_posteriors = torch.log_softmax(net.double().logits(frames, stride // net.frames_scored), dim=1)
    return SCALE * (log_posteriors.numpy() - prior().astype(np.float64))


def session(model: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
