"""Making a package: the exported net of a row, and its search, in one folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dropasr.config import Config, has_own_graph
from dropasr.decoding.faster import MIN_ACTIVE
from dropasr.decoding.graphs import make_graphs
from dropasr.decoding.likelihoods import load_log_prior
from dropasr.decoding.rescore import graph_folder
from dropasr.errors import ConfigError, StageError
from dropasr.files import read_json
from dropasr.lang.ctc_topology import ctc_topology
from dropasr.lang.graph import import_error
from dropasr.lang.graph_build import check_graph
from dropasr.lang.graph_kaldi import FILE_NAME, load_graph, save_graph, weighted
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.pieces import PieceUnits, load_units
from dropasr.log import get_logger
from dropasr.paths import Paths
from dropasr.runtime.engines import CHOICE
from dropasr.runtime.exported import CARD, DYNAMIC_INT8, STATIC_INT8, STREAM, WHOLE, Exported
from dropasr.runtime.package import (
    GRAPH,
    LEXICON,
    LIST,
    UNITS,
    WORDS,
    Package,
    SearchSettings,
    write_list,
    write_settings,
)
from dropasr.runtime.whole_folder import made_here, whole_or_nothing

logger = get_logger(__name__)
KEPT = (WHOLE, STREAM, DYNAMIC_INT8, STATIC_INT8)
"""Files of the exported net that run without torch."""
BENCH = "bench.py"
Export = Callable[[Config, Paths, str, Path], Any]
"""Writes the exported net of a row into a folder."""


def write_package(config: Config, paths: Paths, row: str, folder: Path, export: Export) -> Package:
    """Write the package of a row to `folder`, which is then whole or as it was before; returns it as read from there.

    Raises ConfigError for a search that kaldi-decoder cannot do, StageError for a row that was not decoded, DataError where `folder` holds
    something else than a package.
    """
    if config.decode.rescore != "none":
        raise ConfigError("decode.rescore: a package is searched with its graph alone. Package the system without it: decode.rescore=none.")
    error = import_error("kaldi")
    if error is not None:
        raise ConfigError(
            f"a package is searched with kaldi-decoder, which cannot be imported ({error}). pip install kaldi-decoder kaldifst"
        )
    with whole_or_nothing(folder, made_here(folder, LIST, [CHOICE])) as made:
        export(config, paths, row, made)
        _keep(made)
        add_search(config, paths, row, made)
        write_list(made)
        Package.read(made)
    logger.info(f"package of '{row}' in {folder}: {_size(folder)}")
    return Package.read(folder)


def write_bundle(config: Config, paths: Paths, row: str, folder: Path, export: Export) -> None:
    """Write a folder with the exported net of a row and `bench.py`, which measures it on any machine with ONNX Runtime.

    Raises StageError for a row that was not decoded, DataError where `folder` holds something else than such a bundle.
    """
    with whole_or_nothing(folder, (folder / BENCH).is_file() and made_here(folder, CARD, [BENCH, CHOICE])) as made:
        export(config, paths, row, made)
        _keep(made)
        shutil.copyfile(Path(__file__).with_name("bundle_bench.py"), made / BENCH)
    logger.info(f"benchmark of '{row}' in {folder}: {_size(folder)}. On the other machine: pip install onnxruntime; python {BENCH}")


def _size(folder: Path) -> str:
    sizes = [path.stat().st_size for path in folder.iterdir()]
    return f"{sum(sizes) / 1e6:.1f} MB, {len(sizes)} files"


def _keep(folder: Path) -> None:
    """Leave out what only torch can run."""
    exported = Exported.read(folder)
    for name in set(exported.files) - set(KEPT):
        (folder / name).unlink()
    exported.write(folder, [name for name in KEPT if name in exported.files])


def add_search(config: Config, paths: Paths, row: str, folder: Path) -> None:
    """Write graph, words, units, pronunciations and settings of the search beside an exported net."""
    if not paths.scores(row).exists():
        raise StageError(f"{paths.scores(row)}: '{row}' was not decoded, so its scales are not known. Run: bash run.sh --stage 7.")
    scores = read_json(paths.scores(row))
    source = graph_folder(config, paths)
    units = load_units(source / "units.json")
    units.save(folder / UNITS)
    spells = isinstance(units, PieceUnits) and config.decode.ctc != "hlg"
    if spells:
        assert isinstance(units, PieceUnits)
        graph = ctc_topology(units.num_units).to_kaldifst(shift=0)
    else:
        shutil.copyfile(paths.lang / "words.txt", folder / WORDS)
        graph = _graph(config, paths, source)
    if not isinstance(units, PieceUnits):
        shutil.copyfile(paths.lang / "lexicon.txt", folder / LEXICON)
    weights = scores["lm_scale"], scores["insertion_penalty"]
    save_graph(folder / GRAPH, graph if spells or weights == (1, 0) else weighted(graph, *weights))
    log_prior = load_log_prior(config, paths, row).expand(units.num_units).tolist()
    write_settings(folder, SearchSettings(config.decode.beam, config.decode.max_active, MIN_ACTIVE, log_prior, "kaldi", *weights))


def _graph(config: Config, paths: Paths, source: Path) -> Any:
    if not has_own_graph(config):
        return load_graph(check_graph(source, "kaldi"))
    # Stage 7 made the graph of its own backend alone.
    units, lexicon = load_units(source / "units.json"), Lexicon.load(paths.lang / "lexicon.txt")
    assert not isinstance(units, PieceUnits)
    with tempfile.TemporaryDirectory() as folder:
        make_graphs(config, paths, lexicon, units, Path(folder), ["kaldi"], skips=True)
        return load_graph(Path(folder) / FILE_NAME)
