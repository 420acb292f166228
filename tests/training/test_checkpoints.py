"""The state of an unfinished training on disk: whole, or refused by name."""

from __future__ import annotations

import pytest
import torch

from dropasr.errors import CheckpointError
from dropasr.models.checkpoint import read_about, write_about
from dropasr.models.feedforward import FeedForward
from dropasr.training.checkpoints import load_training, restore_optimiser, save_training


def stepped(optimiser, **options):
    """A net and its optimiser after one step."""
    torch.manual_seed(0)
    net = FeedForward(4, (1, 1), [5, 7], 3)
    made = optimiser(net.parameters(), lr=0.1, **options)
    net(torch.randn(2, 12)).sum().backward()
    made.step()
    return net, made


@pytest.fixture()
def folder(tmp_path):
    net, optimiser = stepped(torch.optim.SGD, momentum=0.9)
    about = {"identity": "case", "history": [{"epoch": 1, "train_ce": 0.25, "keep": None, "dev_ce": float("nan")}]}
    save_training(tmp_path, 1, net, optimiser, {"retention.0": torch.rand(5)}, about)
    return tmp_path


def test_the_whole_state_comes_back(folder):
    about, net, state, tensors = load_training(folder)
    assert about["epoch"] == 1 and about["identity"] == "case" and about["history"][0]["train_ce"] == 0.25
    assert net.widths == [5, 7] and list(tensors) == ["retention.0"]
    assert set(state) == {f"momentum_buffer.{name}" for name, _ in net.named_parameters()}


def test_every_optimiser_goes_on_as_if_it_had_not_stopped(tmp_path):
    for optimiser, options in ((torch.optim.SGD, {"momentum": 0.9}), (torch.optim.SGD, {}), (torch.optim.AdamW, {})):
        net, kept = stepped(optimiser, **options)
        save_training(tmp_path, 1, net, kept, {}, {})
        _, copy, state, _ = load_training(tmp_path)
        fresh = optimiser(copy.parameters(), lr=0.1, **options)
        restore_optimiser(copy, fresh, state)
        inputs = torch.randn(2, 12)
        for one, steps in ((net, kept), (copy, fresh)):
            for _ in range(2):
                steps.zero_grad()
                one(inputs).square().sum().backward()
                steps.step()
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), copy.parameters()))


@pytest.mark.parametrize("bit", range(8))
def test_one_flipped_bit_anywhere_in_the_json_is_refused(folder, bit):
    path = folder / "training.json"
    whole = path.read_bytes()
    for position in range(len(whole) - 1):  # the last byte is the line feed after the object
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << bit)]) + whole[position + 1 :])
        with pytest.raises(CheckpointError, match="training.json"):
            load_training(folder)


def test_a_state_of_other_dims_or_without_a_key_is_refused_by_name(folder):
    path = folder / "training.json"
    about = read_about(path, ())
    write_about(path, {**about, "dims": {**about["dims"], "widths": [5, 8]}})
    with pytest.raises(CheckpointError, match="training.json.*expected dims"):
        load_training(folder)
    del about["file"]
    write_about(path, about)
    with pytest.raises(CheckpointError, match="training.json.*'file'"):
        load_training(folder)
