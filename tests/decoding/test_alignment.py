from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from dropasr.decoding.alignment import align
from dropasr.errors import DataError
from dropasr.lang.fst import FINAL, Arcs
from dropasr.lang.graph import installed_backends
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.linear import linear_graph
from dropasr.lang.units import OutputUnits

BACKENDS = installed_backends()
LEXICON = Lexicon.from_mapping({"one": "W AH N", "two": "T UW", "three": "TH R IY", "the": ["DH AH", "DH IY"]})
UNITS = OutputUnits(tuple(LEXICON.phones), 3, 3)


def viterbi(graph: Arcs, scores: np.ndarray) -> tuple[np.ndarray, float]:
    """Slow search over the arcs, with back pointers."""
    inside = graph.ilabel != FINAL
    best = np.full(graph.num_states, -np.inf)
    best[0] = 0.0
    pointers = []
    for frame in scores:
        reached, arcs = np.full_like(best, -np.inf), np.full(graph.num_states, -1)
        for arc in np.flatnonzero(inside):
            value = best[graph.src[arc]] + graph.score[arc] + frame[graph.ilabel[arc]]
            if value > reached[graph.dst[arc]]:
                reached[graph.dst[arc]], arcs[graph.dst[arc]] = value, arc
        best = reached
        pointers.append(arcs)
    ends = np.flatnonzero(~inside)
    values = best[graph.src[ends]] + graph.score[ends]
    state = graph.src[ends[values.argmax()]]
    labels = []
    for arcs in reversed(pointers):
        labels.append(graph.ilabel[arcs[state]])
        state = graph.src[arcs[state]]
    return np.array(labels[::-1]), float(values.max())


def utterances(count: int, seed: int) -> tuple[list[torch.Tensor], list[Arcs]]:
    rng = np.random.default_rng(seed)
    graphs = [linear_graph(list(rng.choice(list(LEXICON.entries), rng.integers(1, 4))), LEXICON, UNITS, 0.4) for _ in range(count)]
    scores = [torch.from_numpy(rng.normal(0, 3, (graph.shortest() + rng.integers(0, 30), UNITS.num_units))).float() for graph in graphs]
    return [torch.log_softmax(score, dim=1) for score in scores], graphs


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_viterbi(backend):
    scores, graphs = utterances(20, seed=3)
    for graph, score, labels in zip(graphs, scores, align(scores, graphs, 1000.0, backend), strict=True):
        assert labels.dtype == np.int32
        assert labels.tolist() == viterbi(graph, score.numpy().astype(np.float64))[0].tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_narrow_beam_still_gives_an_alignment(backend):
    scores, graphs = utterances(20, seed=4)
    for graph, score, labels in zip(graphs, scores, align(scores, graphs, 0.01, backend), strict=True):
        assert len(labels) == len(score)
        assert set(labels.tolist()) <= set(graph.ilabel.tolist())


@pytest.mark.parametrize("backend", BACKENDS)
def test_too_few_frames(backend):
    scores, graphs = utterances(3, seed=5)
    needed = graphs[1].shortest()
    scores[1] = scores[1][: needed - 1]
    with pytest.raises(DataError, match=f"utterance 1: the transcript needs at least {needed} frames, found {needed - 1}"):
        align(scores, graphs, 200.0, backend)
    with pytest.raises(DataError, match="^spk-b: "):
        align(scores, graphs, 200.0, backend, ids=["spk-a", "spk-b", "spk-c"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_speed(backend):
    """75 utterances of 250 frames; the stage aligns 750 in ten times that, a few seconds."""
    torch.set_num_threads(1)
    words = ["one", "two", "three", "the", "one", "two", "three", "the"]
    graphs = [linear_graph(words, LEXICON, UNITS, 0.5) for _ in range(75)]
    scores = [torch.log_softmax(torch.randn(250, 120, generator=torch.Generator().manual_seed(0)), dim=1)] * 75
    begin = time.process_time()
    align(scores, graphs, 200.0, backend)
    assert time.process_time() - begin < 1.5
