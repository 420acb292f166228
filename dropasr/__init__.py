"""dropasr: train large acoustic models with dropout, learn which units to keep, remove the others, measure what it bought."""

__version__ = "0.1.0"

_API = {"compact": "dropasr.adapt.compact"}
"""Functions of the package, and the modules that they are in: imported when they are asked for, since they need torch."""


def __getattr__(name: str):
    if name in _API:
        import importlib

        return getattr(importlib.import_module(_API[name]), name)
    raise AttributeError(f"module 'dropasr' has no attribute '{name}'")
