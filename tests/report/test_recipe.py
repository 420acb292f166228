"""Several seeds pooled: files, figures, claims."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from dropasr.config import rows
from dropasr.errors import MeasurementError, StageError
from dropasr.report.build import build
from dropasr.report.load import load_run
from dropasr.report.recipe import collect, load_rows, row_path, table
from dropasr.report.recipe_schema import RecipeResults
from dropasr.report.results import make_results

sys.path.insert(0, str(Path(__file__).parent))
from report_case import dump, edit, make_config, make_run  # noqa: E402 (the folder above is on the path only now)

DOCS = Path(__file__).resolve().parents[2] / "docs"
COMPACT4, COMPACT8 = "dropout_compaction@0.25", "dropout_compaction@0.125"
MANY_WORDS = {"words": 125}  # 4 speakers × 10 utterances × 125 words = 5000


def make_recipe(root: Path, seeds=(1, 2, 3), errors=None, config=None, **split) -> Path:
    config = config or make_config()
    for seed in seeds:
        paths = make_run(root, config, seed, (errors or {}).get(seed), **split)
        dump(paths.results, make_results(config, load_run(config, paths)).model_dump(mode="json"))
        collect(config, paths, root / "recipe")
    return root / "recipe"


def read(folder: Path) -> RecipeResults:
    table(folder)
    return RecipeResults.model_validate(json.loads((folder / "results.json").read_text(encoding="utf-8")))


def test_row_files(tmp_path):
    folder = make_recipe(tmp_path, seeds=(1,))
    path = row_path(folder, "hand", "feedforward", COMPACT4, 1)
    assert path.name == "hand-feedforward-dropout_compaction@0.25-seed1.json"
    assert len(list(path.parent.iterdir())) == len(rows(make_config()))
    value = json.loads(path.read_text(encoding="utf-8"))
    assert value["utterances"][0] == ["s0-0", "s0", 5, 1]
    assert value["figures"]["git_revision"] == "abc1234" and value["figures"]["seed"] == 1
    assert value["test_evaluations"] == 1
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 100_000


def test_seeds_are_pooled(tmp_path):
    # 3, 4, 5 errors in 50 words per speaker: 6, 8, 10 %; mean 8, standard deviation 2; the reference has 4 %.
    folder = make_recipe(tmp_path, errors={1: {COMPACT8: 3}, 2: {COMPACT8: 4}, 3: {COMPACT8: 5}})
    results = read(folder)
    row = next(row for row in results.rows if row.name == COMPACT8)
    assert row.seeds == [1, 2, 3]
    assert row.wer == pytest.approx(8.0)
    assert row.wer_spread.per_seed == pytest.approx([6.0, 8.0, 10.0])
    assert row.wer_spread.std == pytest.approx(2.0)
    assert row.wer_difference.to == "dense"
    assert row.wer_difference.mean == pytest.approx(4.0)
    assert row.wer_difference.interval == pytest.approx((4.0, 4.0))
    assert row.speedup.model == pytest.approx(8.0) and row.speedup_spread.max == pytest.approx(8.0)
    assert [row.name for row in results.rows if row.reference] == ["dense"]
    assert results.test_evaluations == 18
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "8.00 ± 2.00 (6.00 to 10.00)" in text
    assert "abc1234" in text and "a processor" in text and "bash recipes/recipe/run.sh" in text


def test_a_size_as_learned_is_told_and_carries_no_claim(tmp_path):
    config = make_config(compact=["dropout_compaction"])
    free = {**config.methods, "dropout_compaction": {"method": "dropout_compaction", "controller": "none"}}
    folder = make_recipe(tmp_path, config=config.model_copy(update={"methods": free}), **MANY_WORDS)
    results = read(folder)
    assert [row.name for row in results.rows][-1] == "dropout_compaction"
    assert results.claims == [] and results.comparisons == []
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "Dropout compaction, size as learned: 20.0 % of the multiply-adds of the large dense net, mean over seeds." in text


def test_few_words_carry_no_claims(tmp_path, capsys):
    folder = make_recipe(tmp_path)
    assert read(folder).claims == []
    said = "The test set has 200 words; below 5000 no claim is made"
    assert said in (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert said in capsys.readouterr().out


def claims_of(folder: Path) -> dict[tuple[str, str], str]:
    return {(claim.row, "fast" if "times as fast" in claim.claim else claim.to): claim.verdict for claim in read(folder).claims}


def test_claims_that_hold(tmp_path):
    # Per speaker 50 errors in 1250 words are 4 %; the margin is then 0.5, which is 6.25 errors.
    errors = {"dense": 50, "annealed_dropout": 60, COMPACT4: 56, "small_dense@0.125": 80, COMPACT8: 70, "small_dense@0.25": 60}
    verdicts = claims_of(make_recipe(tmp_path, errors={seed: errors for seed in (1, 2, 3)}, **MANY_WORDS))
    assert verdicts == {
        (COMPACT4, "dense"): "holds",
        (COMPACT8, "small_dense@0.125"): "holds",
        (COMPACT4, "fast"): "holds",
        (COMPACT8, "fast"): "holds",
    }


def test_claims_that_fall(tmp_path):
    errors = {"dense": 50, "annealed_dropout": 60, COMPACT4: 57, "small_dense@0.125": 70, COMPACT8: 70, "small_dense@0.25": 60}
    folder = make_recipe(tmp_path, errors={seed: errors for seed in (1, 2, 3)}, **MANY_WORDS)
    for path in (folder / "rows").glob(f"*{COMPACT8}*"):
        edit(path, lambda value: value.update(model_seconds=[[0.03] * 3] * 2))  # 0.08 / 0.03 = 2.7 times as fast
    verdicts = claims_of(folder)
    assert verdicts[COMPACT4, "dense"] == "does not hold"
    assert verdicts[COMPACT8, "small_dense@0.125"] == "tie"
    assert verdicts[COMPACT8, "fast"] == "does not hold"
    assert verdicts[COMPACT4, "fast"] == "holds"
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "does not hold" in text and "| tie |" in text


def test_two_seeds_are_too_few_for_claims(tmp_path):
    verdicts = claims_of(make_recipe(tmp_path, seeds=(1, 2), **MANY_WORDS))
    assert set(verdicts.values()) == {"cannot be claimed"}


def test_relative_margin_counts_where_it_is_larger(tmp_path):
    # Reference 20 %: the margin is 1 % absolute, 12.5 errors per speaker.
    errors = {"dense": 250, "annealed_dropout": 260, COMPACT4: 262}
    verdicts = claims_of(make_recipe(tmp_path, errors={seed: errors for seed in (1, 2, 3)}, **MANY_WORDS))
    assert verdicts[COMPACT4, "dense"] == "holds"


def test_collected_rows_are_left_alone(tmp_path, capsys):
    folder = make_recipe(tmp_path, seeds=(1,))
    before = {path: path.stat().st_mtime_ns for path in (folder / "rows").iterdir()}
    shutil.rmtree(tmp_path / "exp")  # a fresh clone has the rows and no experiment
    config = make_config()
    paths = make_run(tmp_path / "empty", config)
    collect(config, paths, folder)
    assert "already in recipe/rows" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (folder / "rows").iterdir()} == before


def test_unfinished_or_stale_runs_are_not_collected(tmp_path):
    config = make_config()
    paths = make_run(tmp_path, config)
    with pytest.raises(StageError, match="no finished run"):
        collect(config, paths, tmp_path / "recipe")
    build(config, paths, 1)
    changed = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 99})})
    with pytest.raises(StageError, match="another configuration"):
        collect(changed, paths, tmp_path / "recipe")


def spoil(folder: Path, name: str, change) -> None:
    edit(row_path(folder, "hand", "feedforward", name, 2), change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.update(config_hash="other"), "different configurations"),
        (lambda value: value.update(timing_id="other"), "not timed together"),
        (lambda value: value["utterances"][0].__setitem__(2, 9), "other test utterances"),
        (lambda value: value["stack"].update(beam=3.0), "decoded with"),
        (lambda value: value.pop("timing_id"), "timing_id: Field required"),
        (lambda value: value.update(corpus="second"), "one corpus"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(tmp_path, change, words):
    folder = make_recipe(tmp_path)
    spoil(folder, COMPACT4, change)
    with pytest.raises(MeasurementError, match=words):
        table(folder)


def test_a_missing_seed_is_refused(tmp_path):
    folder = make_recipe(tmp_path)
    row_path(folder, "hand", "feedforward", COMPACT4, 2).unlink()
    with pytest.raises(MeasurementError, match=r"expected seeds \[1, 2, 3\].*found \[1, 3\]"):
        table(folder)


def test_recipe_without_rows(tmp_path):
    with pytest.raises(StageError, match="no rows"):
        load_rows(tmp_path)


def test_schema_in_docs_is_the_one_in_code():
    assert json.loads((DOCS / "recipe-results.schema.json").read_text(encoding="utf-8")) == RecipeResults.model_json_schema()
