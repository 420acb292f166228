"""Searches of CTC nets: greedy, topology alone, and with lexicon and language model, in both backends, against sums by hand."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.config import DecodeConfig
from dropasr.decoding import ctc_search
from dropasr.decoding.search import load_search
from dropasr.errors import DataError
from dropasr.lang.ctc import best_path
from dropasr.lang.ctc_topology import ctc_transducers
from dropasr.lang.graph import installed_backends, save_words
from dropasr.lang.graph_build import build_graphs
from dropasr.lang.ngram import estimate
from dropasr.lang.pieces import PieceUnits, train_pieces

sys.path.insert(0, str(Path(__file__).parent))
from search_case import log_probability, random_scores  # noqa: E402 (the folder above is on the path only now)

TEXT = [["AB", "A"], ["BA"], ["A", "A", "BA"], ["ABBA"], ["B", "AB"], ["A"]]
WIDE = DecodeConfig(beam=1000.0, max_active=100_000)
BACKENDS = installed_backends()


def near(path, units, seed, noise=1.0):
    """Scores whose best units are about `path`."""
    generator = torch.Generator().manual_seed(seed)
    hot = torch.nn.functional.one_hot(torch.tensor(path), units).float()
    return torch.log_softmax(4 * hot + noise * torch.randn(len(path), units, generator=generator), dim=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_topology_alone_finds_the_best_path(backend):
    units = PieceUnits("chars", ("<blk>", "\u2581", "A", "B", "C"))
    scores = random_scores(units, [1, 7, 30, 12])
    greedy = ctc_search.load(units, WIDE.model_copy(update={"ctc": "greedy"}), backend)
    topology = ctc_search.load(units, WIDE.model_copy(update={"ctc": "h"}), backend)
    assert topology.backend == backend and greedy.backend == "greedy"
    for one, other, values in zip(greedy.decode(scores), topology.decode(scores), scores):
        assert one.words == other.words == units.words(best_path(values))
        assert one.score == pytest.approx(float(values.max(dim=1).values.sum()), abs=1e-3)
        assert other.score == pytest.approx(one.score, abs=1e-3)
    with pytest.raises(DataError, match="expected scores of shape"):
        greedy.decode([torch.zeros(3, 4)])


def write_graphs(folder, encoder, text=TEXT):
    vocabulary = sorted({word for words in text for word in words})
    save_words(folder / "words.txt", ["<eps>", *vocabulary, "QQ", "#0", "<s>", "</s>"])
    model = estimate(text, 2, "witten_bell", vocabulary)
    model.to_arpa(folder / "lm.arpa")
    build_graphs(folder, ctc_transducers(encoder, folder / "lm.arpa", folder / "words.txt"), BACKENDS)
    encoder.units.save(folder / "units.json")
    return model


def best_by_enumeration(scores, encoder, model, longest=3):
    """The best of all sentences of up to so many words: score of its best CTC path plus its language model score."""
    frames, units = scores.shape
    best = (-math.inf, [])
    for count in range(1, longest + 1):
        for words in itertools.product(sorted(model.vocabulary - {"</s>"}), repeat=count):
            tokens = encoder.sentence(words)
            best = max(best, (viterbi(scores.numpy(), tokens) + log_probability(model, words), list(words)))
    return best


def viterbi(scores, tokens):
    """Score of the best path that collapses to the tokens."""
    labels = [0]
    for token in tokens:
        labels += [token, 0]
    alpha = np.full(len(labels), -np.inf)
    alpha[:2] = scores[0, labels[:2]]
    for frame in scores[1:]:
        before = alpha.copy()
        for i, label in enumerate(labels):
            options = [before[i], before[i - 1] if i else -np.inf]
            if i > 1 and label != 0 and label != labels[i - 2]:
                options.append(before[i - 2])
            alpha[i] = max(options) + frame[label]
    return float(max(alpha[-2:]))


HAN = [list("甲乙乙"), list("乙丙"), list("甲甲丙乙"), list("丙")]


@pytest.mark.parametrize("kind,size,text", [("chars", None, TEXT), ("bpe", 8, TEXT), ("chars", None, HAN)])
def test_words_are_those_of_the_best_sentence(kind, size, text, tmp_path):
    encoder = train_pieces(text, kind, size, character_words=text is HAN)
    model = write_graphs(tmp_path, encoder, text)
    units = encoder.units.num_units
    latin, han = [["AB", "A"], ["ABBA"], ["A", "A"], ["B", "BA"]], list(map(list, ("甲乙", "乙乙丙", "丙丙", "丙乙甲")))
    sentences = latin if text is TEXT else han
    scores = []
    for seed, words in enumerate(sentences):
        path = [unit for token in encoder.sentence(words) for unit in (token, token, 0)]
        scores.append(near(path, units, seed, noise=1.5))
    expected = [best_by_enumeration(values, encoder, model) for values in scores]
    assert [words for _, words in expected] != [encoder.units.words(best_path(values)) for values in scores], "too easy to tell anything"
    for backend in BACKENDS:
        found = load_search(tmp_path, WIDE.model_copy(update={"backend": backend})).decode(scores)
        assert [hypothesis.words for hypothesis in found] == [words for _, words in expected], backend
        assert [hypothesis.score for hypothesis in found] == pytest.approx([score for score, _ in expected], abs=2e-3)


def test_words_that_cannot_be_spelt_are_left_out_and_some_must_remain(tmp_path):
    encoder = train_pieces([["XYZ"]], "chars")
    with pytest.raises(DataError, match="words.txt: the pieces can spell none"):
        write_graphs(tmp_path, encoder)
