"""Search and alignment with kaldi-decoder's FasterDecoder on graphs of kaldifst."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kaldifst
import numpy as np
import torch
from kaldi_decoder import DecodableCtc, FasterDecoder, FasterDecoderOptions

from dropasr.config import DecodeConfig
from dropasr.decoding.search import MIN_ACTIVE, PARTIAL_PATH, PLAIN, Hypothesis, Weights, check_scores, need_lattices
from dropasr.lang.fst import Arcs
from dropasr.lang.graph_kaldi import FILE_NAME, load_graph
from dropasr.log import get_logger

WIDER = 4.0


def _decode(fst: Any, options: FasterDecoderOptions, scores: torch.Tensor) -> tuple[bool, list[int], list[int], float]:
    """Whether a final state was reached, input labels, output labels, score. The score of input label k is column k - 1."""
    decoder = FasterDecoder(fst, options)
    decoder.decode(DecodableCtc(np.ascontiguousarray(scores.numpy(), dtype=np.float32)))
    found, path = decoder.get_best_path()
    if not found:
        return False, [], [], -float("inf")
    _, ilabels, olabels, weight = kaldifst.get_linear_symbol_sequence(path)
    return decoder.reached_final(), ilabels, olabels, -(weight.value1 + weight.value2)


class KaldiSearch:
    """Decoding with a word graph; see `dropasr.decoding.search.Search`."""

    backend = "kaldi"

    def __init__(self, fst: Any, words: list[str], num_units: int, config: DecodeConfig) -> None:
        self._fst, self._words, self._num_units = fst, words, num_units
        self._options = FasterDecoderOptions(beam=config.beam, max_active=config.max_active, min_active=MIN_ACTIVE)
        self._wide = FasterDecoderOptions(beam=config.beam * WIDER, max_active=int(config.max_active * WIDER), min_active=MIN_ACTIVE)

    def decode(self, log_likelihoods: list[torch.Tensor]) -> list[Hypothesis]:
        """See `dropasr.decoding.search.Search.decode`."""
        check_scores(log_likelihoods, self._num_units)
        hypotheses = []
        for index, scores in enumerate(log_likelihoods):
            complete, _, labels, score = _decode(self._fst, self._options, scores)
            if not complete:
                complete, _, labels, score = _decode(self._fst, self._wide, scores)
            if not complete:
                get_logger(__name__).warning(PARTIAL_PATH, index)
            hypotheses.append(Hypothesis([self._words[label] for label in labels], score))
        return hypotheses

    def weighted(self, weights: Weights) -> KaldiSearch:
        """See `dropasr.decoding.search.Search.weighted`."""
        if weights != PLAIN:
            raise need_lattices("kaldi", "decode.lm_scales and decode.insertion_penalties")
        return self

    def variants(self, log_likelihoods: list[torch.Tensor], grid: Sequence[Weights]) -> list[list[list[str]]]:
        """See `dropasr.decoding.search.Search.variants`; plain weights only."""
        for weights in grid:
            self.weighted(weights)
        return [[hypothesis.words for hypothesis in self.decode(log_likelihoods)]] * len(grid)

    def nbest(self, log_likelihoods: list[torch.Tensor], number: int) -> list[list[Hypothesis]]:
        """Not offered: raises ConfigError."""
        raise need_lattices("kaldi", "decode.rescore")


def load(folder: Path, words: list[str], num_units: int, config: DecodeConfig) -> KaldiSearch:
    """The search over the graph of `folder`."""
    return KaldiSearch(load_graph(folder / FILE_NAME), words, num_units, config)


def align(log_likelihoods: list[torch.Tensor], graphs: list[Arcs], beam: float) -> list[np.ndarray | None]:
    """Units per frame of each utterance, or None where its graph has no path of that length."""
    options = FasterDecoderOptions(beam=beam, min_active=MIN_ACTIVE)
    found: list[np.ndarray | None] = []
    for scores, graph in zip(log_likelihoods, graphs, strict=True):
        complete, labels, _, _ = _decode(graph.to_kaldifst(), options, scores)
        found.append(np.array(labels, dtype=np.int32) - 1 if complete and len(labels) == len(scores) else None)
    return found
