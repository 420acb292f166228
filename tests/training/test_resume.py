"""Training survives kill -9 and ends with the same weights, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dropasr.data.batches import FrameSampler
from dropasr.data.chunks import ChunkSampler
from dropasr.data.sequences import SequenceSampler
from dropasr.errors import CheckpointError

CASE = Path(__file__).with_name("training_case.py")
sys.path.insert(0, str(CASE.parent))
from training_case import METHODS, make_trainer  # noqa: E402 (the folder above is on the path only now)


def weights(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


CASES = [
    *((name, "frames") for name in METHODS),
    *((name, "ctc") for name in ("dense", "dropout_compaction")),
    *((name, "chunks") for name in ("annealed_dropout", "dropout_compaction", "approximate_random_dropout", "svd")),
    ("dropout_compaction", "ctc_chunks"),
]


@pytest.mark.parametrize("method,criterion", CASES)
def test_killed_training_ends_with_identical_weights(tmp_path, method, criterion):
    whole = make_trainer(tmp_path / "whole", method, criterion)
    expected = weights(whole.run())
    killed = tmp_path / "killed"
    for lines in (1, 2):
        process = subprocess.Popen([sys.executable, str(CASE), str(killed), method, criterion, "slow"], stdout=subprocess.PIPE, text=True)
        seen = 0
        for line in process.stdout:
            seen += line.startswith("epoch")
            if seen == lines:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL
    resumed = make_trainer(killed, method, criterion)
    messages = []
    resumed.say = messages.append
    found = weights(resumed.run())
    assert sum(line.startswith("epoch") for line in messages) < 5, "the killed runs left nothing to resume from"
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    same = ("train_ce", "dev_ce", "dev_frame_error", "units", "keep", "learning_rate")
    assert [[row[key] for key in same] for row in whole.history] == [[row[key] for key in same] for row in resumed.history]


def test_compaction_meets_its_budget_and_proves_each_step(tmp_path):
    trainer = make_trainer(tmp_path, "dropout_compaction", epochs=8)
    large = trainer.net.macs_per_frame()
    net = trainer.run()
    assert abs(net.macs_per_frame() / (0.3 * large) - 1) < 0.06  # 32 units a layer: one unit is 5 % of the budget
    assert trainer.compactions and trainer.compactions[-1]["units_after"] == net.widths
    assert all(step["max_difference"] <= 1e-4 * step["largest_logit"] for step in trainer.compactions)
    assert set(trainer.estimators) == {"score", "mean_field", "gumbel_st"}
    assert all(len(figures["split_half"]) == 2 for figures in trainer.estimators.values())
    assert trainer.history[-1]["dev_frame_error"] < 30  # six classes: chance is 83 %
    assert trainer.history[-1]["units"] == net.widths and trainer.history[0]["units"] == [32, 32]
    assert sum(trainer.retention[0]["layers"][0]["counts"]) == trainer.retention[0]["layers"][0]["total"]


@pytest.mark.parametrize("criterion,kind", [("frames", FrameSampler), ("ctc", SequenceSampler), ("chunks", ChunkSampler)])
def test_a_pass_is_whole_where_held_out_frames_return_inside_it(tmp_path, monkeypatch, criterion, kind):
    """Retention learning ends in epoch 5 of 6, the last of a pass of three."""
    drawn, epoch_of = [], kind.epoch

    def recorded(self, epoch):
        for batch in epoch_of(self, epoch):
            drawn.append((epoch, batch[2]))
            yield batch

    monkeypatch.setattr(kind, "epoch", recorded)
    messages = []
    trainer = make_trainer(tmp_path, "dropout_compaction", criterion, epochs=6, epoch_share=1 / 3, say=messages.append)
    trainer.run()
    total, held_out = (sampler.num_frames for sampler in (trainer.samplers.all, trainer.samplers.held_out))
    first, second = (torch.cat([indices for epoch, indices in drawn if epoch in epochs]).tolist() for epochs in (range(3), range(3, 6)))
    assert len(first) == len(set(first)) == total - held_out
    assert len(second) == len(set(second)) == total
    assert not any("whole" in text for text in messages)


def test_a_last_pass_that_is_not_whole_is_told_once(tmp_path):
    messages = []
    make_trainer(tmp_path, "dense", epochs=5, epoch_share=0.5, say=messages.append).run()
    make_trainer(tmp_path, "dense", epochs=5, epoch_share=0.5, say=messages.append).run()
    assert [text for text in messages if "whole" in text] == ["2 epochs are a pass over the data, and 5 epochs do not end with a whole one"]


def test_another_processor_goes_on_and_says_so(tmp_path, monkeypatch):
    make_trainer(tmp_path, "dense", epochs=2).run()
    messages = []
    other = make_trainer(tmp_path, "dense", epochs=2, say=messages.append)
    assert other.resume() == 2 and messages == []
    other.precision = "float32" if other.precision == "bfloat16" else "bfloat16"
    assert other.resume() == 2 and messages[0].startswith(f"goes on in {other.precision} after 2 epochs in ")


def test_another_configuration_does_not_resume(tmp_path):
    trainer = make_trainer(tmp_path, "dense", epochs=2)
    trainer.run()
    other = make_trainer(tmp_path, "dense", epochs=2)
    assert other.resume() == 2
    other.identity = "other"
    assert other.resume() == 0


def test_damaged_training_state_is_refused_by_name(tmp_path):
    trainer = make_trainer(tmp_path, "dense", epochs=1)
    trainer.run()
    path = tmp_path / "net" / "training-1.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="training-1.safetensors.*damaged"):
        make_trainer(tmp_path, "dense", epochs=1).resume()


@pytest.mark.parametrize("criterion", ["frames", "ctc", "chunks"])
def test_masked_and_shared_epochs_resume_bit_for_bit(tmp_path, criterion):
    options = {"masking": {"time_width": 2, "frequency_width": 3}, "epoch_share": 0.5}
    expected = weights(make_trainer(tmp_path / "whole", "annealed_dropout", criterion, **options).run())
    stopped = make_trainer(tmp_path / "stopped", "annealed_dropout", criterion, **options)

    def stop(figures):
        if figures["epoch"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.run(stop)
    resumed = make_trainer(tmp_path / "stopped", "annealed_dropout", criterion, **options)
    assert resumed.resume() == 3
    found = weights(make_trainer(tmp_path / "stopped", "annealed_dropout", criterion, **options).run())
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    plain = weights(make_trainer(tmp_path / "plain", "annealed_dropout", criterion, epoch_share=0.5).run())
    assert not all(torch.equal(tensor, plain[name]) for name, tensor in expected.items())
