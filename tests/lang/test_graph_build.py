"""Graphs found again by what they were made of, and refused when they are not what was written."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dropasr.errors import DataError
from dropasr.files import sha256_file
from dropasr.lang import graph
from dropasr.lang.graph_build import FILE_NAMES, INDEX, build_graphs, check_graph, provide_graphs
from dropasr.lang.graph_k2 import K2Graph, _number_sequences
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.ngram import estimate
from dropasr.lang.units import OutputUnits

BACKENDS = graph.installed_backends()
LEXICON = Lexicon.from_mapping({"a": "A", "ab": "A B", "too": "B", "two": "B"})
UNITS = OutputUnits(tuple(LEXICON.phones), 2, 1)


@pytest.fixture
def make(tmp_path):
    """Transducers, and how often they were made."""
    estimate([["a", "ab"], ["too"]], 2, "witten_bell", LEXICON.entries).to_arpa(tmp_path / "lm.arpa")
    graph.save_words(tmp_path / "words.txt", graph.word_symbols(LEXICON))

    def made() -> graph.Transducers:
        made.calls += 1
        return graph.make_transducers(LEXICON, UNITS, 0.5, tmp_path / "lm.arpa", tmp_path / "words.txt")

    made.calls = 0
    return made


def test_the_same_inputs_give_the_same_graph_once(tmp_path, make):
    cache, inputs = tmp_path / "graphs", {"units": UNITS.describe(), "arpa": "x"}
    first = provide_graphs(tmp_path / "one", cache, inputs, make, BACKENDS)
    second = provide_graphs(tmp_path / "two", cache, dict(reversed(inputs.items())), make, BACKENDS)
    assert make.calls == 1
    assert [{figures["cached"] for figures in result.values()} for result in (first, second)] == [{False}, {True}]
    for backend in BACKENDS:
        assert first[backend]["sha256"] == second[backend]["sha256"] and first[backend]["arcs"] > first[backend]["states"] > 5
        assert check_graph(tmp_path / "two", backend).read_bytes() == check_graph(tmp_path / "one", backend).read_bytes()
    provide_graphs(tmp_path / "three", cache, {**inputs, "arpa": "y"}, make, BACKENDS)
    assert make.calls == 2 and len(list(cache.iterdir())) == 2


def test_experiments_that_want_a_graph_at_the_same_time(tmp_path, make, monkeypatch):
    """Each reads the index before the other has written it, unless it waits."""
    cache, inputs, written = tmp_path / "graphs", {"units": UNITS.describe()}, []

    def write(path, transducers, backend):
        written.append(backend)
        time.sleep(0.3)
        path.write_bytes(backend.encode())
        return {"states": 1, "arcs": 1, "seconds": 0.3, "sha256": sha256_file(path)}

    monkeypatch.setattr("dropasr.lang.graph_build._write_graph", write)
    wanted = [["k2"], ["kaldi"], ["k2", "kaldi"]]
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(provide_graphs, tmp_path / str(i), cache, inputs, make, names) for i, names in enumerate(wanted)]
        results = [future.result() for future in found]
    assert sorted(written) == ["k2", "kaldi"] and [list(result) for result in results] == wanted
    (folder,) = cache.iterdir()
    assert set(json.loads((folder / INDEX).read_text())) == {"k2", "kaldi"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_graph_is_refused_and_made_again(tmp_path, make, backend):
    cache, target = tmp_path / "graphs", tmp_path / "align"
    provide_graphs(target, cache, {}, make, [backend])
    path = target / FILE_NAMES[backend]
    good = path.read_bytes()
    (folder,) = cache.iterdir()
    (folder / path.name).unlink()
    (folder / path.name).write_bytes(good[:-5] + b"wrong")
    assert provide_graphs(target, cache, {}, make, [backend])[backend]["cached"] is False
    assert path.read_bytes() == good and make.calls == 2
    data = bytearray(good)
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=f"{path.name}: expected SHA-256 .*stage 4"):
        check_graph(target, backend)
    path.unlink()
    with pytest.raises(DataError, match=f"{path.name}: the {backend} decoding graph is missing"):
        check_graph(target, backend)


def test_a_killed_build_leaves_no_index_entry(tmp_path, make, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dropasr.lang.graph_build.sha256_file", killed)
    with pytest.raises(KeyboardInterrupt):
        build_graphs(tmp_path / "folder", make(), BACKENDS[:1])
    assert not (tmp_path / "folder" / INDEX).exists()
    monkeypatch.undo()
    index = build_graphs(tmp_path / "folder", make(), BACKENDS[:1])
    assert json.loads((tmp_path / "folder" / INDEX).read_text()) == index


@pytest.mark.skipif("k2" not in BACKENDS, reason="k2 is not installed")
def test_a_graph_of_k2_says_what_a_word_costs_before_the_word_is_known(tmp_path):
    """Words that begin alike: the first phone costs what all of its words together have, minus log P, and not nothing until they differ."""
    lexicon = Lexicon.from_mapping({"rare": "A B C", "seldom": "A B D", "usual": "E F"})
    units = OutputUnits(tuple(lexicon.phones), 1, 1)
    estimate([["usual"]] * 98 + [["rare"], ["seldom"]], 1, "witten_bell", lexicon.entries).to_arpa(tmp_path / "lm.arpa")
    graph.save_words(tmp_path / "words.txt", graph.word_symbols(lexicon))
    transducers = graph.make_transducers(lexicon, units, 0.5, tmp_path / "lm.arpa", tmp_path / "words.txt")
    build_graphs(tmp_path / "graph", transducers, ["k2"])
    arcs = K2Graph.load(tmp_path / "graph" / FILE_NAMES["k2"]).arcs
    starts = [(int(unit), float(score)) for src, unit, score in zip(arcs.src, arcs.ilabel, arcs.score) if src == 0 and unit >= 0]
    first = {units.phone_of(unit): score for unit, score in starts}
    found = re.findall(r"^(\S+)\t(rare|seldom|usual)", (tmp_path / "lm.arpa").read_text(), re.MULTILINE)
    probability = {word: 10 ** float(value) for value, word in found}
    wanted = (probability["rare"] + probability["seldom"]) / probability["usual"]
    assert np.exp(first["A"] - first["E"]) == pytest.approx(wanted, rel=1e-3)


def test_word_sequences_are_numbered_by_content():
    rows = [(), (5,), (0, 5), (5, 7), (-1,), (7, 5), (5, 7), (7,), (5, 0, 7, 9), (9, 7, 5), (5, 7, 9)]
    words = np.array([word for row in rows for word in row], dtype=np.int32)
    numbers, sequences = _number_sequences(words, np.cumsum([0, *map(len, rows)]))
    assert [sequences[number] for number in numbers] == [tuple(word for word in row if word > 0) for row in rows]
    assert sequences[0] == () and len(set(sequences)) == len(sequences) == 7


@pytest.mark.skipif("k2" not in BACKENDS, reason="k2 is not installed in this stack")
def test_k2_graph_round_trip(tmp_path, make):
    build_graphs(tmp_path, make(), ["k2"])
    path = tmp_path / FILE_NAMES["k2"]
    read = K2Graph.load(path)
    read.save(tmp_path / "again.npz")
    again = K2Graph.load(tmp_path / "again.npz")
    assert again.sequences == read.sequences and {len(sequence) for sequence in read.sequences} >= {0, 1}
    for name in ("src", "dst", "ilabel", "olabel", "score"):
        ours, theirs = getattr(read.arcs, name), getattr(again.arcs, name)
        assert ours.dtype == theirs.dtype and ours.dtype.itemsize == 4 and np.array_equal(ours, theirs)
