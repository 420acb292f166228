"""From the net's posteriors to the acoustic scores that the search adds up."""

from __future__ import annotations

import numpy as np
import torch

from dropasr.config import Config
from dropasr.models.base import AcousticModel
from dropasr.paths import Paths


@torch.no_grad()
def log_likelihoods(net: AcousticModel, frames: np.ndarray, log_prior: torch.Tensor) -> torch.Tensor:
    """Pseudo log likelihoods `(T, K)`, log posterior minus log prior, of one utterance `(T, F)`."""
    return torch.log_softmax(net.logits(torch.from_numpy(np.array(frames, dtype=np.float32))), dim=1) - log_prior


def load_log_prior(config: Config, paths: Paths) -> torch.Tensor:
    """The log prior `(K,)` that is subtracted, already scaled by `decode.prior_scale`."""
    return config.decode.prior_scale * torch.from_numpy(np.load(paths.align / "log_prior.npy"))
