"""Stage 9 on a run made by hand: figures, forms, and refusals."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from dropasr.config import system_name
from dropasr.errors import DataError, MeasurementError, StageError
from dropasr.report import results as results_module
from dropasr.report.build import build
from dropasr.report.load import load_run
from dropasr.report.records import Record
from dropasr.report.results import command_line, make_results, row_hashes
from dropasr.report.schema import Results, check_results
from dropasr.report.sections import at_edge, cautions, headline
from dropasr.report.tables import count, short_units, terminal_table, units

sys.path.insert(0, str(Path(__file__).parent))
from report_case import dump, edit, make_config, make_run  # noqa: E402 (the folder above is on the path only now)

DOCS = Path(__file__).resolve().parents[2] / "docs"
COMPACT = "dropout_compaction@0.25"


@pytest.fixture
def run(tmp_path):
    config = make_config()
    return config, make_run(tmp_path, config)


def results_of(run) -> Results:
    return make_results(run[0], load_run(*run))


def at_every_third_frame(config):
    return config.model_copy(update={"train": config.train.model_copy(update={"frame_subsampling": 3})})


def test_figures_of_the_table(run):
    rows = {row.name: row for row in results_of(run).rows}
    assert list(rows)[:2] == ["dense", "annealed_dropout"]
    # 2 errors in 50 words per speaker are 4 %; all speakers alike, so the interval has no width.
    assert rows["dense"].wer == pytest.approx(4.0)
    assert rows["dense"].wer_interval == pytest.approx((4.0, 4.0))
    assert rows["small_dense@0.125"].wer_difference.mean == pytest.approx(6.0)
    assert rows["small_dense@0.125"].wer_difference.interval == pytest.approx((6.0, 6.0))
    # 0.08 s against 0.02 s for the model; (0.01 + 0.08 + 0.05) against (0.01 + 0.02 + 0.05) for all.
    assert rows[COMPACT].speedup.model == pytest.approx(4.0)
    assert rows[COMPACT].speedup.interval == pytest.approx((4.0, 4.0))
    assert rows[COMPACT].speedup.total == pytest.approx(0.14 / 0.08)
    assert rows[COMPACT].dev_ce == pytest.approx(2.2 / 4 + 1)
    assert rows[COMPACT].label == "dropout compaction 1/4"
    assert rows["small_dense@0.125"].label == "small dense from scratch 1/8"


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


def test_files_of_the_report(run, capsys):
    config, paths = run
    build(config, paths, 1)
    value = json.loads(paths.results.read_text(encoding="utf-8"))
    check_results(value, "results.json")
    wanted = {"name", "method", "model", "seed", "units", "parameters", "macs_per_second", "wer", "wer_interval", "train_seconds"}
    assert {"corpus", "command", "hardware", "stack", "rows"} <= set(value)
    assert wanted <= set(value["rows"][0])
    assert {"to", "mean", "interval"} <= set(value["rows"][0]["wer_difference"])
    assert {"features", "model", "search", "total"} == set(value["rows"][0]["rtf"])
    assert {"model", "total", "interval"} <= set(value["rows"][0]["speedup"])
    text = (paths.report / "report.md").read_text(encoding="utf-8")
    assert "Figures made by hand." in text
    assert "4.00 [4.00, 4.00]" in text
    assert "empty transcript" in text
    for name in re.findall(r"\]\((plots/[^)]*)\)", text):
        ElementTree.parse(paths.report / name)
    # WER against RTF, CE against multiply-adds, training, retention of two nets
    assert len(list((paths.report / "plots").glob("*.svg"))) == 5


def test_page_needs_nothing_else(run):
    config, paths = run
    build(config, paths, 1)
    page = (paths.report / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 5
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"' <]*", page)) <= namespaces
    assert not re.search(r"<(script|link|img|iframe)\b", page)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="#|url\(#)([^")]*)', page):
        assert target in ids


def test_terminal_table_fits(run):
    lines = terminal_table(results_of(run)).splitlines()
    assert max(map(len, lines)) <= 150
    assert len(lines) == 7
    assert "+6.00 [+6.00,+6.00]" in lines[5]


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda paths: paths.rtf.unlink(), MeasurementError, ["rtf.json", "--stage 8"]),
        (lambda paths: edit(paths.rtf, lambda value: value["rows"].pop(COMPACT)), MeasurementError, [COMPACT, "--stage 8"]),
        (lambda paths: paths.scores(COMPACT).unlink(), MeasurementError, [COMPACT, "no WER", "--stage 7"]),
        (lambda paths: (paths.net("dense") / "summary.json").unlink(), StageError, ["summary.json", "--stage 5"]),
        (lambda paths: (paths.net(COMPACT) / "summary.json").unlink(), StageError, ["summary.json", "--stage 6"]),
        (lambda paths: edit(paths.net("dense") / "summary.json", lambda v: v.pop("units")), StageError, ["'units' is missing", "stage 5"]),
        (lambda paths: edit(paths.rtf, lambda v: v["rows"]["dense"].update(model=float("nan"))), MeasurementError, ["rows.dense.model"]),
        (lambda paths: edit(paths.scores(COMPACT), lambda v: v["test"].update(wer=1.0)), MeasurementError, ["test", "WER 1.0"]),
        (lambda paths: edit(paths.scores(COMPACT), lambda v: v.update(beam=9.0)), MeasurementError, ["beam 14.0", "found 9.0"]),
        (
            lambda paths: edit(paths.scores(COMPACT), lambda v: v["test"]["utterances"][3].update(id="other")),
            MeasurementError,
            ["same test utterances", "s0-3"],
        ),
        (lambda paths: edit(paths.scores(COMPACT), lambda v: v.update(net="other")), MeasurementError, ["another net", "--stage 7"]),
        (
            lambda paths: edit(paths.scores(COMPACT), lambda v: v.update(extra={"b": v["test"]})),
            MeasurementError,
            ["test sets", "found test, b"],
        ),
        (
            lambda paths: edit(paths.scores(COMPACT), lambda v: v.update(frame_subsampling=3)),
            MeasurementError,
            ["frame_subsampling 1", "3"],
        ),
        (lambda paths: (paths.align / "report.json").write_text("{"), DataError, ["align/report.json", "expected JSON"]),
    ],
)
def test_figure_without_its_counterpart_is_refused(run, spoil, error, words):
    config, paths = run
    spoil(paths)
    with pytest.raises(error) as caught:
        build(config, paths, 1)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not paths.results.exists()


def test_cautions(run, tmp_path):
    told = " ".join(cautions(results_of(run)))
    assert "Figures made by hand." in told
    assert "200 words" in told and "4 speakers" in told and "One training seed" in told
    assert "same number of epochs" not in told
    edit(run[1].net(COMPACT) / "summary.json", lambda value: value.update(epochs=9))
    assert "did not get the same number of epochs" in " ".join(cautions(results_of(run)))
    assert "busy" not in told
    edit(run[1].rtf, lambda value: value.update(busy_share=1.5))
    assert "other processes used 150 % of one core" in " ".join(cautions(results_of(run)))


def test_scale_at_the_edge_of_those_tried_is_told(run):
    nets = load_run(*run).nets
    assert all(at_edge(net) for net in nets)  # 0.1 and 0.2 were tried, 0.2 was the best
    assert not any(at_edge(net, 1) or at_edge(net, 2) for net in nets)  # one value each
    edit(run[1].scores(COMPACT), lambda value: value["tuning"].extend([[0.3, 1.0, 0.0, 50.0], [0.2, 1.0, -1.0, 50.0]]))
    net = next(net for net in load_run(*run).nets if net.name == COMPACT)
    assert not at_edge(net) and at_edge(net, 2)


def test_one_speaker_is_said(tmp_path):
    config = make_config()
    config = config.model_copy(update={"corpus": config.corpus.model_copy(update={"one_speaker": True})})
    run = config, make_run(tmp_path, config, speakers=1)
    results = results_of(run)
    assert results.bootstrap_unit == "utterance"
    told = " ".join(cautions(results))
    assert "one speaker" in told and "utterances instead of speakers" in told


def test_schema_in_docs_is_the_one_in_code():
    assert json.loads((DOCS / "results.schema.json").read_text(encoding="utf-8")) == Results.model_json_schema()


def _fields(record: type[Record]) -> set[str]:
    return set(record.model_fields)


def test_schema_page_names_every_field():
    from dropasr.report import recipe_schema, records, schema

    text = (DOCS / "results-schema.md").read_text(encoding="utf-8")
    records = {value for module in (records, schema, recipe_schema) for value in vars(module).values() if isinstance(value, type)}
    for record in records:
        if issubclass(record, Record) and record is not Record:
            missing = [name for name in _fields(record) if f"`{name}`" not in text]
            assert not missing, f"{record.__name__}: {missing}"


def test_every_field_has_a_line_of_documentation():
    for name, field in Results.model_json_schema()["$defs"].items():
        assert all(value.get("description") for value in field["properties"].values()), name


def test_results_of_another_form_are_refused(run):
    value = results_of(run).model_dump(mode="json")
    del value["rows"][0]["wer_interval"]
    with pytest.raises(MeasurementError, match=r"x\.json: rows\.0\.wer_interval"):
        check_results(value, "x.json")


def test_command_is_told_without_paths_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.delenv(results_module.COMMAND, raising=False)
    monkeypatch.chdir(tmp_path)
    options = ["--stage", "9", "--conf", str(tmp_path / "conf/a.yaml"), "--corpus-dir=/y/z/speech", "--seed", "2"]
    monkeypatch.setattr(sys, "argv", ["/x/dropasr/__main__.py", "report", *options])
    assert command_line() == "bash run.sh --conf conf/a.yaml --corpus-dir=/path/to/speech --seed 2"
    monkeypatch.setenv(results_module.COMMAND, "bash run.sh --seed 3")
    assert command_line() == "bash run.sh --seed 3"


def test_row_hashes_do_not_depend_on_machine_or_on_other_rows():
    one = row_hashes(make_config())
    config = make_config(budgets=[0.25])
    elsewhere = config.model_copy(update={"corpus": config.corpus.model_copy(update={"corpus_dir": "/somewhere"})})
    assert row_hashes(elsewhere) == {name: value for name, value in one.items() if "0.125" not in name}
    longer = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 3})})
    assert row_hashes(longer)["dense"] != one["dense"]


def test_numbers_for_people():
    numbers = {999: "999", 1000: "1.00k", 4_456_448: "4.46M", 45_600_000: "45.6M", 456_000_000: "456M", 999_999: "1.00M"}
    assert {number: count(number) for number in numbers} == numbers
    assert units([5, 5]) == "2×5" and units([5, 6]) == "5 6" and short_units([5, 7, 6]) == "3×(5-7)"


def test_further_test_sets_and_characters(tmp_path):
    config = make_config({"extra_tests": ["noisy"]})
    run = config, make_run(tmp_path, config)
    results = results_of(run)
    rows = {row.name: row for row in results.rows}
    # One error more per speaker and 50 words than on test: 3 instead of 2 of the reference; two wrong characters of four per error.
    assert rows["dense"].extra["noisy"].wer == pytest.approx(6.0) and rows["dense"].cer == pytest.approx(2.0)
    assert rows["small_dense@0.125"].extra["noisy"].wer_difference.mean == pytest.approx(6.0)
    assert rows["small_dense@0.125"].extra["noisy"].cer_difference.interval == pytest.approx((3.0, 3.0))
    assert results.extra_tests["noisy"].words == 200
    assert {(item.row, item.test) for item in results.comparisons} == {
        (name, test) for name in (COMPACT, "dropout_compaction@0.125") for test in ("test", "noisy", "all")
    }
    told = " ".join(cautions(results))
    assert "The test set noisy has 200 words" in told
    build(config, run[1], 1)
    text = (run[1].report / "report.md").read_text(encoding="utf-8")
    assert "noisy: WER % [95 %]" in text and "6.00 [6.00, 6.00]" in text and (run[1].report / "plots" / "rate-time-noisy.svg").exists()


def test_characters_are_the_headline_where_the_corpus_says_so(tmp_path):
    config = make_config({"error_rate": "character"})
    run = config, make_run(tmp_path, config)
    results = results_of(run)
    assert results.rate_name == "CER" and results.comparisons[0].difference.mean == pytest.approx(-1.0)
    assert "CER 2.00 % against 2.00 %" in headline(results)[0]
    text = terminal_table(results)
    assert "CER % [95 %]" in text and "2.00 [2.00,2.00]" in text


def test_controls_are_rivals_and_no_net_is_its_own(tmp_path):
    config = make_config(compact=["dropout_compaction", "random_removal"])
    config = config.model_copy(update={"methods": {**config.methods, "random_removal": {"method": "random_removal"}}})
    found = {(item.row, item.difference.to) for item in results_of((config, make_run(tmp_path, config))).comparisons if item.budget == 0.25}
    small, control = "small_dense@0.25", "random_removal@0.25"
    assert found == {(COMPACT, small), (COMPACT, control), (control, small)}


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


def test_multiply_adds_per_second_follow_the_frame_rate(tmp_path):
    third = at_every_third_frame(make_config())
    results = results_of((third, make_run(tmp_path, third)))
    # 780,000 multiply-adds of the large net at every third of 100 frames per second.
    assert results.rows[0].macs_per_second == 26_000_000


def test_hashes_of_configurations_that_use_no_later_option_stay_as_they_were():
    # Rows of the first version hold these hashes: a change here would make every committed row count as missing.
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


HASH_OF_DENSE = "bfb6ef3fb49b5112262e853b79e1cb2ec1f70cf09e1b9a9832742485b17d5abd"


def test_systems_are_told_apart():
    config = make_config()
    assert system_name(config) == ""
    assert system_name(at_every_third_frame(config)) == "every 3rd frame"


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
    assert (results.headline, size.speakers, size.words, size.interval) == ("all", 13, 650, "bootstrap")
    assert (results.interval, results.tests["noisy"].interval) == ("t", "bootstrap")
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
    assert "test: t interval over 3 speakers" in text and "all tests: bootstrap over speakers" in text


def test_the_union_of_the_same_speakers_is_no_headline(tmp_path):
    config = make_config({"extra_tests": ["noisy"]})
    results = results_of((config, make_run(tmp_path, config, speakers=3)))
    assert (results.headline, results.tests["all"].speakers) == ("test", 3)
    assert not any("Verdicts are over" in line for line in cautions(results))


def test_figures_of_ctc_have_names_of_their_own(tmp_path):
    config = make_config()
    run = config, make_run(tmp_path, config)
    build(config, run[1], 1)
    text = (run[1].report / "report.md").read_text(encoding="utf-8")
    assert "| dev CE | dev frame error % |" in text and "per token" not in text
    for path in (run[1].net("dense").parent).glob("*/summary.json"):
        edit(path, lambda value: value.update(criterion="ctc"))
    assert {row.criterion for row in results_of(run).rows} == {"ctc"}
    build(config, run[1], 1)
    text = (run[1].report / "report.md").read_text(encoding="utf-8")
    assert "| dev loss per token | dev token error % |" in text and "difference of dev loss per token" in text
    assert "dev CE" not in text and "frame error" not in text and "ross-entropy" not in text
    plots = "".join(path.read_text(encoding="utf-8") for path in (run[1].report / "plots").glob("*.svg"))
    assert "CTC loss on dev (nats per token)" in plots and "token error on dev (%)" in plots and "ross-entropy" not in plots


def test_signal_over_the_updates_of_retention_learning(run):
    config, paths = run
    correlations = [(0.1, 0.3), (0.4, None), (None, None), (0.6, 0.8), (0.0, 0.2)]
    updates = [
        {
            "epoch": 1.5,
            "pass": 1 + number // 3,
            "update": number % 3,
            "frames": 512,
            "split_half": {"score": list(pair), "mean_field": [0.9, 0.9]},
        }
        for number, pair in enumerate(correlations)
    ]
    edit(paths.net(COMPACT) / "summary.json", lambda value: value.update(signals=updates))
    rows = {row.name: row for row in results_of(run).rows}
    # Means over layers: 0.2, 0.4, not measured, 0.7, 0.1.
    signal = rows[COMPACT].signals["score"]
    assert (signal.first, signal.median, signal.last) == pytest.approx((0.2, 0.3, 0.1))
    assert rows["dropout_compaction@0.125"].signals == {}
    build(config, paths, 1)
    text = (paths.report / "report.md").read_text(encoding="utf-8")
    assert "| dropout compaction 1/4 | score | first of 5 | 0.200 | 0.100 | 0.300 |" in text
    assert "| dropout compaction 1/4 | score | last | 0.100 | 0.000 | 0.200 |" in text
    plot = (paths.report / "plots" / "signal-dropout-compaction-0-25.svg").read_text(encoding="utf-8")
    assert "score" in plot and "mean_field" in plot and not list((paths.report / "plots").glob("signal-*0-125.svg"))


def test_output_units_are_told_with_their_tying(run):
    config, paths = run
    build(config, paths, 1)
    text = (paths.report / "report.md").read_text(encoding="utf-8")
    assert "output units: 126, states of left biphones, tied by likelihood (clustered)" in text
