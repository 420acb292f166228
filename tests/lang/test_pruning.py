"""Pruned models against brute force over a small vocabulary."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from dropasr.errors import DataError
from dropasr.lang.ngram import NGram, estimate
from dropasr.lang.pruning import history_probabilities, prune, relative_entropies, with_backoffs
from dropasr.lang.trie import Level

WORDS = ["a", "b", "c", "d", "e"]
EVENTS = [*WORDS, "</s>"]
HISTORIES = [(), ("<s>",), *product(WORDS, repeat=1), *product(["<s>", *WORDS], WORDS)]


def toy(order: int = 3, smoothing: str = "kneser_ney") -> NGram:
    generator = random.Random(7)
    text = [generator.choices(WORDS, weights=[6, 4, 2, 1, 1], k=generator.randint(1, 6)) for _ in range(40)]
    return estimate(text, order, smoothing, WORDS)


def distribution(model: NGram, history: tuple[str, ...]) -> dict[str, float]:
    return {word: 10 ** model.log10_probability(word, history) for word in EVENTS}


def without(model: NGram, order: int, place: int) -> NGram:
    """The model without one n-gram of its highest order."""
    assert order == model.order
    level = model.levels[order - 1]
    keep = [number for number in range(len(level)) if number != place]
    return with_backoffs(
        model.words, [*model.levels[:-1], Level(level.keys[keep], level.num_words, level.log10[keep], level.backoff[keep])]
    )


@pytest.mark.parametrize("smoothing", ["kneser_ney", "witten_bell"])
@pytest.mark.parametrize("sizes", [[10, 6], [0, 0], [25, 3], [4, 30]])
def test_a_pruned_model_sums_to_one_and_survives_the_file(tmp_path, smoothing, sizes):
    model = toy(smoothing=smoothing)
    pruned = prune(model, sizes)
    pruned.to_arpa(tmp_path / "lm.arpa")
    read = NGram.from_arpa(tmp_path / "lm.arpa")
    for history in HISTORIES:
        assert sum(distribution(pruned, history).values()) == pytest.approx(1.0)
        assert distribution(read, history) == pytest.approx(distribution(pruned, history), rel=1e-5)
    assert pruned.sizes[0] == model.sizes[0] and pruned.sizes[2] == sizes[1]
    # Bigrams that are histories of trigrams stay beyond the stated number.
    histories = {ngram[:-1] for ngram in pruned.probabilities[2]}
    assert histories <= set(pruned.probabilities[1])
    assert max(sizes[0], len(histories)) <= pruned.sizes[1] <= sizes[0] + len(histories)


@pytest.mark.parametrize("order", [2, 3])
def test_relative_entropy_by_brute_force(order):
    model = toy(order)
    costs = relative_entropies(model, order)
    rows = model.rows(order)
    assert len(costs) > 8
    for place in range(len(costs)):
        history = tuple(model.words[number] for number in rows[place, :-1])
        # The chain rule by hand; the sentence begin counts as often as the sentence end.
        weight, seen = 1.0, ()
        for word in history:
            weight *= 10 ** model.log10_probability("</s>" if word == "<s>" else word, seen)
            seen = (*seen, word)
        before, after = distribution(model, history), distribution(without(model, order, place), history)
        divergence = sum(value * math.log(value / after[word]) for word, value in before.items())
        assert costs[place] == pytest.approx(weight * divergence, rel=1e-6, abs=1e-12)


def test_the_costliest_stay_and_a_history_model_weights_them():
    model, histories = toy(2), toy(1, "witten_bell")
    own, other = relative_entropies(model, 2), relative_entropies(model, 2, histories)
    level = model.levels[1]
    ratio = history_probabilities(histories, model.rows(1)) / history_probabilities(model, model.rows(1))
    assert other == pytest.approx(own * ratio[level.history])
    best = sorted(range(len(other)), key=lambda place: -other[place])[:5]
    kept = {tuple(model.words[number] for number in model.rows(2)[place]) for place in best}
    assert set(prune(model, [5], histories).probabilities[1]) == kept


def test_sizes_that_are_large_enough_change_nothing():
    model = toy()
    same = prune(model, [1000, 1000])
    for history in HISTORIES:
        assert distribution(same, history) == pytest.approx(distribution(model, history))


def test_numbers_must_fit_the_order():
    with pytest.raises(DataError, match=r"expected 2 numbers, of bigrams to 3-grams, found \[5\]"):
        prune(toy(), [5])
