"""Whether other processes keep the processor busy while times are about to be taken."""

from __future__ import annotations

import time
from pathlib import Path

BUSY_SHARE = 0.25
"""Other processes' share of one core above which the machine counts as busy."""


def _jiffies(stat: Path) -> tuple[int, int, int]:
    """CPU time so far, busy and in all, summed over the cores, and the number of cores."""
    lines = [line.split() for line in stat.read_text(encoding="utf-8").splitlines() if line.startswith("cpu")]
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user already (proc(5)).
    times = [int(value) for value in lines[0][1:9]]
    return sum(times) - times[3] - times[4], sum(times), len(lines) - 1


def busy_share(stat: Path = Path("/proc/stat"), seconds: float = 1.0) -> float:
    """CPU time that other processes use while this one sleeps for `seconds`, as a share of one core (2.0: two cores full)."""
    busy, total, cores = _jiffies(stat)
    time.sleep(seconds)
    later_busy, later_total, _ = _jiffies(stat)
    return cores * (later_busy - busy) / max(later_total - total, 1)


def busy_caution(share: float) -> str:
    """What a reader of times must know that were taken while other processes used this share of one core."""
    return (
        f"The machine was busy when times were taken (other processes used {100 * share:.0f} % of one core): "
        "RTFs are too high; speed-ups suffer less, because the nets were interleaved."
    )
