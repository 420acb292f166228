"""Engines that run an exported net: one file each, found by name.

An engine file defines `TITLE` (its name in tables), `FILE` (what it reads of the exported folder), `requirement()`, which says what is
missing on this machine or None, and `load(folder, exported, threads)`, which returns an `Engine`. Files named `base_...` are shared.
Those of ONNX Runtime import neither torch nor the rest of the toolkit.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from dropasr.errors import ExportError, UsageError
from dropasr.files import read_json
from dropasr.runtime.exported import Exported
from dropasr.runtime.machine import hardware

DEFAULT, AUTO = "onnx", "auto"
CHOICE = "engine.json"
"""File of an exported folder that says which engine `python -m dropasr bench auto` found to be the best, and where."""


class Engine(Protocol):
    """A loaded net."""

    def scores(self, features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """Scores, float32 `(⌈T/stride⌉, P * K)`, of raw log-mels `(T, F)` and the mean and standard deviation `(F,)` to normalise them."""


def engine_names() -> list[str]:
    """All engines, those that cannot run here included."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("base_"))


def engine_module(name: str) -> ModuleType:
    """The file of an engine. Raises UsageError for an unknown name."""
    known = engine_names()
    if name not in known:
        nearest = max(known, key=lambda other: difflib.SequenceMatcher(None, name, other).ratio())
        raise UsageError(f"there is no engine '{name}': did you mean '{nearest}'? Engines: {', '.join(known)}.")
    return importlib.import_module(f"{__name__}.{name}")


def why_not(name: str, exported: Exported) -> str | None:
    """Why an engine cannot run an exported net on this machine; None where it can."""
    module = engine_module(name)
    if module.FILE not in exported.files:
        return f"the exported folder has no {module.FILE}"
    return module.requirement()


def chosen_engine(folder: str | Path) -> str:
    """The engine that was chosen for an exported folder. Raises UsageError where none was, or it was on another processor."""
    path = Path(folder) / CHOICE
    remedy = "Choose one on this machine: python -m dropasr bench auto FOLDER, or name the engine."
    if not path.exists():
        raise UsageError(f"{path}: no engine was chosen for this folder yet. {remedy}")
    value = read_json(path)
    if value["cpu"] != hardware()["cpu"]:
        raise UsageError(f"{path}: the engine was chosen on another processor ({value['cpu']}). {remedy}")
    return str(value["engine"])


def load_engine(folder: str | Path, name: str = DEFAULT, threads: int = 1, exported: Exported | None = None) -> Engine:
    """Load an exported net; `auto` is the engine that was chosen for it; `exported` is its card, if it was read and verified before.

    Raises ExportError where the engine cannot run.
    """
    exported = Exported.read(folder) if exported is None else exported
    name = chosen_engine(folder) if name == AUTO else name
    reason = why_not(name, exported)
    if reason is not None:
        raise ExportError(f"{folder}: engine '{name}' cannot run it: {reason}. Take another engine.")
    return engine_module(name).load(Path(folder), exported, threads)
