"""ONNX Runtime, float32."""

from __future__ import annotations

from pathlib import Path

from dropasr.runtime.engines.base_onnx import OnnxEngine, requirement
from dropasr.runtime.exported import WHOLE, Exported

TITLE, FILE = "ONNX Runtime, float32", WHOLE
__all__ = ["requirement"]


def load(folder: Path, exported: Exported, threads: int) -> OnnxEngine:
    """The net of an exported folder."""
    return OnnxEngine(folder, exported, FILE, threads)
