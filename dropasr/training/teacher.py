"""The posteriors of a trained net, from which another net learns."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np
import torch

from dropasr.data.chunks import Inputs
from dropasr.data.store import FrameStore
from dropasr.files import atomic_path
from dropasr.models.base import AcousticModel
from dropasr.training.schedules import autocast

MAX_FILE_BYTES = 1 << 30
"""Posteriors of more than this are computed again for every batch instead of kept in a file."""


@torch.no_grad()
def write_posteriors(net: AcousticModel, store: FrameStore, path: Path, precision: str) -> None:
    """Posteriors `(N, K)` float16 of every frame of `store`, atomically, as a memory-mappable .npy: the teacher is evaluated once.

    Nets that read sequences run over whole utterances. Not for nets with a stride, which have no logits for some of the frames.
    """
    with atomic_path(path) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=(len(store.frames), net.dims["num_outputs"]))
        for index in range(len(store.ids)):
            start, end = store.offsets[index], store.offsets[index + 1]
            frames = torch.from_numpy(np.array(store.frames[start:end], dtype=np.float32))
            with autocast(precision):
                logits = net.logits(frames)
            out[start:end] = torch.softmax(logits.float(), dim=1).numpy()
        out.flush()


class FileTeacher:
    """Posteriors kept in a file, by frame index."""

    def __init__(self, path: Path) -> None:
        self.posteriors = np.load(path, mmap_mode="r")

    def __call__(self, inputs: Inputs, frame_indices: torch.Tensor) -> torch.Tensor:
        """Posteriors `(N, K)` float32 of frames `(N,)`."""
        return torch.from_numpy(self.posteriors[frame_indices.numpy()].astype(np.float32))


class NetTeacher:
    """A net that is evaluated on every batch."""

    def __init__(self, net: AcousticModel, precision: str) -> None:
        self.net, self.precision = net.eval(), precision

    @torch.no_grad()
    def __call__(self, inputs: Inputs, frame_indices: torch.Tensor) -> torch.Tensor:
        """Posteriors `(N, K)` float32 of the N rows of the inputs."""
        with autocast(self.precision):
            logits = self.net(inputs)
        return torch.softmax(logits.float(), dim=1)


Teacher = Union[FileTeacher, NetTeacher]
