"""Finished nets on disk."""

from __future__ import annotations

import json

import pytest
import torch

from dropasr.errors import CheckpointError, ConfigError
from dropasr.models.checkpoint import load_net, save_net, write_about
from dropasr.models.feedforward import FeedForward


@pytest.fixture()
def saved(tmp_path):
    torch.manual_seed(0)
    net = FeedForward(4, (1, 2), [5, 7], 4, "sigmoid", True, inputs=[0, 2, 3, 9]).eval()
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


@pytest.mark.parametrize("bit", range(8))
def test_one_flipped_bit_anywhere_in_the_json_is_refused(saved, bit):
    """Bit `bit` of every byte in turn, white space and the hash itself included."""
    _, folder = saved
    path = folder / "model.json"
    whole = path.read_bytes()
    for position in range(len(whole) - 1):  # the last byte is the line feed after the object
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << bit)]) + whole[position + 1 :])
        with pytest.raises(CheckpointError, match="model.json"):
            load_net(folder)


def test_another_activation_is_refused_and_says_what_to_do(saved):
    _, folder = saved
    path = folder / "model.json"
    path.write_text(path.read_text().replace("sigmoid", "relu"))
    with pytest.raises(CheckpointError, match="model.json.*damaged: expected SHA-256 .* found .*--stage 5"):
        load_net(folder)
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "about_sha256"}))
    with pytest.raises(CheckpointError, match="about_sha256"):
        load_net(folder)
    path.write_text("[]")
    with pytest.raises(CheckpointError, match="about_sha256"):
        load_net(folder)


@pytest.mark.parametrize(
    "change", [{"widths": [5, 8]}, {"activation": "selu"}, {"model": "gone"}, {"num_outputs": "four"}, {"context": None}]
)
def test_dims_that_do_not_fit_the_weights_are_refused_by_name(saved, change):
    """Written on purpose, hash and all: another version's checkpoint must not end in a traceback."""
    net, folder = saved
    about = json.loads((folder / "model.json").read_text())
    write_about(folder / "model.json", {"dims": {**net.dims, **change}, "sha256": about["sha256"]})
    with pytest.raises(CheckpointError, match="model.json.*--stage 5"):
        load_net(folder)
    write_about(folder / "model.json", {"dims": {}, "sha256": about["sha256"]})
    with pytest.raises(CheckpointError, match="KeyError"):
        load_net(folder)


@pytest.mark.parametrize("key", ["dims", "sha256"])
def test_a_missing_key_is_named(saved, key):
    net, folder = saved
    about = json.loads((folder / "model.json").read_text())
    write_about(folder / "model.json", {name: about[name] for name in ("dims", "sha256") if name != key})
    with pytest.raises(CheckpointError, match=f"model.json.*{key}"):
        load_net(folder)


def test_an_unknown_activation_is_a_configuration_error():
    with pytest.raises(ConfigError, match="activation 'selu'.*relu"):
        FeedForward(1, (0, 0), [2], 2, "selu")


def test_missing_files_are_named(saved):
    _, folder = saved
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_net(folder)
    (folder / "model.json").unlink()
    with pytest.raises(CheckpointError, match="model.json"):
        load_net(folder)
