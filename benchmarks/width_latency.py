"""Latency of a layer against its width: whether widths that are multiples of 8, 16, 32 … units are faster on this machine.

    python benchmarks/width_latency.py [--kind linear|lstm] [--rows 1,100] [--widths 128:512] [--centres 12] [--repeats 15]

One thread pinned to one core. Around each of `--centres` widths, spread evenly over `--widths`, all widths of a window (centre - 16 to
centre + 16) are timed in turns, in a new order each time: square layers (as many inputs as units) on `--rows` rows, or an LSTM on as many
steps. Times are processor times of the thread, each divided by the median of its turn, so that what else the machine does cancels, and by
its multiply-adds.

Printed, per multiple m: the time per multiply-add of widths that are multiples of m over that of the others (a straight line through the
window), the median over windows with a 90 % bootstrap interval over windows. Below 1: faster than their size alone explains, which is what
the option `width_multiple` could gain. It ends with the multiples that gain at least 2 %, or says that there are none.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time

import numpy as np
import torch
from torch import nn

from dropasr.runtime.busy import BUSY_SHARE, busy_share
from dropasr.runtime.machine import hardware, pinned

MULTIPLES = (4, 8, 16, 32)
REACH, CALL_SECONDS = 16, 2e-3
WORTH = 0.98


def call_of(kind: str, width: int, rows: int):
    """A layer of `width` units that reads as many values, and the function that runs it once."""
    if kind == "linear":
        layer, inputs = nn.Linear(width, width), torch.randn(rows, width)
    else:
        layer, inputs = nn.LSTM(width, width), torch.randn(rows, 1, width)
    layer.eval()
    return lambda: layer(inputs)


def seconds(call, count: int) -> float:
    began = time.thread_time()
    for _ in range(count):
        call()
    return (time.thread_time() - began) / count


def window(kind: str, centre: int, rows: int, repeats: int, rng: np.random.Generator) -> dict[int, float]:
    """Median time of each width around `centre`, relative to the median width of its turn, per multiply-add."""
    calls = {width: call_of(kind, width, rows) for width in range(centre - REACH, centre + REACH + 1)}
    for call in calls.values():
        seconds(call, 2)
    count = max(1, round(CALL_SECONDS / seconds(calls[centre], 3)))
    turns: dict[int, list[float]] = {width: [] for width in calls}
    for _ in range(repeats):
        found = {width: seconds(calls[width], count) for width in rng.permutation(list(calls)).tolist()}
        middle = statistics.median(found.values())
        for width, own in found.items():
            turns[width].append(own / middle)
    return {width: statistics.median(own) / width**2 * centre**2 for width, own in turns.items()}


def gain(times: dict[int, float], multiple: int) -> float:
    """Time per multiply-add of multiples over that of the other widths of a window, along a straight line through the window.

    Without the line, a window whose wider layers run better would count as a gain of whatever multiples lie on that side.
    """
    widths = np.array(sorted(times))
    values = np.array([times[width] for width in widths])
    own = widths % multiple == 0
    line = np.polyfit(widths[~own] - widths.mean(), values[~own], 1)
    return float(np.median(values[own] / np.polyval(line, widths[own] - widths.mean())))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("linear", "lstm"), default="linear")
    parser.add_argument("--rows", default="1,100", help="rows of a call, or steps")
    parser.add_argument("--widths", default="128:512")
    parser.add_argument("--centres", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    low, high = map(int, options.widths.split(":"))
    busy, machine, rng = busy_share(), hardware(), np.random.default_rng(0)
    print(f"{machine['cpu']}, {platform.python_version()}, torch {torch.__version__}, {options.kind}, widths {options.widths}, one thread")
    if busy > BUSY_SHARE:
        print(f"other processes use {100 * busy:.0f} % of one core: times are relative to the others of their turn, and noisier")
    worth = []
    with pinned(), torch.inference_mode():
        for rows in map(int, options.rows.split(",")):
            centres = np.linspace(low + REACH, high - REACH, options.centres).round().astype(int).tolist()
            windows = [window(options.kind, centre, rows, options.repeats, rng) for centre in centres]
            print(f"{rows} rows: time per multiply-add of multiples, relative to the other widths (median of {len(windows)} windows, 90 %)")
            for multiple in MULTIPLES:
                found = np.array([gain(times, multiple) for times in windows])
                draws = np.median(rng.choice(found, (2000, len(found))), axis=1)
                bottom, top = np.percentile(draws, [5, 95])
                print(f"  multiples of {multiple:<3} {np.median(found):.3f} [{bottom:.3f}, {top:.3f}]")
                if np.median(found) <= WORTH and top < 1:
                    worth.append(f"{multiple} at {rows} rows ({100 * (1 - np.median(found)):.0f} %)")
    print(f"rounding gains with multiples of {', '.join(worth)}" if worth else "rounding gains nothing here: leave width_multiple at 1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
