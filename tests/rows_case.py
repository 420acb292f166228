"""Features and labels that rows of a table can be trained on within a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dropasr.data.store import FrameStoreWriter
from dropasr.lang.units import OutputUnits
from dropasr.paths import Paths

SMALL = ("features.num_mel_bins=8", "train.epochs=1", "train.batch_size=32", "model.layers=1", "model.width=16")
"""Settings for nets of that size."""


def tiny_data(folder: Path, model: str = "feedforward", frames: int = 20, label_frames: int = 1) -> Paths:
    """Ten utterances of so many random frames each, in train and in dev; the label changes after every `label_frames` of them."""
    paths, units = Paths(folder / "data", folder / "exp", model, 1), OutputUnits(["A"], 1, 1)
    paths.align.mkdir(parents=True)
    units.save(paths.align / "units.json")
    for split in ("train", "dev"):
        with FrameStoreWriter(paths.features(split), 8, "float32") as writer:
            for number in range(10):
                values = np.random.default_rng(number).standard_normal((frames, 8)).astype(np.float32)
                writer.add(f"{split}{number}", f"s{number}", ["A"], frames / 100, values)
        np.save(paths.align / f"{split}.npy", np.arange(10 * frames, dtype=np.int32) // label_frames % units.num_units)
    return paths
