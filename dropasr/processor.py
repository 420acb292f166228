"""What the processor needs told before torch multiplies its first matrices.

Intel's MKL up to 2020.0, which the torch of the k2 stack holds, takes its oldest kernels on processors of other makers, at a quarter of
their speed in float32; a variable of the environment, read at the first product, makes it take those of AVX2. Later versions have kernels
for them and do not read it.
"""

from __future__ import annotations

import os
from itertools import takewhile

MKL_KERNELS = "MKL_DEBUG_CPU_TYPE"
AVX2 = "5"


def fast_kernels(cpuinfo: str) -> dict[str, str]:
    """Variables of the environment for a processor that /proc/cpuinfo describes so; empty where none is needed."""
    fields = {key.strip(): value for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    is_amd = fields.get("vendor_id", "").strip() == "AuthenticAMD"
    return {MKL_KERNELS: AVX2} if is_amd and {"avx2", "fma"} <= set(fields.get("flags", "").split()) else {}


def use_fast_kernels(source: str = "/proc/cpuinfo") -> None:
    """Set them for this process and those that it starts, unless the user has set them; nothing where there is no such file."""
    try:
        with open(source, encoding="utf-8") as file:
            first = "".join(takewhile(str.strip, file))  # as far as the empty line after the first core
    except OSError:
        return
    for name, value in fast_kernels(first).items():
        os.environ.setdefault(name, value)
