"""The frame store against plain numpy arrays, and its refusal of damaged files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dropasr.data.store import FrameStore, FrameStoreWriter
from dropasr.errors import DataError

LENGTHS = {"a": 3, "b": 1, "c": 5}


def _write(folder: Path, dtype: str = "float32") -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    frames = {id: generator.standard_normal((length, 4)).astype(np.float32) for id, length in LENGTHS.items()}
    with FrameStoreWriter(folder, 4, dtype, sample_rate=8000, frame_shift=0.01, normalisation="speaker") as writer:
        writer.start_group(np.arange(4), np.ones(4))
        writer.add("a", "anna", ["one", "two"], 0.03, frames["a"])
        writer.add("b", "anna", [], 0.01, frames["b"])
        writer.start_group(np.zeros(4), np.full(4, 2.0))
        writer.add("c", "bert", ["three"], 0.05, frames["c"])
    return frames


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_reads_back_what_was_written(tmp_path: Path, dtype: str) -> None:
    frames = _write(tmp_path, dtype)
    store = FrameStore.open(tmp_path, verify=True)
    assert isinstance(store.frames, np.memmap) and store.frames.dtype == dtype
    assert store.ids == ["a", "b", "c"] and store.speakers == ["anna", "anna", "bert"]
    assert store.texts == [["one", "two"], [], ["three"]] and len(store) == 3
    assert store.offsets.tolist() == [0, 3, 4, 9] and store.offsets.dtype == np.int64
    assert store.durations.tolist() == [0.03, 0.01, 0.05]
    assert (store.sample_rate, store.frame_shift, store.normalisation) == (8000, 0.01, "speaker")
    for position, (id, array) in enumerate(frames.items()):
        np.testing.assert_array_equal(store.utterance(id), array.astype(dtype))
        np.testing.assert_array_equal(store.utterance(position), array.astype(dtype))
    assert [store.statistics(id)[0].tolist() for id in "bc"] == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert store.statistics("c")[1].tolist() == [2, 2, 2, 2]
    plain = np.load(tmp_path / "frames.npy")
    np.testing.assert_array_equal(plain, np.concatenate(list(frames.values())).astype(dtype))


def test_originals_and_global_statistics(tmp_path: Path) -> None:
    _write(tmp_path)
    plain = FrameStore.open(tmp_path)
    assert plain.originals == plain.ids and plain.global_statistics() is None
    with FrameStoreWriter(tmp_path, 4) as writer:
        writer.start_group(np.zeros(4), np.ones(4))
        writer.set_global(np.arange(4), np.full(4, 3.0))
        writer.add("x", "anna", [], 0.1, np.ones((2, 4)), original="x")
        writer.add("sp0.9-x", "sp0.9-anna", [], 0.1, np.ones((2, 4)), original="x")
    store = FrameStore.open(tmp_path)
    assert store.originals == ["x", "x"]
    assert [array.tolist() for array in store.global_statistics()] == [[0, 1, 2, 3], [3, 3, 3, 3]]
    with FrameStoreWriter(tmp_path, 4) as writer:
        writer.add("x", "anna", [], 0.1, np.ones((2, 4)))
    assert FrameStore.open(tmp_path).global_statistics() is None


def test_labels_must_match_the_frames(tmp_path: Path) -> None:
    _write(tmp_path)
    np.save(tmp_path / "labels.npy", np.arange(9, dtype=np.int16))
    store = FrameStore.open(tmp_path, labels=tmp_path / "labels.npy")
    assert store.utterance_labels("b").tolist() == [3]
    np.save(tmp_path / "labels.npy", np.arange(8, dtype=np.int16))
    with pytest.raises(DataError, match=r"labels\.npy.*9 frames.*\(8,\).*stage 4"):
        FrameStore.open(tmp_path, labels=tmp_path / "labels.npy")
    np.save(tmp_path / "labels.npy", np.zeros(9, np.float32))
    with pytest.raises(DataError, match="found float32"):
        FrameStore.open(tmp_path, labels=tmp_path / "labels.npy")
    with pytest.raises(DataError, match=r"absent\.npy.*missing"):
        FrameStore.open(tmp_path, labels=tmp_path / "absent.npy")
    with pytest.raises(DataError, match="without labels"):
        FrameStore.open(tmp_path).utterance_labels("a")


def test_damaged_frames_are_refused_by_name(tmp_path: Path) -> None:
    _write(tmp_path)
    path = tmp_path / "frames.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(DataError, match=r"frames\.npy: expected 272 bytes, found 268.*stage 2"):
        FrameStore.open(tmp_path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    FrameStore.open(tmp_path)
    with pytest.raises(DataError, match=r"frames\.npy.*SHA-256"):
        FrameStore.open(tmp_path, verify=True)
    path.unlink()
    with pytest.raises(DataError, match=r"frames\.npy.*missing"):
        FrameStore.open(tmp_path)


def test_damaged_index_and_normalisation_are_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    index["utterances"][0]["frames"] = 2
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="8 frames in all"):
        FrameStore.open(tmp_path)
    (tmp_path / "index.json").unlink()
    with pytest.raises(DataError, match=r"index\.json"):
        FrameStore.open(tmp_path)
    _write(tmp_path)
    (tmp_path / "normalisation.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"normalisation\.npz"):
        FrameStore.open(tmp_path).statistics("a")


def test_an_interrupted_writer_leaves_the_old_store(tmp_path: Path) -> None:
    frames = _write(tmp_path)
    with pytest.raises(KeyboardInterrupt), FrameStoreWriter(tmp_path, 4) as writer:
        writer.add("new", "anna", [], 0.1, np.ones((7, 4)))
        raise KeyboardInterrupt
    np.testing.assert_array_equal(FrameStore.open(tmp_path, verify=True).utterance("c"), frames["c"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.npy", "index.json", "normalisation.npz"]


def test_a_full_disk_and_a_killed_writer_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".frames.npy.999999.tmp").write_bytes(b"of a process that was killed")
    writer = FrameStoreWriter(tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == [f".frames.npy.{os.getpid()}.tmp"]

    def full() -> None:
        raise OSError(28, "No space left on device")

    file = writer._file
    with pytest.raises(OSError, match="No space left"), writer:
        writer.add("x", "anna", [], 0.1, np.ones((7, 4)))
        monkeypatch.setattr(writer, "_file", SimpleNamespace(seek=file.seek, write=file.write, flush=full, close=full))
    file.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.full((2, 4), np.nan), "'x'.*not finite"),
        (np.full((2, 4), 1e6), "'x'.*not finite in float16"),
        (np.zeros((2, 5)), r"'x'.*\(T, 4\).*\(2, 5\)"),
        (np.zeros((0, 4)), r"'x'.*T ≥ 1"),
    ],
)
def test_unusable_frames_are_refused_by_id(tmp_path: Path, frames: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message), FrameStoreWriter(tmp_path, 4) as writer:
        writer.add("x", "anna", [], 0.1, frames)
    assert not list(tmp_path.iterdir())


def test_repeated_ids_and_empty_stores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'x' was added twice"), FrameStoreWriter(tmp_path, 4) as writer:
        writer.add("x", "anna", [], 0.1, np.zeros((2, 4)))
        writer.add("x", "anna", [], 0.1, np.zeros((2, 4)))
    with pytest.raises(DataError, match="no utterances"), FrameStoreWriter(tmp_path, 4):
        pass
    with pytest.raises(DataError, match="int8"):
        FrameStoreWriter(tmp_path, 4, "int8")


def test_unknown_utterances_are_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    store = FrameStore.open(tmp_path)
    for unknown in ("z", 3, -1):
        with pytest.raises(DataError, match=f"'{unknown}'"):
            store.utterance(unknown)
