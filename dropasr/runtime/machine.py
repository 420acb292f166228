"""The machine that figures are measured on: what it is, and one core of it alone."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchaudio", "k2", "kaldi-decoder", "kaldifst", "lhotse", "sentencepiece", "numpy", "onnxruntime")
ENERGY = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of processors (RAPL), if it does."""


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and system of this machine; no names or addresses."""
    cpu = platform.machine()
    with contextlib.suppress(OSError):
        for line in open("/proc/cpuinfo", encoding="utf-8"):
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": 1,
        "memory_gib": round(memory, 1),
        "os": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@lru_cache(maxsize=1)
def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively (otherwise it is slower than float32)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@contextlib.contextmanager
def pinned(threads: int = 1) -> Iterator[None]:
    """Pin this process to as many cores as `threads`, and torch to one thread."""
    import torch

    before, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, set(sorted(cores)[-threads:]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(before)


def joules(root: Path = ENERGY) -> float | None:
    """Energy that the processors have used since some moment, in joules, where their counters exist and can be read.

    Packages alone (`intel-rapl:0`, …): their parts and memory (`intel-rapl:0:0`) are counted in them or beside them.
    """
    total = 0.0
    packages = [path for path in sorted(root.glob("*-rapl:*")) if path.name.count(":") == 1]
    for package in packages:
        try:
            total += int((package / "energy_uj").read_text()) / 1e6
        except (OSError, ValueError):
            return None
    return total if packages else None
