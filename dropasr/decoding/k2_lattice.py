"""Lattices of k2: best paths under other weights, and n-best lists through OpenFst.

A lattice of the dense intersection has the graph's scores in the arc attribute `graph_score`, so that its acoustic scores are what
remains, and the number of a word sequence in `olabel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import k2
import numpy as np
import torch

from dropasr.decoding.search import Weights
from dropasr.errors import ConfigError
from dropasr.lang.fst import FINAL

MAX_ARCS = 300_000
"""Arcs of a lattice above which its beam is narrowed before an n-best list is made: determinising grows faster than linearly."""


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


def variants(lattice: k2.Fsa, words_per_sequence: torch.Tensor, grid: Sequence[Weights]) -> list[list[np.ndarray]]:
    """For each of the weights the sequence numbers along the best path of every utterance. `words_per_sequence`: float32 `(S,)`."""
    original, graph = lattice.scores, lattice.graph_score
    acoustic, words = original - graph, words_per_sequence[lattice.olabel.clamp(min=0).long()]
    found = []
    for weights in grid:
        lattice.scores = weights.lm_scale * graph + acoustic - weights.insertion_penalty * words
        found.append(best_paths(lattice, "olabel")[0])
    lattice.scores = original
    return found


def _pruned(lattice: k2.Fsa, beam: float) -> np.ndarray:
    """Arcs whose best path lies within the beam, the beam halved until they are few enough; bool `(A,)`.

    The paths of these arcs are kept whole, so that what is left is connected.
    """
    behind = lattice.get_arc_post(use_double_scores=True, log_semiring=False).numpy()
    kept = behind >= -beam
    while kept.sum() > MAX_ARCS:
        beam /= 2
        kept = behind >= -beam
    return kept


def nbest(lattice: k2.Fsa, number: int, beam: float) -> list[tuple[list[int], float]]:
    """Up to `number` different sequences of `olabel` of one utterance with the score of their best path, best first.

    OpenFst removes the epsilons and determinises the lattice seen as an acceptor of `olabel`, so that every sequence has one path,
    the best one. `lattice`: an Fsa or a vector of one.
    """
    try:
        import kaldifst
    except ImportError as error:
        raise ConfigError(f"n-best lists need kaldifst ({error}). Install it: pip install kaldifst.") from None
    lattice = lattice if len(lattice.shape) == 3 else k2.create_fsa_vec([lattice])
    if lattice.num_arcs == 0:
        return []
    kept = _pruned(lattice, beam)
    table, final = lattice.arcs.values().numpy()[kept], int(lattice.arcs.values()[:, 1].max())
    labels, scores = lattice.olabel.numpy()[kept].clip(min=0), lattice.scores.numpy()[kept]
    # Arcs into the final state may carry words, but k2 wants them labelled -1: they lead to the old final state, and from there one more
    # arc leads to a new one.
    arcs = np.stack([table[:, 0], table[:, 1], labels, scores.view(np.int32)], axis=1)
    arcs = np.concatenate([arcs, [[final, final + 1, FINAL, 0]]]).astype(np.int32)
    acceptor = k2.Fsa(torch.from_numpy(arcs))
    fst = kaldifst.compile(k2.to_str_simple(acceptor, openfst=True), acceptor=True)
    kaldifst.rmepsilon(fst)
    paths = kaldifst.convert_nbest_to_vector(kaldifst.shortest_path(kaldifst.determinize(fst), number))
    found = []
    for path in paths:
        _, sequence, _, weight = kaldifst.get_linear_symbol_sequence(path)
        found.append((list(sequence), -weight.value))
    return sorted(found, key=lambda item: -item[1])


def split(lattice: k2.Fsa) -> list[Any]:
    """The lattices of single utterances."""
    return [k2.index_fsa(lattice, torch.tensor([index], dtype=torch.int32)) for index in range(lattice.shape[0])]
