"""The state of an unfinished training: `training-EPOCH.safetensors`, and `training.json`, which names it and is written last.

A killed process therefore leaves the older state valid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dropasr.models.base import AcousticModel
from dropasr.models.checkpoint import read_about, read_tensors, rebuild, write_about, write_tensors


def save_training(
    folder: Path,
    epoch: int,
    net: AcousticModel,
    optimiser: torch.optim.Optimizer,
    method_tensors: dict[str, torch.Tensor],
    about: dict[str, Any],
) -> None:
    """Write the state after `epoch` epochs, then remove the older one."""
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors.update({f"method.{name}": tensor for name, tensor in method_tensors.items()})
    for name, parameter in net.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value)
    path = folder / f"training-{epoch}.safetensors"
    digest = write_tensors(path, tensors)
    write_about(folder / "training.json", {"file": path.name, "sha256": digest, "epoch": epoch, "dims": net.dims, **about})
    for other in folder.glob("training-*.safetensors"):
        if other != path:
            other.unlink()


def load_training(folder: Path) -> tuple[dict[str, Any], AcousticModel, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The saved state: its JSON, the net, the optimiser's tensors by `KEY.PARAMETER`, tensors of the method.

    Raises CheckpointError naming the file if one is missing or damaged.
    """
    about = read_about(folder / "training.json", ("file", "sha256", "epoch", "dims"))
    tensors = read_tensors(folder / about["file"], about["sha256"])

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    net = rebuild(folder / "training.json", about["dims"], part("net."))
    return about, net, part("optimiser."), part("method.")


def restore_optimiser(net: AcousticModel, optimiser: torch.optim.Optimizer, state: dict[str, torch.Tensor]) -> None:
    """Put the saved state, by `KEY.PARAMETER`, back into a fresh optimiser of `net`."""
    parameters = dict(net.named_parameters())
    for place, value in state.items():
        key, name = place.split(".", 1)
        optimiser.state[parameters[name]][key] = value.clone()


def remove_training(folder: Path) -> None:
    """Remove the training state of a finished net."""
    (folder / "training.json").unlink(missing_ok=True)
    for path in folder.glob("training-*.safetensors"):
        path.unlink()
