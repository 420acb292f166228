"""Folders that are made beside their place and then take it, so that they are whole or as they were before.

What stands there already goes only if everything in it was made here, as its card says: names such as model.json, package.json and
bench.py are those of other things, too, a trained net among them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dropasr.errors import DataError
from dropasr.files import hash_of, read_json


def made_here(folder: Path, card: str, beside: Sequence[str] = ()) -> bool:
    """Whether `folder` holds a `card` with the hash of its own content and, but for what may stand `beside`, only files that it lists."""
    try:
        value = read_json(folder / card)
    except (DataError, OSError):
        return False
    stated = value.pop("about_sha256", None) if isinstance(value, dict) else None
    if stated is None or hash_of(value) != stated or not isinstance(value.get("files"), dict):
        return False
    return {path.name for path in folder.iterdir()} <= {card, *value["files"], *beside}


@contextlib.contextmanager
def whole_or_nothing(folder: Path, replaces: bool) -> Iterator[Path]:
    """A temporary folder beside `folder`, still to be made, that takes its place in the end. `replaces`: there is an older one that may go.

    Raises DataError where `folder` is something that may not go.
    """
    if folder.exists() and not (folder.is_dir() and (replaces or not any(folder.iterdir()))):
        raise DataError(f"{folder}: expected a new or empty folder, or one of this command to replace, found other files. Name another.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / "new"
        yield made
        if folder.exists():
            os.replace(folder, Path(temporary) / "old")
        os.replace(made, folder)
