"""Folders that take the place of older ones, and what is never taken for an older one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from package_case import write_package

from dropasr.errors import DataError
from dropasr.runtime.exported import CARD
from dropasr.runtime.package import LIST
from dropasr.runtime.packaging import BENCH, write_bundle
from dropasr.runtime.packaging import write_package as package_row
from dropasr.runtime.whole_folder import made_here, whole_or_nothing


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path):
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(DataError, match="target: expected a new or empty folder"), whole_or_nothing(folder, replaces=False):
        pass
    with pytest.raises(ZeroDivisionError), whole_or_nothing(folder, replaces=True) as made:
        made.mkdir()
        (made / "new").write_text("new")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "old"]
    with whole_or_nothing(folder, replaces=True) as made:
        made.mkdir()
        (made / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "new"]


def test_a_package_was_made_here_until_something_else_lies_in_it(tmp_path: Path):
    folder = write_package(tmp_path / "package")
    assert made_here(folder, LIST) and not made_here(folder, CARD)  # whose graph and words a card of a net does not list
    (folder / "notes.txt").write_text("mine")
    assert not made_here(folder, LIST) and made_here(folder, LIST, ["notes.txt"])
    (folder / "notes.txt").unlink()
    value = json.loads((folder / LIST).read_text())
    (folder / LIST).write_text(json.dumps({**value, "format_version": 2}))
    assert not made_here(folder, LIST)


@pytest.mark.parametrize(("write", "name", "content"), [(package_row, LIST, '{"name": "my-page"}'), (write_bundle, BENCH, "print()")])
def test_folders_with_files_of_the_same_name_are_left_alone(tiny_yaml, tmp_path: Path, write, name: str, content: str):
    from dropasr.config import load_config
    from dropasr.paths import Paths

    folder = tmp_path / "work"
    (folder / "src").mkdir(parents=True)
    (folder / name).write_text(content)
    paths = Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1)
    with pytest.raises(DataError, match="work: expected a new or empty folder"):
        write(load_config(tiny_yaml()), paths, "dense", folder, lambda *target: target[3].mkdir())
    assert (folder / name).read_text() == content and (folder / "src").is_dir()
