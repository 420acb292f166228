"""Rows of finished runs in the folder of a recipe: kept, refused, and fewer seeds than others."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from dropasr.config import Config
from dropasr.errors import ConfigError, MeasurementError, StageError
from dropasr.report.build import build
from dropasr.report.recipe import collect, row_path, table

sys.path.insert(0, str(Path(__file__).parent))
from recipe_case import COMPACT4, COMPACT8, MANY_WORDS, finish, make_recipe, read, spoil  # noqa: E402 (the folder above is on the path only now)
from report_case import edit, make_config, make_run  # noqa: E402


def test_collected_rows_are_left_alone(tmp_path, capsys):
    folder = make_recipe(tmp_path, seeds=(1,))
    before = {path: path.stat().st_mtime_ns for path in (folder / "rows").iterdir()}
    shutil.rmtree(tmp_path / "exp")  # a fresh clone has the rows and no experiment
    config = make_config()
    paths = make_run(tmp_path / "empty", config)
    collect(config, paths, folder)
    assert "already in recipe/rows" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (folder / "rows").iterdir()} == before


def test_rows_of_another_configuration_are_not_overwritten(tmp_path):
    folder = make_recipe(tmp_path, seeds=(1,))
    before = {path: path.read_bytes() for path in (folder / "rows").iterdir()}
    config = make_config()
    changed = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 99})})
    paths = make_run(tmp_path / "changed", changed)
    build(changed, paths, 1)
    with pytest.raises(StageError, match="dense-seed1.json: a row of another configuration.*nothing was overwritten"):
        collect(changed, paths, folder)
    assert {path: path.read_bytes() for path in (folder / "rows").iterdir()} == before


def test_unfinished_or_stale_runs_are_not_collected(tmp_path):
    config = make_config()
    paths = make_run(tmp_path, config)
    with pytest.raises(StageError, match="no finished run"):
        collect(config, paths, tmp_path / "recipe")
    build(config, paths, 1)
    changed = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 99})})
    with pytest.raises(StageError, match="another configuration"):
        collect(changed, paths, tmp_path / "recipe")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.update(config_hash="other"), "different configurations"),
        (lambda value: value.update(timing_id="other"), "not timed together"),
        (lambda value: value["utterances"][0].__setitem__(2, 9), "other test utterances"),
        (lambda value: value["stack"].update(beam=3.0), "decoded with"),
        (lambda value: value.pop("timing_id"), "timing_id: Field required"),
        (lambda value: value.update(corpus="second"), "no row of a large net"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(tmp_path, change, words):
    folder = make_recipe(tmp_path)
    spoil(folder, COMPACT4, change)
    with pytest.raises(MeasurementError, match=words):
        table(folder)


FEWER = {
    1: {COMPACT4: 2, "small_dense@0.25": 4},
    2: {COMPACT4: 9, "dense": 99, "small_dense@0.25": 99},
    3: {COMPACT4: 4, "small_dense@0.25": 6},
}  # errors of a speaker in 1250 words


def test_a_row_may_have_fewer_seeds_and_says_so(tmp_path):
    folder = make_recipe(tmp_path, errors={1: {COMPACT4: 2}, 2: {COMPACT4: 9, "dense": 3}, 3: {COMPACT4: 4}})
    row_path(folder, "hand", "feedforward", COMPACT4, 2).unlink()
    row = next(row for row in read(folder).rows if row.name == COMPACT4)
    # Against the reference on seeds 1 and 3 alone: 2 and 4 errors in 50 words per speaker against 2 and 2.
    assert row.seeds == [1, 3] and row.wer == pytest.approx(6.0) and row.wer_difference.mean == pytest.approx(2.0)
    assert "dropout compaction 1/4 (seeds 1, 3)" in (folder / "RESULTS.md").read_text(encoding="utf-8")
    # Beside the reference, its rate is over the same seeds too, and beside the rival, that of both.
    results = read(make_recipe(tmp_path / "many", errors=FEWER, **MANY_WORDS))
    row_path(tmp_path / "many" / "recipe", "hand", "feedforward", COMPACT4, 2).unlink()
    results = read(tmp_path / "many" / "recipe")
    against = {claim.to: claim for claim in results.claims if claim.row == COMPACT4}
    assert "WER 0.24 % against 0.16 %" in against["dense"].evidence and "(seeds 1, 3)" in against["dense"].claim
    (item,) = (item for item in results.comparisons if item.row == COMPACT4)
    assert item.seeds == [1, 3] and item.rates == pytest.approx((0.24, 0.40)) and item.difference.mean == pytest.approx(-0.16)
    text = (tmp_path / "many" / "recipe" / "RESULTS.md").read_text(encoding="utf-8")
    assert "| dropout compaction 1/4 (seeds 1, 3) | small dense from scratch 1/4 | 0.24 | 0.40 |" in text
    for name in ("dense", "annealed_dropout"):
        row_path(folder, "hand", "feedforward", name, 3).unlink()
    with pytest.raises(MeasurementError, match=r"expected seeds among \[1, 2\] as of dense, found \[1, 2, 3\]"):
        table(folder)


def added(root: Path, slower: float, large=("dense",), errors: int = 2) -> tuple[Config, Path]:
    """A recipe of one seed with the nets of 1/4, to which those of 1/8 were added on a machine that takes `slower` times as long."""
    folder = make_recipe(root, seeds=(1,), config=make_config(budgets=[0.25]))
    config = make_config(budgets=[0.125], large=list(large))
    paths = make_run(root / "later", config, errors={"dense": 9, COMPACT8: errors})

    def times(timing):
        for row in timing["rows"].values():
            for part in ("features", "model", "search", "total"):
                row[part] *= slower
            for part in ("model", "total"):
                row[f"per_utterance_{part}_seconds"] = [[slower * value for value in line] for line in row[f"per_utterance_{part}_seconds"]]

    edit(paths.rtf, times)
    finish(config, paths, folder)
    return config, folder


def test_methods_are_added_beside_the_large_net(tmp_path):
    """The net of 1/8 takes 0.01 s where the large one takes 0.08: on a machine of half the speed 0.02 and 0.16."""
    _, folder = added(tmp_path, slower=2.0)
    results = read(folder)
    rows = {row.name: row for row in results.rows}
    assert results.timings == 2 and "RTFs of added rows are scaled" in (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert rows["dense"].wer == pytest.approx(4.0)  # as it was, not the 18 % of the net trained again
    assert rows[COMPACT8].wer_difference.mean == pytest.approx(0.0) and rows[COMPACT4].speedup.model == pytest.approx(4.0)
    assert rows[COMPACT8].speedup.model == pytest.approx(8.0) and rows[COMPACT8].speedup_spread.per_seed == pytest.approx([8.0])
    total = (0.01 + 0.08 + 0.05) / (0.01 + 0.01 + 0.05)
    assert rows[COMPACT8].speedup.total == pytest.approx(total)
    assert rows[COMPACT8].rtf.model == pytest.approx(0.001) and rows[COMPACT8].rtf.search == pytest.approx(0.005)
    assert rows[COMPACT4].rtf.model == pytest.approx(0.002) and rows["dense"].rtf.model == pytest.approx(0.008)


def test_what_is_added_twice_is_kept_once(tmp_path):
    config, folder = added(tmp_path, slower=2.0)
    before = {path: path.read_bytes() for path in (folder / "rows").iterdir()}
    row_path(folder, "hand", "feedforward", COMPACT8, 1).unlink()
    finish(config, make_run(tmp_path / "later", config, errors={COMPACT8: 2}), folder)  # timed once more, at full speed
    assert len(before) == 6 and {path.name for path in (folder / "rows").iterdir()} == {path.name for path in before}
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert changed == {f"hand-feedforward-{name}-seed1.json" for name in ("dense", COMPACT8)}
    assert read(folder).timings == 3
    finish(config, make_run(tmp_path / "later", config), folder)
    assert read(folder).timings == 3


def test_added_rows_need_the_reference_beside_them(tmp_path):
    """Said before anything is trained; the row's times are looked at again when the table is made."""
    folder = make_recipe(tmp_path, seeds=(1,), config=make_config(budgets=[0.25]))
    before = {path: path.read_bytes() for path in (folder / "rows").iterdir()}
    config = make_config(budgets=[0.125], large=["annealed_dropout"])
    with pytest.raises(ConfigError, match=rf"experiment.large: expected dense among them, found annealed_dropout.*\({len(before) - 1}, "):
        collect(config, make_run(tmp_path / "later", config), folder)
    assert {path: path.read_bytes() for path in (folder / "rows").iterdir()} == before
    for path in (folder / "rows").glob("*-dense-*"):  # nothing is left that a net could be measured against
        path.unlink()
    finish(config, make_run(tmp_path / "later", config), folder)

    _, folder = added(tmp_path / "removed", slower=1.0)
    edit(row_path(folder, "hand", "feedforward", "dense", 1), lambda value: value.update(further_timings=[]))
    with pytest.raises(MeasurementError, match="not timed together with dense.*needs dense among experiment.large"):
        table(folder)


def test_rows_of_older_versions_have_one_timing(tmp_path):
    folder = make_recipe(tmp_path)
    spoil(folder, "dense", lambda value: value.pop("further_timings"))
    assert read(folder).timings == 1
