"""Throughput of acoustic models: several utterances handed over at once, to several threads. It is no real-time factor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dropasr.runtime.engines import Engine
from dropasr.runtime.machine import pinned
from dropasr.runtime.timing import order_of_pass

Item = tuple[np.ndarray, np.ndarray, np.ndarray]


def throughput(
    nets: Mapping[str, Engine], items: Sequence[Item], seconds: float, threads: int, batch: int, repeats: int
) -> dict[str, dict[str, Any]]:
    """Seconds of speech per second of each net: median, least and largest over the passes, which are interleaved.

    `items`: raw features, mean and std of utterances of `seconds` in all. `batch` of them are handed to `threads` threads (one core each,
    the net shared) and waited for, then the next; nets are loaded with one thread of their own.
    """
    rates: dict[str, list[float]] = {name: [] for name in nets}
    with pinned(threads), ThreadPoolExecutor(threads) as pool:
        for repeat in range(repeats + 1):
            for name in order_of_pass(list(nets), repeat):
                begin = time.perf_counter()
                for first in range(0, len(items), batch):
                    list(pool.map(nets[name].scores, *zip(*items[first : first + batch])))
                if repeat > 0:
                    rates[name].append(seconds / (time.perf_counter() - begin))
    return {
        name: {"threads": threads, "batch": batch, "median": float(np.median(found)), "least": min(found), "most": max(found)}
        for name, found in rates.items()
    }
