"""Figures of results.json: the reference, comparisons and their verdicts, hashes of rows."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from dropasr.config import rows, system_name
from dropasr.report import results as results_module
from dropasr.report.build import build
from dropasr.report.results import command_line, row_hashes
from dropasr.report.sections import cautions, headline
from dropasr.report.tables import terminal_table

sys.path.insert(0, str(Path(__file__).parent))
from report_case import at_every_third_frame, dump, edit, make_config, make_run, results_of  # noqa: E402 (the folder above is on the path only now)

COMPACT = "dropout_compaction@0.25"


@pytest.fixture
def run(tmp_path):
    config = make_config()
    return config, make_run(tmp_path, config)


def test_reference_is_the_large_net_that_is_better_on_dev(run):
    assert results_of(run).reference == "dense"

    def better_on_dev(scores):
        scores["dev"] = dict(json.loads((run[1].scores("dense")).read_text())["dev"])
        for item in scores["dev"]["utterances"]:
            item["sub"] = 0
        scores["dev"].update(errors=0, sub=0, wer=0.0)

    # annealed dropout is worse on test, yet it becomes the reference: dev chooses.
    edit(run[1].scores("annealed_dropout"), better_on_dev)
    results = results_of(run)
    assert results.reference == "annealed_dropout"
    by_name = {row.name: row for row in results.rows}
    assert by_name["dense"].wer_difference.to == "annealed_dropout"
    assert by_name["dense"].wer_difference.mean == pytest.approx(-2.0)


def test_equal_on_dev_is_decided_by_cross_entropy(run):
    dense = json.loads(run[1].scores("dense").read_text())["dev"]
    edit(run[1].scores("annealed_dropout"), lambda scores: scores.update(dev=dense))
    edit(run[1].net("annealed_dropout") / "summary.json", lambda summary: summary["history"][-1].update(dev_ce=0.1))
    assert results_of(run).reference == "annealed_dropout"


def test_same_size_nets_are_compared(run):
    found = {item.row: item for item in results_of(run).comparisons}
    assert set(found) == {COMPACT, "dropout_compaction@0.125"}
    assert found[COMPACT].difference.to == "small_dense@0.25"
    assert found[COMPACT].difference.mean == pytest.approx(-2.0)
    assert found[COMPACT].outcome == "better"


def test_interval_that_touches_zero_is_a_tie(tmp_path):
    config = make_config()
    run = config, make_run(tmp_path, config, errors={COMPACT: 3})
    results = results_of(run)
    assert results.comparisons[0].outcome == "tie"
    assert "It ties with small dense from scratch 1/4" in headline(results)[0]


def test_a_size_as_learned_is_told_and_compared_with_no_net_of_its_size(tmp_path):
    config = make_config()
    published = {"method": "dropout_compaction", "controller": "none"}
    config = config.model_copy(update={"methods": {**config.methods, "dropout_compaction_published": published}})
    compact = ["dropout_compaction", "dropout_compaction_published"]
    config = config.model_copy(update={"experiment": config.experiment.model_copy(update={"compact": compact})})
    paths = make_run(tmp_path, config)
    results = results_of((config, paths))
    row = next(row for row in results.rows if row.name == "dropout_compaction_published")
    assert (row.label, row.budget) == ("dropout compaction published, size as learned", 0.0)
    assert row.name not in {item.row for item in results.comparisons}
    told = next(line for line in headline(results) if "as learned keeps" in line)
    assert "size as learned keeps 20.0 % of the multiply-adds" in told and "no net of the same size" in told
    build(config, paths, 1)
    assert "Budgets (1/4, 1/8) are" in (paths.report / "report.md").read_text(encoding="utf-8")


def test_controls_are_rivals_and_no_net_is_its_own(tmp_path):
    config = make_config(compact=["dropout_compaction", "random_removal"])
    config = config.model_copy(update={"methods": {**config.methods, "random_removal": {"method": "random_removal"}}})
    found = {(item.row, item.difference.to) for item in results_of((config, make_run(tmp_path, config))).comparisons if item.budget == 0.25}
    small, control = "small_dense@0.25", "random_removal@0.25"
    assert found == {(COMPACT, small), (COMPACT, control), (control, small)}


def test_rivals_have_the_same_teacher(tmp_path):
    config = make_config(small=["dense", "distilled"], compact=["dropout_compaction", "distilled_compaction", "random_removal"])
    names = {name: {"method": name} for name in ("distilled", "random_removal")}
    config = config.model_copy(update={"methods": {**config.methods, **names, "distilled_compaction": {"method": "dropout_compaction"}}})
    _, paths = run = config, make_run(tmp_path, config)
    for row in rows(config):
        if "distilled" in row.name:
            edit(paths.net(row.name) / "summary.json", lambda value: value.update(teacher="dense"))
    found = {(item.row, item.difference.to) for item in results_of(run).comparisons if item.budget == 0.25}
    small, control, taught = "small_dense@0.25", "random_removal@0.25", ("distilled_compaction@0.25", "small_distilled@0.25")
    assert found == {(COMPACT, small), (COMPACT, control), (control, small), taught}  # two methods, taught and not, are not many


def test_what_learns_no_units_is_a_control_whatever_its_name(tmp_path):
    config = make_config(compact=["dropout_compaction", "by_lot"])
    config = config.model_copy(update={"methods": {**config.methods, "by_lot": {"method": "dropout_compaction", "estimator": "random"}}})
    _, paths = run = config, make_run(tmp_path, config)
    for name, learns in (("dropout_compaction", True), ("by_lot", False)):
        for budget in ("0.25", "0.125"):
            edit(paths.net(f"{name}@{budget}") / "summary.json", lambda value, learns=learns: value.update(learns_units=learns))
    results = results_of(run)
    found = {(item.row, item.difference.to) for item in results.comparisons if item.budget == 0.25}
    small, control = "small_dense@0.25", "by_lot@0.25"
    assert found == {(COMPACT, small), (COMPACT, control), (control, small)}
    assert {row.name: row.learns_units for row in results.rows if row.budget == 0.25} == {small: None, COMPACT: True, control: False}


def test_multiply_adds_per_second_follow_the_frame_rate(tmp_path):
    third = at_every_third_frame(make_config())
    results = results_of((third, make_run(tmp_path, third)))
    # 780,000 multiply-adds of the large net at every third of 100 frames per second.
    assert results.rows[0].macs_per_second == 26_000_000


def test_the_graph_that_is_told_is_that_of_the_system(run):
    paths = run[1]
    edit(paths.align / "report.json", lambda value: value.update(units=5, graphs={"k2": {"states": 11, "arcs": 22}}))
    own = dataclasses.replace(paths, system="every_3rd_frame")
    for name in ("scores", "rtf.json"):
        own.system_home.mkdir(parents=True, exist_ok=True)
        (own.system_home / name).symlink_to(paths.run / name)
    dump(own.own_graph / "graphs.json", {"k2": {"states": 33, "arcs": 44}})
    for place, states in ((paths, 11), (own, 33)):
        build(run[0], place, 1)
        assert f"k2 graph: {states} states" in (place.report / "report.md").read_text(encoding="utf-8")
    assert own.results.parent == paths.run / "systems" / "every_3rd_frame"


def test_systems_are_told_apart():
    config = make_config()
    assert system_name(config) == ""
    assert system_name(at_every_third_frame(config)) == "every 3rd frame"


def test_command_is_told_without_paths_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.delenv(results_module.COMMAND, raising=False)
    monkeypatch.chdir(tmp_path)
    options = ["--stage", "9", "--conf", str(tmp_path / "conf/a.yaml"), "--corpus-dir=/y/z/speech", "--seed", "2"]
    monkeypatch.setattr(sys, "argv", ["/x/dropasr/__main__.py", "report", *options])
    assert command_line() == "bash run.sh --conf conf/a.yaml --corpus-dir=/path/to/speech --seed 2"
    monkeypatch.setenv(results_module.COMMAND, "bash run.sh --seed 3")
    assert command_line() == "bash run.sh --seed 3"


def test_rows_of_other_graphs_are_other_rows(monkeypatch):
    one = row_hashes(make_config())
    monkeypatch.setattr(results_module, "GRAPH_CONSTRUCTION", 1000)
    assert not set(one.values()) & set(row_hashes(make_config()).values())


def test_row_hashes_do_not_depend_on_machine_or_on_other_rows():
    one = row_hashes(make_config())
    config = make_config(budgets=[0.25])
    elsewhere = config.model_copy(update={"corpus": config.corpus.model_copy(update={"corpus_dir": "/somewhere"})})
    assert row_hashes(elsewhere) == {name: value for name, value in one.items() if "0.125" not in name}
    longer = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 3})})
    assert row_hashes(longer)["dense"] != one["dense"]


HASH_OF_DENSE = "27469172514e52c0bb94f2ca70447cca329f96cd19788430b2b0b3281db7c98d"


def test_hashes_of_configurations_that_use_no_later_option_stay_as_they_were():
    # Rows since the second construction of graphs hold these hashes: a change here would make every committed row count as missing.
    config = make_config()
    base = row_hashes(config)
    assert base["dense"] == HASH_OF_DENSE
    other = config.model_copy(update={"decode": config.decode.model_copy(update={"lm_scales": [0.9, 1.0]})})
    assert row_hashes(other)["dense"] != base["dense"]


@pytest.mark.parametrize("key,value", [("batch_frames", 50), ("flat_start", 0.3)])
def test_options_of_ctc_count_with_ctc_alone(key, value):
    config = make_config()
    ctc = config.model_copy(update={"train": config.train.model_copy(update={"criterion": "ctc"})})
    for one, counts in ((config, False), (ctc, True)):
        other = one.model_copy(update={"train": one.train.model_copy(update={key: value})})
        assert (row_hashes(other)["dense"] != row_hashes(one)["dense"]) is counts
    assert row_hashes(at_every_third_frame(config))["dense"] != row_hashes(config)["dense"]


NEW_SPEAKERS = {"speakers": 10, "first": 3}  # of the further test set: none of the three of test


def test_verdicts_are_over_all_test_speakers_where_test_has_few(tmp_path):
    config = make_config({"extra_tests": ["noisy"]})
    run = config, make_run(tmp_path, config, speakers=3, extra=NEW_SPEAKERS)
    results = results_of(run)
    # 3 speakers with 2 errors and 10 with 3, each in 50 words.
    dense, small = (next(row for row in results.rows if row.name == name) for name in ("dense", "small_dense@0.125"))
    assert dense.extra["all"].wer == pytest.approx(100 * 36 / 650) and dense.extra["all"].cer == pytest.approx(50 * 36 / 650)
    assert small.extra["all"].wer_difference.mean == pytest.approx(6.0)
    size = results.tests["all"]
    assert (results.headline, size.speakers, size.words, size.interval) == ("all", 13, 650, "t")
    assert (results.interval, results.tests["noisy"].interval, size.sets) == ("t", "t", 2)
    # Verdicts first: the comparisons of a net name no set for the union, and those beside it by name.
    assert [item.test for item in results.comparisons if item.row == COMPACT] == ["all", "test", "noisy"]
    told = headline(results)[0]
    assert "WER on all tests 5.54 % against 5.54 %" in told and "%, difference -2.00" in told and "On test: It is better than" in told
    assert "On all tests" not in told
    said = "Verdicts are over all 13 test speakers (test and noisy together, 650 words); test and noisy alone stand beside them."
    assert said in cautions(results) and "3 speakers: intervals are Student's t" in " ".join(cautions(results))
    terminal = terminal_table(results).splitlines()
    assert "all: WER % [95 %]" in terminal[0] and max(map(len, terminal)) <= 150
    build(config, run[1], 1)
    text = (run[1].report / "report.md").read_text(encoding="utf-8")
    header = next(line for line in text.splitlines() if line.startswith("| net | units per layer"))
    assert all(name in header for name in ("all tests: WER % [95 %]", "test: WER %", "noisy: WER %"))
    assert "test: t interval over 3 speakers" in text and "all tests: t interval over 13 speakers within 2 test sets" in text


def test_the_union_of_the_same_speakers_is_no_headline(tmp_path):
    config = make_config({"extra_tests": ["noisy"]})
    results = results_of((config, make_run(tmp_path, config, speakers=3)))
    assert (results.headline, results.tests["all"].speakers) == ("test", 3)
    assert not any("Verdicts are over" in line for line in cautions(results))
