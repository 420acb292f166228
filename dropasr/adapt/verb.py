"""`python -m dropasr compact-net FILE.yaml`: a net given as a state dict and a list of layers, with data in files."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file as load_tensors

from dropasr.adapt.compact import Compacted, compact
from dropasr.config import Options, apply_setting, parse_options, read_layers
from dropasr.errors import ConfigError, DataError

ARRAYS = ("inputs", "targets", "lengths")
"""Arrays of a data file; the last one may be missing."""


class NetOptions(Options):
    """Keys of the YAML; paths are relative to its folder."""

    weights: str
    """State dict: .safetensors, or .pt as torch.save writes one."""
    layers: list[Any]
    """Layers with the prefixes of their tensors, input side first (dropasr/adapt/layers.py)."""
    train_data: str
    """.npz or .safetensors: `inputs` (N, D), or (B, T, F) for an LSTM, `targets` (N,) or (B, T), and `lengths` (B,) of sequences that are
    padded, or that lie one behind the other in inputs (N, F) and targets (N,)."""
    dev_data: Union[str, None] = None
    """The same for figures on dev; null: a tenth of train_data."""
    budget: str = "macs=1/8"
    """See dropasr/adapt/budgets.py; --budget comes first."""
    method: str = "dropout_compaction"
    """File of conf/method/ that removes units."""
    options: dict[str, Any] = {}
    """Options of the method, over those of its file."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the data, those before and after the removal included."""
    train: dict[str, Any] = {}
    """Options of training: batch_size, learning_rate, precision, … (`train` of any configuration)."""
    frames_per_call: int = Field(default=1, ge=1)
    """Rows, or steps of a sequence, of the call whose latency counts."""
    folder: Union[str, None] = None
    """Where results and state go; null: beside the YAML, NAME-compacted."""


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file; of a training checkpoint, what its key `state_dict` has. Code in a .pt is not run.

    Raises DataError that names the file.
    """
    try:
        found = load_tensors(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: the weights are missing. Correct the key weights.") from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: expected a state dict (torch.save(net.state_dict(), …) or safetensors), found something else: {reason}"
        ) from None
    found = found["state_dict"] if isinstance(found, dict) and isinstance(found.get("state_dict"), dict) else found
    if not isinstance(found, dict) or not found or not all(torch.is_tensor(value) for value in found.values()):
        raise DataError(f"{path}: expected a state dict, name: tensor, found {type(found).__name__}. Save net.state_dict().")
    return found


def read_arrays(path: Path) -> tuple[np.ndarray, ...]:
    """Inputs, targets and, where the file has them, lengths; runs of one sequence after the other become padded ones.

    Raises DataError that names the file.
    """
    try:
        if path.suffix == ".safetensors":
            arrays = load_arrays(path)
        else:
            file = np.load(path, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("a single array without a name")
            with file:
                arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path}: the data file is missing.") from None
    except (SafetensorError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: expected .npz or .safetensors, found something else: {' '.join(str(error).split())[:200]}") from None
    missing = [name for name in ARRAYS[:2] if name not in arrays]
    if missing:
        raise DataError(f"{path}: expected the arrays inputs and targets, found {', '.join(arrays) or 'none'}.")
    found = tuple(arrays[name] for name in ARRAYS if name in arrays)
    if len(found) == 3 and found[0].ndim == 2:
        inputs, targets, lengths = found
        if lengths.ndim != 1 or int(lengths.sum()) != len(inputs) or len(targets) != len(inputs):
            raise DataError(f"{path}: expected lengths that add up to the {len(inputs)} inputs and targets, found {int(lengths.sum())}.")
        return _padded(inputs, lengths), _padded(targets, lengths), lengths
    return found


def _padded(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    made = np.zeros((len(lengths), int(lengths.max()), *values.shape[1:]), values.dtype)
    for row, part in zip(made, np.split(values, np.cumsum(lengths)[:-1])):
        row[: len(part)] = part
    return made


def compact_net(
    path: Path,
    budget: Union[str, None],
    method: Union[str, None],
    seed: int,
    settings: tuple[str, ...],
    folder: Union[Path, None],
    epochs: Union[int, None] = None,
) -> Compacted:
    """Compact the net of a YAML; what is given beside it comes first. Writes compacted.safetensors and compacted.json."""
    values = read_layers(path)
    for setting in settings:
        apply_setting(values, setting)
    options = parse_options(NetOptions, values, str(path))
    if folder is None:
        folder = path.parent / (options.folder or f"{path.stem}-compacted")
    data = [read_arrays(path.parent / name) for name in (options.train_data, options.dev_data) if name is not None]
    for name, arrays in zip(("train_data", "dev_data"), data):
        if arrays[0].dtype.kind != "f":
            raise ConfigError(f"{path}: {name}: expected inputs of floating point, found {arrays[0].dtype}.")
    result = compact(
        read_weights(path.parent / options.weights),
        data[0],
        budget=budget or options.budget,
        method=method or options.method,
        epochs=epochs or options.epochs,
        dev=data[1] if len(data) > 1 else None,
        layers=options.layers,
        train=options.train,
        options=options.options,
        frames_per_call=options.frames_per_call,
        folder=folder / "state",
        seed=seed,
    )
    result.save(folder)
    print(f"wrote {folder / 'compacted.safetensors'} and {folder / 'compacted.json'}")
    return result
