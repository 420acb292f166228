"""Decoding graphs on disk: made once for the same inputs, then found by the hash of these inputs, and verified when they are loaded.

A folder with graphs holds one file per backend and `graphs.json`, which has the hash of each.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dropasr.errors import DataError
from dropasr.files import alone_in, atomic_path, hash_of, read_json, sha256_file, write_json
from dropasr.lang import graph_k2, graph_kaldi
from dropasr.lang.graph import Transducers
from dropasr.log import get_logger
from dropasr.paths import GRAPH_CONSTRUCTION

_log = get_logger(__name__)
INDEX = "graphs.json"
FILE_NAMES = {"k2": graph_k2.FILE_NAME, "kaldi": graph_kaldi.FILE_NAME}


def _write_graph(path: Path, transducers: Transducers, backend: str) -> dict[str, Any]:
    """Make and write one graph; its states, arcs, seconds and hash. Raises DataError for an empty graph."""
    begin = time.perf_counter()
    if backend == "k2":
        built = graph_k2.build_k2_graph(transducers)
        states, arcs = built.arcs.num_states, built.arcs.num_arcs
    else:
        built = graph_kaldi.build_kaldi_graph(transducers)
        states, arcs = graph_kaldi.graph_size(built)
    if arcs == 0:
        raise DataError(f"{path}: the {backend} decoding graph is empty: no sentence of the language model has a pronunciation.")
    built.save(path) if backend == "k2" else graph_kaldi.save_graph(path, built)
    seconds = round(time.perf_counter() - begin, 2)
    _log.info("decoding graph (%s): %d states, %d arcs, made in %.1f s", backend, states, arcs, seconds)
    return {"states": states, "arcs": arcs, "seconds": seconds, "sha256": sha256_file(path)}


def _index(folder: Path) -> dict[str, dict[str, Any]]:
    return read_json(folder / INDEX) if (folder / INDEX).exists() else {}


def check_graph(folder: Path, backend: str) -> Path:
    """The graph file of a backend in `folder`; DataError where it is missing or is not the file that was written."""
    path = folder / FILE_NAMES[backend]
    if not path.exists():
        raise DataError(f"{path}: the {backend} decoding graph is missing. Run stage 4 (align) where {backend} is installed.")
    wanted, found = _index(folder).get(backend, {}).get("sha256"), sha256_file(path)
    if wanted != found:
        raise DataError(f"{path}: expected SHA-256 {wanted} as in {folder / INDEX}, found {found}. Remove it, run stage 4 (align).")
    return path


def build_graphs(folder: Path, transducers: Transducers, backends: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Write the graph of each backend and `graphs.json`; states, arcs, seconds and hash of each. Raises DataError for an empty graph.

    No other process may write there at the same time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = _index(folder)
    for backend in backends:
        index[backend] = _write_graph(folder / FILE_NAMES[backend], transducers, backend)
        write_json(folder / INDEX, index)
    return index


def _link(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, temporary)


def provide_graphs(
    target: Path, cache: Path, inputs: dict[str, Any], make: Callable[[], Transducers], backends: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Put the graphs of `backends` into `target`, from `cache/HASH` where graphs of the same `inputs` were made before.

    `inputs` names everything that `make()` depends on: hashes of files, output units, options. A cached file that is not what was
    written is made again. Experiments that want the same graphs at the same time wait for the one that makes them.
    Returns states, arcs, seconds, hash and `cached` of each graph. Raises DataError for an empty graph.
    """
    folder = cache / hash_of({"construction": GRAPH_CONSTRUCTION, **inputs})[:16]
    with alone_in(folder):
        result = _provided(folder, target, make, backends)
    write_json(target / INDEX, {backend: {**figures, "inputs": folder.name} for backend, figures in result.items()})
    return result


def _provided(folder: Path, target: Path, make: Callable[[], Transducers], backends: Sequence[str]) -> dict[str, dict[str, Any]]:
    transducers, result = None, {}
    for backend in backends:
        cached = True
        try:
            check_graph(folder, backend)
        except DataError as error:
            if (folder / FILE_NAMES[backend]).exists():
                _log.warning("%s It is made again.", error)
            cached = False
            transducers = transducers or make()
            build_graphs(folder, transducers, [backend])
        index = _index(folder)[backend]
        if cached:
            _log.info("decoding graph (%s): found in %s, %d states, %d arcs", backend, folder, index["states"], index["arcs"])
        _link(folder / FILE_NAMES[backend], target / FILE_NAMES[backend])
        result[backend] = {**index, "cached": cached}
    return result
