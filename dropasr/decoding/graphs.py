"""Decoding graphs of nets that classify frames: that of every frame in stage 4, and in stage 7 that of a slower rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropasr.config import Config, has_own_graph
from dropasr.decoding.search import choose_backend
from dropasr.files import sha256_file
from dropasr.lang.graph import make_transducers
from dropasr.lang.graph_build import provide_graphs
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.pieces import load_units
from dropasr.lang.units import OutputUnits
from dropasr.paths import Paths


def make_graphs(
    config: Config, paths: Paths, lexicon: Lexicon, units: OutputUnits, target: Path, backends: Sequence[str], skips: bool = False
) -> dict[str, dict[str, Any]]:
    """Put the decoding graphs of `backends` into `target`; their figures. With `skips` a phone may pass in one frame."""
    arpa, words, silence = paths.lang / "lm.arpa", paths.lang / "words.txt", config.lang.silence_probability
    hashes = {file.name: sha256_file(file) for file in (arpa, words, paths.lang / "lexicon.txt")}
    inputs = {**hashes, "units": units.describe(), "silence_probability": silence, "topology": "skips" if skips else "whole"}
    return provide_graphs(target, paths.graphs, inputs, lambda: make_transducers(lexicon, units, silence, arpa, words, skips), backends)


def provide_own_graph(config: Config, paths: Paths) -> None:
    """Units and graph of a system that is decoded at another rate than its nets were trained for, in `paths.own_graph`."""
    if not has_own_graph(config):
        return
    units = load_units(paths.align / "units.json")
    units.save(paths.own_graph / "units.json")
    lexicon, backends = Lexicon.load(paths.lang / "lexicon.txt"), [choose_backend(config.decode.backend)]
    make_graphs(config, paths, lexicon, units, paths.own_graph, backends, skips=True)
