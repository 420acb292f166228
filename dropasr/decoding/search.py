"""One interface for the search backends: k2 and kaldi-decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch

from dropasr.config import Config, DecodeConfig
from dropasr.errors import ConfigError, DataError
from dropasr.lang.graph import import_error, installed_backends, load_words
from dropasr.lang.graph_build import check_graph
from dropasr.lang.pieces import PieceUnits, load_units
from dropasr.lang.units import OutputUnits

PARTIAL_PATH = "utterance %d of the batch: no path reaches the end of the graph; the best partial path is taken"
"""Warning of every backend."""

_REMEDY = {
    "k2": "Run with CPython 3.10 (bash run.sh then installs k2), install a k2 that matches your torch, or set decode.backend=kaldi.",
    "kaldi": "Install them (pip install kaldi-decoder kaldifst), or set decode.backend=k2.",
}


@dataclass(frozen=True)
class Hypothesis:
    """The best word sequence and its score: graph plus acoustic log likelihood, natural log, higher is better."""

    words: list[str]
    score: float


@dataclass(frozen=True)
class Weights:
    """How the search adds up scores: `lm_scale` times the graph's (language model, silence), plus the acoustic ones, minus
    `insertion_penalty` (natural log) per word."""

    lm_scale: float = 1.0
    insertion_penalty: float = 0.0


PLAIN = Weights()


class Search(Protocol):
    """What every backend offers."""

    backend: str

    def decode(self, log_likelihoods: list[torch.Tensor]) -> list[Hypothesis]:
        """One hypothesis per utterance, in order; each input is float32 `(T, K)`, acoustic log likelihoods already scaled.

        Where no path reaches the graph's end inside the beam, the beam is widened; then the best path that stops short
        of the end is given, with a warning. Raises DataError for an utterance without frames or with values that are not finite.
        """

    def pruned(self, beam: float, max_active: int) -> Search:
        """The same search with another beam and number of active states; the graph is shared."""

    def weighted(self, weights: Weights) -> Search:
        """The same search with other weights; the graph is shared. Raises ConfigError where the backend cannot."""

    def variants(self, log_likelihoods: list[torch.Tensor], grid: Sequence[Weights]) -> list[list[list[str]]]:
        """For each of the weights the best words of every utterance, found on the lattice of one search with plain weights."""

    def nbest(self, log_likelihoods: list[torch.Tensor], number: int) -> list[list[Hypothesis]]:
        """Up to `number` different word sequences per utterance inside the lattice beam, best first, each with its best score."""


def choose_backend(name: str) -> str:
    """`k2` or `kaldi`; `auto` is k2 where it can be imported. Raises ConfigError saying what to install."""
    if name == "auto":
        installed = installed_backends()
        if not installed:
            raise ConfigError(f"decode.backend=auto: no search backend can be imported (k2: {import_error('k2')}). {_REMEDY['kaldi']}")
        return installed[0]
    if name not in _REMEDY:
        raise ConfigError(f"decode.backend: expected auto, k2 or kaldi, found '{name}'.")
    error = import_error(name)
    if error is not None:
        raise ConfigError(f"decode.backend={name}: its packages cannot be imported ({error}). {_REMEDY[name]}")
    return name


def search_name(config: Config) -> str:
    """The `backend` of the search that the configuration gives, without loading it."""
    return "greedy" if config.train.criterion == "ctc" and config.decode.ctc == "greedy" else choose_backend(config.decode.backend)


def need_lattices(backend: str, option: str) -> ConfigError:
    """The error of a backend that gives single best paths only."""
    why = f"it needs lattices, and the search backend here ({backend}) makes none"
    return ConfigError(f"{option}: {why}. Leave it unset, or set decode.backend=k2.")


def batches_by_frames(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Positions in batches, the longest utterances first, so that a batch padded to its longest has at most `limit` frames
    (an utterance that is longer stands alone)."""
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    begin = 0
    while begin < len(order):
        count = max(1, limit // max(lengths[order[begin]], 1))
        yield order[begin : begin + count]
        begin += count


def load_search(folder: Path, config: DecodeConfig, words_file: Path | None = None) -> Search:
    """Load the decoding graph and the units of `folder` for the configured backend. Raises ConfigError or DataError.

    `words_file`: the word list, by default `words.txt` of the same folder.
    """
    folder, name = Path(folder), choose_backend(config.backend)
    units = load_units(folder / "units.json")
    if isinstance(units, PieceUnits) and config.ctc != "hlg":
        from dropasr.decoding import ctc_search

        return ctc_search.load(units, config, name)
    words = load_words(folder / "words.txt" if words_file is None else words_file)
    backend: Any
    if name == "k2":
        from dropasr.decoding import k2_search as backend
    else:
        from dropasr.decoding import kaldi_search as backend
    check_graph(folder, name)
    return backend.load(folder, words, units.num_units, config)


def check_scores(log_likelihoods: list[torch.Tensor], num_units: int) -> None:
    """Raise DataError naming the position of an input that no search can use."""
    for position, scores in enumerate(log_likelihoods):
        if scores.dim() != 2 or scores.shape[0] == 0 or scores.shape[1] != num_units:
            raise DataError(
                f"utterance {position} of the batch: expected scores of shape (frames, {num_units}) with at least one frame, "
                f"found {tuple(scores.shape)}. Check the net's outputs against units.json."
            )
        if not bool(torch.isfinite(scores.sum())):
            raise DataError(f"utterance {position} of the batch: scores that are not finite. Check the net's weights and its prior.")


def greedy(log_posteriors: torch.Tensor, units: OutputUnits) -> list[str]:
    """Phones of the best unit per frame, repetitions collapsed, silence included; for debugging. Input `(T, K)`."""
    return [phone for phone, _ in groupby(units.phone_of(pdf) for pdf in log_posteriors.argmax(dim=1).tolist())]
