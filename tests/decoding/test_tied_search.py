"""Graphs of tied left biphones, and of phones that pass in one frame, on both backends, against a search that shares no code with them."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from dropasr.config import DecodeConfig
from dropasr.decoding.search import load_search
from dropasr.lang.graph import PhoneSymbols, hmm_transducer
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.ngram import estimate
from dropasr.lang.units import OutputUnits

sys.path.insert(0, str(Path(__file__).parent))
import search_case  # noqa: E402 (the folder above is on the path only now)
from search_case import BACKENDS, SMALL, TEXT, brute_force, make_lang, random_scores  # noqa: E402

WIDE = {"beam": 100, "max_active": 10000}


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
    expected = brute_force(1.5 * scores.numpy().astype(np.float64), units, model, 4)
    (hypothesis,) = load_search(lang, DecodeConfig(backend=backend, **WIDE)).decode([1.5 * scores])
    assert tuple(hypothesis.words) == expected[0][1]
    assert hypothesis.score == pytest.approx(expected[0][0], abs=1e-3)


@pytest.fixture(scope="module")
def medium(tmp_path_factory):
    """Sixty words, homophones, prefixes and words of one phone among them, and a trigram that backs off."""
    rng = np.random.default_rng(5)
    phones = [f"P{number}" for number in range(12)]
    entries = {f"w{number}": " ".join(rng.choice(phones, rng.integers(1, 6))) for number in range(60)}
    entries |= {"w1": entries["w2"], "w3": entries["w4"] + " P1", "w5": "SIL", "w6": "P1"}
    lexicon = Lexicon.from_mapping(entries)
    text = [list(rng.choice(list(entries)[:50], rng.integers(1, 7))) for _ in range(200)]
    units = random_tying(OutputUnits(tuple(lexicon.phones), 3, 3), 5, seed=2)
    return lexicon, units, estimate(text, 3, "kneser_ney", entries), tmp_path_factory.mktemp("lang")


@pytest.mark.skipif(len(BACKENDS) < 2, reason="compares k2 with kaldi-decoder; this stack has one of them")
@pytest.mark.parametrize("skips", [False, True])
def test_backends_agree(medium, skips):
    lexicon, units, model, folder = medium
    (folder / str(skips)).mkdir()
    lang = make_lang(folder / str(skips), lexicon, units, model, skips)
    scores = random_scores(units, [60, 31, 90, 45, 12])
    searches = (load_search(lang, DecodeConfig(backend=name, beam=60, max_active=100000)) for name in ("k2", "kaldi"))
    k2, kaldi = (search.decode(scores) for search in searches)
    assert max(len(hypothesis.words) for hypothesis in k2) > 3
    assert [hypothesis.words for hypothesis in k2] == [hypothesis.words for hypothesis in kaldi]
    assert [hypothesis.score for hypothesis in k2] == pytest.approx([hypothesis.score for hypothesis in kaldi], abs=1e-3)


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
    search = load_search(make_lang(tmp_path, SMALL, units, model, skips=True), DecodeConfig(backend=backend, **WIDE))
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
        expected = brute_force(scores.numpy().astype(np.float64), units, model, 3)
        (hypothesis,) = search.decode([scores])
        assert tuple(hypothesis.words) == expected[0][1]
        assert hypothesis.score == pytest.approx(expected[0][0], abs=1e-3)
