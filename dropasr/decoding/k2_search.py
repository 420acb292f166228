"""Search and alignment with k2: pruned intersection of the graph with dense scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import k2
import numpy as np
import torch

from dropasr.config import DecodeConfig
from dropasr.decoding.search import MIN_ACTIVE, PARTIAL_PATH, Hypothesis, check_scores
from dropasr.lang.fst import FINAL, Arcs
from dropasr.lang.graph_k2 import FILE_NAME, K2Graph
from dropasr.lang.units import OutputUnits
from dropasr.log import get_logger

# Only the best path is wanted, so the lattice need not hold more; a little more than 0 absorbs rounding.
OUTPUT_BEAM = 0.1
WIDER = 4.0
BATCH_SIZE = 50


def dense(log_likelihoods: list[torch.Tensor]) -> k2.DenseFsaVec:
    """Scores as k2 wants them. The utterances must be sorted by length, longest first (k2's demand)."""
    lengths = [len(scores) for scores in log_likelihoods]
    padded = torch.nn.utils.rnn.pad_sequence([scores.float() for scores in log_likelihoods], batch_first=True)
    segments = torch.tensor([[index, 0, length] for index, length in enumerate(lengths)], dtype=torch.int32)
    return k2.DenseFsaVec(padded, segments)


def best_paths(lattice: k2.Fsa, attribute: str) -> tuple[list[np.ndarray], list[float]]:
    """For each utterance the values of an arc attribute along the best path, and the path's score (-inf where there is none)."""
    paths = k2.shortest_path(lattice, use_double_scores=True)
    shape = paths.arcs.shape()
    splits = shape.row_splits(2)[shape.row_splits(1).long()].tolist()
    values = getattr(paths, attribute).numpy()
    scores = paths.get_tot_scores(use_double_scores=True, log_semiring=False).tolist()
    return [values[begin:end] for begin, end in zip(splits[:-1], splits[1:], strict=True)], scores


def _partial(arcs: Arcs) -> Arcs:
    """The graph with every state final, for utterances that end inside a word. Scores of the given final states are kept."""
    final = arcs.num_states - 1
    given = set(arcs.src[arcs.ilabel == FINAL].tolist())
    rows = list(zip(arcs.src.tolist(), arcs.dst.tolist(), arcs.ilabel.tolist(), arcs.olabel.tolist(), arcs.score.tolist(), strict=True))
    return Arcs.from_rows(rows + [(state, final, FINAL, 0, 0.0) for state in range(final) if state not in given])


class K2Search:
    """Decoding with a word graph; see `dropasr.decoding.search.Search`."""

    backend = "k2"

    def __init__(self, graph: K2Graph, words: list[str], num_units: int, config: DecodeConfig) -> None:
        self._graph, self._num_units, self._config = graph, num_units, config
        self._sequences = [[words[number] for number in sequence] for sequence in graph.sequences]
        self._fsa = k2.create_fsa_vec([graph.arcs.to_k2()])

    def _search(self, fsa: k2.Fsa, log_likelihoods: list[torch.Tensor], factor: float) -> list[Hypothesis | None]:
        beam, active = self._config.beam * factor, int(self._config.max_active * factor)
        lattice = k2.intersect_dense_pruned(fsa, dense(log_likelihoods), beam, OUTPUT_BEAM, MIN_ACTIVE, active)
        labels, scores = best_paths(lattice, "olabel")
        return [
            Hypothesis([word for number in path[path > 0].tolist() for word in self._sequences[number]], score) if len(path) else None
            for path, score in zip(labels, scores, strict=True)
        ]

    def decode(self, log_likelihoods: list[torch.Tensor]) -> list[Hypothesis]:
        """See `dropasr.decoding.search.Search.decode`."""
        check_scores(log_likelihoods, self._num_units)
        order = sorted(range(len(log_likelihoods)), key=lambda index: -len(log_likelihoods[index]))
        found: dict[int, Hypothesis] = {}
        for begin in range(0, len(order), BATCH_SIZE):
            batch = order[begin : begin + BATCH_SIZE]
            hypotheses = self._search(self._fsa, [log_likelihoods[index] for index in batch], 1.0)
            for index, hypothesis in zip(batch, hypotheses, strict=True):
                found[index] = hypothesis or self._rescue(log_likelihoods[index], index)
        return [found[index] for index in range(len(log_likelihoods))]

    def _rescue(self, scores: torch.Tensor, index: int) -> Hypothesis:
        hypothesis = self._search(self._fsa, [scores], WIDER)[0]
        if hypothesis is not None:
            return hypothesis
        get_logger(__name__).warning(PARTIAL_PATH, index)
        partial = k2.create_fsa_vec([_partial(self._graph.arcs).to_k2()])
        return self._search(partial, [scores], 1.0)[0] or Hypothesis([], -float("inf"))


def load(lang_dir: Path, words: list[str], config: DecodeConfig) -> K2Search:
    """The search over the graph of `lang_dir`."""
    units = OutputUnits.load(lang_dir / "units.json")
    return K2Search(K2Graph.load(lang_dir / FILE_NAME), words, units.num_units, config)


def align(log_likelihoods: list[torch.Tensor], graphs: list[Arcs], beam: float) -> list[np.ndarray | None]:
    """Units per frame of each utterance, or None where its graph has no path of that length."""
    order = sorted(range(len(graphs)), key=lambda index: -len(log_likelihoods[index]))
    found: list[Any] = [None] * len(graphs)
    for begin in range(0, len(order), BATCH_SIZE):
        batch = order[begin : begin + BATCH_SIZE]
        fsas = k2.create_fsa_vec([graphs[index].to_k2() for index in batch])
        active = max(graphs[index].num_states for index in batch)
        scores = dense([log_likelihoods[index] for index in batch])
        # k2 insists on a maximum above the minimum; a graph of few states needs neither.
        lattice = k2.intersect_dense_pruned(fsas, scores, beam, OUTPUT_BEAM, min(MIN_ACTIVE, active), active + 1)
        for index, path in zip(batch, best_paths(lattice, "labels")[0], strict=True):
            if len(path):
                found[index] = path[path != FINAL].astype(np.int32)
    return found
