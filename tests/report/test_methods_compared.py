"""Many methods of one budget against dropout compaction: what is compared, the tables against figures made up by hand, the front."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

from dropasr.config import rows
from dropasr.errors import MeasurementError
from dropasr.paths import Paths
from dropasr.report.build import build
from dropasr.report.load import load_run
from dropasr.report.pareto import SAME_TIME, front
from dropasr.report.recipe import recipe_command, row_path, table
from dropasr.report.recipe_schema import RecipeResults
from dropasr.report.results import make_results
from dropasr.report.rivals import are_many, pairs, subjects
from dropasr.report.schema import Results
from dropasr.report.sections import cautions

sys.path.insert(0, str(Path(__file__).parent))
from recipe_case import finish, read  # noqa: E402 (the folder above is on the path only now)
from report_case import edit, make_config, make_run  # noqa: E402 (the folder above is on the path only now)

COMPACT = ["dropout_compaction", "svd", "norm_removal", "dropnet", "adaptive_dropout_published"]
LARGE = ["dense", "dropout", "approximate_random_dropout"]
# Errors of a speaker in 50 words: one error is 2 %. Intervals over speakers have no width, so any difference is one.
ERRORS = {
    "dense": 2,
    "dropout": 3,
    "approximate_random_dropout": 4,
    "small_dense@0.25": 4,
    "dropout_compaction@0.25": 3,
    "svd@0.25": 2,
    "norm_removal@0.25": 3,
    "dropnet@0.25": 5,
    "small_dense@0.125": 6,
    "dropout_compaction@0.125": 4,
    "svd@0.125": 6,
    "norm_removal@0.125": 5,
    "dropnet@0.125": 7,
    "adaptive_dropout_published": 9,
}


def make_compared(note: str = "", compact=tuple(COMPACT), corpus: str = "hand"):
    config = make_config(large=LARGE, small=["dense"], compact=list(compact), budgets=[0.25, 0.125], note=note)
    names = {*LARGE, *compact}
    methods = {name: {"method": name} for name in names}
    methods["adaptive_dropout_published"] = {"method": "adaptive_dropout", "controller": "none"}
    corpus_config = config.corpus.model_copy(update={"name": corpus})
    return config.model_copy(update={"methods": methods, "corpus": corpus_config})


def make_recipe(root: Path, errors=None, config=None, seeds=(1, 2, 3), folder=None, **split) -> Path:
    config, folder = config or make_compared(), folder or root / "recipe"
    for seed in seeds:
        paths = make_run(root, config, seed, {**ERRORS, **(errors or {}).get(seed, {})}, **split)
        edit(paths.net("dropout") / "summary.json", lambda value: value.update(train_seconds=50.0))
        edit(paths.net("svd@0.25") / "summary.json", lambda value, seed=seed: value.update(nonzeros=100_000 * seed))
        finish(config, paths, folder)
    return folder


def page(folder: Path) -> str:
    return (folder / "RESULTS.md").read_text(encoding="utf-8")


def lines_of(text: str, heading: str) -> dict[str, list[str]]:
    """The lines of the first table below a heading (or a line) by their first cell."""
    block = text[text.index(heading) :]
    lines = block[block.index("\n| ") + 1 :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {line[0]: line[1:] for line in cells[2:]}


def test_two_methods_are_no_comparison_and_three_are(tmp_path):
    few = make_compared(compact=["dropout_compaction", "svd"])
    found = make_results(few, load_run(few, make_run(tmp_path, few))).rows
    assert not are_many(found)
    assert {(row.name, other.name) for row, other in pairs(found)} == {
        (f"{method}@{budget}", f"small_dense@{budget}") for method in ("dropout_compaction", "svd") for budget in (0.25, 0.125)
    }
    without = make_compared(compact=["svd", "dropnet", "norm_removal", "random_removal"])
    assert not are_many(make_results(without, load_run(without, make_run(tmp_path / "without", without))).rows)


def test_every_net_is_compared_with_dropout_compaction_of_its_size(tmp_path):
    config = make_compared()
    found = make_results(config, load_run(config, make_run(tmp_path, config))).rows
    assert are_many(found) and {row.name for row in subjects(found)} == {"dropout_compaction@0.25", "dropout_compaction@0.125"}
    at = {b: {f"{m}@{b}" for m in ("small_dense", "svd", "norm_removal", "dropnet")} for b in (0.25, 0.125)}
    expected = {(name, f"dropout_compaction@{budget}") for budget in at for name in at[budget]}
    expected |= {("dense", "dropout"), ("approximate_random_dropout", "dropout")}
    assert {(row.name, other.name) for row, other in pairs(found)} == expected


def test_table_of_a_budget(tmp_path):
    # Seeds of dropnet at 1/8: 7, 8, 9 errors are 14, 16, 18 %: 16 ± 2, dropout compaction 8.
    text = page_of(tmp_path, {1: {}, 2: {"dropnet@0.125": 8}, 3: {"dropnet@0.125": 9}})
    found = lines_of(text, "## At 1/8 of the multiply-adds, on test")
    assert list(found) == [
        "dropout compaction 1/8",
        "norm removal 1/8",
        *sorted(["svd 1/8", "small dense from scratch 1/8"], key=list(found).index),
        "dropnet 1/8",
    ]
    assert found["dropnet 1/8"][:3] == ["16.00 ± 2.00", "+8.00 [+8.00, +8.00]", "worse"]
    assert found["dropout compaction 1/8"][:3] == ["8.00 ± 0.00", "–", "–"]
    # Units 16 and 17; an eighth of 800,000 parameters and of 78 million multiply-adds a second; 10 s of speech take 0.01 s instead of 0.08.
    assert found["norm removal 1/8"] == [
        *("10.00 ± 0.00", "+2.00 [+2.00, +2.00]", "worse", "1.5500", "16 17", "100k", "–", "9.75M", "0.0010", "8.00 [8.00, 8.00]", "40")
    ]
    quarter = lines_of(text, "## At 1/4 of the multiply-adds, on test")
    assert list(quarter)[0] == "svd 1/4" and quarter["svd 1/4"][:3] == ["4.00 ± 0.00", "-2.00 [-2.00, -2.00]", "better"]
    assert quarter["norm removal 1/4"][1:3] == ["+0.00 [+0.00, +0.00]", "tie"]
    assert quarter["svd 1/4"][6] == "200k", "non-zeros: mean of 100, 200 and 300 thousand"


def page_of(root: Path, errors=None, **options) -> str:
    folder = make_recipe(root, errors, **options)
    table(folder)
    return page(folder)


def test_overview_by_method_and_budget(tmp_path):
    text = page_of(tmp_path)
    found = lines_of(text, "would be called better or worse by chance")
    # Mean over both budgets: dropout compaction 3.5 errors, norm and svd 4, from scratch 5, dropnet 6.
    assert list(found) == ["dropout compaction", "norm removal", "svd", "dense from scratch", "dropnet"]
    assert found["svd"] == ["4.00 ± 0.00 (better)", "12.00 ± 0.00 (worse)"]
    assert found["norm removal"] == ["6.00 ± 0.00", "10.00 ± 0.00 (worse)"]
    assert "8 comparisons with intervals of 95 % each" in text


def test_place_of_dropout_compaction(tmp_path):
    text = page_of(tmp_path)
    assert (
        "At 1/4, dropout compaction has place 2 of 5 by mean WER (lowest: svd, 4.00 %). By interval, better than it: svd; worse: dense "
        "from scratch, dropnet; ties: norm removal."
    ) in text
    assert (
        "At 1/8, dropout compaction has place 1 of 5 by mean WER (lowest: dropout compaction, 8.00 %). By interval, better than it: none;"
        in text
    )


def test_the_variant_that_dev_chooses_is_compared_on_test(tmp_path, monkeypatch):
    dev = {"online_compaction@0.25": 1, "dropout_compaction@0.25": 2, "online_compaction@0.125": 9, "dropout_compaction@0.125": 2}
    monkeypatch.setitem(make_run.__globals__, "DEV_ERRORS", {**make_run.__globals__["DEV_ERRORS"], **dev})
    errors = {"online_compaction@0.25": 4, "online_compaction@0.125": 3}
    config = make_compared(compact=(*COMPACT, "online_compaction"))
    text = page_of(tmp_path, {seed: errors for seed in (1, 2, 3)}, config=config)
    chosen = (
        "At 1/4, of the variants of dropout compaction dev chooses online compaction (WER on dev 2.00 %). On test, online compaction has"
    )
    assert f"{chosen} place 4 of 6 by mean WER (lowest: svd, 4.00 %). By interval, better than it: svd, " in text
    assert "svd, dropout compaction, norm removal; worse: dropnet; ties: dense from scratch." in text
    quarter = lines_of(text, "## At 1/4 of the multiply-adds, on test")
    assert "| training s | difference to online compaction [95 %] |" in text
    assert quarter["svd 1/4"][-1] == "-4.00 [-4.00, -4.00]" and quarter["online compaction 1/4"][-1] == "–"
    # At 1/8 test prefers the other variant, but dev does not: there is no second comparison.
    assert "At 1/8, dropout compaction has place 2 of 6" in text and "Of its variants dev chooses it." in text
    assert lines_of(text, "## At 1/8 of the multiply-adds, on test")["svd 1/8"][-1] == "40"
    assert "14 comparisons with intervals of 95 % each" in text, "five rivals twice, and with the variant at 1/4 all but one of them anew"


def test_full_size_and_learned_sizes(tmp_path):
    text = page_of(tmp_path)
    large = lines_of(text, "## At full size")
    assert list(large) == ["large dense", "large dropout", "large approximate random dropout"]
    assert large["large approximate random dropout"] == [
        *("8.00 ± 0.00", "+2.00 [+2.00, +2.00]", "worse", "0.5500", "800k", "–", "40", "0.80")
    ]
    assert large["large dropout"][1:3] == ["–", "–"] and large["large dropout"][-2:] == ["50", "1.00"]
    learned = lines_of(text, "## Sizes as learned")
    assert learned["adaptive dropout published, size as learned"][:2] == ["20.0 %", "18.00 ± 0.00"]


def test_training_is_compared_by_the_processor_where_all_nets_have_its_seconds(tmp_path):
    folder, config = make_recipe(tmp_path, seeds=(1,)), make_compared()
    assert "training s |" in page_again(folder)
    nets = Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1)
    for row in rows(config):
        own = 20.0 if row.name == "dropout" else 5.0
        edit(nets.net(row.name) / "summary.json", lambda value, own=own: value.update(train_cpu_seconds=own))
    for path in (folder / "rows").iterdir():
        path.unlink()
    finish(config, nets, folder)
    found = lines_of(page_again(folder), "## At full size")
    assert "training s (processor) |" in page(folder)
    assert found["large dropout"][-2:] == ["20", "1.00"] and found["large dense"][-2:] == ["5", "0.25"]
    assert lines_of(page(folder), "## At 1/8 of the multiply-adds")["dropnet 1/8"][-1] == "5"


def page_again(folder: Path) -> str:
    table(folder)
    return page(folder)


def test_missing_rows_stand_as_such(tmp_path):
    folder = make_recipe(tmp_path)
    for seed in (1, 2, 3):
        row_path(folder, "hand", "feedforward", "dropnet@0.25", seed).unlink()
    row_path(folder, "hand", "feedforward", "svd@0.125", 2).unlink()
    read(folder)
    found = lines_of(page(folder), "would be called better or worse by chance")
    assert list(found)[-1] == "dropnet" and found["dropnet"] == ["–", "14.00 ± 0.00 (worse)"]
    assert "svd 1/8 (seeds 1, 3)" in lines_of(page(folder), "## At 1/8 of the multiply-adds")
    for path in (folder / "rows").glob("*dropout_compaction*"):
        path.unlink()
    read(folder)
    assert "against dropout compaction" not in page(folder) and "Compacted against rivals" in page(folder)


def test_sentences_and_claims_are_about_dropout_compaction_alone(tmp_path):
    results = read(make_recipe(tmp_path, words=1250))
    assert {claim.row for claim in results.claims} == {"dropout_compaction@0.25", "dropout_compaction@0.125"}
    assert not any("is better than" in claim.claim for claim in results.claims)
    assert "net made by dropout compaction" in results.smallest[0].sentence
    config = make_compared()
    paths = make_run(tmp_path / "run", config)
    build(config, paths, 1)
    text = (paths.report / "report.md").read_text(encoding="utf-8")
    assert text.count(" keeps ") == 3, "dropout compaction at two budgets, and the net whose size is as learned"


def test_plot_and_its_caption(tmp_path):
    folder = make_recipe(tmp_path)
    table(folder)
    # Times by budget: 0.0010 at 1/8, 0.0020 at 1/4, 0.0080 large: errors 4 (dropout compaction), 2 (svd), 2 (dense: no better, slower).
    assert "times within 5 % of each other count as equal. 1 dropout compaction 1/8; 2 svd 1/4.\n" in page(folder)
    drawn = (folder / "plots" / "pareto-feedforward-test.svg").read_text(encoding="utf-8")
    assert "dense from scratch" in drawn and "large approximate random dropout" in drawn
    assert not list((folder / "plots").glob("rate-time*"))


def beaten(point, other) -> bool:
    if other[0] * SAME_TIME < point[0]:
        return other[1] <= point[1]
    return other[0] <= point[0] * SAME_TIME and other[1] < point[1]


def test_front_by_hand_and_by_brute_force():
    assert front([(4.0, 1.0), (1.0, 3.0), (2.0, 2.0), (3.0, 2.0), (5.0, 2.5)]) == [1, 2, 0]
    assert front([(1.0, 3.0), (1.03, 2.0)]) == [1], "as fast, as far as can be measured"
    assert front([(1.0, 2.0), (1.03, 2.0)]) == [0, 1] and front([]) == []
    generator = random.Random(1)
    for _ in range(50):
        points = [(round(generator.uniform(1, 2), 2), float(generator.randint(1, 8))) for _ in range(20)]
        expected = {i for i, point in enumerate(points) if not any(beaten(point, other) for other in points)}
        found = front(points)
        assert set(found) == expected and [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def test_the_note_of_the_experiment_stands_wherever_its_figures_do(tmp_path, capsys):
    note = "Smoke: one seed."
    config = make_compared(note)
    folder = make_recipe(tmp_path, config=config, seeds=(1,))
    capsys.readouterr()
    results = read(folder)
    assert results.experiment_note == note
    assert page(folder).split("\n\n")[1] == f"**{note}**" and capsys.readouterr().out.startswith(note)
    paths = make_run(tmp_path / "run", config)
    build(config, paths, 1)
    assert note in (paths.report / "report.md").read_text(encoding="utf-8")
    results = Results.model_validate(json.loads(paths.results.read_text(encoding="utf-8")))
    assert results.experiment_note == note and note in cautions(results), "stage 9 prints the cautions below its table"


def test_several_corpora_share_a_recipe(tmp_path):
    folder = make_recipe(tmp_path)
    alone = read(folder)
    make_recipe(tmp_path / "second", config=make_compared(corpus="second corpus"), folder=folder, seeds=(1,))
    table(folder)
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["corpora"]
    assert list(found) == ["hand", "second corpus"]
    assert RecipeResults.model_validate(found["hand"]) == alone
    text = page(folder)
    assert "# hand: results over seeds" in text and "# second corpus: results over seeds" in text
    assert "plots/second_corpus/pareto-feedforward-test.svg" in text
    assert (folder / "plots" / "second_corpus" / "pareto-feedforward-test.svg").exists()
    for path in (folder / "rows").glob("second_corpus*-dense-*"):
        path.unlink()
    for path in (folder / "rows").glob("second_corpus*dropout-*"):
        path.unlink()
    with pytest.raises(MeasurementError, match="no row of a large net"):
        table(folder)


def test_command_of_a_recipe(tmp_path):
    home = tmp_path / "recipes" / "compare"
    (home / "smoke").mkdir(parents=True)
    (home / "run.sh").touch()
    assert recipe_command(home) == "bash recipes/compare/run.sh"
    assert recipe_command(home / "smoke") == "bash recipes/compare/run.sh --smoke"
    assert recipe_command(tmp_path / "other") == "bash recipes/other/run.sh"
