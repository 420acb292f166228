"""Rescoring: n-best lists of a search, with the language model of its graph replaced by a larger one.

The lists hold what the graph holds: of homophones that lead to the same state of the small model (both backed off), k2's removal of
epsilons has kept the better one alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dropasr.config import Config, has_own_graph
from dropasr.decoding.search import PLAIN, Hypothesis, Search, Weights, load_search
from dropasr.errors import DataError
from dropasr.lang.ngram import NGram
from dropasr.paths import Paths


def log_probabilities(model: NGram, sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """Natural log probability `(S,)` of each sentence, its end included. Raises DataError for a word that the model does not know."""
    values = math.log(10) * model.word_scores(sentences)
    if not np.isfinite(values).all():
        unknown = next(word for sentence in sentences for word in sentence if word not in model.vocabulary)
        raise DataError(
            f"rescoring: the language model has no probability of the word '{unknown}'. Make it with the graph's word list (stage 3)."
        )
    sentence = np.repeat(np.arange(len(sentences)), [len(words) + 1 for words in sentences])
    return np.bincount(sentence, values, minlength=len(sentences))


class RescoringSearch:
    """A search that takes the best of n-best lists by `score - LM of the graph + lm_scale * larger LM - insertion_penalty * words`.

    A `Search` itself (see `dropasr.decoding.search`); its weights concern the larger model.
    """

    def __init__(self, search: Search, graph_model: NGram, model: NGram, number: int, weights: Weights = PLAIN) -> None:
        self.backend = search.backend
        self._search, self._graph_model, self._model, self._number, self._weights = search, graph_model, model, number, weights

    def pruned(self, beam: float, max_active: int) -> RescoringSearch:
        """See `dropasr.decoding.search.Search.pruned`; of the first pass."""
        return RescoringSearch(self._search.pruned(beam, max_active), self._graph_model, self._model, self._number, self._weights)

    def weighted(self, weights: Weights) -> RescoringSearch:
        """See `dropasr.decoding.search.Search.weighted`."""
        return RescoringSearch(self._search, self._graph_model, self._model, self._number, weights)

    def _rescored(self, log_likelihoods: list[torch.Tensor], grid: Sequence[Weights]) -> list[list[list[Hypothesis]]]:
        """The lists of every utterance under each of the weights, in the order of the first pass."""
        lists = self._search.nbest(log_likelihoods, self._number)
        words = [hypothesis.words for hypotheses in lists for hypothesis in hypotheses]
        scores = np.array([hypothesis.score for hypotheses in lists for hypothesis in hypotheses])
        acoustic, model = scores - log_probabilities(self._graph_model, words), log_probabilities(self._model, words)
        counts = np.array([len(item) for item in words])
        ends = np.cumsum([len(hypotheses) for hypotheses in lists])[:-1]
        found = []
        for weights in grid:
            parts = np.split(acoustic + weights.lm_scale * model - weights.insertion_penalty * counts, ends)
            found.append([_with_scores(hypotheses, part) for hypotheses, part in zip(lists, parts, strict=True)])
        return found

    def decode(self, log_likelihoods: list[torch.Tensor]) -> list[Hypothesis]:
        """See `dropasr.decoding.search.Search.decode`."""
        (found,) = self._rescored(log_likelihoods, [self._weights])
        return [_best(hypotheses) for hypotheses in found]

    def variants(self, log_likelihoods: list[torch.Tensor], grid: Sequence[Weights]) -> list[list[list[str]]]:
        """See `dropasr.decoding.search.Search.variants`."""
        return [[_best(hypotheses).words for hypotheses in found] for found in self._rescored(log_likelihoods, grid)]

    def nbest(self, log_likelihoods: list[torch.Tensor], number: int) -> list[list[Hypothesis]]:
        """See `dropasr.decoding.search.Search.nbest`."""
        (found,) = self._rescored(log_likelihoods, [self._weights])
        return [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)[:number] for hypotheses in found]


def _with_scores(hypotheses: list[Hypothesis], scores: np.ndarray) -> list[Hypothesis]:
    return [Hypothesis(old.words, score) for old, score in zip(hypotheses, scores.tolist(), strict=True)]


def _best(hypotheses: list[Hypothesis]) -> Hypothesis:
    return max(hypotheses, key=lambda hypothesis: hypothesis.score)


def rescoring_models(paths: Paths) -> tuple[Path, Path]:
    """The model of the graph, and the larger one. Raises DataError where a file is missing."""
    models = paths.lang / "lm.arpa", paths.lang / "lm-rescore.arpa"
    for path in models:
        if not path.exists():
            raise DataError(f"{path}: decode.rescore=nbest needs this language model. Run stage 3 (lang) with lang.rescore=true.")
    return models


def load_decoder(config: Config, paths: Paths, folder: Path | None = None) -> Search:
    """The search of the configuration with plain weights, rescoring included. Raises ConfigError or DataError.

    `folder`: another one with units and graph than that of the system.
    """
    search = load_search(graph_folder(config, paths) if folder is None else folder, config.decode, paths.lang / "words.txt")
    if config.decode.rescore == "none":
        return search
    small, large = rescoring_models(paths)
    return RescoringSearch(search, NGram.from_arpa(small), NGram.from_arpa(large), config.decode.nbest)


def graph_folder(config: Config, paths: Paths) -> Path:
    """The folder that has both units and graphs."""
    return paths.own_graph if has_own_graph(config) else paths.align
