"""Stage 9 on a run made by hand: tables, files, page and cautions."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from dropasr.errors import DataError, MeasurementError, StageError
from dropasr.report import plots
from dropasr.report.build import build
from dropasr.report.inputs import InputsLeft
from dropasr.report.load import load_run
from dropasr.report.page import Text
from dropasr.report.schema import check_results
from dropasr.report.sections import at_edge, cautions, headline, leaves_words_out, main_section
from dropasr.report.tables import count, short_units, sizes, terminal_table, units

sys.path.insert(0, str(Path(__file__).parent))
from report_case import edit, make_config, make_run, results_of  # noqa: E402 (the folder above is on the path only now)

COMPACT = "dropout_compaction@0.25"


@pytest.fixture
def run(tmp_path):
    config = make_config()
    return config, make_run(tmp_path, config)


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
            ["same test utterances", "s3-0"],
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


def test_inputs_that_are_left_are_told_where_some_were_removed(run):
    def with_inputs(value):
        before, after = ([count, *value["units"]] for count in (36, 20))
        value["compactions"].append({"epoch": 3, "units_before": before, "units_after": after, "max_difference": 0.0, "largest_logit": 1.0})

    edit(run[1].net(COMPACT) / "summary.json", with_inputs)
    results = results_of(run)
    inputs = {row.name: row.inputs for row in results.rows}
    assert inputs.pop(COMPACT) == 20 and set(inputs.values()) == {None}
    assert sizes(next(row for row in results.rows if row.name == COMPACT)).startswith("20 in, ")
    assert "20 in," in terminal_table(results)


def test_inputs_that_are_left_are_drawn(run):
    """Two features of five frames: the current one whole, of the others nothing but the first feature of the last."""
    config, paths = run
    left = {"num_features": 2, "context": [2, 2], "inputs": [4, 5, 8]}
    probabilities = [{"counts": [3, *[0] * 18, 7], "kept": kept, "total": 10} for kept in (3, 30, 28)]

    def with_inputs(value):
        value["inputs_left"] = left
        value["retention"] = [{"epoch": 2, "layers": probabilities}]
        value["estimators"] = {"mean_field": {"split_half": [0.5, 0.6, 0.7], "frames": 64}}

    edit(paths.net(COMPACT) / "summary.json", with_inputs)
    build(config, paths, 1)
    text = (paths.report / "report.md").read_text(encoding="utf-8")
    assert "dropout compaction 1/4: 3 of 10 inputs left, dark where one is" in text
    assert sorted(path.name for path in (paths.report / "plots").glob("inputs-*.svg")) == ["inputs-dropout-compaction-0-25.svg"]
    # In the table of the signal of each group of units, a net without inputs that may leave has no figure for them.
    assert "| net | estimator | frames | inputs | layer 1 | layer 2 |" in text
    assert "| dropout compaction 1/4 | mean_field | 64 | 0.500 | 0.600 | 0.700 |" in text
    assert "| dropout compaction 1/8 | mean_field | 4096 |  | 0.910 | 0.850 |" in text
    histograms = (paths.report / "plots" / "retention-dropout-compaction-0-25.svg").read_text(encoding="utf-8")
    assert ["inputs: 3 kept" in histograms, "layer 1: 30 kept" in histograms, "layer 3" in histograms] == [True, True, False]


def test_the_picture_of_inputs_has_each_in_its_place(monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "svg", lambda figure, name: drawn.update(figure=figure) or "")
    plots.inputs_left("net", "title", InputsLeft(num_features=2, context=(2, 2), inputs=[4, 5, 8]))
    middle, above, beside = drawn["figure"].axes
    assert middle.collections[0].get_array().reshape(2, 5).tolist() == [[0, 0, 1, 0, 1], [0, 0, 1, 0, 0]]
    assert [(round(bar.get_x() + 0.4), bar.get_height()) for bar in above.patches] == [(-2, 0), (-1, 0), (0, 100), (1, 0), (2, 50)]
    assert [(bar.get_y() + 0.5, bar.get_width()) for bar in beside.patches] == [(0, 40), (1, 20)]


@pytest.mark.parametrize(
    ("deleted", "inserted", "penalty", "told"), [(60, 10, 0.0, True), (60, 70, 0.0, False), (15, 0, 0.0, False), (60, 10, -4.0, False)]
)
def test_words_left_out_are_told(run, deleted, inserted, penalty, told):
    def worsen(value):
        dev = value["dev"]
        counts = {"sub": 0, "del": deleted, "ins": inserted}
        for item in dev["utterances"]:
            item.update({"sub": 0, "del": 0, "ins": 0})
        dev["utterances"][0].update(counts)
        dev.update({**counts, "errors": deleted + inserted, "wer": (deleted + inserted) / dev["words"] * 100})
        value["insertion_penalty"] = penalty

    assert not any(leaves_words_out(net) for net in load_run(*run).nets)
    edit(run[1].scores(COMPACT), worsen)
    assert leaves_words_out(next(net for net in load_run(*run).nets if net.name == COMPACT)) is told
    said = " ".join(block.text for block in main_section(load_run(*run), results_of(run)) if isinstance(block, Text))
    assert ("decode.insertion_penalties=[-6,-4,-2,0]" in said) is told


def test_one_speaker_is_said(tmp_path):
    config = make_config()
    config = config.model_copy(update={"corpus": config.corpus.model_copy(update={"one_speaker": True})})
    run = config, make_run(tmp_path, config, speakers=1)
    results = results_of(run)
    assert results.bootstrap_unit == "utterance"
    told = " ".join(cautions(results))
    assert "one speaker" in told and "utterances instead of speakers" in told


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
