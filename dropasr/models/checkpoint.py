"""A finished net on disk without pickle: `model.safetensors`, `model.json` for what it means, a SHA-256 between the two."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from dropasr.config import REPOSITORY
from dropasr.errors import CheckpointError, DataError
from dropasr.files import read_json, sha256_bytes, write_bytes, write_json
from dropasr.models import model_from_dims
from dropasr.models.base import AcousticModel


@lru_cache(maxsize=1)
def git_revision() -> str:
    """Revision of the code, with `+` if the working tree was changed; `unknown` outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> str:
    """Write tensors atomically as safetensors; return the SHA-256 of the file."""
    data = save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})
    write_bytes(path, data)
    return sha256_bytes(data)


def read_tensors(path: Path, expected: str) -> dict[str, torch.Tensor]:
    """Read safetensors whose SHA-256 must be `expected`. Raises CheckpointError naming the file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: the weights are missing. Train the net again: bash run.sh --stage 5.") from None
    found = sha256_bytes(data)
    if found != expected:
        raise CheckpointError(
            f"{path}: the file is damaged: expected SHA-256 {expected[:16]}…, found {found[:16]}…. "
            f"Remove the folder {path.parent} and train the net again: bash run.sh --stage 5."
        )
    return load(data)


def save_net(folder: Path, net: AcousticModel, about: dict[str, Any]) -> None:
    """Write a finished net: weights, dims, widths, hash, and `about` (configuration, seed, figures)."""
    digest = write_tensors(folder / "model.safetensors", net.state_dict())
    write_json(folder / "model.json", {"dims": net.dims, "widths": net.widths, "sha256": digest, "git_revision": git_revision(), **about})


def load_net(folder: Path) -> AcousticModel:
    """Rebuild a finished net from its folder, in evaluation mode. Raises CheckpointError naming the file if it is damaged."""
    try:
        about = read_json(folder / "model.json")
    except DataError as error:
        raise CheckpointError(str(error)) from None
    net = model_from_dims(about["dims"])
    net.load_state_dict(read_tensors(folder / "model.safetensors", about["sha256"]))
    return net.eval()
