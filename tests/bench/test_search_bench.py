"""The table of beams: its figures are those of searches made afresh, the knee follows its rule, and what was measured is kept."""

from __future__ import annotations

import dataclasses
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from bench_case import Exported
from conftest import TINY
from test_evaluate import SMALL

from dropasr import cli, verbs
from dropasr.bench import search
from dropasr.bench.journal import Journal
from dropasr.bench.rtf import Plan
from dropasr.bench.search_table import markdown
from dropasr.bench.ways import Way, provide_graph, ways_called
from dropasr.config import load_config
from dropasr.data.store import FrameStore
from dropasr.decoding import kaldi_search
from dropasr.decoding.graphs import provide_own_graph
from dropasr.decoding.likelihoods import load_log_prior, log_likelihoods
from dropasr.decoding.search import load_search
from dropasr.errors import StageError, UsageError
from dropasr.files import read_json, write_json
from dropasr.lang.graph import installed_backends
from dropasr.models.checkpoint import load_net
from dropasr.scoring.wer import score

GRID = [(3.0, 31), (3.0, 1000), (30.0, 31), (30.0, 1000)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("search")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return Exported(folder, folder / "tiny.yaml")


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "check_load", lambda under_load: 0.0)


def measured(exported: Exported, journal: Path, **changes: object) -> dict:
    values: dict = {"plan": Plan(()), "row": "dense", "grid": GRID, "tolerance": 0.1, **changes}
    return search.measure(exported.config, exported.paths, **values, journal=Journal(journal))


def row(wer: float, rtf: float, beam: float, max_active: int) -> dict:
    return {"wer": {"estimate": wer}, "rtf": rtf, "beam": beam, "max_active": max_active}


def test_the_knee_is_the_fastest_within_the_tolerance_of_the_widest():
    widest, wide, narrow, narrowest = row(10.0, 4.0, 16, 7000), row(9.9, 3.0, 16, 1000), row(10.1, 2.0, 8, 7000), row(10.4, 1.0, 8, 1000)
    rows = [narrowest, widest, narrow, wide]
    assert [search.knee(rows, tolerance) for tolerance in (0.0, 0.1, 0.3, 0.4)] == [wide, narrow, narrow, narrowest]
    # The best of all may be another one than the widest, which is what is compared with.
    assert search.knee([row(5.0, 9.0, 8, 1000), widest, narrow], 0.1) is narrow
    # Times within 5 % are equal: the wider one loses nothing.
    equal = row(10.0, 2.09, 12, 1000)
    assert search.knee([*rows, equal], 0.1) is equal and search.knee([*rows, {**equal, "rtf": 2.11}], 0.1) is narrow


def test_the_grid_holds_what_the_configuration_has(exported: Exported):
    assert search.grid_of(exported.config, [], [])[-1] == (30.0, 7000) and (16.0, 1000) in search.grid_of(exported.config, [], [])
    assert search.grid_of(exported.config, [9.0, 4.0], [50]) == [(4.0, 50), (9.0, 50)]


def test_figures_are_those_of_searches_made_afresh(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    whole_open = FrameStore.open

    def recorded(folder: Path) -> FrameStore:
        opened.append(Path(folder).name)
        return whole_open(folder)

    monkeypatch.setattr(FrameStore, "open", recorded)
    result = measured(exported, tmp_path / "journal")
    assert set(opened) <= {"dev", "train"}
    monkeypatch.undo()
    store, paths = exported.store("dev"), exported.paths
    scale = read_json(paths.scores("dense"))["acoustic_scale"]
    net, prior = load_net(paths.net("dense")), load_log_prior(exported.config, paths, "dense")
    scores = [scale * log_likelihoods(net, store.utterance(position), prior) for position in range(len(store))]
    wers = set()
    for figures in result["rows"]:
        options = {key: figures[key] for key in ("backend", "beam", "max_active")}
        afresh = load_search(paths.align, exported.config.decode.model_copy(update=options), paths.lang / "words.txt")
        words = [hypothesis.words for hypothesis in afresh.decode(scores)]
        expected = score(dict(zip(store.ids, store.texts)), dict(zip(store.ids, words))).wer
        assert figures["wer"]["estimate"] == pytest.approx(expected) and figures["rtf"] > 0
        wers.add(expected)
    # kaldi-decoder keeps 30 states in any case, and this graph has few more.
    assert len(wers) > 1 or "k2" not in installed_backends(), "beams that change nothing test nothing"
    ways = {"k2": ["k2", "k2_batched"], "kaldi": ["kaldi"]}
    names = [name for backend in ("k2", "kaldi") if backend in installed_backends() for name in ways[backend]]
    assert [item["way"] for item in result["rows"]] == [name for name in names for _ in GRID]
    assert [sum(item["knee"] for item in result["rows"] if item["way"] == name) for name in names] == [1] * len(names)
    widest = [item for item in result["rows"] if (item["beam"], item["max_active"]) == GRID[-1]]
    assert all(item["difference"]["estimate"] == 0 for item in widest)
    assert result["size"] == sum(map(len, store.texts)) and result["scored_utterances"] == len(store)


def test_a_search_pruned_otherwise_shares_its_graph(exported: Exported, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(kaldi_search, "FasterSearch", lambda *arguments: asked.append(arguments))
    config = exported.config.decode.model_copy(update={"backend": "kaldi", "beam": 9.0, "max_active": 70})
    load_search(exported.paths.align, config, exported.paths.lang / "words.txt").pruned(5.0, 40)
    (graph, *first), (shared, *second) = asked
    assert shared is graph and (first, second) == ([9.0, 70], [5.0, 40])


def test_what_was_measured_is_kept(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = Plan((), installed_backends()[:1])
    monkeypatch.setattr(search, "BLOCK_FRAMES", 60)
    whole = measured(exported, tmp_path / "whole", plan=plan)
    calls, decode = [], Way.decode

    def breaking(self, searcher, scores):
        calls.append(len(scores))
        if len(calls) == limit:
            raise KeyboardInterrupt
        return decode(self, searcher, scores)

    monkeypatch.setattr(Way, "decode", breaking)
    total = math.inf
    for limit in (7, 10**9):
        calls.clear()
        if limit == 7:
            with pytest.raises(KeyboardInterrupt):
                measured(exported, tmp_path / "journal", plan=plan)
            with open(tmp_path / "journal", "a") as file:
                file.write('{"of": "cut o')
        else:
            again = measured(exported, tmp_path / "journal", plan=plan)
            total = len(calls)
    assert [item["wer"] for item in again["rows"]] == [item["wer"] for item in whole["rows"]]
    calls.clear()
    third = measured(exported, tmp_path / "journal", plan=plan)
    assert not calls and third["rows"] == again["rows"]
    # Another beam is searched alone; its times, and those of the others, are taken together again.
    measured(exported, tmp_path / "journal", plan=plan, grid=[*GRID, (5.0, 1000)])
    assert 0 < len(calls) < total + 3 * (len(GRID) + 1)
    # Scores of another net are others.
    scores = exported.paths.scores("dense")
    before = read_json(scores)
    try:
        write_json(scores, {**before, "acoustic_scale": 2 * before["acoustic_scale"]})
        calls.clear()
        measured(exported, tmp_path / "journal", plan=plan)
        assert len(calls) >= total
    finally:
        write_json(scores, before)


def test_rules_for_transcripts_count_for_what_was_found(exported: Exported):
    corpus = exported.config.corpus
    rules = corpus.model_copy(update={"text": corpus.text.model_copy(update={"remove_words": ["<noise>"]})})
    for config, wrong in ((exported.config, 1), (exported.config.model_copy(update={"corpus": rules}), 0)):
        row = search._Row(config, exported.paths, "dense")
        assert row.errors(0, ["<noise>", *row.store.texts[0]]) == wrong


def test_what_cannot_be_tuned(exported: Exported, tmp_path: Path):
    with pytest.raises(UsageError, match="did you mean 'kaldi'"):
        ways_called(["kalid"])
    with pytest.raises(StageError, match="'svd@0.5' was not decoded.*--stage 7"):
        measured(exported, tmp_path / "journal", row="svd@0.5")
    greedy = ["train.criterion=ctc", "lang.units=chars", "decode.ctc=greedy"]
    config = load_config(exported.experiment.yaml, settings=greedy)
    with pytest.raises(UsageError, match="no beam to tune"):
        search.measure(config, exported.paths, Plan(()), "dense", GRID, 0.1, Journal(tmp_path / "journal"))


def test_the_graph_of_the_other_backend_is_made_beside_the_benchmarks(exported: Exported):
    SMALL.save(exported.paths.lang / "lexicon.txt")
    third = exported.experiment.config("train.frame_subsampling=3")
    paths = dataclasses.replace(exported.paths, system="every_3rd_frame")
    provide_own_graph(third, paths)
    first, *rest = [way for way in ways_called([]) if way.backend in installed_backends() and not way.batched]
    index = (paths.own_graph / "graphs.json").read_bytes()
    assert provide_graph(first, third, paths) == paths.own_graph
    for way in rest:
        assert provide_graph(way, third, paths) == paths.system_home / "bench" / "graph"
        load_search(
            paths.system_home / "bench" / "graph", third.decode.model_copy(update={"backend": way.backend}), paths.lang / "words.txt"
        )
    # What stage 7 has stamped stays as it is.
    assert (paths.own_graph / "graphs.json").read_bytes() == index


def test_the_command_line(exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path):
    monkeypatch.setattr(verbs, "load", lambda invocation: (exported.config, exported.paths))
    command = ["bench", "search", "dense", "--beams", "4,30", "--max-active", "50,1000", "--out", str(tmp_path)]
    backend = installed_backends()[0]
    assert cli.main([*command, "--engines", backend, "--utterances", "6"]) == 0
    text = capsys.readouterr().out
    result = read_json(tmp_path / "search-dense.json")
    (knee,) = [item for item in result["rows"] if item["knee"]]
    options = f"--set decode.backend={backend} --set decode.beam={knee['beam']:g} --set decode.max_active={knee['max_active']}"
    assert options in text and (tmp_path / "search-dense.md").read_text() in text and "6 of 12 utterances of dev" in text
    assert markdown({**result, "under_load": True}).count("Measured under load") == 1
    for widest in (True, False):
        rows = [{**item, "knee": (item is result["rows"][-1]) == widest} for item in result["rows"][-2:]]
        assert ("try them" in markdown({**result, "rows": rows})) == widest
    points = ElementTree.parse(tmp_path / "search-dense.svg").getroot()
    assert points.tag.endswith("svg") and "RTF of the search" in (tmp_path / "search-dense.svg").read_text()
    wrong = [
        (["bench", "search", "dense", "annealed_dropout"], "more than one row"),
        (["bench", "search", "dense", "--beams", "wide"], "'--beams'"),
        (["bench", "search", "dense", "--max-active", "5"], "at least 31"),
    ]
    for arguments, words in wrong:
        assert cli.main(arguments) == 2
        assert words in capsys.readouterr().err
