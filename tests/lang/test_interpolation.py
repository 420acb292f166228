from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest

from dropasr.errors import DataError
from dropasr.lang.interpolation import best_weights, interpolate
from dropasr.lang.ngram import estimate

WORDS = ["a", "b", "c", "d"]


def text(seed: int, weights: list[int], number: int = 30) -> list[list[str]]:
    generator = random.Random(seed)
    return [generator.choices(WORDS, weights=weights, k=generator.randint(1, 5)) for _ in range(number)]


def test_probabilities_are_weighted_means_and_sum_to_one():
    models = [estimate(text(seed, weights), 3, "kneser_ney", WORDS) for seed, weights in ((1, [9, 1, 1, 0]), (2, [1, 1, 9, 3]))]
    mixed = interpolate(models, [0.3, 0.7])
    for table in mixed.probabilities:
        for *history, word in table:
            if word != "<s>":
                parts = [10 ** model.log10_probability(word, history) for model in models]
                assert 10 ** mixed.log10_probability(word, history) == pytest.approx(0.3 * parts[0] + 0.7 * parts[1])
    for order in (1, 2):
        assert set(mixed.probabilities[order]) == set(models[0].probabilities[order]) | set(models[1].probabilities[order])
    for history in [(), ("<s>",), *product(["<s>", *WORDS], WORDS)]:
        assert sum(10 ** mixed.log10_probability(word, history) for word in [*WORDS, "</s>"]) == pytest.approx(1.0)


def test_weights_maximise_the_likelihood():
    models = [estimate(text(seed, weights), 2, "witten_bell", WORDS) for seed, weights in ((1, [9, 1, 1, 1]), (2, [1, 1, 9, 3]))]
    held_out = text(3, [9, 1, 1, 1], 20) + text(4, [1, 1, 9, 3], 10) + [["a", "unknown"]]
    scores = np.stack([model.word_scores(held_out) for model in models])
    likelihoods = 10 ** scores[:, np.isfinite(scores[0])]
    grid = np.arange(0.0005, 1, 0.001)
    best = grid[np.argmax([np.log(share * likelihoods[0] + (1 - share) * likelihoods[1]).sum() for share in grid])]
    weights = best_weights(models, held_out, iterations=500)
    assert weights.sum() == pytest.approx(1) and weights[0] == pytest.approx(best, abs=2e-3)
    assert best_weights(models, []).tolist() == [0.5, 0.5]


def test_models_of_different_words_are_refused():
    with pytest.raises(DataError, match="same words"):
        interpolate([estimate([["a"]], 2, "witten_bell", words) for words in (["a"], ["a", "b"])], [0.5, 0.5])
