"""A finished net on disk without pickle: `model.safetensors`, `model.json` for what it means, and a SHA-256 over each.

The hash of the weights stands in the JSON, and the JSON carries one over the rest of itself: a damaged `relu` must not become another net.
"""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from dropasr.config import REPOSITORY
from dropasr.errors import CheckpointError, ConfigError, DataError
from dropasr.files import hash_of, read_json, sha256_bytes, write_bytes, write_json
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


def _plain(value: Any) -> Any:
    """The value as JSON gives it back (tuples as lists, keys as text), so that its hash is the same before and after a file."""
    return json.loads(json.dumps(value))


def write_about(path: Path, about: dict[str, Any]) -> None:
    """Write the JSON beside a checkpoint atomically, with the hash of its content in `about_sha256`."""
    content = _plain(about)
    write_json(path, {**content, "about_sha256": hash_of(content)})


def read_about(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read what `write_about` wrote, without the hash. Raises CheckpointError naming the file if it is missing, damaged, or lacks a key."""
    advice = f"Remove the folder {path.parent} and train the net again: bash run.sh --stage 5."
    try:
        about = read_json(path)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    expected = about.pop("about_sha256", None) if isinstance(about, dict) else None
    if not isinstance(expected, str):
        raise CheckpointError(f"{path}: expected a JSON object with the hash of its content (about_sha256), found none. {advice}")
    found = hash_of(about)
    if found != expected:
        raise CheckpointError(f"{path}: the file is damaged: expected SHA-256 {expected[:16]}…, found {found[:16]}…. {advice}")
    missing = [key for key in keys if key not in about]
    if missing:
        raise CheckpointError(f"{path}: expected the key '{missing[0]}', found {', '.join(sorted(about)) or 'none'}. {advice}")
    return about


def rebuild(path: Path, dims: dict[str, Any], tensors: dict[str, torch.Tensor]) -> AcousticModel:
    """The net that `dims` describes, with these weights. Raises CheckpointError naming `path` where the two do not fit together."""
    try:
        net = model_from_dims(dims)
        net.load_state_dict(tensors)
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CheckpointError(
            f"{path}: expected dims that describe the net of the weights beside it, found others ({reason}). "
            f"Remove the folder {path.parent} and train the net again with this version of dropasr: bash run.sh --stage 5."
        ) from None
    return net


def save_net(folder: Path, net: AcousticModel, about: dict[str, Any]) -> None:
    """Write a finished net: weights, dims, widths, hash, and `about` (configuration, seed, figures)."""
    digest = write_tensors(folder / "model.safetensors", net.state_dict())
    write_about(folder / "model.json", {"dims": net.dims, "widths": net.widths, "sha256": digest, "git_revision": git_revision(), **about})


def load_net(folder: Path) -> AcousticModel:
    """Rebuild a finished net from its folder, in evaluation mode. Raises CheckpointError naming the file if it is damaged."""
    path = folder / "model.json"
    about = read_about(path, ("dims", "sha256"))
    return rebuild(path, about["dims"], read_tensors(folder / "model.safetensors", about["sha256"])).eval()
