"""Both backends against a Viterbi search over word sequences that shares no code with the graphs."""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.config import DecodeConfig
from dropasr.decoding.search import choose_backend, greedy, load_search
from dropasr.errors import ConfigError, DataError
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.ngram import NGram, estimate
from dropasr.lang.units import OutputUnits

sys.path.insert(0, str(Path(__file__).parent))
from search_case import BACKENDS, SMALL, TEXT, brute_force, make_lang, random_scores  # noqa: E402 (the folder above is on the path only now)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    model = estimate(TEXT, 3, "witten_bell", SMALL.entries)
    units = OutputUnits(tuple(SMALL.phones), 2, 1)
    return make_lang(tmp_path_factory.mktemp("lang"), SMALL, units, model), units, model


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(6))
def test_equals_brute_force(small, backend, seed):
    lang, units, model = small
    scores = torch.log_softmax(3 * torch.randn(8, units.num_units, generator=torch.Generator().manual_seed(seed)), dim=1)
    expected = brute_force(scores.numpy().astype(np.float64), units, model, 4)
    (hypothesis,) = load_search(lang, DecodeConfig(backend=backend, beam=100, max_active=10000)).decode([scores])
    assert tuple(hypothesis.words) == expected[0][1]
    assert hypothesis.score == pytest.approx(expected[0][0], abs=1e-3)


@pytest.fixture(scope="module")
def medium(tmp_path_factory):
    """Sixty words, homophones and prefixes among them, and a trigram that backs off."""
    rng = np.random.default_rng(5)
    phones = [f"P{number}" for number in range(12)]
    entries = {f"w{number}": " ".join(rng.choice(phones, rng.integers(1, 6))) for number in range(60)}
    entries |= {"w1": entries["w2"], "w3": entries["w4"] + " P1"}
    lexicon = Lexicon.from_mapping(entries)
    text = [list(rng.choice(list(entries)[:50], rng.integers(1, 7))) for _ in range(200)]
    units = OutputUnits(tuple(lexicon.phones), 3, 3)
    return make_lang(tmp_path_factory.mktemp("lang"), lexicon, units, estimate(text, 3, "kneser_ney", entries)), units


@pytest.mark.skipif(len(BACKENDS) < 2, reason="compares k2 with kaldi-decoder; this stack has one of them")
def test_backends_agree(medium):
    lang, units = medium
    scores = random_scores(units, [60, 31, 90, 45, 12])
    k2, kaldi = (load_search(lang, DecodeConfig(backend=name, beam=60, max_active=100000)).decode(scores) for name in ("k2", "kaldi"))
    assert max(len(hypothesis.words) for hypothesis in k2) > 3
    assert [hypothesis.words for hypothesis in k2] == [hypothesis.words for hypothesis in kaldi]
    assert [hypothesis.score for hypothesis in k2] == pytest.approx([hypothesis.score for hypothesis in kaldi], abs=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_gives_what_single_utterances_give(medium, backend):
    lang, units = medium
    search = load_search(lang, DecodeConfig(backend=backend))
    scores = random_scores(units, [20 + (7 * number) % 50 for number in range(55)], seed=1)
    batch = search.decode(scores)
    for position in (0, 1, 2, 30, 54):
        (single,) = search.decode([scores[position]])
        assert single.words == batch[position].words
        assert single.score == pytest.approx(batch[position].score, abs=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_utterance_that_ends_inside_a_word_gives_its_best_partial_path(tmp_path, backend, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("dropasr"), "propagate", True)
    lexicon = Lexicon.from_mapping({"long": "A B A B", "other": "B B B B"})
    units = OutputUnits(("A", "B"), 1, 5)  # three frames are too short for either word and for silence
    arpa = "\\data\\\nngram 1=4\n\n\\1-grams:\n-99\t<s>\n-0.3\tlong\n-0.3\tother\n-1\t</s>\n\n\\end\\\n"
    (tmp_path / "given.arpa").write_text(arpa)
    lang = make_lang(tmp_path, lexicon, units, NGram.from_arpa(tmp_path / "given.arpa"))
    scores = torch.full((4, 7), -20.0)
    scores[torch.arange(4), torch.tensor([5, 6, 5, 6])] = 0.0
    cut, whole = load_search(lang, DecodeConfig(backend=backend, beam=5.0)).decode([scores[:3], scores])
    assert cut.words == ["long"] and whole.words == ["long"]
    assert math.isfinite(cut.score)
    assert [record.args for record in caplog.records if "no path reaches the end" in record.msg] == [(0,)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_that_no_search_can_use(small, backend):
    lang, units, _ = small
    search = load_search(lang, DecodeConfig(backend=backend))
    good = torch.zeros(5, units.num_units)
    for bad, message in [
        (torch.zeros(0, units.num_units), "at least one frame"),
        (torch.zeros(5, units.num_units + 1), r"\(5, 8\)"),
        (torch.full((5, units.num_units), math.nan), "not finite"),
    ]:
        with pytest.raises(DataError, match=message) as error:
            search.decode([good, bad])
        assert "utterance 1" in str(error.value)


def test_choice_of_backend(small, monkeypatch):
    lang, _, _ = small
    assert choose_backend("auto") == BACKENDS[0]
    assert load_search(lang, DecodeConfig()).backend == BACKENDS[0]
    with pytest.raises(ConfigError, match="expected auto, k2 or kaldi"):
        choose_backend("julius")
    monkeypatch.setattr("dropasr.decoding.search.import_error", lambda backend: "ImportError: none")
    for backend in ("k2", "kaldi"):
        with pytest.raises(ConfigError, match=rf"decode\.backend={backend}: .*ImportError: none.*[Ii]nstall"):
            choose_backend(backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_or_damaged_graph_is_named(small, tmp_path, backend):
    lang, _, _ = small
    for name in ("words.txt", "units.json"):
        (tmp_path / name).write_bytes((lang / name).read_bytes())
    with pytest.raises(DataError, match="graph-.*missing"):
        load_search(tmp_path, DecodeConfig(backend=backend))
    name = "graph-k2.npz" if backend == "k2" else "graph-kaldi.fst"
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=name):
        load_search(tmp_path, DecodeConfig(backend=backend))


def test_greedy():
    units = OutputUnits(("A", "B"), 2, 1)
    scores = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 2, 2, 3, 4, 0]), 5).float()
    assert greedy(scores, units) == ["SIL", "A", "B", "SIL"]
