"""Stage 7 on nets that pass their input on: what is decoded, what is chosen, what is kept, and what is logged."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from evaluation_case import UNITS, Experiment
from search_case import BACKENDS, SMALL, TEXT

from dropasr.config import load_config, rows, system_folder
from dropasr.data.store import FrameStore
from dropasr.decoding.likelihoods import log_likelihoods, log_posteriors, mean_posterior
from dropasr.decoding.search import PLAIN, Weights, load_search
from dropasr.errors import ConfigError, MeasurementError, StageError
from dropasr.files import read_json, sha256_file, write_json
from dropasr.lang.graph import make_transducers
from dropasr.lang.graph_build import FILE_NAMES, build_graphs
from dropasr.models.checkpoint import load_net
from dropasr.models.lstm import Lstm
from dropasr.paths import Paths
from dropasr.report.load import evaluations_on_test
from dropasr.report.results import row_hashes
from dropasr.stages import BY_VERB
from dropasr.stamps import Stamps
from dropasr.training import decode_parts, evaluate
from dropasr.training.row_checks import check_rows
from dropasr.training.row_evaluation import RowEvaluation

needs_k2 = pytest.mark.skipif("k2" not in BACKENDS, reason="lattices are k2's; this stack does not have it")


class HereExecutor:
    """Works in this process, at once."""

    def __init__(self, *arguments: object) -> None:
        decode_parts._worker = None

    def __enter__(self) -> HereExecutor:
        return self

    def __exit__(self, *arguments: object) -> None:
        decode_parts._worker = None

    def submit(self, function, *arguments) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # as a process would hand it over
            future.set_exception(error)
        return future


@pytest.fixture
def here(monkeypatch):
    """No processes, and a list of the parts that were decoded."""
    decoded = []

    def recorded(config, paths, part):
        decoded.append(part)
        return decode_parts.decode_part(config, paths, part)

    monkeypatch.setattr(evaluate.workers, "pool", HereExecutor)
    monkeypatch.setattr(evaluate, "decode_part", recorded)
    return decoded


@pytest.fixture
def experiment(tiny_yaml, tmp_path) -> Experiment:
    return Experiment(tmp_path, tiny_yaml())


def test_rows_of_another_configuration_are_told_apart(experiment, here):
    config = experiment.config()
    evaluate.check_trained(config, experiment.paths, "dense")
    with pytest.raises(StageError, match="no scores of the row 'dense'"):
        evaluate.check_scored(config, experiment.paths, "dense")
    experiment.decode()
    evaluate.check_scored(config, experiment.paths, "dense")
    with pytest.raises(StageError, match="no scores of the row 'dense' for its present net and this configuration"):
        evaluate.check_scored(experiment.config("decode.beam=29"), experiment.paths, "dense")
    with pytest.raises(StageError, match="no finished net 'dense' of this configuration"):
        evaluate.check_trained(experiment.config("train.epochs=5"), experiment.paths, "dense")
    with pytest.raises(ConfigError, match="no row 'densy'"):
        evaluate.check_trained(config, experiment.paths, "densy")


def test_scores_of_dev_and_all_test_sets(experiment, here):
    scores = experiment.decode()
    assert set(scores) == {"dense", "annealed_dropout"}
    for row, value in scores.items():
        best = value["acoustic_scale"]
        wrong = {scale: experiment.errors("dev", experiment.words(row, "dev", scale)) for scale in (0.5, 1.0)}
        assert wrong[best] == min(wrong.values()) == value["dev"]["errors"]
        assert (value["lm_scale"], value["insertion_penalty"]) == (1.0, 0.0)
        words = experiment.words(row, "test", best)
        assert value["test"]["errors"] == experiment.errors("test", words)
        assert value["extra"]["noisy"]["errors"] == experiment.errors("noisy", experiment.words(row, "noisy", best))
        assert value["test"]["characters"] == 2 * sum(len(word) for sentence in TEXT for word in sentence)
        assert value["test"]["cer"] == pytest.approx(100 * value["test"]["character_errors"] / value["test"]["characters"])
        assert sum(item["character_errors"] for item in value["test"]["utterances"]) == value["test"]["character_errors"]
        assert (experiment.paths.scores(row).parent / f"{row}.noisy.alignments.txt").exists()
    assert scores["dense"]["extra"]["noisy"]["errors"] > 0
    # One search per scale on dev, none for weights that nobody asked for.
    assert [(part.split, part.tune) for part in here if part.row == "dense"] == [("dev", True), ("test", False), ("noisy", False)]


def test_evaluations_are_logged_before_test_is_decoded_and_counted_once(experiment, here, monkeypatch):
    experiment.decode()
    assert [(line["event"], line["row"]) for line in experiment.log()] == [
        ("begin", "dense"), ("end", "dense"), ("begin", "annealed_dropout"), ("end", "annealed_dropout"),
    ]  # fmt: skip
    end = experiment.log()[1]
    assert end["sets"]["noisy"]["words"] == end["words"] and end["config_hash"] == experiment.log()[0]["config_hash"]
    assert evaluations_on_test(experiment.paths.test_log) == 2
    assert evaluations_on_test(experiment.paths.test_log, row="dense", seed=1) == 1

    def broken(config, paths, part):
        if part.split == "test":
            raise MeasurementError("the power went away")
        return decode_parts.decode_part(config, paths, part)

    monkeypatch.setattr(evaluate, "decode_part", broken)
    with pytest.raises(MeasurementError, match="power"):
        experiment.decode("decode.beam=29")
    assert evaluations_on_test(experiment.paths.test_log, row="dense") == 2  # it may have been seen
    with open(experiment.paths.test_log, "a", encoding="utf-8") as file:
        file.write('{"row": "dense", "wer": 5.0}\n')  # as older versions wrote, once per evaluation
    assert evaluations_on_test(experiment.paths.test_log, row="dense") == 3


def test_a_killed_decoding_goes_on_after_its_last_part(experiment, here, monkeypatch):
    monkeypatch.setattr(decode_parts, "PART_FRAMES", 100)
    whole = experiment.decode()
    parts, count = list(here), len(here)
    shown = {row: (value["dev"], value["test"], value["extra"], value["tuning"]) for row, value in whole.items()}
    for row in whole:
        experiment.paths.scores(row).unlink()
    for allowed in range(3, count, 5):  # killed again and again, and once in a part that is half on disk

        def broken(config, paths, part, last=allowed):
            if len(here) >= last:
                raise MeasurementError("the power went away")
            here.append(part)
            return decode_parts.decode_part(config, paths, part)

        if allowed == 3:
            here.clear()
        if allowed == 8:
            damaged = sorted(experiment.paths.score_parts("dense").glob("*.json"))[0]
            damaged.write_text(damaged.read_text(encoding="utf-8").replace('"hash": "', '"hash": "0'), encoding="utf-8")
        monkeypatch.setattr(evaluate, "decode_part", broken)
        with pytest.raises(MeasurementError, match="power"):
            experiment.decode()
    monkeypatch.setattr(
        evaluate, "decode_part", lambda config, paths, part: here.append(part) or decode_parts.decode_part(config, paths, part)
    )
    again = experiment.decode()
    assert {row: (value["dev"], value["test"], value["extra"], value["tuning"]) for row, value in again.items()} == shown
    assert len(here) == count + 1 and set(here) == set(parts)  # every part once, and the damaged one again
    assert not experiment.paths.score_parts("dense").exists()


def test_rules_for_transcripts_count_for_hypotheses_too(experiment):
    config = experiment.config("corpus.text.remove_words=[B]", "corpus.text.case=upper")
    stores = {split: FrameStore.open(experiment.paths.features(split)) for split in ("dev", "test", "noisy")}
    evaluation = RowEvaluation(config, experiment.paths, rows(config)[0], "identity", stores, 1)
    (part,) = evaluation.start()
    ids = stores["dev"].ids
    found = {name: ["b", "Two", "b"] for name in ids}
    evaluation.done(part, dict.fromkeys(part.settings, found))
    heard = {hypothesis for item in evaluation._tuned[part.settings[0]].utterances for hypothesis in item.hypothesis}
    assert heard == {"TWO"}


def test_rows_with_scores_are_left_alone(experiment, here, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(evaluate.logger, "info", told.append)
    first = experiment.decode()
    count = len(here)
    assert experiment.decode() == first and len(here) == count
    monkeypatch.setattr(evaluate, "NAMED", 1)
    experiment.decode()
    opening = "already scored for these nets and this decoding: dense"
    assert told == [f"{opening}, annealed_dropout", f"{opening} and 1 more"]
    # Another net of the same name is decoded again, and it alone.
    write_json(experiment.paths.net("dense") / "summary.json", {"config_hash": "another"})
    monkeypatch.setattr(evaluate, "is_trained", lambda *arguments: True)
    experiment.decode()
    assert {part.row for part in here[count:]} == {"dense"}
    count = len(here)
    experiment.decode("decode.max_active=999")
    assert {part.row for part in here[count:]} == {"dense", "annealed_dropout"}
    count = len(here)
    np.save(experiment.paths.align / "log_prior.npy", np.zeros(UNITS.num_units, np.float32))
    experiment.decode("decode.max_active=999")
    assert len(here) > count
    count = len(here)
    experiment.decode("decode.max_active=999", "decode.backend=" + BACKENDS[0])
    assert len(here) == count


@needs_k2
def test_scales_and_penalties_are_chosen_on_dev(experiment, here):
    grid = {"lm_scales": "[0.7,1.0,2.0]", "insertion_penalties": "[-2.0,0.0,2.0]", "lattice_beam": "20"}
    scores = experiment.decode(*(f"decode.{key}={value}" for key, value in grid.items()))
    for row, value in scores.items():
        weights = Weights(value["lm_scale"], value["insertion_penalty"])
        assert len(value["tuning"]) == 2 * 3 * 3
        plain = min(experiment.errors("dev", experiment.words(row, "dev", scale)) for scale in (0.5, 1.0))
        assert value["dev"]["errors"] <= plain
        words = experiment.words(row, "dev", value["acoustic_scale"], weights)
        assert value["dev"]["errors"] == experiment.errors("dev", words)
        words = experiment.words(row, "test", value["acoustic_scale"], weights)
        assert value["test"]["errors"] == experiment.errors("test", words)
    confirmed = [part for part in here if part.split == "dev" and not part.tune]
    assert confirmed and all(len(part.settings) == 1 and part.settings[0].weights != PLAIN for part in confirmed)


def test_parts_of_a_split_give_what_the_whole_gives(experiment, here, monkeypatch):
    whole = experiment.decode()
    monkeypatch.setattr(decode_parts, "PART_FRAMES", 100)
    monkeypatch.setattr(decode_parts, "BATCH_FRAMES", 40)
    count = len(here)
    parts = experiment.decode("decode.beam=30.0000001")
    assert len(here) - count > 10
    for row in whole:
        assert parts[row]["test"] == whole[row]["test"] and parts[row]["dev"] == whole[row]["dev"]
    store = FrameStore.open(experiment.paths.features("dev"))
    divided = decode_parts.divide(store, least=5)
    assert sorted(position for part in divided for position in part) == list(range(len(store))) and len(divided) >= 5


def test_every_third_frame(experiment):
    net, store = load_net(experiment.paths.net("dense")), FrameStore.open(experiment.paths.features("test"))
    frames = store.utterance(0)[:10]
    assert len(log_posteriors(net, frames, 3)) == 4
    assert torch.allclose(log_posteriors(net, frames, 3), log_posteriors(net, frames)[::3], atol=1e-6)


def test_a_system_at_another_rate_leaves_the_usual_one_alone(experiment, here, tmp_path):
    usual = experiment.decode()
    before = {path: path.read_bytes() for path in experiment.paths.run.rglob("*") if path.is_file()}
    paths, config = experiment.paths, experiment.config("train.frame_subsampling=3")
    SMALL.save(paths.lang / "lexicon.txt")
    third = Paths(paths.data_dir, paths.exp_dir, paths.model, paths.seed, system_folder(config))
    evaluate.decode(config, third, 1)
    assert {path: path.read_bytes() for path in before} == before
    scores = read_json(third.scores("dense"))
    assert third.scores("dense") == paths.run / "systems" / "every_3rd_frame" / "scores" / "dense.json"
    assert scores["frame_subsampling"] == 3 and scores["net"] == usual["dense"]["net"]
    silence = config.lang.silence_probability
    skips = make_transducers(SMALL, UNITS, silence, paths.lang / "lm.arpa", paths.lang / "words.txt", skips=True)
    graphs = build_graphs(tmp_path / "graphs", skips, BACKENDS[:1])
    assert sha256_file(third.own_graph / FILE_NAMES[BACKENDS[0]]) == graphs[BACKENDS[0]]["sha256"]
    count = len(here)
    assert experiment.decode() == usual and len(here) == count
    assert evaluations_on_test(paths.test_log, row="dense", system="every 3rd frame") == 1
    assert evaluations_on_test(paths.test_log, row="dense", system="") == 1


@pytest.mark.parametrize("skip", [2, 3])
def test_scores_that_frames_share(experiment, here, skip):
    usual = experiment.decode()
    config = experiment.config(f"decode.frame_skip={skip}")
    paths = dataclasses.replace(experiment.paths, system=system_folder(config))
    evaluate.decode(config, paths, 1)
    scores = read_json(paths.scores("dense"))
    assert scores["frame_skip"] == skip and scores["net"] == usual["dense"]["net"]
    # All frames computed, and of each the scores of the last one that is a multiple of `skip`.
    search = load_search(paths.align, config.decode, paths.lang / "words.txt")
    store, net = FrameStore.open(paths.features("test")), load_net(paths.net("dense"))
    prior = torch.from_numpy(np.load(paths.align / "log_prior.npy"))
    every = [scores["acoustic_scale"] * log_likelihoods(net, store.utterance(i), prior) for i in range(len(store))]
    picked = [values[[t - t % skip for t in range(len(values))]] for values in every]
    words = [hypothesis.words for hypothesis in search.decode(picked)]
    assert scores["test"]["errors"] == experiment.errors("test", words)
    for frames in (1, 2, 3, 7, 8):
        part = store.utterance(0)[:frames]
        whole = log_likelihoods(net, part, prior)
        assert torch.allclose(log_likelihoods(net, part, prior, 1, skip), whole[[t - t % skip for t in range(frames)]], atol=1e-6)
        third = log_likelihoods(net, part, prior, 3)
        assert torch.allclose(log_likelihoods(net, part, prior, 3, skip), third[[t - t % skip for t in range(len(third))]], atol=1e-6)
    count = len(here)
    assert experiment.decode() == usual and len(here) == count
    assert evaluations_on_test(paths.test_log, row="dense", system=f"scores shared by {skip} frames") == 1


def test_nets_that_must_see_every_frame_skip_none(experiment):
    net = Lstm(UNITS.num_units, [5], UNITS.num_units)
    frames = FrameStore.open(experiment.paths.features("test")).utterance(0)
    with pytest.raises(ConfigError, match="decode.frame_skip: a recurrent net .*found 2. Set it to 1"):
        log_likelihoods(net, frames, torch.zeros(()), 1, 2)
    with pytest.raises(ConfigError, match="decode.frame_skip: nets trained with CTC"):
        experiment.config("decode.frame_skip=2", "train.criterion=ctc", "lang.units=chars")
    lstm = load_config(experiment.yaml, model="lstm", settings=["decode.frame_skip=2"])
    with pytest.raises(ConfigError, match="decode.frame_skip: a recurrent net"):
        check_rows(lstm)


def test_frame_skip_counts_only_where_frames_are_skipped(experiment):
    usual, skipping = experiment.config(), experiment.config("decode.frame_skip=2")
    assert "frame_skip" not in usual.decode.counting_values() and skipping.decode.counting_values()["frame_skip"] == 2
    # What stands in rows that were decoded before there was the option.
    before = {key: value for key, value in usual.decode.model_dump(mode="json").items() if key != "frame_skip"}
    assert usual.decode.counting_values() == before
    assert row_hashes(usual)["dense"] != row_hashes(skipping)["dense"]
    assert evaluate.decoding_identity(usual, experiment.paths) != evaluate.decoding_identity(skipping, experiment.paths)
    parts = Stamps(usual, experiment.paths).parts(BY_VERB["decode"]), Stamps(skipping, experiment.paths).parts(BY_VERB["decode"])
    assert [part.get("decode.frame_skip") for part in parts] == [None, 2]


def test_the_nets_own_prior(experiment, here):
    scores = experiment.decode("decode.prior=posterior")
    assert scores["dense"]["prior"].startswith("mean posterior")
    store, net = FrameStore.open(experiment.paths.features("train")), load_net(experiment.paths.net("dense"))
    logits = torch.relu(torch.from_numpy(np.array(store.frames))) * 3.0
    expected = torch.softmax(logits.double(), dim=1).mean(dim=0).log().numpy()
    np.testing.assert_allclose(mean_posterior(net, store), expected, atol=1e-5)
    np.testing.assert_allclose(np.load(experiment.paths.scores("dense").with_suffix(".log_prior.npy")), expected, atol=1e-5)


def test_characters_decide_where_they_are_the_headline(experiment, here):
    config = experiment.config("corpus.error_rate=character")
    stores = {split: FrameStore.open(experiment.paths.features(split)) for split in ("dev", "test", "noisy")}
    evaluation = RowEvaluation(config, experiment.paths, rows(config)[0], "identity", stores, 1)
    (part,) = evaluation.start()
    first, second = evaluation.grid
    ids = stores["dev"].ids
    words = dict(zip(ids, stores["dev"].texts))
    # One wrong word of three characters, or two wrong words of one character each.
    position = next(i for i, text in enumerate(stores["dev"].texts) if text == ["two", "two"])
    others = [i for i, text in enumerate(stores["dev"].texts) if text == ["b"]]
    one_word = {**words, ids[position]: ["two", "ab"]}
    two_words = {**words, **{ids[i]: ["a"] for i in others}}
    parts = evaluation.done(part, {first: one_word, second: two_words})
    assert parts[0].settings == (second,)


def test_processes_give_what_this_process_gives(experiment):
    scores = experiment.decode(nj=2)
    assert scores["dense"]["test"]["errors"] == experiment.errors(
        "test", experiment.words("dense", "test", scores["dense"]["acoustic_scale"])
    )


def test_the_error_rate_that_chooses_counts(experiment):
    config = experiment.config()
    changed = config.model_copy(update={"corpus": config.corpus.model_copy(update={"error_rate": "character"})})
    assert evaluate.decoding_identity(changed, experiment.paths) != evaluate.decoding_identity(config, experiment.paths)
