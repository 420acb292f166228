"""The n-gram models of an experiment: given or estimated, pooled or interpolated, pruned for the graph, whole for rescoring."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from dropasr.config import LangConfig
from dropasr.lang.interpolation import best_weights, interpolate
from dropasr.lang.ngram import NGram, estimate
from dropasr.lang.pruning import prune
from dropasr.lang.texts import Sentences
from dropasr.log import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True)
class Source:
    """Text for the n-gram, under a name for the report."""

    name: str
    sentences: Sentences


@dataclass(frozen=True)
class Models:
    """`graph`: the model of the decoding graph; `rescoring`: a larger one of the same words, where it was asked for."""

    graph: NGram
    rescoring: NGram | None
    report: dict[str, Any]


class Dev:
    """The transcripts of dev, and what the words of the lexicon make of them."""

    def __init__(self, sentences: Sentences, words: Iterable[str], unknown_word: str) -> None:
        self.spoken, self.words, self._unknown_word = sentences, set(words), unknown_word
        self.mapped = map_unknown(sentences, self.words, unknown_word)[0]

    def unreachable(self, model: NGram) -> int:
        """Running words that no hypothesis can have: outside the lexicon, or outside the model."""
        reachable = (self.words & model.vocabulary) - {self._unknown_word}
        return sum(word not in reachable for sentence in self.spoken for word in sentence)


def map_unknown(sentences: Sentences, words: Set[str], unknown_word: str) -> tuple[Sentences, int]:
    """Words outside the lexicon's `words` replaced by the unknown word where the lexicon has one; and their number."""
    count = sum(word not in words for sentence in sentences for word in sentence)
    if count and unknown_word in words:
        sentences = [[word if word in words else unknown_word for word in sentence] for sentence in sentences]
    return sentences, count


class _Estimator:
    """Estimates models of several orders from the same text with the same words."""

    def __init__(self, lang: LangConfig, sources: Sequence[Source], dev: Dev) -> None:
        self.lang, self.dev = lang, dev
        apart = lang.interpolate and len(sources) > 1
        self.names = [source.name for source in sources] if apart else [" + ".join(source.name for source in sources)]
        self.texts = [source.sentences for source in sources] if apart else [[line for source in sources for line in source.sentences]]
        self.weights: np.ndarray | None = None

    def model(self, order: int, smoothing: str) -> NGram:
        """A model of all text; the weights of its parts are those that the first model was given."""
        models = [estimate(text, order, smoothing, self.dev.words) for text in self.texts]
        if len(models) == 1:
            return models[0]
        if self.weights is None:
            self.weights = best_weights(models, self.dev.mapped)
        return interpolate(models, self.weights)

    def pruned(self, whole: NGram) -> NGram:
        """The model of the graph, of the stated size."""
        if self.lang.prune_to is None or whole.order == 1:
            return whole
        return prune(whole, self.lang.prune_to, self.model(whole.order - 1, "witten_bell"))


def quality(model: NGram, dev: Dev) -> dict[str, Any]:
    """Size, and perplexity and out-of-vocabulary rate on dev, of the words that a graph of model and lexicon has."""
    found = model.perplexity(dev.mapped, dev.words)
    return {
        "order": model.order,
        "ngrams": model.sizes,
        "dev_perplexity": round(found.perplexity, 3),
        "dev_words": found.words,
        "dev_oov_percent": round(100 * dev.unreachable(model) / max(found.words, 1), 3),
    }


def _tell(name: str, found: dict[str, Any]) -> None:
    _log.info(
        "%s: %d-gram of %s n-grams; dev: perplexity %.1f, %.2f %% of %d words unknown",
        name, found["order"], "+".join(map(str, found["ngrams"])), found["dev_perplexity"], found["dev_oov_percent"], found["dev_words"],
    )  # fmt: skip


def _finished(lang: LangConfig, graph: NGram, rescoring: NGram, dev: Dev, report: dict[str, Any]) -> Models:
    report = {**report, **quality(graph, dev)}
    _tell(f"language model of the graph ({report['smoothing']})", report)
    if lang.prune_to is not None or lang.rescore:
        report["unpruned"] = quality(rescoring, dev)
        _tell("unpruned", report["unpruned"])
    return Models(graph, rescoring if lang.rescore else None, report)


def estimated(lang: LangConfig, sources: Sequence[Source], dev: Dev) -> Models:
    """Models of the text in `sources` over the words of the lexicon. Raises DataError where there is no text.

    `dev` gives interpolation weights and perplexities, and is in no count.
    """
    begin = time.perf_counter()
    estimator = _Estimator(lang, sources, dev)
    whole = estimator.model(lang.order, lang.smoothing)
    graph = estimator.pruned(whole)
    order = lang.rescore_order or lang.order
    larger = whole if not lang.rescore or order == lang.order else estimator.model(order, lang.smoothing)
    report: dict[str, Any] = {"smoothing": lang.smoothing, "seconds": round(time.perf_counter() - begin, 2)}
    if estimator.weights is not None:
        report["weights"] = {name: round(weight, 4) for name, weight in zip(estimator.names, estimator.weights.tolist(), strict=True)}
    return _finished(lang, graph, larger, dev, report)


def given(lang: LangConfig, model: NGram, dev: Dev) -> Models:
    """The given model, pruned where that is asked for. Raises DataError where `prune_to` does not fit its order."""
    graph = model if lang.prune_to is None else prune(model, lang.prune_to)
    return _finished(lang, graph, model, dev, {"smoothing": "given"})
