"""From the net's posteriors to the acoustic scores that the search adds up."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from dropasr.config import Config
from dropasr.data.store import FrameStore
from dropasr.errors import StageError
from dropasr.files import write_bytes
from dropasr.models.base import AcousticModel, check_skip
from dropasr.paths import Paths

PRIOR_FRAMES = 200_000
"""Training frames that a net's mean posterior is taken over."""
SMALLEST_PRIOR = 1e-8


@torch.no_grad()
def log_posteriors(net: AcousticModel, frames: np.ndarray, stride: int = 1) -> torch.Tensor:
    """Log posteriors `(⌈T/stride⌉, K)` of every stride-th frame of one utterance `(T, F)`."""
    return torch.log_softmax(net.logits(torch.from_numpy(np.array(frames, dtype=np.float32)), stride), dim=1)


def shared(scores: torch.Tensor, skip: int, frames: int, stride: int = 1) -> torch.Tensor:
    """Scores `(⌈T/stride⌉, K)` of T frames from those of every skip-th, `(⌈T/(stride·skip)⌉, K)`: each stands for the next ones as well."""
    return scores if skip == 1 else scores.repeat_interleave(skip, dim=0)[: -(-frames // stride)]


def log_likelihoods(net: AcousticModel, frames: np.ndarray, log_prior: torch.Tensor, stride: int = 1, skip: int = 1) -> torch.Tensor:
    """Pseudo log likelihoods `(⌈T/stride⌉, K)`, log posterior minus log prior, of one utterance `(T, F)`.

    The net computes every `skip`-th of them; raises ConfigError where it cannot.
    """
    check_skip(net, skip)
    return shared(log_posteriors(net, frames, stride * skip) - log_prior, skip, len(frames), stride)


def mean_posterior(net: AcousticModel, store: FrameStore, stride: int = 1) -> np.ndarray:
    """Log of the net's mean posterior, float32 `(K,)`, over a fixed random choice of utterances with about 200,000 frames."""
    order = np.random.default_rng(0).permutation(len(store))
    frames = np.cumsum(np.diff(store.offsets)[order])
    total: np.ndarray | float = 0.0
    for utterance in order[: 1 + int(np.searchsorted(frames, PRIOR_FRAMES))]:
        total = total + log_posteriors(net, store.utterance(int(utterance)), stride).exp().double().sum(dim=0).numpy()
    return np.log(np.maximum(total / np.sum(total), SMALLEST_PRIOR)).astype(np.float32)


def prior_path(config: Config, paths: Paths, row: str) -> Path:
    """The file of the log prior that `row` is decoded with: the alignment's, or the net's own."""
    return paths.align / "log_prior.npy" if config.decode.prior == "alignment" else paths.scores(row).with_suffix(".log_prior.npy")


def write_own_prior(config: Config, paths: Paths, row: str, net: AcousticModel) -> None:
    """Write the mean posterior of a net, where `decode.prior` asks for it."""
    if config.train.criterion == "frames" and config.decode.prior == "posterior":
        buffer = io.BytesIO()
        np.save(buffer, mean_posterior(net, FrameStore.open(paths.features("train")), config.train.frame_subsampling))
        write_bytes(prior_path(config, paths, row), buffer.getvalue())


def load_log_prior(config: Config, paths: Paths, row: str) -> torch.Tensor:
    """The log prior `(K,)` that is subtracted, already scaled by `decode.prior_scale`; 0 for nets trained with CTC.

    Raises StageError where the file is missing.
    """
    if config.train.criterion == "ctc":
        return torch.zeros(())
    path = prior_path(config, paths, row)
    if not path.exists():
        stage = 4 if config.decode.prior == "alignment" else 7
        raise StageError(f"{path}: the prior of the units is missing. Run: bash run.sh --stage {stage} --stop-stage {stage}.")
    return config.decode.prior_scale * torch.from_numpy(np.load(path, allow_pickle=False))


def prior_text(config: Config) -> str:
    """Which prior is subtracted, in words."""
    if config.train.criterion == "ctc":
        return "none"
    kinds = {"alignment": "label frequencies of the training alignment", "posterior": "mean posterior of the net on training frames"}
    return f"{kinds[config.decode.prior]}, scaled by {config.decode.prior_scale:g}"
