"""Acoustic models timed again as nets of their rows' sizes: the nets, the times in the files, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_case import Exported
from conftest import TINY

from dropasr.bench import retime
from dropasr.decoding.search import PLAIN
from dropasr.errors import MeasurementError, StageError
from dropasr.models.checkpoint import load_net
from dropasr.models.feedforward import FeedForward
from dropasr.paths import Paths
from dropasr.report.recipe import rewrite
from dropasr.report.results import evaluations_per_second
from dropasr.report.schema import ResultRow
from dropasr.runtime.rtf import Searches
from dropasr.runtime.timing import Audio

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "report"))
from recipe_case import COMPACT4, COMPACT8, finish, make_recipe, read  # noqa: E402 (the folder above is on the path only now)
from report_case import edit, make_config, make_run  # noqa: E402

CONFIG = make_config(budgets=[0.25, 0.125]).model_copy(update={"model": {"name": "feedforward", "layers": 2, "width": 64}})
INPUTS, OUTPUTS = 17 * 40, 30


def figures_of(folder: Path, net: FeedForward, inputs: int | None = None) -> ResultRow:
    """The figures of a row of that net."""
    row = json.loads(next((folder / "rows").glob("*dense-seed1.json")).read_text(encoding="utf-8"))
    sizes = {"units": [gate.width for gate in net.gates], "inputs": inputs, "parameters": sum(value.numel() for value in net.parameters())}
    macs = sum(layer.weight.numel() for layer in net.modules() if isinstance(layer, torch.nn.Linear))
    return ResultRow.model_validate({**row["figures"], **sizes, "macs_per_second": macs * evaluations_per_second(CONFIG)})


def large() -> FeedForward:
    return FeedForward(40, (8, 8), [64, 64], OUTPUTS)


@pytest.mark.parametrize(
    "net, inputs",
    [
        (large(), None),
        (large(), INPUTS),
        (FeedForward(40, (8, 8), [20, 31], OUTPUTS), None),
        (FeedForward(40, (8, 8), [20, 31], OUTPUTS, inputs=list(range(3, 600, 7))), 86),
    ],
)
def test_nets_have_the_sizes_of_their_rows(tmp_path, net, inputs):
    folder = make_recipe(tmp_path, seeds=(1,))
    found = retime.net_of(figures_of(folder, net, inputs), figures_of(folder, large()), CONFIG)
    assert [list(value.shape) for value in found.parameters()] == [list(value.shape) for value in net.parameters()]
    assert (found.inputs is None) == (net.inputs is None) and not found.training
    assert found.logits(torch.randn(5, 40)).shape == (5, OUTPUTS)


def test_matrices_of_low_rank_have_the_multiply_adds_of_their_row(tmp_path):
    folder = make_recipe(tmp_path, seeds=(1,))
    net = FeedForward(40, (8, 8), [64, 64], OUTPUTS, ranks=[12, 9, 7])
    found = retime.net_of(figures_of(folder, net), figures_of(folder, large()), CONFIG)
    assert all(found.ranks) and found.widths == [64, 64]
    macs = 12 * (INPUTS + 64) + 9 * (64 + 64) + 7 * (64 + OUTPUTS)
    assert found.macs_per_frame() == pytest.approx(macs, rel=0.02)


def test_a_net_of_other_sizes_is_refused(tmp_path):
    folder = make_recipe(tmp_path, seeds=(1,))
    figures = figures_of(folder, FeedForward(40, (8, 8), [20, 31], OUTPUTS)).model_copy(update={"units": [20, 32]})
    with pytest.raises(
        MeasurementError, match=r"row dense, seed 1: expected a net of 15150 multiply-adds per frame, its sizes make one of"
    ):
        retime.net_of(figures, figures_of(folder, large()), CONFIG)


class Stubbed:
    """A recipe of two seeds to which 1/8 was added on a machine of half the speed; its models take `seconds` when timed again."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = CONFIG.model_copy(update={"rtf": CONFIG.rtf.model_copy(update={"repeats": 2, "utterances": 3})})
        self.folder = make_recipe(root, seeds=(1, 2), config=make_config(budgets=[0.25]))
        later = make_config(budgets=[0.125], large=["dense"])
        for seed in (1, 2):
            paths = make_run(root / "later", later, seed)
            edit(paths.rtf, self._halved)
            finish(later, paths, self.folder)
        self.seconds = {"dense": 0.04, "annealed_dropout": 0.04, "small_dense@0.25": 0.01, COMPACT4: 0.01, "small_dense@0.125": 0.008}
        self.seconds[COMPACT8] = 0.005
        self.paths = paths
        paths.features("test").mkdir(parents=True, exist_ok=True)
        self.audio = [Audio(str(number), np.zeros(1, np.float32), 10.0) for number in range(3)]
        for name, value in {
            "net_of": lambda figures, reference, config: None,
            "check_load": lambda under_load: 0.0,
            "load_audio": lambda config, paths: self.audio,
            "Searches": lambda config, paths: {PLAIN: None},
            "_seconds": lambda config, paths, nets, audio, search: {net: np.full((2, 3), self.seconds[net]) for net in nets},
        }.items():
            monkeypatch.setattr(retime, name, value)

    @staticmethod
    def _halved(timing):
        for row in timing["rows"].values():
            for part in ("features", "model", "search", "total"):
                row[part] *= 2
            for part in ("model", "total"):
                row[f"per_utterance_{part}_seconds"] = [[2 * value for value in line] for line in row[f"per_utterance_{part}_seconds"]]

    def run(self) -> str:
        return retime.retime(self.config, self.paths, self.folder)


def test_all_rows_of_a_seed_have_one_timing_afterwards(tmp_path, monkeypatch):
    """Features and search take 0.06 s in the first run and 0.12 s in the later one."""
    case = Stubbed(tmp_path, monkeypatch)
    before = {row.name: row for row in read(case.folder).rows}
    assert "nets of the rows' sizes timed in one run per seed: 6 of seed 1, 6 of seed 2" in case.run()
    results = read(case.folder)
    rows = {row.name: row for row in results.rows}
    assert (results.timings, results.retimed) == (1, 12)
    assert rows[COMPACT4].speedup.model == pytest.approx(4.0) and rows[COMPACT8].speedup.model == pytest.approx(8.0)
    assert rows[COMPACT4].speedup.total == pytest.approx((0.06 + 0.04) / (0.06 + 0.01))
    assert rows[COMPACT8].speedup.total == pytest.approx((0.12 + 0.04) / (0.12 + 0.005))
    assert [rows[name].rtf.model for name in ("dense", COMPACT4, COMPACT8)] == pytest.approx([0.004, 0.001, 0.0005])
    assert {name: row.wer for name, row in rows.items()} == {name: row.wer for name, row in before.items()}
    page = (case.folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "Acoustic models of all rows were timed again" in page and "Rows were added" not in page
    again = {path: path.read_bytes() for path in (case.folder / "rows").iterdir()}
    case.run()  # the same times change nothing
    assert {path: path.read_bytes() for path in (case.folder / "rows").iterdir()} == again


def test_rows_added_after_it_say_so(tmp_path, monkeypatch):
    case = Stubbed(tmp_path, monkeypatch)
    case.run()
    config = make_config(budgets=[0.0625], large=["dense"])
    for seed in (1, 2):
        finish(config, make_run(tmp_path / "last", config, seed), case.folder)
    results = read(case.folder)
    assert (results.timings, results.retimed) == (2, 12)
    page = (case.folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "Acoustic models of 12 nets (rows times seeds) were timed again" in page and "Rows were added" in page


def test_a_run_that_ended_half_way_is_noticed(tmp_path, monkeypatch):
    """The reference is written last, so its old times stand beside rows that say they were timed again."""
    case = Stubbed(tmp_path, monkeypatch)
    written = []

    def killed(folder, row):
        if row.figures.name == "dense":
            raise KeyboardInterrupt
        written.append(row)
        rewrite(folder, row)

    monkeypatch.setattr(retime, "rewrite", killed)
    with pytest.raises(KeyboardInterrupt):
        case.run()
    assert len(written) == 10
    with pytest.raises(MeasurementError, match="was timed again, but not beside dense as it is there"):
        read(case.folder)
    monkeypatch.setattr(retime, "rewrite", rewrite)
    case.run()
    assert read(case.folder).retimed == 12


def test_rows_without_their_reference_are_refused(tmp_path, monkeypatch):
    case = Stubbed(tmp_path, monkeypatch)
    next((case.folder / "rows").glob("*-dense-seed2.json")).unlink()
    for path in (case.folder / "rows").glob("*annealed*"):
        path.unlink()
    with pytest.raises(MeasurementError, match=r"seed 2: was not timed beside the large net.*dense\. Run the recipe again"):
        case.run()


def test_what_cannot_be_timed_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    case = Stubbed(tmp_path, monkeypatch)
    before = {path: path.read_bytes() for path in (case.folder / "rows").iterdir()}
    case.audio.pop()
    with pytest.raises(MeasurementError, match="2 passes of 3 utterances were timed, the configuration names 2 of 2"):
        case.run()
    assert {path: path.read_bytes() for path in (case.folder / "rows").iterdir()} == before
    case.paths.features("test").rmdir()
    with pytest.raises(StageError, match="no features of test"):
        case.run()
    with pytest.raises(MeasurementError, match="only feed-forward nets"):
        for path in before:
            edit(path, lambda row: row["figures"].update(model="lstm"))
        retime.retime(case.config, Paths(case.paths.data_dir, case.paths.exp_dir, "lstm", 1), case.folder)
    for path, content in before.items():
        path.write_bytes(content)
    other = case.config.model_copy(update={"corpus": case.config.corpus.model_copy(update={"name": "other"})})
    with pytest.raises(StageError, match="no rows of other, feedforward"):
        retime.retime(other, case.paths, case.folder)
    assert {path: path.read_bytes() for path in (case.folder / "rows").iterdir()} == before


def test_models_are_timed_between_features_and_search(tmp_path, monkeypatch):
    """With real nets and the search of an experiment; every pass takes all utterances."""
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    exported = Exported(tmp_path, tmp_path / "tiny.yaml")
    exported.without_audio(monkeypatch, retime)
    config, paths = exported.config, exported.paths
    search, called = Searches(config, paths).get(PLAIN), []
    monkeypatch.setattr(search, "decode", lambda scores: called.append(scores[0].shape))
    nets = {name: (load_net(paths.net(name)), 0.1) for name in ("dense", "annealed_dropout")}
    found = retime._seconds(config, paths, nets, retime.load_audio(config, paths), search)
    assert all(seconds.shape == (2, 5) and (seconds > 0).all() for seconds in found.values())
    outputs = nets["dense"][0].num_outputs
    assert len(called) == 2 * (2 * 5 + 3) and all(shape[1] == outputs for shape in called)
