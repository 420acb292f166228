"""Decoding of CTC nets without lexicon and language model: the best unit per frame, or the search over the topology alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dropasr.config import DecodeConfig
from dropasr.decoding.search import Hypothesis, Search, Weights, check_scores
from dropasr.lang.ctc import best_path
from dropasr.lang.ctc_topology import ctc_topology
from dropasr.lang.fst import FINAL, Arcs
from dropasr.lang.pieces import PieceUnits


class GreedySearch:
    """The best unit per frame, joined and spelt; see `dropasr.decoding.search.Search`. There is nothing that weights could change."""

    backend = "greedy"

    def __init__(self, units: PieceUnits) -> None:
        self._units = units

    def decode(self, log_likelihoods: list[torch.Tensor]) -> list[Hypothesis]:
        """See `dropasr.decoding.search.Search.decode`."""
        check_scores(log_likelihoods, self._units.num_units)
        return [Hypothesis(self._units.words(best_path(scores)), float(scores.max(dim=1).values.sum())) for scores in log_likelihoods]

    def pruned(self, beam: float, max_active: int) -> GreedySearch:
        """See `dropasr.decoding.search.Search.pruned`; nothing is pruned."""
        return self

    def weighted(self, weights: Weights) -> GreedySearch:
        """See `dropasr.decoding.search.Search.weighted`."""
        return self

    def variants(self, log_likelihoods: list[torch.Tensor], grid: Sequence[Weights]) -> list[list[list[str]]]:
        """See `dropasr.decoding.search.Search.variants`."""
        words = [hypothesis.words for hypothesis in self.decode(log_likelihoods)]
        return [words for _ in grid]

    def nbest(self, log_likelihoods: list[torch.Tensor], number: int) -> list[list[Hypothesis]]:
        """See `dropasr.decoding.search.Search.nbest`; one hypothesis each."""
        return [[hypothesis] for hypothesis in self.decode(log_likelihoods)]


class TopologySearch(GreedySearch):
    """The search of a backend over the CTC topology, its pieces spelt."""

    def __init__(self, units: PieceUnits, search: Search) -> None:
        super().__init__(units)
        self._search, self.backend = search, search.backend

    def pruned(self, beam: float, max_active: int) -> TopologySearch:
        """See `dropasr.decoding.search.Search.pruned`."""
        return TopologySearch(self._units, self._search.pruned(beam, max_active))

    def decode(self, log_likelihoods: list[torch.Tensor]) -> list[Hypothesis]:
        """See `dropasr.decoding.search.Search.decode`."""
        found = self._search.decode(log_likelihoods)
        return [Hypothesis(self._units.words(int(piece) for piece in hypothesis.words), hypothesis.score) for hypothesis in found]


def load(units: PieceUnits, config: DecodeConfig, backend: str) -> Search:
    """The search that `decode.ctc` greedy or h asks for, with `backend` k2 or kaldi. No graph is read: the topology is made at once."""
    if config.ctc == "greedy":
        return GreedySearch(units)
    topology, pieces = ctc_topology(units.num_units), [str(number) for number in range(units.num_units)]
    search: Any
    if backend == "k2":
        from dropasr.decoding.k2_search import K2Search
        from dropasr.lang.graph_k2 import K2Graph

        ilabel = np.where(topology.ilabel == FINAL, FINAL, topology.ilabel - 1).astype(np.int32)
        olabel = np.maximum(topology.olabel, 0).astype(np.int32)
        arcs = Arcs(topology.src, topology.dst, ilabel, olabel, topology.score)
        sequences: list[tuple[int, ...]] = [(), *((number,) for number in range(1, units.num_units))]
        search = K2Search(K2Graph(arcs, sequences), pieces, units.num_units, config)
    else:
        from dropasr.decoding.kaldi_search import KaldiSearch

        search = KaldiSearch(topology.to_kaldifst(shift=0), pieces, units.num_units, config)
    return TopologySearch(units, search)
