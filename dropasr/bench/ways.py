"""The ways in which the same scores can be searched, each with the graph of its backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dropasr.config import Config, has_own_graph
from dropasr.decoding.graphs import make_graphs
from dropasr.decoding.kaldi_search import KaldiSearch
from dropasr.decoding.rescore import graph_folder, load_decoder
from dropasr.decoding.search import PLAIN, Search, Weights
from dropasr.errors import UsageError
from dropasr.lang.graph import import_error, load_words
from dropasr.lang.graph_build import FILE_NAMES
from dropasr.lang.graph_kaldi import FILE_NAME, load_graph, weighted
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.pieces import load_units
from dropasr.lang.units import OutputUnits
from dropasr.options import nearest
from dropasr.paths import Paths


@dataclass(frozen=True)
class Way:
    """A backend, given one utterance after the other or all of them."""

    name: str
    title: str
    backend: str
    batched: bool = False

    def decode(self, search: Search, scores: Sequence[torch.Tensor]) -> list[list[str]]:
        """Words of utterances, found in this way."""
        if self.batched:
            return [hypothesis.words for hypothesis in search.decode(list(scores))]
        return [search.decode([item])[0].words for item in scores]


WAYS = (
    Way("k2", "k2, one by one", "k2"),
    Way("k2_batched", "k2, many at once", "k2", batched=True),
    Way("kaldi", "kaldi-decoder", "kaldi"),
)


def ways_called(names: Sequence[str]) -> list[Way]:
    """The ways of these names; all of them, if there are none. Raises UsageError for an unknown name."""
    known = {way.name: way for way in WAYS}
    for name in names:
        if name not in known:
            raise UsageError(f"option '--engines': there is no search '{name}': did you mean '{nearest(name, list(known))}'?")
    return [known[name] for name in names] or list(WAYS)


def why_not(way: Way, config: Config) -> str | None:
    """Why this configuration cannot be searched in this way here; None where it can."""
    error = import_error(way.backend)
    if error is not None:
        return f"its packages cannot be imported ({error})"
    if way.backend == "kaldi" and config.decode.rescore != "none":
        return "rescoring needs lattices, and kaldi-decoder makes none"
    return None


def provide_graph(way: Way, config: Config, paths: Paths) -> Path:
    """The folder with units and graph of a way. Stage 7 makes the graph of its own backend alone where the frame rate has one of its own;
    that of the other is made beside the benchmarks."""
    folder = graph_folder(config, paths)
    if not has_own_graph(config) or (folder / FILE_NAMES[way.backend]).exists():
        return folder
    units = load_units(folder / "units.json")
    assert isinstance(units, OutputUnits)  # nets trained with CTC have no graph of their own
    made = paths.system_home / "bench" / "graph"
    units.save(made / "units.json")
    make_graphs(config, paths, Lexicon.load(paths.lang / "lexicon.txt"), units, made, [way.backend], skips=True)
    return made


def load_way(way: Way, config: Config, paths: Paths, weights: Weights, folder: Path) -> Search:
    """The search of a way. kaldi-decoder has weights in the costs of its graph, as packages do."""
    config = config.model_copy(update={"decode": config.decode.model_copy(update={"backend": way.backend})})
    if way.backend == "kaldi" and weights != PLAIN:
        graph = weighted(load_graph(folder / FILE_NAME), weights.lm_scale, weights.insertion_penalty)
        return KaldiSearch(graph, load_words(paths.lang / "words.txt"), load_units(folder / "units.json").num_units, config.decode)
    return load_decoder(config, paths, folder).weighted(weights)
