"""Several seeds pooled: files, figures, claims."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from dropasr.config import rows
from dropasr.errors import StageError
from dropasr.report.recipe import load_rows, row_path, table
from dropasr.report.recipe_schema import RecipeResults

sys.path.insert(0, str(Path(__file__).parent))
from recipe_case import COMPACT4, COMPACT8, MANY_WORDS, make_recipe, read, spoil  # noqa: E402 (the folder above is on the path only now)
from report_case import at_every_third_frame, dump, edit, make_config  # noqa: E402

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_row_files(tmp_path):
    folder = make_recipe(tmp_path, seeds=(1,))
    path = row_path(folder, "hand", "feedforward", COMPACT4, 1)
    assert path.name == "hand-feedforward-dropout_compaction@0.25-seed1.json"
    assert len(list(path.parent.iterdir())) == len(rows(make_config()))
    value = json.loads(path.read_text(encoding="utf-8"))
    assert value["utterances"][0] == ["s0-0", "s0", 50, 2]
    assert value["figures"]["git_revision"] == "abc1234" and value["figures"]["seed"] == 1
    assert value["test_evaluations"] == 1
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 100_000


def test_models_have_results_of_their_own_beside_those_of_all(tmp_path):
    folder = make_recipe(tmp_path, seeds=(1,))
    read(folder)
    assert not list(folder.glob("results-*.json")), "one model alone"
    for path in list((folder / "rows").iterdir()):
        value = json.loads(path.read_text(encoding="utf-8"))
        value["figures"]["model"] = "lstm"
        dump(path.with_name(path.name.replace("feedforward", "lstm")), value)
    everything = read(folder)
    assert {row.model for row in everything.rows} == {"feedforward", "lstm"}
    for model in ("feedforward", "lstm"):
        own = RecipeResults.model_validate(json.loads((folder / f"results-{model}.json").read_text(encoding="utf-8")))
        assert own.rows == [row for row in everything.rows if row.model == model]


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
    kinds = {"times as fast": "fast", "smallest": "small"}
    return {
        (claim.row, next((kind for text, kind in kinds.items() if text in claim.claim), claim.to)): claim.verdict
        for claim in read(folder).claims
    }


def test_claims_that_hold(tmp_path):
    # Per speaker 50 errors in 1250 words are 4 %; the margin is then 0.5, which is 6.25 errors.
    errors = {"dense": 50, "annealed_dropout": 60, COMPACT4: 56, "small_dense@0.125": 80, COMPACT8: 70, "small_dense@0.25": 60}
    verdicts = claims_of(make_recipe(tmp_path, errors={seed: errors for seed in (1, 2, 3)}, **MANY_WORDS))
    assert verdicts == {
        (COMPACT4, "dense"): "holds",
        (COMPACT8, "dense"): "does not hold",
        (COMPACT4, "small_dense@0.25"): "holds",
        (COMPACT8, "small_dense@0.125"): "holds",
        (COMPACT4, "small"): "holds",
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


def test_a_large_net_that_test_has_ahead_of_the_reference_is_told(tmp_path):
    errors = {"dense": 60, "annealed_dropout": 50, COMPACT4: 60, "small_dense@0.125": 70, COMPACT8: 70, "small_dense@0.25": 60}
    folder = make_recipe(tmp_path, errors={seed: errors for seed in (1, 2, 3)}, **MANY_WORDS)
    verdicts = claims_of(folder)
    assert verdicts[COMPACT4, "dense"] == "holds" and verdicts["annealed_dropout", "dense"] == "does not hold"
    (claim,) = (claim for claim in read(folder).claims if claim.row == "annealed_dropout")
    # 50 and 60 of 1250 words
    assert "WER 4.00 % against 4.80 %, difference -0.80 [-0.80, -0.80]" in claim.evidence and "dev chose large dense" in claim.evidence


def test_few_seeds_and_few_speakers_are_said_with_the_verdict(tmp_path):
    def told(claim, seeds):  # the interval of a speed is over utterances
        return claim.evidence.startswith(seeds if "times as fast" in claim.claim else f"t interval over 4 speakers; {seeds}")

    results = read(make_recipe(tmp_path, seeds=(1, 2), **MANY_WORDS))
    assert results.claims and all(claim.seeds == 2 and told(claim, "2 seeds only; ") for claim in results.claims)
    results = read(make_recipe(tmp_path / "one", seeds=(1,), **MANY_WORDS))
    assert all(told(claim, "one seed only; ") for claim in results.claims)


def test_the_smallest_net_without_loss(tmp_path):
    errors = {"dense": 50, "annealed_dropout": 60, COMPACT4: 50, COMPACT8: 56, "small_dense@0.125": 56, "small_dense@0.25": 50}
    folder = make_recipe(tmp_path, errors={seed: errors for seed in (1, 2, 3)}, **MANY_WORDS)
    (smallest,) = read(folder).smallest
    assert (smallest.row, smallest.test, smallest.seeds) == (COMPACT8, "test", 3)
    assert smallest.model_time == pytest.approx(1 / 8) and smallest.model_time_interval == pytest.approx((1 / 8, 1 / 8))
    assert f"**{smallest.sentence}**" in (folder / "RESULTS.md").read_text(encoding="utf-8")
    verdicts = claims_of(folder)
    assert verdicts[COMPACT8, "small"] == "holds" and verdicts[COMPACT8, "small_dense@0.125"] == "tie"
    for path in (folder / "rows").glob(f"*{COMPACT8}*"):
        edit(path, lambda value: value.update(model_seconds=[[0.03] * 3] * 2))
    assert claims_of(folder)[COMPACT8, "small"] == "does not hold"
    worse = {**errors, COMPACT4: 90, COMPACT8: 90}
    (smallest,) = read(make_recipe(tmp_path / "worse", errors={seed: worse for seed in (1, 2, 3)}, **MANY_WORDS)).smallest
    assert smallest.row is None and "no compacted net is non-inferior" in smallest.sentence


def test_any_budget_rival_and_test_set_has_its_claims(tmp_path):
    config = make_config({"extra_tests": ["noisy"]}, budgets=[0.25, 0.0625], compact=["dropout_compaction", "random_removal"])
    config = config.model_copy(update={"methods": {**config.methods, "random_removal": {"method": "random_removal"}}})
    compact16, random16 = "dropout_compaction@0.0625", "random_removal@0.0625"
    errors = {"dense": 50, "annealed_dropout": 60, compact16: 60, random16: 70, "small_dense@0.0625": 60}
    results = read(make_recipe(tmp_path, config=config, errors={seed: errors for seed in (1, 2, 3)}, **MANY_WORDS))
    found = {(claim.test, claim.to): claim.verdict for claim in results.claims if claim.row == compact16 and "better" in claim.claim}
    assert found["test", random16] == "holds" and found["test", "small_dense@0.0625"] == "tie" and ("noisy", random16) in found
    assert not any(claim.row.startswith("random") for claim in results.claims)
    assert {item.test for item in results.smallest} == {"test", "noisy", "all"}
    assert next(row for row in results.rows if row.name == compact16).label == "dropout compaction 1/16"


def test_systems_stand_in_groups_of_their_own(tmp_path):
    folder = make_recipe(tmp_path)
    make_recipe(tmp_path / "third", seeds=(1,), config=at_every_third_frame(make_config()), folder=folder)
    assert (folder / "rows" / "hand-feedforward-every_3rd_frame-dense-seed1.json").exists()
    results = read(folder)
    assert [row.system for row in results.rows if row.reference] == ["", "every 3rd frame"]
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "Word error rate, feedforward, every 3rd frame (seeds 1)" in text and "(seeds 1, 2, 3)" in text
    # The reference and both compacted nets of each system: WER, RTF of model, search and all.
    compared = text[text.index("## Systems compared") : text.index("## Word error rate")]
    assert "| feedforward, every 3rd frame | dropout compaction 1/4 | 4.00 [4.00, 4.00] | 0.0020 | 0.0050 | 0.0080 |" in compared
    assert compared.count("| feedforward") == 6 and "small" not in compared and "annealed" not in compared
    for name in re.findall(r"\]\((plots/[^)]*)\)", text):
        assert (folder / name).exists()


def test_systems_with_different_test_sets_share_a_page(tmp_path):
    folder = make_recipe(tmp_path, **MANY_WORDS)
    more = at_every_third_frame(make_config({"extra_tests": ["noisy"]}))
    new = {"speakers": 10, "first": 4, "words": 1250}
    make_recipe(tmp_path / "third", config=more, folder=folder, extra=new, **MANY_WORDS)
    results = read(folder)
    assert set(results.tests) == {"test", "noisy", "all"} and results.headline == "all"
    assert results.tests["all"].speakers == 14 and results.tests["all"].words == 14 * 1250
    without, having = ([row for row in results.rows if row.system == system] for system in ("", "every 3rd frame"))
    assert not any(row.has("all") or row.has("noisy") for row in without) and all(row.has("all") for row in having)
    assert {claim.model for claim in results.claims if claim.test == "all"} == {"feedforward, every 3rd frame"}
    # The verdicts of the system without the further set are over test; those of the other name test where they are beside.
    on_test = {claim.model: claim.claim for claim in results.claims if claim.test == "test" and "1/8 loses nothing" in claim.claim}
    text = "dropout compaction 1/8 loses nothing against large dense"
    assert on_test == {"feedforward": text, "feedforward, every 3rd frame": f"test: {text}"}
    fast = {(claim.model, claim.test) for claim in results.claims if "is at least 4 times" in claim.claim}
    assert fast == {("feedforward", "test"), ("feedforward, every 3rd frame", "all")}
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "| feedforward | large dense | 0.16 [0.16, 0.16] | – |" in text
    assert "A system that was not evaluated on all of them has its verdicts over test." in text
    headers = [line for line in text.splitlines() if "RTF features" in line]
    assert ["| WER % |" in line for line in headers] == [True, False] and "| all tests: WER % |" in headers[1]


def test_claims_over_all_test_speakers_come_first(tmp_path):
    config, new = make_config({"extra_tests": ["noisy"]}), {"speakers": 10, "first": 3, "words": 1250}
    folder = make_recipe(tmp_path, config=config, speakers=3, words=1250, extra=new, errors={seed: {COMPACT4: 12} for seed in (1, 2, 3)})
    results = read(folder)
    # Test has 3 × 1250 words, too few for claims; the union 16,250. Per speaker 12 and 3 errors against 2 and 3.
    assert results.claims[0].test == "all" and {claim.test for claim in results.claims} == {"all", "noisy"}
    first = results.claims[0]
    assert first.claim == "dropout compaction 1/4 loses nothing against large dense"
    assert "t interval over 13 speakers within 2 test sets" in first.evidence
    assert f"WER {100 * 66 / 16250:.2f} % against {100 * 36 / 16250:.2f} %" in first.evidence
    assert all(claim.claim.startswith("noisy: ") for claim in results.claims if claim.test == "noisy")
    assert any("times as fast" in claim.claim and claim.test == "all" for claim in results.claims)
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "Verdicts are over all 13 test speakers (test and noisy together, 16250 words)" in text
    header = next(line for line in text.splitlines() if "mean ± std" in line)
    assert "all tests: WER % [95 %]" in header and "| test: WER % | noisy: WER % |" in header
    row = next(row for row in results.rows if row.name == COMPACT4)
    assert row.extra["all"].wer_spread.per_seed == pytest.approx([100 * 66 / 16250] * 3)


def test_a_page_without_compacted_nets_makes_no_claims(tmp_path):
    folder = make_recipe(tmp_path, config=make_config(compact=[]), speakers=13, words=50)
    table(folder)
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "## What size costs: plainly trained nets" in text and "## Claims" not in text


def test_nets_trained_plainly_come_first_by_size(tmp_path):
    folder = make_recipe(tmp_path)
    table(folder)
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    part = text[text.index("## What size costs: plainly trained nets") : text.index("## Claims")]
    lines = [line.split(" | ") for line in part.splitlines() if line.startswith("| ")][2:]
    assert [line[0] for line in lines] == ["| large dense", "| small dense from scratch 1/4", "| small dense from scratch 1/8"]
    assert [line[2] for line in lines] == ["100.0 %", "25.0 %", "12.5 %"]
    assert lines[2][5].startswith("10.00 [10.00, 10.00]")
    assert (folder / "plots" / "size-feedforward.svg").exists()


def test_plots_that_the_page_no_longer_has_are_removed(tmp_path):
    folder = make_recipe(tmp_path)
    stale = folder / "plots" / "another_corpus" / "size-lstm.svg"
    stale.parent.mkdir(parents=True)
    stale.write_text("<svg/>", encoding="utf-8")
    table(folder)
    shown = set(re.findall(r"\]\((plots/[^)]*)\)", (folder / "RESULTS.md").read_text(encoding="utf-8")))
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.svg")} == shown and shown


def test_short_signals_stand_on_the_page(tmp_path):
    folder = make_recipe(tmp_path)
    for path in (folder / "rows").glob(f"*{COMPACT4}*"):
        signal = {"score": {"first": 0.012, "median": None, "last": 0.5}}
        edit(path, lambda value, signal=signal: value["figures"].update(signals=signal))
    table(folder)
    assert "| dropout compaction 1/4 | score | 0.012 | – | 0.500 |" in (folder / "RESULTS.md").read_text(encoding="utf-8")


def test_a_busy_machine_is_told(tmp_path):
    folder = make_recipe(tmp_path)
    table(folder)
    assert "busy" not in (folder / "RESULTS.md").read_text(encoding="utf-8")
    spoil(folder, COMPACT4, lambda value: value.update(busy_share=0.6))
    table(folder)
    assert "other processes used 60 % of one core" in (folder / "RESULTS.md").read_text(encoding="utf-8")


def test_rows_of_the_first_version_are_read(tmp_path):
    folder = make_recipe(tmp_path)
    figures = ("cer", "cer_interval", "cer_difference", "extra", "dev_wer_interval", "dev_cer", "estimators", "lm_scale")
    later = ("error_rate", "system", "busy_share", "dev_utterances", "extra_utterances", "characters")
    for path in (folder / "rows").iterdir():
        edit(path, lambda value: [value.pop(key) for key in later])
        edit(path, lambda value: [value["stack"].pop(key) for key in ("frame_subsampling", "rescore")])
        edit(path, lambda value: [value["figures"].pop(key) for key in (*figures, "insertion_penalty")])
    results = read(folder)
    assert all(row.cer is None and row.dev_wer_interval is None for row in results.rows)


def test_relative_margin_counts_where_it_is_larger(tmp_path):
    # Reference 20 %: the margin is 1 % absolute, 12.5 errors per speaker.
    errors = {"dense": 250, "annealed_dropout": 260, COMPACT4: 262}
    verdicts = claims_of(make_recipe(tmp_path, errors={seed: errors for seed in (1, 2, 3)}, **MANY_WORDS))
    assert verdicts[COMPACT4, "dense"] == "holds"


def test_recipe_without_rows(tmp_path):
    with pytest.raises(StageError, match="no rows"):
        load_rows(tmp_path)


def test_schema_in_docs_is_the_one_in_code():
    assert json.loads((DOCS / "recipe-results.schema.json").read_text(encoding="utf-8")) == RecipeResults.model_json_schema()
