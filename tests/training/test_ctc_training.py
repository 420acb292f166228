"""CTC as a criterion of the one training loop, with every method; and the targets of stage 4."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.config import CorpusConfig, TrainConfig
from dropasr.data.store import FrameStore, FrameStoreWriter
from dropasr.errors import DataError
from dropasr.lang.ctc import sequence_losses, spread_labels
from dropasr.lang.pieces import train_pieces
from dropasr.training.criteria import CtcCriterion, frame_loss
from dropasr.training.ctc_targets import tokens_of

sys.path.insert(0, str(Path(__file__).parent))
from training_case import METHODS, make_trainer  # noqa: E402 (the folder above is on the path only now)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_learns_tokens(tmp_path, method):
    trainer = make_trainer(tmp_path, method, "ctc", epochs=40)
    large = trainer.net.macs_per_frame()
    net = trainer.run()
    first, last = trainer.history[0], trainer.history[-1]
    assert last["dev_ce"] < 0.6 * first["dev_ce"]
    assert last["dev_frame_error"] < 60 < first["dev_frame_error"]  # six classes in random order: blanks alone are 100 %
    if trainer.method.makes_smaller:
        assert abs(net.macs_per_frame() / (0.3 * large) - 1) < 0.06
        assert all(step["max_difference"] <= 1e-4 * step["largest_logit"] for step in trainer.compactions)


@pytest.mark.parametrize("estimator", ["score", "gumbel_st", "random"])
def test_other_estimators_run_and_note_their_signal_at_every_update(tmp_path, estimator, monkeypatch):
    options = {**METHODS["dropout_compaction"], "estimator": estimator, "signal_updates": True, "passes": 2, "updates_per_pass": 3}
    monkeypatch.setitem(METHODS, "dropout_compaction", options)
    trainer = make_trainer(tmp_path, "dropout_compaction", "ctc")
    trainer.run()
    signals = trainer.signals
    assert (
        [(item["pass"], item["update"]) for item in signals] == [] if estimator == "random" else [(p, u) for p in (1, 2) for u in range(3)]
    )
    assert all(set(item["split_half"]) == {"score", "mean_field", "gumbel_st"} for item in signals)


def test_the_signal_of_a_single_utterance_is_told_as_not_measured(tmp_path, monkeypatch):
    options = {"signal_updates": True, "passes": 2, "updates_per_pass": 1, "frames_per_update": 2, "signal_frames": 2}
    monkeypatch.setitem(METHODS, "dropout_compaction", {**METHODS["dropout_compaction"], **options})
    messages = []
    trainer = make_trainer(tmp_path, "dropout_compaction", "ctc", say=messages.append)
    trainer.run()
    (found,) = {str(figures["split_half"]) for figures in trainer.estimators.values()}
    assert found == "[None, None]" and len([text for text in messages if text.endswith("held-out frames): – –")]) == 3
    assert all(values == [None, None] for item in trainer.signals for values in item["split_half"].values())
    assert "NaN" not in (tmp_path / "net" / "training.json").read_text()


def test_parts_of_the_data_per_epoch(tmp_path):
    trainer = make_trainer(tmp_path, "dense", "ctc", epochs=3, epoch_share=1 / 3)
    trainer.run()
    assert len(trainer.history) == 3
    whole = sum(int(round(row["frames_per_second"] * row["seconds"])) for row in trainer.history)
    assert whole == pytest.approx(trainer.samplers.all.num_frames, rel=0.01)


def test_the_loss_is_per_token_and_begins_with_a_flat_start(tmp_path):
    trainer = make_trainer(tmp_path, "dense", "ctc")
    inputs, targets, _ = trainer.samplers.all.gather(np.array([0, 5]))
    logits = trainer.net(inputs).detach()
    criterion = CtcCriterion(TrainConfig(criterion="ctc", flat_start=0.2))
    flat, ctc = (criterion.loss(logits, targets, progress, None, 0.0) for progress in (0.19, 0.2))
    expected = float(sequence_losses(torch.log_softmax(logits, dim=1), targets).sum()) / len(targets.tokens)
    assert ctc.count == flat.count == len(targets.tokens)
    assert [float(ctc.objective), ctc.value, flat.value] == pytest.approx([expected] * 3, rel=1e-5)
    assert float(flat.objective) == pytest.approx(float(frame_loss(logits, spread_labels(targets), None, 0.0)), rel=1e-5)


def test_a_teacher_weighs_the_same_whatever_the_frames_per_token(tmp_path):
    trainer = make_trainer(tmp_path, "dense", "ctc")
    inputs, targets, _ = trainer.samplers.all.gather(np.array([0, 5]))
    logits = torch.randn(len(inputs), 7)
    teacher = torch.softmax(torch.randn(len(inputs), 7), dim=1)
    criterion = CtcCriterion(TrainConfig(criterion="ctc", flat_start=0.2))
    # The cross-entropy of the rows one by one; of whole utterances per token, as CTC is, and in the flat start per row, as that is.
    soft = -sum(float(teacher[row] @ torch.log_softmax(logits, dim=1)[row]) for row in range(len(inputs)))
    for progress, unit in ((0.5, len(targets.tokens)), (0.1, len(inputs))):
        plain = float(criterion.loss(logits, targets, progress, None, 0.0).objective)
        mixed = float(criterion.loss(logits, targets, progress, teacher, 0.3).objective)
        assert mixed == pytest.approx(0.7 * plain + 0.3 * soft / unit, rel=1e-5)


def corpus(**options) -> CorpusConfig:
    return CorpusConfig(name="c", prepare="lhotse:yesno", **options)


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    """AB needs three frames as characters with the boundary, AA four."""
    with FrameStoreWriter(tmp_path / "store", 2) as writer:
        for id_, words, frames in [("whole", "AB", 3), ("short", "AA", 3), ("fits", "AA", 4), ("strange", "AC", 9)]:
            writer.add(id_, "s", words.split(), frames / 100, np.zeros((frames, 2)))
    return FrameStore.open(tmp_path / "store")


def test_utterances_too_short_or_unspellable_have_no_tokens(store):
    encoder = train_pieces([["AB"]], "chars")
    tokens, left_out = tokens_of("dev", store, encoder, 1, corpus(max_dropped=0.5))
    assert tokens.lengths.tolist() == [3, 0, 3, 0]
    assert [item["id"] for item in left_out] == ["short", "strange"]
    assert "3 model frames for a transcript that needs 4" in left_out[0]["reason"] and "'AC'" in left_out[1]["reason"]


def test_the_drop_policy_holds(store):
    encoder = train_pieces([["AB"]], "chars")
    with pytest.raises(DataError, match="'short': 3 model frames for a transcript that needs 4"):
        tokens_of("train", store, encoder, 1, corpus(too_short="error"))
    with pytest.raises(DataError, match="max_dropped.*'short'"):
        tokens_of("train", store, encoder, 1, corpus(max_dropped=0.1))
    with pytest.raises(DataError, match="max_dropped.*'whole': 1 model frames"):
        tokens_of("train", store, encoder, 3, corpus(max_dropped=0.1))
