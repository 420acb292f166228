"""A language small enough for every word sequence to be tried, and a Viterbi search that shares no code with the graphs."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.config import DecodeConfig
from dropasr.decoding.search import load_search
from dropasr.lang import graph
from dropasr.lang.graph_build import build_graphs
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.ngram import NGram, estimate
from dropasr.lang.units import OutputUnits

BACKENDS = graph.installed_backends()
SILENCE_PROBABILITY = 0.3
SMALL = Lexicon.from_mapping({"a": "A", "ab": "A B", "b": ["B", "B A"], "too": "T", "two": "T"})
TEXT = [["a", "b"], ["ab", "two", "a"], ["too", "ab"], ["a", "b", "too"], ["b"], ["two", "two"]]


def medium_language() -> tuple[Lexicon, NGram]:
    """Sixty words, homophones, prefixes, words of one phone and of silence among them, and a trigram that backs off."""
    rng = np.random.default_rng(5)
    phones = [f"P{number}" for number in range(12)]
    entries = {f"w{number}": " ".join(rng.choice(phones, rng.integers(1, 6))) for number in range(60)}
    entries |= {"w1": entries["w2"], "w3": entries["w4"] + " P1", "w5": "SIL", "w6": "P1"}
    text = [list(rng.choice(list(entries)[:50], rng.integers(1, 7))) for _ in range(200)]
    return Lexicon.from_mapping(entries), estimate(text, 3, "kneser_ney", entries)


def make_lang(folder: Path, lexicon: Lexicon, units: OutputUnits, model: NGram, skips: bool = False) -> Path:
    """Word list, units, model and graphs in one folder."""
    model.to_arpa(folder / "lm.arpa")
    units.save(folder / "units.json")
    graph.save_words(folder / "words.txt", graph.word_symbols(lexicon))
    transducers = graph.make_transducers(lexicon, units, SILENCE_PROBABILITY, folder / "lm.arpa", folder / "words.txt", skips)
    build_graphs(folder, transducers, BACKENDS)
    return folder


def random_scores(units: OutputUnits, frames: list[int], seed: int = 0) -> list[torch.Tensor]:
    """Log posteriors of utterances of so many frames."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.log_softmax(2 * torch.randn(length, units.num_units, generator=generator), dim=1) for length in frames]


def assert_best_of_all(backend: str, lang: Path, scores: torch.Tensor, units: OutputUnits, model: NGram, longest: int) -> None:
    """A wide search finds the best of all sequences of up to `longest` words, and its score."""
    expected = brute_force(scores.numpy().astype(np.float64), units, model, longest)
    (hypothesis,) = load_search(lang, DecodeConfig(backend=backend, beam=100, max_active=10000)).decode([scores])
    assert tuple(hypothesis.words) == expected[0][1]
    assert hypothesis.score == pytest.approx(expected[0][0], abs=1e-3)


def assert_backends_agree(lang: Path, units: OutputUnits) -> None:
    """k2 and kaldi-decoder find the same words with the same scores."""
    scores = random_scores(units, [60, 31, 90, 45, 12])
    searches = (load_search(lang, DecodeConfig(backend=name, beam=60, max_active=100000)) for name in ("k2", "kaldi"))
    k2, kaldi = (search.decode(scores) for search in searches)
    assert max(len(hypothesis.words) for hypothesis in k2) > 3
    assert [hypothesis.words for hypothesis in k2] == [hypothesis.words for hypothesis in kaldi]
    assert [hypothesis.score for hypothesis in k2] == pytest.approx([hypothesis.score for hypothesis in kaldi], abs=1e-3)


def shortest(states: list[int]) -> int:
    """Fewest frames in which states can be passed."""
    return len(states)


def chain_viterbi(states: list[int], scores: np.ndarray) -> float:
    """Best score of passing the states in order, each for a frame or more."""
    best = np.full(len(states), -np.inf)
    for time, frame in enumerate(scores):
        entered = np.concatenate([[0.0 if time == 0 else -np.inf], best[:-1]])
        best = np.maximum(entered, best) + frame[states]
    return float(best[-1])


def log_probability(model: NGram, words: tuple[str, ...]) -> float:
    """Natural log probability of a sentence."""
    log10 = sum(model.log10_probability(word, ["<s>", *words[:position]]) for position, word in enumerate([*words, "</s>"]))
    return log10 * math.log(10)


def brute_force(
    scores: np.ndarray,
    units: OutputUnits,
    model: NGram,
    longest: int,
    lexicon: Lexicon = SMALL,
    lm_scale: float = 1.0,
    penalty: float = 0.0,
) -> list[tuple[float, tuple[str, ...]]]:
    """Every word sequence with its best score over pronunciations, silences and state durations, best first."""
    result = []
    for length in range(longest + 1):
        for words in product(lexicon.entries, repeat=length):
            best = -math.inf
            for variants in product(*(lexicon.entries[word] for word in words)):
                for silences in product([False, True], repeat=length + 1):
                    phones = ["SIL"] * silences[0]
                    for variant, silence in zip(variants, silences[1:], strict=True):
                        phones += [*variant, *["SIL"] * silence]
                    states = [pdf for left, phone in zip(["SIL", *phones], phones) for pdf in units.pdfs(phone, left)]
                    if not 0 < shortest(states) <= len(scores):
                        continue
                    optional = sum(math.log(SILENCE_PROBABILITY if silence else 1 - SILENCE_PROBABILITY) for silence in silences)
                    best = max(best, chain_viterbi(states, scores) + lm_scale * optional)
            if best > -math.inf:
                result.append((best + lm_scale * log_probability(model, words) - penalty * length, words))
    return sorted(result, reverse=True)
