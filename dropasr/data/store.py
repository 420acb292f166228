"""The frame store: features of one split in one memory-mapped array, with an index of its utterances.

A folder holds `frames.npy` (plain .npy, `(N, F)`, float16 or float32), `normalisation.npz` (mean and standard deviation that
were removed, if any) and `index.json`, which is written last: a folder without it is no store. Labels lie elsewhere, in a
.npy file with one integer per frame.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dropasr.errors import DataError
from dropasr.files import read_json, sha256_bytes, sha256_file, write_bytes, write_json

FORMAT = 1
HEADER_BYTES = 128
DTYPES = ("float16", "float32")
FRAMES, NORMALISATION, INDEX = "frames.npy", "normalisation.npz", "index.json"


def _npy_header(dtype: np.dtype[Any], num_frames: int, num_features: int) -> bytes:
    """The header of a version 1.0 .npy file, padded to HEADER_BYTES so that it can be rewritten when N is known."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({num_frames}, {num_features}), }}"
    magic = np.lib.format.magic(1, 0)
    length = HEADER_BYTES - len(magic) - 2
    return magic + length.to_bytes(2, "little") + text.ljust(length - 1).encode("latin1") + b"\n"


class FrameStoreWriter:
    """Write a frame store, utterance after utterance; nothing of it is visible before `close`.

    Use as a context manager: leaving it normally closes the store, leaving it by an exception removes what was written.
    `sample_rate` is in Hz, `frame_shift` in seconds, `normalisation` is `speaker`, `utterance` or `none`.
    """

    def __init__(
        self,
        folder: str | Path,
        num_features: int,
        dtype: str = "float16",
        sample_rate: int = 16000,
        frame_shift: float = 0.01,
        normalisation: str = "none",
    ) -> None:
        if dtype not in DTYPES:
            raise DataError(
                f"{folder}: a frame store holds one of {', '.join(DTYPES)}, found '{dtype}'. Set features.dtype to one of them."
            )
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.num_features = num_features
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._about = {"sample_rate": sample_rate, "frame_shift": frame_shift, "normalisation": normalisation}
        for left in self.folder.glob(f".{FRAMES}.*.tmp"):
            left.unlink()  # of a process that was killed: no two write the same store
        self._temporary = self.folder / f".{FRAMES}.{os.getpid()}.tmp"
        self._file = open(self._temporary, "wb")
        self._file.write(_npy_header(self._dtype, 0, num_features))
        self._digest = hashlib.sha256()
        self._utterances: dict[str, dict[str, Any]] = {}
        self._num_frames = 0
        self._global: dict[str, np.ndarray] = {}
        self._means: list[np.ndarray] = []
        self._stds: list[np.ndarray] = []

    def start_group(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Record the mean and standard deviation, both `(F,)`, that were removed from all utterances added from now on."""
        self._means.append(np.asarray(mean, np.float32))
        self._stds.append(np.asarray(std, np.float32))

    def set_global(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Record the mean and standard deviation, both `(F,)`, of the training set before normalisation."""
        self._global = {"global_mean": np.asarray(mean, np.float32), "global_std": np.asarray(std, np.float32)}

    def add(self, id: str, speaker: str, words: Sequence[str], duration: float, frames: np.ndarray, original: str | None = None) -> None:
        """Append one utterance: `frames` is `(T, F)` with T ≥ 1, `duration` in seconds; a copy names the id of its `original`.

        Raises DataError naming the utterance for a repeated id, a wrong shape, or values that are not finite in the store's type.
        """
        where = f"{self.folder}: utterance '{id}'"
        if id in self._utterances:
            raise DataError(f"{where} was added twice; ids must be unique. Correct the cut manifest and run stage 2 again.")
        if frames.ndim != 2 or frames.shape[0] < 1 or frames.shape[1] != self.num_features:
            raise DataError(f"{where}: expected frames of shape (T, {self.num_features}) with T ≥ 1, found {frames.shape}.")
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(frames, dtype=self._dtype)
        if not np.isfinite(values).all():
            raise DataError(f"{where}: features are not finite in {self._dtype.name}. Check its audio for values that are not numbers.")
        data = values.tobytes()
        self._file.write(data)
        self._digest.update(data)
        self._num_frames += len(values)
        self._utterances[id] = {
            "id": id,
            "speaker": speaker,
            "words": list(words),
            "duration": float(duration),
            "frames": len(values),
            "group": len(self._means) - 1,
        }
        if original not in (None, id):
            self._utterances[id]["original"] = original

    def close(self) -> None:
        """Finish the store: frames, then normalisation, then the index. Raises DataError if nothing was added."""
        if not self._utterances:
            self.abort()
            raise DataError(f"{self.folder}: no utterances to store. Check the cut manifest of this split (stage 1).")
        self._file.seek(0)
        self._file.write(_npy_header(self._dtype, self._num_frames, self.num_features))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        (self.folder / INDEX).unlink(missing_ok=True)
        os.replace(self._temporary, self.folder / FRAMES)
        normalisation_hash = None
        if self._means:
            buffer = io.BytesIO()
            np.savez(buffer, mean=np.stack(self._means), std=np.stack(self._stds), **self._global)
            normalisation_hash = sha256_bytes(buffer.getvalue())
            write_bytes(self.folder / NORMALISATION, buffer.getvalue())
        else:
            (self.folder / NORMALISATION).unlink(missing_ok=True)
        index = {
            "format": FORMAT,
            "num_frames": self._num_frames,
            "num_features": self.num_features,
            "dtype": self._dtype.name,
            "frames_bytes": (self.folder / FRAMES).stat().st_size,
            "frames_sha256": self._digest.hexdigest(),
            "normalisation_sha256": normalisation_hash,
            "utterances": list(self._utterances.values()),
            **self._about,
        }
        write_json(self.folder / INDEX, index)

    def abort(self) -> None:
        """Remove what was written so far; an older store in the folder stays as it was."""
        try:
            self._file.close()
        finally:  # closing writes what is left, which fails on a full disk
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> FrameStoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise


class FrameStore:
    """Features of one split, read-only and memory-mapped; made by `FrameStore.open`.

    frames: `(N, F)` memory map; labels: `(N,)` memory map or None; offsets: int64 `(U+1,)`, utterance i has the frames
    `offsets[i]:offsets[i+1]`; ids, speakers, texts (words per utterance), originals (the id that an utterance is a copy of, or its own):
    lists of length U; durations: float64 `(U,)`, seconds; sample_rate: Hz; frame_shift: seconds; normalisation: `speaker`, `utterance`
    or `none`.
    """

    def __init__(self, folder: Path, index: dict[str, Any], frames: np.ndarray, labels: np.ndarray | None) -> None:
        utterances = index["utterances"]
        self.folder = folder
        self.frames = frames
        self.labels = labels
        self.ids: list[str] = [item["id"] for item in utterances]
        self.speakers: list[str] = [item["speaker"] for item in utterances]
        self.originals: list[str] = [item.get("original", item["id"]) for item in utterances]
        self.texts: list[list[str]] = [item["words"] for item in utterances]
        self.durations = np.array([item["duration"] for item in utterances], np.float64)
        self.offsets = np.concatenate([[0], np.cumsum([item["frames"] for item in utterances])]).astype(np.int64)
        self.sample_rate: int = index["sample_rate"]
        self.frame_shift: float = index["frame_shift"]
        self.normalisation: str = index["normalisation"]
        self._index = index
        self._groups = [item["group"] for item in utterances]
        self._positions = {id: position for position, id in enumerate(self.ids)}
        self._arrays: dict[str, np.ndarray] = {}

    @classmethod
    def open(cls, folder: str | Path, labels: str | Path | None = None, verify: bool = False) -> FrameStore:
        """Open a store, with the labels of its frames if given.

        Sizes and shapes are always checked; `verify` also compares the SHA-256 of the frames (reads all of them). A missing,
        truncated or mismatched file is a DataError that names it.
        """
        folder = Path(folder)
        index = read_json(folder / INDEX)
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise DataError(f"{folder / INDEX}: expected a frame store index of format {FORMAT}. Run stage 2 (features) again.")
        path = folder / FRAMES
        found = path.stat().st_size if path.exists() else None
        if found != index["frames_bytes"]:
            state = "it is missing" if found is None else f"found {found} bytes"
            raise DataError(f"{path}: expected {index['frames_bytes']} bytes, {state}. Run stage 2 (features) again.")
        frames = _map_array(path, "Run stage 2 (features) again.")
        shape, total = (index["num_frames"], index["num_features"]), sum(item["frames"] for item in index["utterances"])
        if frames.shape != shape or frames.dtype.name != index["dtype"] or total != len(frames):
            wanted = f"{index['dtype']} {shape} for utterances of {total} frames in all"
            raise DataError(f"{path}: expected {wanted}, found {frames.dtype.name} {frames.shape}. Run stage 2 (features) again.")
        store = cls(folder, index, frames, None if labels is None else _open_labels(Path(labels), len(frames), path))
        if verify:
            store.verify()
        return store

    def verify(self) -> None:
        """Read all frames and compare their SHA-256 with the index; DataError if they differ."""
        digest = hashlib.sha256()
        for start in range(0, len(self.frames), 1 << 16):
            digest.update(np.ascontiguousarray(self.frames[start : start + (1 << 16)]))
        if digest.hexdigest() != self._index["frames_sha256"]:
            raise DataError(f"{self.folder / FRAMES}: its content does not have the SHA-256 of the index. Run stage 2 (features) again.")

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.ids)

    @property
    def num_frames(self) -> int:
        """Number of frames N of all utterances."""
        return len(self.frames)

    @property
    def num_features(self) -> int:
        """Features F of a frame."""
        return int(self.frames.shape[1])

    def position(self, utterance: int | str) -> int:
        """The position of an utterance given by id or position; an unknown one is a DataError."""
        position = self._positions.get(utterance, -1) if isinstance(utterance, str) else int(utterance)
        if not 0 <= position < len(self.ids):
            raise DataError(f"{self.folder}: no utterance '{utterance}' among the {len(self.ids)} of this frame store.")
        return position

    def utterance(self, utterance: int | str) -> np.ndarray:
        """The frames `(T, F)` of one utterance, a view of the memory map."""
        position = self.position(utterance)
        return self.frames[self.offsets[position] : self.offsets[position + 1]]

    def utterance_labels(self, utterance: int | str) -> np.ndarray:
        """The labels `(T,)` of one utterance; DataError if the store was opened without labels."""
        position = self.position(utterance)
        if self.labels is None:
            raise DataError(f"{self.folder}: opened without labels. Stage 4 (align) makes them.")
        return self.labels[self.offsets[position] : self.offsets[position + 1]]

    def statistics(self, utterance: int | str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, float32 `(F,)` each, that were removed from one utterance (0 and 1 if none were)."""
        group = self._groups[self.position(utterance)]
        if group < 0:
            return np.zeros(self.num_features, np.float32), np.ones(self.num_features, np.float32)
        arrays = self._normalisation()
        return arrays["mean"][group], arrays["std"][group]

    def global_statistics(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and standard deviation, float32 `(F,)` each, of the training set before normalisation; None if the store has none."""
        arrays = self._normalisation() if self._index["normalisation_sha256"] else {}
        return (arrays["global_mean"], arrays["global_std"]) if "global_mean" in arrays else None

    def _normalisation(self) -> dict[str, np.ndarray]:
        if not self._arrays:
            path = self.folder / NORMALISATION
            if not path.exists() or sha256_file(path) != self._index["normalisation_sha256"]:
                raise DataError(f"{path}: missing, or not the file that the index describes. Run stage 2 (features) again.")
            with np.load(path, allow_pickle=False) as arrays:
                self._arrays = {name: arrays[name] for name in arrays.files}
        return self._arrays


def _map_array(path: Path, remedy: str) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing. {remedy}") from None
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: expected a whole .npy file, found something else ({error}). {remedy}") from None


def _open_labels(path: Path, num_frames: int, frames_path: Path) -> np.ndarray:
    remedy = "Run stage 4 (align) again."
    labels = _map_array(path, remedy)
    if labels.shape != (num_frames,) or labels.dtype.kind not in "iu":
        found = f"{labels.dtype.name} {labels.shape}"
        raise DataError(f"{path}: expected one integer label for each of the {num_frames} frames of {frames_path}, found {found}. {remedy}")
    return labels
