"""Finished nets on disk."""

from __future__ import annotations

import json

import pytest
import torch

from dropasr.errors import CheckpointError
from dropasr.models.checkpoint import load_net, save_net
from dropasr.models.feedforward import FeedForward


@pytest.fixture()
def saved(tmp_path):
    torch.manual_seed(0)
    net = FeedForward([0, 2, 3], (1, 2), [5, 7], 4, "sigmoid", True, num_features=4).eval()
    save_net(tmp_path, net, {"row": "dense"})
    return net, tmp_path


def test_loaded_net_gives_the_same_logits(saved):
    net, folder = saved
    frames = torch.randn(9, 4)
    with torch.no_grad():
        assert torch.equal(net.logits(frames), load_net(folder).logits(frames))
    about = json.loads((folder / "model.json").read_text())
    assert about["dims"]["widths"] == about["widths"] == [5, 7] and about["row"] == "dense"


@pytest.mark.parametrize("position", [0, 100, -1])
def test_one_flipped_bit_is_refused(saved, position):
    _, folder = saved
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError) as error:
        load_net(folder)
    assert "model.safetensors" in str(error.value) and "SHA-256" in str(error.value) and "--stage 5" in str(error.value)


def test_missing_files_are_named(saved):
    _, folder = saved
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_net(folder)
    (folder / "model.json").unlink()
    with pytest.raises(CheckpointError, match="model.json"):
        load_net(folder)
