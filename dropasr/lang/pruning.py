"""Entropy pruning of n-gram models (Stolcke 1998), and the back-off weights that make a set of n-grams a distribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dropasr.errors import DataError
from dropasr.lang.lexicon import SENTENCE_BEGIN, SENTENCE_END
from dropasr.lang.ngram import NGram
from dropasr.lang.trie import Level

_NOTHING = 1e-10
"""Probability mass below which rounding is all that is left."""


def with_backoffs(words: tuple[str, ...], levels: Sequence[Level]) -> NGram:
    """The model with these n-grams and probabilities whose back-off weights make every history's probabilities sum to 1."""
    done: list[Level] = []
    for level in levels:
        if done:
            below = done[-1]
            lower = 10 ** NGram(words, done).score(NGram(words, [*done, level]).rows(len(done) + 1)[:, 1:])
            left = 1 - np.bincount(level.history, weights=10**level.log10, minlength=len(below))
            left_below = 1 - np.bincount(level.history, weights=lower, minlength=len(below))
            backoff = np.full(len(below), np.nan)
            followed = np.bincount(level.history, minlength=len(below)) > 0
            # Where the n-grams of a history name every word, its back-off weight is never used.
            usable = followed & (left > _NOTHING) & (left_below > _NOTHING)
            backoff[followed] = 0.0
            backoff[usable] = np.log10(left[usable] / left_below[usable])
            done[-1] = Level(below.keys, below.num_words, below.log10, backoff)
        done.append(level)
    last = done[-1]
    return NGram(words, [*done[:-1], Level(last.keys, last.num_words, last.log10, np.full(len(last), np.nan))])


def history_probabilities(model: NGram, histories: np.ndarray) -> np.ndarray:
    """Probability of word sequences `(N, k)` by the chain rule; a sequence's `<s>` counts as often as `</s>`. float64 `(N,)`."""
    begin, end = model.numbers[SENTENCE_BEGIN], model.numbers[SENTENCE_END]
    first = np.where(histories[:, :1] == begin, end, histories[:, :1])
    total = model.score(first)
    for length in range(2, histories.shape[1] + 1):
        total = total + model.score(histories[:, :length])
    return 10**total


def relative_entropies(model: NGram, order: int, history_model: NGram | None = None) -> np.ndarray:
    """What leaving out each n-gram of an order alone would cost: Kullback-Leibler divergence in nats, weighted by its history.

    Stolcke 1998, equations 3 to 5. `history_model` gives the histories' probabilities: a Kneser-Ney model's lower orders do not
    (Chelba et al. 2010), a Witten-Bell model of the same words does. float64 `(N,)`.
    """
    level, below = model.levels[order - 1], model.levels[order - 2]
    ngrams = model.rows(order)
    own, lower = 10**level.log10, 10 ** model.score(ngrams[:, 1:])
    left = np.maximum(1 - np.bincount(level.history, weights=own, minlength=len(below)), 0.0)
    left_below = np.maximum(1 - np.bincount(level.history, weights=lower, minlength=len(below)), 0.0)
    left, left_below = left[level.history], left_below[level.history]
    before = np.log(np.maximum(left, _NOTHING)) - np.log(np.maximum(left_below, _NOTHING))
    after = np.log(left + own) - np.log(left_below + lower)
    change = own * (np.log(lower) + after - np.log(own)) + left * (after - before)
    weight = history_probabilities(history_model or model, model.rows(order - 1))
    return -change * weight[level.history]


def prune(model: NGram, sizes: Sequence[int], history_model: NGram | None = None) -> NGram:
    """Keep `sizes` n-grams of each order from bigrams up: those whose loss would cost the most relative entropy.

    An n-gram that is the history of a kept one stays, even beyond the stated number. Unigrams stay. The result sums to 1.
    """
    if len(sizes) != model.order - 1:
        raise DataError(
            f"lang.prune_to: expected {model.order - 1} numbers, of bigrams to {model.order}-grams, found {list(sizes)}. "
            "Correct it or lang.order."
        )
    kept = [np.ones(len(level), dtype=bool) for level in model.levels]
    for order in range(model.order, 1, -1):
        level, size = model.levels[order - 1], sizes[order - 2]
        needed = np.zeros(len(level), dtype=bool)
        if order < model.order:
            needed[model.levels[order].history[kept[order]]] = True
        if len(level) > size:
            cost = np.where(needed, np.inf, relative_entropies(model, order, history_model))
            chosen = np.argsort(-cost, kind="stable")[:size]
            kept[order - 1] = needed
            kept[order - 1][chosen] = True
    levels = [model.levels[0]]
    for order in range(2, model.order + 1):
        level, keep = model.levels[order - 1], kept[order - 1]
        moved = np.cumsum(kept[order - 2]) - 1
        keys = moved[level.history[keep]] * level.num_words + level.word[keep]
        levels.append(Level(keys, level.num_words, level.log10[keep], level.backoff[keep]))
    return with_backoffs(model.words, levels)
