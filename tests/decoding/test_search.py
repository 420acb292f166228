"""Both backends against a Viterbi search over word sequences that shares no code with the graphs."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from dropasr.config import DecodeConfig
from dropasr.decoding.search import choose_backend, greedy, load_search
from dropasr.errors import ConfigError, DataError
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.ngram import NGram, estimate
from dropasr.lang.units import OutputUnits

sys.path.insert(0, str(Path(__file__).parent))
from search_case import (  # noqa: E402 (the folder above is on the path only now)
    BACKENDS,
    SMALL,
    TEXT,
    assert_backends_agree,
    assert_best_of_all,
    make_lang,
    medium_language,
    random_scores,
)


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
    assert_best_of_all(backend, lang, scores, units, model, longest=4)


@pytest.fixture(scope="module")
def medium(tmp_path_factory):
    lexicon, model = medium_language()
    units = OutputUnits(tuple(lexicon.phones), 3, 3)
    return make_lang(tmp_path_factory.mktemp("lang"), lexicon, units, model), units


@pytest.mark.skipif(len(BACKENDS) < 2, reason="compares k2 with kaldi-decoder; this stack has one of them")
def test_backends_agree(medium):
    assert_backends_agree(*medium)


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
def test_an_utterance_that_ends_inside_a_word_gives_its_best_partial_path(tmp_path, backend, caplog):
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
