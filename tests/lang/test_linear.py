from __future__ import annotations

import math
import time
from itertools import product

import numpy as np
import pytest

from dropasr.errors import DataError
from dropasr.lang.fst import FINAL, Arcs
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.linear import linear_graph, uniform_alignment
from dropasr.lang.units import OutputUnits

LEXICON = Lexicon.from_mapping({"ab": "A B", "c": ["C", "A"]})
UNITS = OutputUnits(tuple(LEXICON.phones), 1, 1)  # SIL 0, A 1, B 2, C 3


def paths(graph: Arcs, frames: int) -> dict[tuple[int, ...], float]:
    """Every accepted label sequence of that length, self-loops included, with its best score."""
    front = {((), 0): 0.0}
    for _ in range(frames):
        following: dict = {}
        for (labels, state), score in front.items():
            for arc in np.flatnonzero((graph.src == state) & (graph.ilabel != FINAL)):
                key = (labels + (int(graph.ilabel[arc]),), int(graph.dst[arc]))
                following[key] = max(following.get(key, -math.inf), score + float(graph.score[arc]))
        front = following
    result: dict = {}
    for (labels, state), score in front.items():
        for arc in np.flatnonzero((graph.src == state) & (graph.ilabel == FINAL)):
            result[labels] = max(result.get(labels, -math.inf), score + float(graph.score[arc]))
    return result


def test_paths_of_a_transcript():
    graph = linear_graph(["ab", "c"], LEXICON, UNITS, 0.25)
    skip, enter = math.log(0.75), math.log(0.25)
    assert graph.shortest() == 3
    assert paths(graph, 2) == {}
    assert paths(graph, 3) == pytest.approx({(1, 2, 3): 3 * skip, (1, 2, 1): 3 * skip}, rel=1e-6)
    four = {(0, 1, 2), (1, 2, 0), (1, 1, 2), (1, 2, 2)}
    expected = {(*begin, word): (2 * skip + enter if 0 in begin else 3 * skip) for begin in four for word in (3, 1)}
    expected |= {(1, 2, word, 0): 2 * skip + enter for word in (3, 1)} | {(1, 2, word, word): 3 * skip for word in (3, 1)}
    assert paths(graph, 4) == pytest.approx(expected, rel=1e-6)


def test_empty_transcript_is_silence_or_nothing():
    assert paths(linear_graph([], LEXICON, UNITS, 0.25), 2) == pytest.approx({(0, 0): math.log(0.25)}, rel=1e-6)


def test_states_of_a_phone_are_passed_in_order():
    units = OutputUnits(tuple(LEXICON.phones), 3, 2)
    assert set(paths(linear_graph(["ab"], LEXICON, units, 0.5), 6)) == {(2, 3, 4, 5, 6, 7)}
    assert (0, 1, 2, 3, 4, 5, 6, 7) in paths(linear_graph(["ab"], LEXICON, units, 0.5), 8)


def tied_units() -> OutputUnits:
    """Silence 0; A 1 after silence or A, else 2; B 3; C 4 after silence, 5 after B, else 6."""
    return UNITS.tied(np.array([[1, 3, 4], [1, 3, 6], [2, 3, 5], [2, 3, 6]])[:, :, None])


@pytest.mark.parametrize("words", [["c"], ["ab", "c"], ["c", "c", "ab"], ["c", "ab", "c"]])
def test_paths_of_biphones(words):
    """Every choice of variants and silences spelt out, each unit in one frame."""
    units, expected = tied_units(), {}
    for variants in product(*(LEXICON.entries[word] for word in words)):
        for silences in product([False, True], repeat=len(words) + 1):
            phones = ["SIL"] * silences[0]
            for variant, silence in zip(variants, silences[1:], strict=True):
                phones += [*variant, *["SIL"] * silence]
            labels = tuple(units.pdf(phone, 0, left) for left, phone in zip(["SIL", *phones], phones))
            score = sum(math.log(0.25 if silence else 0.75) for silence in silences)
            expected.setdefault(len(labels), {})[labels] = score
    graph = linear_graph(words, LEXICON, units, 0.25)
    for length, sequences in expected.items():
        found = {labels: score for labels, score in paths(graph, length).items() if labels in sequences}
        assert found == pytest.approx(sequences, rel=1e-6)
    shortest = min(expected)
    assert set(paths(graph, shortest)) == set(expected[shortest]) and graph.shortest() == shortest


def test_uniform_alignment_of_biphones():
    assert uniform_alignment(["ab", "c", "ab"], LEXICON, tied_units(), 7).tolist() == [0, 1, 3, 5, 2, 3, 0]


def test_uniform_alignment():
    assert uniform_alignment(["ab"], LEXICON, UNITS, 8).tolist() == [0, 0, 1, 1, 2, 2, 0, 0]
    assert uniform_alignment(["ab"], LEXICON, UNITS, 3).tolist() == [1, 1, 2]
    assert uniform_alignment([], LEXICON, UNITS, 2).tolist() == [0, 0]
    with pytest.raises(DataError, match="at least 2 frames, found 1"):
        uniform_alignment(["ab"], LEXICON, UNITS, 1)
    with pytest.raises(DataError, match="'zzz' is not in the lexicon"):
        linear_graph(["zzz"], LEXICON, UNITS, 0.5)


def test_a_thousand_graphs_take_less_than_two_seconds():
    units = OutputUnits(tuple(LEXICON.phones), 3, 3)
    begin = time.process_time()
    for _ in range(1000):
        linear_graph(["ab", "c"] * 5, LEXICON, units, 0.5)
    assert time.process_time() - begin < 2
