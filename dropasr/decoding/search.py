"""One interface for the search backends: k2 and kaldi-decoder."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch

from dropasr.config import DecodeConfig
from dropasr.errors import ConfigError, DataError
from dropasr.lang.graph import import_error, installed_backends, load_words
from dropasr.lang.units import OutputUnits

MIN_ACTIVE = 30
"""States that stay active in a frame whatever the beam."""

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


class Search(Protocol):
    """What every backend offers."""

    backend: str

    def decode(self, log_likelihoods: list[torch.Tensor]) -> list[Hypothesis]:
        """One hypothesis per utterance, in order; each input is float32 `(T, K)`, acoustic log likelihoods already scaled.

        Where no path reaches the graph's end inside the beam, the beam is widened; then the best path that stops short
        of the end is given, with a warning. Raises DataError for an utterance without frames or with values that are not finite.
        """


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


def load_search(lang_dir: Path, config: DecodeConfig) -> Search:
    """Load the decoding graph of `lang_dir` for the configured backend. Raises ConfigError or DataError."""
    words = load_words(Path(lang_dir) / "words.txt")
    backend: Any
    if choose_backend(config.backend) == "k2":
        from dropasr.decoding import k2_search as backend
    else:
        from dropasr.decoding import kaldi_search as backend
    return backend.load(Path(lang_dir), words, config)


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
