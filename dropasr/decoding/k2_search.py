"""Search and alignment with k2: pruned intersection of the graph with dense scores."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import k2
import numpy as np
import torch

from dropasr.config import DecodeConfig
from dropasr.decoding import k2_lattice
from dropasr.decoding.faster import MIN_ACTIVE
from dropasr.decoding.k2_lattice import best_paths, dense
from dropasr.decoding.search import PARTIAL_PATH, PLAIN, Hypothesis, Weights, batches_by_frames, check_scores
from dropasr.lang.fst import FINAL, Arcs
from dropasr.lang.graph_k2 import FILE_NAME, K2Graph
from dropasr.log import get_logger

# Only the best path is wanted, so the lattice need not hold more; a little more than 0 absorbs rounding.
OUTPUT_BEAM = 0.1
WIDER = 4.0
BATCH_FRAMES = 20_000
# Wide lattices of a large vocabulary take a hundred times the memory of best paths.
LATTICE_FRAMES = 5_000


def _partial(arcs: Arcs) -> Arcs:
    """The graph with every state final, for utterances that end inside a word. Scores of the given final states are kept."""
    final = arcs.num_states - 1
    states = np.setdiff1d(np.arange(final, dtype=np.int32), arcs.src[arcs.ilabel == FINAL])
    zeros = np.zeros_like(states)
    src = np.concatenate([arcs.src, states])
    order = np.argsort(src, kind="stable")
    dst, ilabel = np.concatenate([arcs.dst, zeros + final]), np.concatenate([arcs.ilabel, zeros + FINAL])
    olabel, score = np.concatenate([arcs.olabel, zeros]), np.concatenate([arcs.score, zeros.astype(np.float32)])
    return Arcs(src[order], dst[order], ilabel[order], olabel[order], score[order])


class K2Search:
    """Decoding with a word graph; see `dropasr.decoding.search.Search`."""

    backend = "k2"

    def __init__(self, graph: K2Graph, words: list[str], num_units: int, config: DecodeConfig, weights: Weights = PLAIN) -> None:
        self._graph, self._num_units, self._config, self._weights = graph, num_units, config, weights
        self._words = words
        self._words_per_sequence = torch.tensor([len(sequence) for sequence in graph.sequences], dtype=torch.float32)
        self._fsa = self._vector(graph.arcs)

    def _vector(self, arcs: Arcs) -> k2.Fsa:
        fsa = arcs.to_k2()
        if self._weights.insertion_penalty:
            # The graph's own scale stays 1, so that the beam means what it meant when the weights were tuned.
            penalty = self._weights.insertion_penalty / self._weights.lm_scale
            fsa.scores = fsa.scores - penalty * self._words_per_sequence[fsa.olabel.clamp(min=0).long()]
        return k2.create_fsa_vec([fsa])

    def pruned(self, beam: float, max_active: int) -> K2Search:
        """See `dropasr.decoding.search.Search.pruned`."""
        other = copy.copy(self)
        other._config = self._config.model_copy(update={"beam": beam, "max_active": max_active})
        return other

    def weighted(self, weights: Weights) -> K2Search:
        """See `dropasr.decoding.search.Search.weighted`."""
        if weights == self._weights:
            return self  # a second copy of a large graph would not fit into every process
        return K2Search(self._graph, self._words, self._num_units, self._config, weights)

    def _text(self, sequences: Iterable[int]) -> list[str]:
        return [self._words[word] for number in sequences if number > 0 for word in self._graph.sequences[number]]

    def _lattice(self, fsa: k2.Fsa, log_likelihoods: list[torch.Tensor], factor: float, output_beam: float) -> k2.Fsa:
        beam, active = self._config.beam * factor, int(self._config.max_active * factor)
        scores = [values / self._weights.lm_scale for values in log_likelihoods]
        return k2.intersect_dense_pruned(fsa, dense(scores), beam, output_beam, MIN_ACTIVE, active)

    def _search(self, fsa: k2.Fsa, log_likelihoods: list[torch.Tensor], factor: float) -> list[Hypothesis | None]:
        paths, scores = best_paths(self._lattice(fsa, log_likelihoods, factor, OUTPUT_BEAM), "olabel")
        return [
            Hypothesis(self._text(path.tolist()), self._weights.lm_scale * score) if len(path) else None
            for path, score in zip(paths, scores, strict=True)
        ]

    def _batches(self, log_likelihoods: list[torch.Tensor], frames: int) -> Iterable[tuple[list[int], list[torch.Tensor]]]:
        check_scores(log_likelihoods, self._num_units)
        for batch in batches_by_frames([len(scores) for scores in log_likelihoods], frames):
            yield batch, [log_likelihoods[index] for index in batch]

    def decode(self, log_likelihoods: list[torch.Tensor]) -> list[Hypothesis]:
        """See `dropasr.decoding.search.Search.decode`."""
        found: dict[int, Hypothesis] = {}
        for batch, scores in self._batches(log_likelihoods, BATCH_FRAMES):
            for index, hypothesis in zip(batch, self._search(self._fsa, scores, 1.0), strict=True):
                found[index] = hypothesis or self._rescue(log_likelihoods[index], index)
        return [found[index] for index in range(len(log_likelihoods))]

    @functools.cached_property
    def _with_graph_scores(self) -> k2.Fsa:
        fsa = self._graph.arcs.to_k2()
        fsa.graph_score = fsa.scores.clone()
        return k2.create_fsa_vec([fsa])

    def variants(self, log_likelihoods: list[torch.Tensor], grid: Sequence[Weights]) -> list[list[list[str]]]:
        """See `dropasr.decoding.search.Search.variants`."""
        if list(grid) == [PLAIN]:
            return [[hypothesis.words for hypothesis in self.decode(log_likelihoods)]]
        found: list[dict[int, list[str]]] = [{} for _ in grid]
        fsa = self._with_graph_scores
        for batch, scores in self._batches(log_likelihoods, LATTICE_FRAMES):
            lattice = self._lattice(fsa, scores, 1.0, self._config.lattice_beam)
            for result, paths in zip(found, k2_lattice.variants(lattice, self._words_per_sequence, grid), strict=True):
                result.update({index: self._text(path.tolist()) for index, path in zip(batch, paths, strict=True) if len(path)})
        for index in set(range(len(log_likelihoods))) - set(found[0]):
            words = self._rescue(log_likelihoods[index], index).words
            for result in found:
                result[index] = words
        return [[result[index] for index in range(len(log_likelihoods))] for result in found]

    def nbest(self, log_likelihoods: list[torch.Tensor], number: int) -> list[list[Hypothesis]]:
        """See `dropasr.decoding.search.Search.nbest`."""
        found: dict[int, list[Hypothesis]] = {}
        beam = self._config.lattice_beam
        for batch, scores in self._batches(log_likelihoods, LATTICE_FRAMES):
            lattices = k2_lattice.split(self._lattice(self._fsa, scores, 1.0, beam))
            for index, lattice in zip(batch, lattices, strict=True):
                unique: dict[tuple[str, ...], float] = {}
                # One word sequence may be divided over arcs in several ways; the best of them comes first.
                for sequence, score in k2_lattice.nbest(lattice, 2 * number, beam):
                    unique.setdefault(tuple(self._text(sequence)), self._weights.lm_scale * score)
                found[index] = [Hypothesis(list(words), score) for words, score in list(unique.items())[:number]]
                if not unique:
                    found[index] = [self._rescue(log_likelihoods[index], index)]
        return [found[index] for index in range(len(log_likelihoods))]

    def _rescue(self, scores: torch.Tensor, index: int) -> Hypothesis:
        hypothesis = self._search(self._fsa, [scores], WIDER)[0]
        if hypothesis is not None:
            return hypothesis
        get_logger(__name__).warning(PARTIAL_PATH, index)
        return self._search(self._vector(_partial(self._graph.arcs)), [scores], 1.0)[0] or Hypothesis([], -float("inf"))


def load(folder: Path, words: list[str], num_units: int, config: DecodeConfig) -> K2Search:
    """The search over the graph of `folder`."""
    return K2Search(K2Graph.load(folder / FILE_NAME), words, num_units, config)


def align(log_likelihoods: list[torch.Tensor], graphs: list[Arcs], beam: float) -> list[np.ndarray | None]:
    """Units per frame of each utterance, or None where its graph has no path of that length."""
    found: list[Any] = [None] * len(graphs)
    for batch in batches_by_frames([len(scores) for scores in log_likelihoods], BATCH_FRAMES):
        fsas = k2.create_fsa_vec([graphs[index].to_k2() for index in batch])
        active = max(graphs[index].num_states for index in batch)
        scores = dense([log_likelihoods[index] for index in batch])
        # k2 insists on a maximum above the minimum; a graph of few states needs neither.
        lattice = k2.intersect_dense_pruned(fsas, scores, beam, OUTPUT_BEAM, min(MIN_ACTIVE, active), active + 1)
        for index, path in zip(batch, best_paths(lattice, "labels")[0], strict=True):
            if len(path):
                found[index] = path[path != FINAL].astype(np.int32)
    return found
