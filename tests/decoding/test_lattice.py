"""Lattices, n-best lists and rescoring against a search over all word sequences."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.config import DecodeConfig
from dropasr.decoding.rescore import RescoringSearch, log_probabilities
from dropasr.decoding.search import PLAIN, Weights, batches_by_frames, load_search
from dropasr.errors import ConfigError, DataError
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.ngram import estimate
from dropasr.lang.units import OutputUnits

sys.path.insert(0, str(Path(__file__).parent))
from search_case import (  # noqa: E402 (the folder above is on the path only now)
    BACKENDS,
    SMALL,
    TEXT,
    brute_force,
    log_probability,
    make_lang,
    random_scores,
)

DISTINCT = Lexicon({word: variants for word, variants in SMALL.entries.items() if word != "too"})
LONGEST = 3
"""Words that fit into the longest utterance here."""
WIDE = {"beam": 100, "max_active": 10000, "lattice_beam": 50}
GRID = [PLAIN, Weights(0.5, 0.0), Weights(2.0, -1.5), Weights(1.0, 3.0)]
needs_k2 = pytest.mark.skipif("k2" not in BACKENDS, reason="lattices are k2's; this stack does not have it")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    # Without homophones: where two of them lead to the same state of the grammar, k2's removal of epsilons keeps the better one alone.
    text = [[word for word in words if word != "too"] for words in TEXT]
    model = estimate(text, 3, "witten_bell", DISTINCT.entries)
    units = OutputUnits(tuple(DISTINCT.phones), 2, 1)
    return make_lang(tmp_path_factory.mktemp("lang"), DISTINCT, units, model), units, model


@pytest.fixture(scope="module")
def utterances(small):
    _, units, model = small
    scores = random_scores(units, [7, 5, 6], seed=4)
    return scores, [
        [brute_force(item.double().numpy(), units, model, LONGEST, DISTINCT, w.lm_scale, w.insertion_penalty) for item in scores]
        for w in GRID
    ]


@needs_k2
def test_lattice_and_search_with_other_weights_equal_brute_force(small, utterances):
    scores, expected = utterances
    search = load_search(small[0], DecodeConfig(backend="k2", **WIDE))
    found = search.variants(scores, GRID)
    assert len({tuple(map(tuple, words)) for words in found}) > 1
    for weights, words, best in zip(GRID, found, expected):
        assert [tuple(item) for item in words] == [item[0][1] for item in best]
        decoded = search.weighted(weights).decode(scores)
        assert [tuple(item.words) for item in decoded] == [item[0][1] for item in best]
        assert [item.score for item in decoded] == pytest.approx([item[0][0] for item in best], abs=1e-3)


@needs_k2
def test_nbest_equals_brute_force(small, utterances):
    scores, expected = utterances
    search = load_search(small[0], DecodeConfig(backend="k2", **WIDE))
    for hypotheses, best in zip(search.nbest(scores, 12), expected[0]):
        # Scores are compared, not places: OpenFst rounds weights to 1/1024.
        assert len({tuple(item.words) for item in hypotheses}) == 12
        scored = {words: score for score, words in best}
        assert [item.score for item in hypotheses] == pytest.approx([scored[tuple(item.words)] for item in hypotheses], abs=1e-2)
        assert [item.score for item in hypotheses] == pytest.approx([score for score, _ in best[:12]], abs=1e-2)
    (narrow,) = load_search(small[0], DecodeConfig(backend="k2", **{**WIDE, "lattice_beam": 1.0})).nbest(scores[:1], 12)
    wanted = [words for score, words in expected[0][0] if score >= expected[0][0][0][0] - 1.0]
    assert [tuple(item.words) for item in narrow] == wanted[:12] and len(narrow) < 12


@needs_k2
def test_a_large_lattice_is_narrowed_and_keeps_its_best(small, utterances, monkeypatch):
    from dropasr.decoding import k2_lattice

    scores, expected = utterances
    monkeypatch.setattr(k2_lattice, "MAX_ARCS", 40)
    lists = load_search(small[0], DecodeConfig(backend="k2", **WIDE)).nbest(scores, 12)
    assert [tuple(hypotheses[0].words) for hypotheses in lists] == [best[0][1] for best in expected[0]]


@needs_k2
def test_rescoring_equals_brute_force_with_the_larger_model(small, utterances):
    lang, units, model = small
    scores, _ = utterances
    larger = estimate([*TEXT, ["two", "b", "ab"], ["two", "b", "b"], ["ab", "ab"]], 4, "kneser_ney", DISTINCT.entries)
    search = RescoringSearch(load_search(lang, DecodeConfig(backend="k2", **WIDE)), model, larger, 1000)
    weights = Weights(1.5, 0.7)
    lists = [
        max(
            (score - log_probability(model, words) + 1.5 * log_probability(larger, words) - 0.7 * len(words), words)
            for score, words in brute_force(item.double().numpy(), units, model, LONGEST, DISTINCT)
        )
        for item in scores
    ]
    decoded = search.weighted(weights).decode(scores)
    assert [tuple(item.words) for item in decoded] == [words for _, words in lists]
    assert [item.score for item in decoded] == pytest.approx([score for score, _ in lists], abs=1e-2)
    assert search.variants(scores, [PLAIN, weights])[1] == [item.words for item in decoded]
    assert [item.words for item in search.decode(scores)] == search.variants(scores, [PLAIN])[0]
    assert search.nbest(scores, 3)[0][0].words == search.decode(scores)[0].words


def test_sentence_probabilities():
    model = estimate(TEXT, 3, "kneser_ney", SMALL.entries)
    sentences = [("a", "b"), (), ("two", "too", "ab", "a")]
    assert log_probabilities(model, sentences) == pytest.approx([log_probability(model, words) for words in sentences])
    with pytest.raises(DataError, match="'never'"):
        log_probabilities(model, [("a", "never")])


@pytest.mark.skipif("kaldi" not in BACKENDS, reason="needs kaldi-decoder")
def test_kaldi_refuses_what_needs_lattices(small, utterances):
    scores, _ = utterances
    search = load_search(small[0], DecodeConfig(backend="kaldi", **WIDE))
    assert search.variants(scores, [PLAIN]) == [[item.words for item in search.decode(scores)]]
    assert search.weighted(PLAIN) is search
    for refused in (lambda: search.variants(scores, GRID), lambda: search.nbest(scores, 5), lambda: search.weighted(GRID[1])):
        with pytest.raises(ConfigError, match="needs lattices.*decode.backend=k2"):
            refused()


@pytest.mark.parametrize("lengths", [[5, 3, 9, 1, 1, 4], [100], [7, 7, 7]])
def test_batches_hold_every_utterance_once_and_few_frames(lengths):
    batches = list(batches_by_frames(lengths, 10))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 10
    firsts = [lengths[batch[0]] for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


@needs_k2
def test_an_utterance_without_a_path_gets_the_same_words_under_all_weights(small):
    lang, units, _ = small
    short = torch.zeros(1, units.num_units)  # a frame is too short for any word, but not for silence
    long = random_scores(units, [8], seed=4)[0]
    search = load_search(lang, DecodeConfig(backend="k2", **WIDE))
    found = search.variants([short, long], GRID)
    assert all(words[0] == found[0][0] for words in found)
    assert np.isfinite(search.nbest([short], 3)[0][0].score)
