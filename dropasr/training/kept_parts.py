"""What a killed stage 7 need not decode again: the words of the parts that it had finished."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from dropasr.errors import DataError
from dropasr.files import hash_of, read_json, write_json
from dropasr.training.decode_parts import Part, Setting, Transcripts


class KeptParts:
    """Finished parts of one row, a file each in `folder`; `made_from` is a hash of everything beside the part that decides its words."""

    def __init__(self, folder: Path, made_from: str) -> None:
        self.folder, self.made_from = folder, made_from

    def _file(self, part: Part) -> Path:
        return self.folder / f"{hash_of([self.made_from, dataclasses.asdict(part)])}.json"

    def read(self, part: Part) -> dict[Setting, Transcripts] | None:
        """The words of a part if it is there and undamaged, else None."""
        file = self._file(part)
        if not file.exists():
            return None
        try:
            value = read_json(file)
            if value["hash"] != hash_of(value["found"]):
                return None
            return dict(zip(part.settings, value["found"], strict=True))
        except (DataError, KeyError, TypeError, ValueError):
            return None  # damaged: decoded again

    def write(self, part: Part, found: dict[Setting, Transcripts]) -> None:
        """Keep the words of a part."""
        words = [found[setting] for setting in part.settings]
        write_json(self._file(part), {"found": words, "hash": hash_of(words)})

    def clear(self) -> None:
        """Remove all parts of the row, those of other configurations included."""
        shutil.rmtree(self.folder, ignore_errors=True)
