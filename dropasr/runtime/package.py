"""A package: the folder of an exported net with graph, words, units and settings of its search, all that transcription needs.

Beside what `dropasr.runtime.exported` lists: `graph.fst` (OpenFst, read by kaldifst; input label k is column k - 1 of the scores),
`words.txt`, `units.json`, `lexicon.txt` (where words are spelt with phones; it tells when they were said), `search.json`, and
`package.json` with the SHA-256 of every file. Reading one needs numpy and kaldifst; `dropasr.runtime.packaging` writes them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from dropasr.errors import DataError
from dropasr.files import hash_of, read_json, sha256_file, write_json
from dropasr.lang.graph import load_words
from dropasr.lang.graph_kaldi import load_graph
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.pieces import PieceUnits, load_units
from dropasr.runtime.exported import CARD, Exported
from dropasr.runtime.word_times import Table

FORMAT_VERSION = 1
LIST, GRAPH, WORDS, UNITS, LEXICON, SEARCH = "package.json", "graph.fst", "words.txt", "units.json", "lexicon.txt", "search.json"
REMEDY = "Make the package again: python -m dropasr package ROW DIR."


@dataclass(frozen=True)
class SearchSettings:
    """What `search.json` says."""

    beam: float
    max_active: int
    min_active: int
    log_prior: list[float]
    """What was subtracted from the log posteriors, K numbers; confidences need it."""
    backend: str = "kaldi"
    lm_scale: float = 1.0
    """Already in the graph's weights, as is the insertion penalty."""
    insertion_penalty: float = 0.0


@dataclass(frozen=True)
class Package:
    """A package in memory."""

    folder: Path
    exported: Exported
    search: SearchSettings
    graph: Any
    """`kaldifst.StdVectorFst`."""
    units: Table
    words: list[str] | None
    """Words by number; None where the graph spells with pieces alone."""
    lexicon: Lexicon | None

    @classmethod
    def read(cls, folder: str | Path) -> Package:
        """Read a package and compare the hash of every file. Raises DataError, or ExportError of the net, naming the file."""
        folder = Path(folder)
        verify(folder)
        exported, units = Exported.read(folder, verify=False), load_units(folder / UNITS)
        value = read_json(folder / SEARCH)
        known = {item.name for item in fields(SearchSettings)}
        if not isinstance(value, dict) or set(value) != known or value["backend"] != "kaldi":
            raise DataError(f"{folder / SEARCH}: expected settings of a search with kaldi-decoder ({', '.join(sorted(known))}). {REMEDY}")
        if not units.num_units == exported.units == len(value["log_prior"]):
            found = f"{units.num_units} units, {exported.units} scores and a prior of {len(value['log_prior'])}"
            raise DataError(f"{folder}: expected units, net and prior of one size, found {found}. {REMEDY}")
        words = load_words(folder / WORDS) if (folder / WORDS).exists() else None
        lexicon = Lexicon.load(folder / LEXICON) if not isinstance(units, PieceUnits) else None
        return cls(folder, exported, SearchSettings(**value), load_graph(folder / GRAPH), units, words, lexicon)

    @property
    def log_prior(self) -> np.ndarray:
        """Float32 `(K,)`."""
        return np.array(self.search.log_prior, np.float32)


def write_list(folder: Path) -> None:
    """Write `package.json` for all files that are in the folder."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path != folder / LIST)
    content = {"format_version": FORMAT_VERSION, "files": {name: sha256_file(folder / name) for name in names}}
    write_json(folder / LIST, {**content, "about_sha256": hash_of(content)})


def write_settings(folder: Path, settings: SearchSettings) -> None:
    """Write `search.json`."""
    write_json(folder / SEARCH, asdict(settings))


def verify(folder: Path) -> None:
    """Compare every file with `package.json`. Raises DataError that names the one that is missing or damaged."""
    path = folder / LIST
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the folder of a package, found none. {REMEDY}")
    if not path.exists():
        what = "an exported net without graph and words" if (folder / CARD).exists() else f"no {LIST}"
        raise DataError(f"{folder}: expected a package, found {what}. {REMEDY}")
    value = read_json(path)
    expected = value.pop("about_sha256", None) if isinstance(value, dict) else None
    if expected is None or hash_of(value) != expected:
        raise DataError(f"{path}: the file is damaged or was changed: its content does not have the hash it states. {REMEDY}")
    if value.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path}: expected format {FORMAT_VERSION}, found {value.get('format_version')}. {REMEDY}")
    for name in (CARD, GRAPH, UNITS, SEARCH):
        if name not in value["files"]:
            raise DataError(f"{path}: expected {name} among its files. {REMEDY}")
    for name, wanted in value["files"].items():
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: the file is missing, though {LIST} lists it. {REMEDY}")
        found = sha256_file(folder / name)
        if found != wanted:
            raise DataError(f"{folder / name}: the file is damaged: expected SHA-256 {wanted[:16]}…, found {found[:16]}…. {REMEDY}")
