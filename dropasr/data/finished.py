"""What a killed stage 2 need not make again: the frame stores of splits that it had finished.

`finished.json` beside a store says what the store was made from, and its moments, which later splits may be normalised with.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dropasr.data.normalisation import Moments
from dropasr.data.store import INDEX, FrameStore
from dropasr.errors import DataError
from dropasr.files import hash_of, read_json, sha256_file, write_json

NAME = "finished.json"


def write_finished(folder: Path, made_from: str, found: Moments) -> None:
    """Say that the store in `folder` is whole; `made_from` is a hash of everything that decides its content."""
    values = {"frames": found.frames, "mean": found.mean.tolist(), "variance": found.variance.tolist()}
    hashes = {"index_sha256": sha256_file(folder / INDEX), "moments_hash": hash_of(values)}
    write_json(folder / NAME, {"made_from": made_from, "moments": values, **hashes})


def read_finished(folder: Path, made_from: str) -> Moments | None:
    """The moments of the store in `folder` if it was made from this and is undamaged (all of it is read), else None."""
    if not (folder / NAME).exists():
        return None
    try:
        about = read_json(folder / NAME)
        wanted = made_from, sha256_file(folder / INDEX), hash_of(about["moments"])
        if (about["made_from"], about["index_sha256"], about["moments_hash"]) != wanted:
            return None
        FrameStore.open(folder, verify=True).global_statistics()  # checks the file that they are in
        values = about["moments"]
        return Moments(values["frames"], np.array(values["mean"], np.float64), np.array(values["variance"], np.float64))
    except (DataError, FileNotFoundError, KeyError, TypeError):
        return None  # damaged: made again
