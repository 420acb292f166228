"""Learning rates of families: what is trained, which rate is chosen, and that a configuration laid over another brings it to the rows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from dropasr.config import Row, load_config, rows
from dropasr.errors import ConfigError, DivergedError, StageError
from dropasr.paths import Paths
from dropasr.training import rate_search
from dropasr.training.rate_search import Family, RateSearch, families_of, next_rate, search_rates, trial_config
from dropasr.training.row_checks import check_rows

CONF = Path(__file__).resolve().parents[2] / "conf" / "synth_commands.yaml"
SETTINGS = (
    "experiment.large=[dense,dropout]",
    "experiment.small=[dense,distilled]",
    "experiment.compact=[dropout_compaction,norm_removal,random_removal]",
    "train.learning_rate=0.05",
)
FAMILIES = """
factors: [2.0, 0.5, 1.0]
most: 4
seeds: 2
budget: 0.125
families:
  large: {kind: large, methods: [dense, annealed_dropout, dropout]}
  scratch: {kind: small, methods: [dense]}
  distilled: {kind: small, methods: [distilled]}
  compaction: {kind: compact, methods: [dropout_compaction]}
  removal: {kind: compact, methods: [svd, norm_removal, random_removal]}
"""


def config(*settings: str, overlays=()):
    return load_config(CONF, settings=[*SETTINGS, *settings], overlays=overlays)


def search(**families: Family) -> RateSearch:
    return RateSearch(families=families)


def test_families_keep_what_the_experiment_has():
    values = config("experiment.small=[]", "experiment.large=[dense]", "experiment.compact=[norm_removal]")
    large, rank = Family(kind="large", methods=["dropout", "dense"]), Family(kind="compact", methods=["svd", "norm_removal"])
    found = families_of(values, search(large=large, rank=rank, groups=Family(kind="compact", methods=["dropneuron"])), "f.yaml")
    assert {name: family.methods for name, family in found.items()} == {"large": ["dense"], "rank": ["norm_removal"]}


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([("large", "dropout")], "f.yaml: expected 'dense' .experiment.large. in one family of kind large, found it in none"),
        ([("large", "dense"), ("large", "dense")], "expected 'dense' .* found it in family0, family1"),
        ([("small", "dense")], "experiment.large"),
    ],
)
def test_a_method_in_no_family_or_in_two_is_named(kinds, words):
    values = config("experiment.small=[]", "experiment.large=[dense]", "experiment.compact=[]")
    families = {f"family{number}": Family(kind=kind, methods=[method]) for number, (kind, method) in enumerate(kinds)}
    with pytest.raises(ConfigError, match=words):
        families_of(values, search(**families), "f.yaml")


def test_trials_are_rows_of_their_own_with_teachers_at_the_usual_rate():
    values = config()
    families = {"distilled": Family(kind="small", methods=["distilled"]), "rank": Family(kind="compact", methods=["norm_removal"])}
    trial = trial_config(values, families, {"distilled": [0.1], "rank": [0.05, 0.1]}, 0.25)
    check_rows(trial)
    assert [row.name for row in rows(trial)] == [
        *("dense-rate0.05", "small_distilled-rate0.1@0.25", "norm_removal-rate0.05@0.25", "norm_removal-rate0.1@0.25")
    ]
    assert trial.methods["distilled-rate0.1"]["teacher"] == "dense-rate0.05"
    assert trial.methods["norm_removal-rate0.1"] == {**values.methods["norm_removal"], "training_rate": 0.1, "small_training_rate": 0.1}


def test_rates_beyond_the_edge():
    assert next_rate({0.05: 2.0, 0.1: 1.0, 0.2: 3.0}, 5) is None
    assert next_rate({0.05: 2.0, 0.1: 1.5, 0.2: 1.0}, 5) == 0.4
    assert next_rate({0.05: 1.0, 0.1: 1.5, 0.2: 2.0}, 5) == 0.025
    assert next_rate({0.05: 1.0, 0.1: 1.5, 0.2: 2.0}, 3) is None
    assert next_rate({0.05: 1.0, 0.1: math.inf}, 3) == 0.025


BEST = {"large": 0.05, "small dense": 0.1, "small distilled": 0.4, "dropout_compaction": 0.025, "norm_removal": 0.05}


def made_up_error(row, seed: int) -> float:
    """Best at `BEST`; each seed alone prefers another rate, far more strongly."""
    method, _, rate = row.method.partition("-rate")
    place = "large" if row.kind == "large" else f"small {method}" if row.kind == "small" else method
    return 1 + math.log(float(rate) / BEST[place]) ** 2 + (20 if seed == 1 else -20) * float(rate)


def write_history(paths: Paths, row: Row, *history: dict) -> None:
    """The summary of a net that was never trained."""
    path = paths.net(row.name) / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"history": history}), encoding="utf-8")


def test_the_search_finds_the_best_rate_and_a_run_reads_it(tmp_path, monkeypatch):
    source, target = tmp_path / "families.yaml", tmp_path / "rates" / "synth-feedforward.yaml"
    source.write_text(FAMILIES, encoding="utf-8")
    paths, trained = Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1), []

    def train(values, paths, wanted, nj, spared, compared):
        for row in wanted:
            trained.append((row.name, paths.seed))
            error = made_up_error(row, paths.seed)
            # Cross-entropy prefers other rates: it does not count.
            write_history(paths, row, {"dev_ce": 1.0, "dev_frame_error": 0.0}, {"dev_ce": 9.0 - error, "dev_frame_error": error})
        assert spared is DivergedError
        return {row.name for row in wanted if row.name == "norm_removal-rate0.1@0.125"}

    monkeypatch.setattr(rate_search, "run_jobs", train)
    search_rates(config(), paths, source, target, 1)
    # The distilled net is best at 0.4: 0.1 is the edge, 0.2 is tried; with four rates there is no further one.
    names = [name for name, _ in trained]
    assert {seed for name, seed in trained if name == "small_distilled-rate0.2@0.125"} == {1, 2}
    assert "small_distilled-rate0.4@0.125" not in names
    assert names.count("norm_removal-rate0.1@0.125") == 1  # diverged: tried neither again with the next rates nor with other seeds
    assert "svd" not in " ".join(names) and "random_removal" not in " ".join(names)
    chosen = {name: values for name, values in config(overlays=[target]).methods.items()}
    assert (chosen["dense"]["training_rate"], chosen["dense"]["small_training_rate"]) == (0.05, 0.1)
    assert chosen["dropout"]["training_rate"] == 0.05 and "small_training_rate" not in chosen["dropout"]
    assert chosen["distilled"] == {**config().methods["distilled"], "small_training_rate": 0.2}
    assert chosen["dropout_compaction"]["training_rate"] == 0.025
    assert chosen["norm_removal"]["training_rate"] == chosen["random_removal"]["training_rate"] == 0.05
    text = target.read_text(encoding="utf-8")
    assert "distilled (small distilled), frame error, %, mean of 2 seeds: 0.025: " in text and "chosen: 0.2 (at the edge)" in text
    assert "removal (compact norm_removal), frame error, %, mean of 2 seeds: 0.025: 1.48, 0.05: 1.00, 0.1: inf; chosen: 0.05\n" in text
    source.write_text(f"{FAMILIES}corpora: {{{config().corpus.name}: {{seeds: 1, factors: [2.0, 4.0], most: 2}}}}\n", encoding="utf-8")
    trained.clear()
    search_rates(config(), paths, source, tmp_path / "other.yaml", 1)
    assert {seed for _, seed in trained} == {1} and "mean of 1 seed:" in (tmp_path / "other.yaml").read_text(encoding="utf-8")
    assert {name for name, _ in trained if name.startswith("dropout_comp")} == {
        f"dropout_compaction-rate{rate}@0.125" for rate in (0.1, 0.2)
    }
    # Chosen for one model, rates leave another one alone.
    assert "training_rate" not in load_config(CONF, model="lstm", settings=[SETTINGS[2]], overlays=[target]).methods["norm_removal"]


def test_a_family_that_is_added_is_searched_alone(tmp_path, monkeypatch):
    source, target = tmp_path / "families.yaml", tmp_path / "synth-feedforward.yaml"
    source.write_text(FAMILIES.replace("random_removal]", "random_removal, criterion_removal_l1]"), encoding="utf-8")
    paths, trained = Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1), []

    def train(values, paths, wanted, nj, spared, compared):
        for row in wanted:
            trained.append(row.name)
            write_history(
                paths, row, {"dev_ce": 1.0, "dev_frame_error": made_up_error(row, 1) - 20 * float(row.method.partition("-rate")[2])}
            )
        return set()

    monkeypatch.setattr(rate_search, "run_jobs", train)
    search_rates(config("experiment.small=[dense]", "experiment.compact=[norm_removal]"), paths, source, target, 1)
    before = target.read_text(encoding="utf-8")
    assert not any("distilled" in name or "compaction" in name for name in trained)
    trained.clear()
    # A reason that was edited by hand stays.
    target.write_text(before.replace("chosen: 0.1", "chosen: 0.1; as before") + "# end\n", encoding="utf-8")
    search_rates(config("experiment.large=[dense]", "experiment.compact=[random_removal,criterion_removal_l1]"), paths, source, target, 1)
    # The distilled net is new. Its teacher has the rate that was chosen for the table, 0.05, which is the configuration's, too.
    assert {name.partition("-rate")[0] for name in trained} == {"dense", "small_distilled"}
    chosen = yaml.safe_load(target.read_text(encoding="utf-8"))["models"]["feedforward"]["methods"]
    assert chosen["criterion_removal_l1"]["training_rate"] == chosen["random_removal"]["training_rate"] == 0.05
    assert chosen["norm_removal"]["training_rate"] == 0.05 and chosen["distilled"]["small_training_rate"] == 0.2  # the last of four
    text = target.read_text(encoding="utf-8")
    assert "chosen: 0.1; as before" in text and [line.split()[1] for line in text.splitlines()[1:5]] == [
        "large",
        "scratch",
        "removal",
        "distilled",
    ]
    trained.clear()
    search_rates(config("experiment.compact=[norm_removal]"), paths, source, target, 1)
    assert trained == [] and target.read_text(encoding="utf-8") == text
    target.write_text("\n".join(line for line in text.splitlines() if " removal (" not in line) + "\n", encoding="utf-8")
    search_rates(config("experiment.compact=[norm_removal]"), paths, source, target, 1)
    assert {name.partition("-rate")[0] for name in trained} == {"norm_removal"}
    assert "removal (compact norm_removal)" in target.read_text(encoding="utf-8")


def test_teachers_have_the_rate_that_was_chosen_for_them():
    families = {"distilled": Family(kind="small", methods=["distilled"])}
    trial = trial_config(config(), families, {"distilled": [0.1]}, 0.125, {"dense": 0.2})
    assert [row.name for row in rows(trial)] == ["dense-rate0.2", "small_distilled-rate0.1@0.125"]
    assert trial.methods["distilled-rate0.1"]["teacher"] == "dense-rate0.2"


def test_a_taught_family_is_searched_without_the_nets_that_stand_beside_it_in_the_table(tmp_path, monkeypatch):
    families = {"taught": Family(kind="compact", methods=["distilled_compaction"])}
    source, asked = tmp_path / "families.yaml", []
    source.write_text("families: {taught: {kind: compact, methods: [distilled_compaction]}}\nseeds: 1\n", encoding="utf-8")

    def train(values, paths, wanted, nj, spared, compared):
        check_rows(values, compared)
        asked.extend(row.name for row in wanted)
        for row in wanted:
            write_history(paths, row, {"dev_ce": 1.0, "dev_frame_error": len(asked)})
        return set()

    monkeypatch.setattr(rate_search, "run_jobs", train)
    table = config("experiment.compact=[distilled_compaction]", "methods.dense.training_rate=0.1")
    monkeypatch.setattr(rate_search, "families_of", lambda *_: families)
    search_rates(table, Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1), source, tmp_path / "found.yaml", 1)
    assert "distilled_compaction-rate0.05@0.125" in asked and not any("small" in name for name in asked)
    with pytest.raises(ConfigError, match="must stand beside it"):
        check_rows(trial_config(table, families, {"taught": [0.05]}, 0.125))


def test_rates_of_students_whose_teacher_diverges_are_out(tmp_path, monkeypatch):
    source, target = tmp_path / "families.yaml", tmp_path / "synth-feedforward.yaml"
    source.write_text(FAMILIES, encoding="utf-8")
    paths, asked = Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1), []

    def train(values, paths, wanted, nj, spared, compared):
        asked.append([row.name for row in wanted])
        for row in wanted:
            write_history(paths, row, {"dev_ce": 1.0, "dev_frame_error": made_up_error(row, 1)})
        return {row.name for row in wanted if row.name == "dense-rate0.05"}  # the teacher, and the usual rate of large nets

    monkeypatch.setattr(rate_search, "run_jobs", train)
    with pytest.raises(StageError, match="family 'distilled': distilled diverges at every learning rate tried"):
        search_rates(config(), paths, source, target, 1)
    assert not target.exists() and any("distilled" in name for name in asked[0])
    assert not any("distilled" in name or name == "dense-rate0.05" for names in asked[1:] for name in names)


def test_equal_factors_are_one_rate(tmp_path, monkeypatch):
    source = tmp_path / "families.yaml"
    families = FAMILIES.replace("[2.0, 0.5, 1.0]", "[1.0, 1.0, 2.0, 2.00001]").replace("most: 4", "most: 2")
    source.write_text(families, encoding="utf-8")
    tried = []

    def train(values, paths, wanted, nj, spared, compared):
        tried.extend(row.name for row in wanted)
        for row in wanted:
            write_history(paths, row, {"dev_ce": 1.0, "dev_frame_error": made_up_error(row, 1)})
        return set()

    monkeypatch.setattr(rate_search, "run_jobs", train)
    search_rates(config(), Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1), source, tmp_path / "found.yaml", 1)
    assert {name for name in tried if name.startswith("norm_removal")} == {"norm_removal-rate0.05@0.125", "norm_removal-rate0.1@0.125"}


@pytest.mark.parametrize(("loss", "wanted"), [(2.0, 40.0), (None, math.inf), (math.nan, math.inf)])
def test_a_rate_is_judged_by_errors_unless_training_ended_in_no_number(tmp_path, loss, wanted):
    paths, row = Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1), Row("dense", "dense", "large", 1.0)
    write_history(paths, row, {"dev_ce": loss, "dev_frame_error": 40.0})
    assert rate_search._dev_error(paths, row) == wanted
