"""What a long benchmark has measured so far, a JSON line each, so that one that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """Lines under keys; those of another identity (nets, graphs, settings) stay in the file and are not seen."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self, identity: str) -> Iterator[dict[str, Any]]:
        """What was written under this identity, in order. A line that was cut off ends it all."""
        if not self._path.exists():
            return
        for text in self._path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if line.get("of") == identity:
                yield line["value"]

    def add(self, identity: str, value: dict[str, Any]) -> None:
        """Append a line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = not self._path.exists() or self._path.read_bytes()[-1:] in (b"", b"\n")
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps({"of": identity, "value": value}) + "\n")
