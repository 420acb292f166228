"""The card of an exported net: what is written is read, and nothing else is taken for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from exported_case import card

from dropasr.errors import ExportError
from dropasr.files import hash_of, write_json
from dropasr.runtime.exported import CARD, STREAM, WHOLE, Exported


def written(folder: Path, **changes) -> Exported:
    (folder / WHOLE).write_bytes(b"a graph")
    (folder / STREAM).write_bytes(b"another")
    return card(**changes).write(folder, [WHOLE, STREAM])


def test_reads_what_was_written(tmp_path: Path):
    exported = written(tmp_path, wer={"dev": 3.5}, rtf={"total": 0.01})
    assert Exported.read(tmp_path) == exported
    assert set(exported.files) == {WHOLE, STREAM} and exported.streams
    assert not card().streams
    mean, std = exported.training_statistics()
    np.testing.assert_array_equal(mean, np.array([1.5, 0.25], np.float32))
    np.testing.assert_array_equal(std, np.array([2.0, 0.1], np.float32))


def test_a_card_without_later_keys_is_read(tmp_path: Path):
    exported = written(tmp_path)
    old = {
        key: value
        for key, value in json.loads((tmp_path / CARD).read_text()).items()
        if key not in ("shared", "frames_scored", "about_sha256")
    }
    write_json(tmp_path / CARD, {**old, "about_sha256": hash_of(old)})
    assert Exported.read(tmp_path) == exported and exported.shared == exported.frames_scored == 1
    del old["stride"]
    write_json(tmp_path / CARD, {**old, "about_sha256": hash_of(old)})
    with pytest.raises(ExportError, match="a difference in stride"):
        Exported.read(tmp_path)


@pytest.mark.parametrize("frames", [1, 5, 6, 7, 12, 13])
def test_the_search_takes_shared_scores_several_times(frames: int):
    exported = card(stride=6, shared=2, units=1)
    computed = np.arange(0, frames, 6)[:, None]
    assert exported.num_scores(frames) == len(computed) and exported.search_stride == 3
    assert exported.spread(computed, frames)[:, 0].tolist() == [t - t % 6 for t in range(0, frames, 3)]


@pytest.mark.parametrize("frames", [1, 5, 6, 7])
def test_a_row_may_hold_the_scores_of_several_frames(frames: int):
    exported = card(stride=3, frames_scored=3, units=2)
    of_frame = np.arange(2 * frames, dtype=np.float32).reshape(frames, 2)
    rows = exported.by_step(of_frame)
    assert rows.shape == (exported.num_scores(frames), 6) and exported.search_stride == 1
    assert [list(row[2 * place :][:2]) for row in rows for place in range(3)][:frames] == of_frame.tolist()
    np.testing.assert_array_equal(exported.spread(rows, frames), of_frame)


def damage_graph(folder: Path) -> str:
    (folder / WHOLE).write_bytes(b"a grapi")
    return WHOLE


def remove_graph(folder: Path) -> str:
    (folder / STREAM).unlink()
    return STREAM


def change_card(folder: Path) -> str:
    path = folder / CARD
    path.write_text(path.read_text().replace('"stride": 1', '"stride": 2'))
    return CARD


def truncate_card(folder: Path) -> str:
    (folder / CARD).write_bytes((folder / CARD).read_bytes()[:50])
    return CARD


def remove_card(folder: Path) -> str:
    (folder / CARD).unlink()
    return CARD


def card_of_checkpoint(folder: Path) -> str:
    (folder / CARD).write_text(json.dumps({"dims": {}, "sha256": ""}))
    return CARD


def newer_card(folder: Path) -> str:
    (folder / CARD).write_text(json.dumps({"format_version": 2}))
    return "expected format 1, found 2"


FAULTS = [damage_graph, remove_graph, change_card, truncate_card, remove_card, card_of_checkpoint, newer_card]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_refuses_what_is_damaged(tmp_path: Path, fault):
    written(tmp_path)
    named = fault(tmp_path)
    with pytest.raises(ExportError, match="Export the net again") as error:
        Exported.read(tmp_path)
    assert named in str(error.value)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(ExportError, match="nowhere"):
        Exported.read(tmp_path / "nowhere")


@pytest.mark.parametrize("stride", [1, 3])
def test_windows_of_parts_are_those_of_the_whole(stride: int):
    exported = card(stride=stride, left_context=4, right_context=2)
    frames = 11
    for first in range(exported.num_scores(frames)):
        expected = [min(max(first * stride + offset, 0), frames - 1) for offset in range(-4, 3)]
        assert exported.window(first, 1, frames).tolist() == expected
    # Two scores at once read the frames of both, without a gap.
    both = exported.window(1, 2, 100)
    assert both.tolist() == [max(0, number) for number in range(stride - 4, 2 * stride + 3)]
    assert exported.window(0, 1).tolist() == [0, 0, 0, 0, 0, 1, 2]


def test_states_start_at_0_unless_they_are_learned():
    states = card(states=[{"name": "a", "shape": [1, 2]}, {"name": "b", "shape": [1, 2], "initial": [[0.5, -1.0]]}]).first_states()
    assert {name: value.tolist() for name, value in states.items()} == {"a": [[0.0, 0.0]], "b": [[0.5, -1.0]]}
    assert all(value.dtype == np.float32 for value in states.values())


def test_needs_neither_torch_nor_the_rest_of_the_toolkit():
    script = "import dropasr.runtime.exported, sys; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert not set(run.stdout.split()) & {"torch", "k2", "lhotse", "pydantic", "scipy", "kaldialign", "onnxruntime"}
