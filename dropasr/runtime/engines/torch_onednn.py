"""torch, float32, with its linear layers in oneDNN, weights in the layout that oneDNN prefers.

torch 1.13 hands float32 products to MKL, which takes slower kernels on processors of other makers; `torch.jit.freeze` and
`optimize_for_inference` leave them there (measured: no difference). Recurrent layers stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dropasr.runtime.engines import base_torch
from dropasr.runtime.exported import WEIGHTS, Exported

TITLE, FILE = "torch, oneDNN", WEIGHTS


def requirement() -> str | None:
    """What is missing on this machine, or None."""
    if base_torch.requirement() is not None:
        return base_torch.requirement()
    import torch

    return None if torch.backends.mkldnn.is_available() else "this torch was built without oneDNN"


def _prepared(net: Any) -> Any:
    import torch
    from torch.utils.mkldnn import MkldnnLinear

    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(module, name, MkldnnLinear(child, torch.float32))
    return net


def load(folder: Path, exported: Exported, threads: int) -> base_torch.TorchEngine:
    """The net of an exported folder."""
    return base_torch.TorchEngine(folder, exported, threads, _prepared)
