"""Training criteria on frames."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np
import torch
from torch.nn import functional

from dropasr.data.batches import splice
from dropasr.data.store import FrameStore
from dropasr.files import atomic_path
from dropasr.models.base import AcousticModel
from dropasr.training.schedules import autocast


def frame_loss(logits: torch.Tensor, labels: torch.Tensor, teacher: Union[torch.Tensor, None], teacher_weight: float) -> torch.Tensor:
    """Mean cross-entropy in nats of logits `(N, K)` with labels `(N,)`, mixed with that of the teacher's posteriors `(N, K)` if given."""
    logits = logits.float()
    if teacher is None:
        return functional.cross_entropy(logits, labels)
    log_posteriors = functional.log_softmax(logits, dim=1)
    soft = -(teacher * log_posteriors).sum(dim=1).mean()
    return (1 - teacher_weight) * functional.nll_loss(log_posteriors, labels) + teacher_weight * soft


@torch.no_grad()
def write_posteriors(net: AcousticModel, store: FrameStore, path: Path, precision: str) -> None:
    """Posteriors `(N, K)` float16 of every frame of `store`, atomically, as a memory-mappable .npy: the teacher is evaluated once."""
    with atomic_path(path) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=(len(store.frames), net.dims["num_outputs"]))
        for index in range(len(store.ids)):
            start, end = store.offsets[index], store.offsets[index + 1]
            frames = torch.from_numpy(np.array(store.frames[start:end], dtype=np.float32))
            with autocast(precision):
                logits = net(splice(frames, *net.context))
            out[start:end] = torch.softmax(logits.float(), dim=1).numpy()
        out.flush()


class Teacher:
    """Posteriors of a trained net by frame index."""

    def __init__(self, path: Path) -> None:
        self.posteriors = np.load(path, mmap_mode="r")

    def __call__(self, frame_indices: torch.Tensor) -> torch.Tensor:
        """Posteriors `(N, K)` float32 of frames `(N,)`."""
        return torch.from_numpy(self.posteriors[frame_indices.numpy()].astype(np.float32))
