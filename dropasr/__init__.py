"""dropasr: train large acoustic models with dropout, learn which units to keep, remove the others, measure what it bought.

`dropasr.load(folder).transcribe(path)` transcribes with a package folder, without torch; `dropasr.compact(net, data, …)` removes units of a
net of your own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropasr.processor import use_fast_kernels

if TYPE_CHECKING:
    from dropasr.adapt.compact import compact
    from dropasr.runtime.recogniser import load

__version__ = "0.1.0"
__all__ = ["compact", "load"]

_API = {"compact": "dropasr.adapt.compact", "load": "dropasr.runtime.recogniser"}
"""Functions of the package, and the modules that they are in: imported when they are asked for, since what they need differs."""


use_fast_kernels()  # before torch is imported, which most modules do


def __getattr__(name: str) -> Any:
    if name in _API:
        import importlib

        return getattr(importlib.import_module(_API[name]), name)
    raise AttributeError(f"module 'dropasr' has no attribute '{name}'")
