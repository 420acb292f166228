"""A user's net compacted by the verb: files in, files out, and what is said of those that do not fit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from compact_case import one_thread, rows, trained  # noqa: F401
from conftest import REPOSITORY
from safetensors.torch import load_file, save_file
from torch import nn

from dropasr.cli import main
from dropasr.errors import DataError


def files(folder: Path, labels: np.ndarray | None = None) -> Path:
    """A YAML with weights, data and dev data beside it."""
    net, (inputs, own) = trained(), rows()
    save_file(net.state_dict(), folder / "net.safetensors")
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, folder / "net.pt")
    np.savez(folder / "train.npz", inputs=inputs.numpy(), targets=own.numpy() if labels is None else labels)
    save_file(dict(zip(("inputs", "targets"), rows(300, seed=4))), folder / "dev.safetensors")
    path = folder / "mine.yaml"
    path.write_text(
        "weights: net.safetensors\nlayers: [{linear: '0'}, relu, {batch_norm: '2'}, dropout, {linear: '4'}, tanh, {linear: '6'}]\n"
        "train_data: train.npz\ndev_data: dev.safetensors\nepochs: 5\noptions: {frames_per_update: 128}\n"
        "train: {batch_size: 64, precision: float32}\n",
        encoding="utf-8",
    )
    return path


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = files(tmp_path)
    assert main(["compact-net", str(path), "--budget", "bytes=9k"]) == 0
    folder = tmp_path / "mine-compacted"
    about, tensors = json.loads((folder / "compacted.json").read_text()), load_file(folder / "compacted.safetensors")
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) <= 9000
    assert (
        tensors["4.weight"].shape
        == tuple(about["widths"][::-1])
        == (about["sizes"]["4"]["out_features"], about["sizes"]["4"]["in_features"])
    )
    assert about["figures"]["after"]["error"] < 5
    assert "wrote" in capsys.readouterr().out
    from_pt = path.read_text().replace("net.safetensors", "net.pt")
    path.write_text(from_pt)
    assert (
        main(["compact-net", str(path), "--budget=bytes=9k", "--exp-dir", str(tmp_path / "out"), "--set", "train.learning_rate=0.05"]) == 0
    )
    again = load_file(tmp_path / "out" / "compacted.safetensors")
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("net.safetensors", "no.safetensors"), ["no.safetensors", "missing"]),
        (("net.safetensors", "train.npz"), ["train.npz", "state dict"]),
        (("train.npz", "none.npz"), ["none.npz", "missing"]),
        (("train.npz", "mine.yaml"), ["mine.yaml", ".npz or .safetensors"]),
        (("train_data", "data"), ["mine.yaml", "'train_data'"]),
        (("epochs: 5", "epochs: none"), ["mine.yaml", "epochs"]),
        (("'4'", "'5'"), ["'5.weight'"]),
    ],
)
def test_the_verb_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], words: list[str]):
    path = files(tmp_path)
    path.write_text(path.read_text().replace(change[0], change[1], 1))
    assert main(["compact-net", str(path)]) != 0
    message = capsys.readouterr().err
    assert message.startswith("error: ") and all(word in message for word in words), message


def test_epochs_have_an_option_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = files(tmp_path)
    assert main(["compact-net", str(path), "--set", "train.epochs=2"]) == 2 and "Give `epochs`" in capsys.readouterr().err
    assert main(["compact-net", str(path), "--budget", "macs=1/2", "--epochs", "1"]) == 0
    assert "epoch 1/1" in capsys.readouterr().out


def test_the_verb_wants_a_file_and_others_no_budget(capsys: pytest.CaptureFixture[str]):
    assert main(["compact-net"]) == 2 and "FILE.yaml" in capsys.readouterr().err
    assert main(["list", "--budget", "macs=1/8"]) == 2 and "belongs to budget and compact-net" in capsys.readouterr().err


def test_data_and_weights_that_are_damaged_are_told(tmp_path: Path):
    from dropasr.adapt.verb import read_arrays, read_weights

    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "whole.npz", inputs=np.zeros((300, 20)), targets=np.zeros(300))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(whole[:999] + bytes([whole[999] ^ 255]) + whole[1000:])
    for name in ("single.npy", "truncated.npz", "flipped.npz"):
        with pytest.raises(DataError, match=f"{name}: expected .npz or .safetensors"):
            read_arrays(tmp_path / name)
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "folder.pt").mkdir()
    for name in ("text.pt", "folder.pt"):
        with pytest.raises(DataError, match=f"{name}: expected a state dict"):
            read_weights(tmp_path / name)


def test_sequences_one_behind_the_other(tmp_path: Path):
    from dropasr.adapt.verb import read_arrays

    lengths, values = np.array([2, 3, 1]), np.arange(12.0).reshape(6, 2)
    np.savez(tmp_path / "a.npz", inputs=values, targets=np.arange(6), lengths=lengths)
    inputs, targets, found = read_arrays(tmp_path / "a.npz")
    assert inputs.shape == (3, 3, 2) and targets.tolist() == [[0, 1, 0], [2, 3, 4], [5, 0, 0]] and found.tolist() == [2, 3, 1]
    assert inputs[1].tolist() == values[2:5].tolist() and not inputs[0, 2].any()
    np.savez(tmp_path / "b.npz", inputs=values, targets=np.arange(6), lengths=np.array([2, 3]))
    with pytest.raises(DataError, match="add up to the 6"):
        read_arrays(tmp_path / "b.npz")


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    text = (REPOSITORY / "docs" / "compact-your-own-net.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "compact-your-own-net.md", "exec"), names)
    assert isinstance(names["small"].module, nn.Sequential)
    assert (tmp_path / "small" / "compacted.safetensors").exists()
    capsys.readouterr()
    [described] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "net.yaml").write_text(described, encoding="utf-8")
    [command] = re.findall(r"^python -m dropasr (compact-net .*)$", text, re.MULTILINE)
    assert main([str(tmp_path / word) if word == "net.yaml" else word for word in command.split()]) == 0
    assert (tmp_path / "net-compacted" / "compacted.json").exists()
