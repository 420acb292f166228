"""Search and alignment with kaldi-decoder's FasterDecoder on graphs of kaldifst."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dropasr.config import DecodeConfig
from dropasr.decoding.faster import UNLIMITED, FasterSearch
from dropasr.decoding.search import PARTIAL_PATH, PLAIN, Hypothesis, Weights, check_scores, need_lattices
from dropasr.lang.fst import Arcs
from dropasr.lang.graph_kaldi import FILE_NAME, load_graph
from dropasr.log import get_logger


class KaldiSearch:
    """Decoding with a word graph; see `dropasr.decoding.search.Search`."""

    backend = "kaldi"

    def __init__(self, fst: Any, words: list[str], num_units: int, config: DecodeConfig) -> None:
        self._fst, self._words, self._num_units = fst, words, num_units
        self._search = FasterSearch(fst, config.beam, config.max_active)

    def decode(self, log_likelihoods: list[torch.Tensor]) -> list[Hypothesis]:
        """See `dropasr.decoding.search.Search.decode`."""
        check_scores(log_likelihoods, self._num_units)
        hypotheses = []
        for index, scores in enumerate(log_likelihoods):
            path = self._search.decode(scores.numpy())
            if not path.complete:
                get_logger(__name__).warning(PARTIAL_PATH, index)
            hypotheses.append(Hypothesis([self._words[label] for label in path.labels], path.score))
        return hypotheses

    def pruned(self, beam: float, max_active: int) -> KaldiSearch:
        """See `dropasr.decoding.search.Search.pruned`."""
        other = copy.copy(self)
        other._search = FasterSearch(self._fst, beam, max_active)
        return other

    def weighted(self, weights: Weights) -> KaldiSearch:
        """See `dropasr.decoding.search.Search.weighted`."""
        if weights != PLAIN:
            raise need_lattices("kaldi", "decode.lm_scales and decode.insertion_penalties")
        return self

    def variants(self, log_likelihoods: list[torch.Tensor], grid: Sequence[Weights]) -> list[list[list[str]]]:
        """See `dropasr.decoding.search.Search.variants`; plain weights only."""
        for weights in grid:
            self.weighted(weights)
        return [[hypothesis.words for hypothesis in self.decode(log_likelihoods)]] * len(grid)

    def nbest(self, log_likelihoods: list[torch.Tensor], number: int) -> list[list[Hypothesis]]:
        """Not offered: raises ConfigError."""
        raise need_lattices("kaldi", "decode.rescore")


def load(folder: Path, words: list[str], num_units: int, config: DecodeConfig) -> KaldiSearch:
    """The search over the graph of `folder`."""
    return KaldiSearch(load_graph(folder / FILE_NAME), words, num_units, config)


def align(log_likelihoods: list[torch.Tensor], graphs: list[Arcs], beam: float) -> list[np.ndarray | None]:
    """Units per frame of each utterance, or None where its graph has no path of that length."""
    found: list[np.ndarray | None] = []
    for scores, graph in zip(log_likelihoods, graphs, strict=True):
        path = FasterSearch(graph.to_kaldifst(), beam, UNLIMITED).decode_once(scores.numpy())
        found.append(path.units.astype(np.int32) if path.complete and len(path.units) == len(scores) else None)
    return found
