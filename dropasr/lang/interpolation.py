"""Linear interpolation of n-gram models of the same words, as one back-off model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dropasr.errors import DataError
from dropasr.lang.ngram import NGram
from dropasr.lang.pruning import with_backoffs
from dropasr.lang.trie import Level

Sentences = Sequence[Sequence[str]]


def best_weights(models: Sequence[NGram], sentences: Sentences, iterations: int = 50) -> np.ndarray:
    """Weights of the models, by expectation maximisation of the likelihood of `sentences`. float64 `(M,)`, sum 1."""
    scores = np.stack([model.word_scores(sentences) for model in models])
    likelihoods = 10.0 ** scores[:, np.isfinite(scores).all(axis=0)]
    weights = np.full(len(models), 1 / len(models))
    for _ in range(iterations):
        joint = weights[:, None] * likelihoods
        weights = (joint / joint.sum(axis=0)).mean(axis=1) if joint.size else weights
    return weights


def interpolate(models: Sequence[NGram], weights: Sequence[float] | np.ndarray) -> NGram:
    """The model with the n-grams of all models, each with the weighted mean of their probabilities; back-off weights make it sum to 1.

    Raises DataError where the models have different words or orders.
    """
    first = models[0]
    if any(model.words != first.words or model.order != first.order for model in models):
        raise DataError("language models: only models of the same words and order can be interpolated. Estimate them with one vocabulary.")
    size = len(first.words)
    levels = [Level(first.levels[0].keys, size, _mean(models, weights, first.rows(1)), np.full(size, np.nan))]
    places = [np.arange(size) for _ in models]
    for order in range(2, first.order + 1):
        parts = [model.levels[order - 1] for model in models]
        moved = [place[part.history] * size + part.word for place, part in zip(places, parts, strict=True)]
        keys = np.unique(np.concatenate(moved))
        places = [np.searchsorted(keys, own) for own in moved]
        nothing = np.full(len(keys), np.nan)
        level = Level(keys, size, nothing, nothing)
        ngrams = NGram(first.words, [*levels, level]).rows(order)
        levels.append(Level(keys, size, _mean(models, weights, ngrams), nothing))
    return with_backoffs(first.words, levels)


def _mean(models: Sequence[NGram], weights: Sequence[float] | np.ndarray, ngrams: np.ndarray) -> np.ndarray:
    total = sum(weight * 10.0 ** model.score(ngrams) for weight, model in zip(weights, models, strict=True))
    return np.log10(total)
