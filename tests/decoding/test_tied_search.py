"""Graphs of tied left biphones, and of phones that pass in one frame, on both backends, against a search that shares no code with them."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from dropasr.lang.graph import PhoneSymbols, hmm_transducer
from dropasr.lang.ngram import estimate
from dropasr.lang.units import OutputUnits

sys.path.insert(0, str(Path(__file__).parent))
import search_case  # noqa: E402 (the folder above is on the path only now)
from search_case import (  # noqa: E402
    BACKENDS,
    SMALL,
    TEXT,
    assert_backends_agree,
    assert_best_of_all,
    make_lang,
    medium_language,
    random_scores,
)


def random_tying(units: OutputUnits, classes: int, seed: int) -> OutputUnits:
    """Up to `classes` units for every phone state, contexts thrown together at random."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, classes, units.table.shape)
    next_unit = units.silence_states
    for phone, state in product(range(table.shape[1]), range(table.shape[2])):
        table[:, phone, state] = np.unique(table[:, phone, state], return_inverse=True)[1] + next_unit
        next_unit = table[:, phone, state].max() + 1
    return units.tied(table)


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    model = estimate(TEXT, 3, "witten_bell", SMALL.entries)
    units = random_tying(OutputUnits(tuple(SMALL.phones), 2, 1), 3, seed=1)
    return make_lang(tmp_path_factory.mktemp("lang"), SMALL, units, model), units, model


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(6))
def test_biphones_equal_brute_force(tied, backend, seed):
    lang, units, model = tied
    (scores,) = random_scores(units, [8], seed)
    assert_best_of_all(backend, lang, 1.5 * scores, units, model, longest=4)


@pytest.fixture(scope="module")
def medium():
    lexicon, model = medium_language()
    return lexicon, model, random_tying(OutputUnits(tuple(lexicon.phones), 3, 3), 5, seed=2)


@pytest.mark.skipif(len(BACKENDS) < 2, reason="compares k2 with kaldi-decoder; this stack has one of them")
@pytest.mark.parametrize("skips", [False, True])
def test_backends_agree(medium, skips, tmp_path):
    lexicon, model, units = medium
    assert_backends_agree(make_lang(tmp_path, lexicon, units, model, skips), units)


def passes(units: OutputUnits, phone: str, frames: int) -> set[tuple[int, ...]]:
    """Label sequences that H takes for one phone after silence, in so many frames."""
    symbols = PhoneSymbols(("SIL", *units.phones), 0)
    arcs = hmm_transducer(units, symbols, skips=True)
    biphone = next(olabel for ilabel, olabel in zip(arcs.ilabel, arcs.olabel) if olabel and ilabel - 1 in units.pdfs(phone))
    front = {((), 0, False)}
    for _ in range(frames):
        following = set()
        for labels, state, begun in front:
            for arc in np.flatnonzero((arcs.src == state) & (arcs.ilabel > 0)):
                enters = arcs.olabel[arc] > 0
                if arcs.olabel[arc] in (0, biphone) and enters != begun:
                    following.add(((*labels, int(arcs.ilabel[arc]) - 1), int(arcs.dst[arc]), True))
        front = following
    leaves = set(arcs.src[(arcs.ilabel == 0) & (arcs.dst == 0)].tolist())
    return {labels for labels, state, _ in front if state in leaves}


def allowed(states: tuple[int, ...], number: int) -> bool:
    """Whether a phone of so many states passes in these ones, frame by frame."""
    middle, last = (number - 1) // 2, number - 1
    if list(states) != sorted(states):
        return False
    before = [state for state in states if state != last]
    if before == [middle]:
        return True
    if states[0] != 0:
        return False
    # Where the phone's last state does not follow, the one it ends in takes a single frame and is not the first.
    return states[-1] == last or (before.count(before[-1]) == 1 and before[-1] > 0)


@pytest.mark.parametrize("states", [1, 2, 3, 4])
def test_states_are_skipped(states):
    units = OutputUnits(("A",), states, 1)
    first = units.pdf("A", 0)
    for frames in (1, 2, 3, 5):
        expected = {tuple(first + state for state in choice) for choice in product(range(states), repeat=frames) if allowed(choice, states)}
        assert passes(units, "A", frames) == expected
    assert passes(units, "A", 1) == {(first + (states - 1) // 2,)}


def skipping_search(phones: list[list[int]], scores: np.ndarray) -> float:
    """Best score of passing the phones in order, by trying every division of the frames and every choice of states."""
    if not phones:
        return 0.0 if len(scores) == 0 else -np.inf
    best = -np.inf
    for frames in range(1, len(scores) - len(phones) + 2):
        own = max(
            sum(scores[time, phones[0][state]] for time, state in enumerate(choice))
            for choice in product(range(len(phones[0])), repeat=frames)
            if allowed(choice, len(phones[0]))
        )
        best = max(best, own + skipping_search(phones[1:], scores[frames:]))
    return best


@pytest.mark.parametrize("backend", BACKENDS)
def test_skips_equal_brute_force(tmp_path, backend, monkeypatch):
    model = estimate(TEXT, 2, "witten_bell", SMALL.entries)
    units = random_tying(OutputUnits(tuple(SMALL.phones), 3, 2), 2, seed=4)
    lang = make_lang(tmp_path, SMALL, units, model, skips=True)
    owner = {unit: (int(units.phone_index(unit)), int(units.state_index(unit))) for unit in range(units.num_units)}

    def viterbi(states: list[int], scores: np.ndarray) -> float:
        phones: list[list[int]] = []
        for state in states:
            if owner[state][1] == 0:
                phones.append([])
            phones[-1].append(state)
        return skipping_search(phones, scores)

    monkeypatch.setattr(search_case, "chain_viterbi", viterbi)
    monkeypatch.setattr(search_case, "shortest", lambda states: 1)
    for seed in range(4):
        (scores,) = random_scores(units, [3], seed)
        assert_best_of_all(backend, lang, scores, units, model, longest=3)
