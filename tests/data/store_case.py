"""A small frame store, as tests of samplers want it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Union

import numpy as np

from dropasr.data.store import FrameStore, FrameStoreWriter


def random_store(folder: Path, lengths: Sequence[int], dtype: str = "float32", labels: Union[np.ndarray, None] = None) -> FrameStore:
    """Utterances of these lengths with three random features, and `labels` (one per frame) if given, below `folder`."""
    generator = np.random.default_rng(5)
    with FrameStoreWriter(folder / "store", 3, dtype) as writer:
        for number, length in enumerate(lengths):
            writer.add(f"u{number}", "s", [], length / 100, generator.standard_normal((length, 3)))
    if labels is None:
        return FrameStore.open(folder / "store")
    np.save(folder / "labels.npy", labels)
    return FrameStore.open(folder / "store", labels=folder / "labels.npy")
