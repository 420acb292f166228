"""Approximate random dropout: how much faster a training step is than one with ordinary dropout.

    python benchmarks/approximate_dropout.py [--threads 1] [--nets mlp lstm] [--mlp 1024 2048 4096] [--cells 512 1024 1500]
        [--rates 0.3 0.5 0.7] [--precisions float32 bfloat16] [--batch 256] [--chunks 24] [--frames 60] [--steps 12] [--repeats 5]
        [--patterns blocks] [--parts 4] [--part-frames 128] [--wanted-mlp 1.5] [--wanted-lstm 1.4]

A row per net, rate and precision. A step is the forward pass, the backward pass, clipping and the update by SGD with momentum, as in
training; masks and patterns are drawn in it by the methods `dropout` and `approximate_random_dropout` themselves. MLPs have `--layers`
hidden layers on 680 inputs and 1000 outputs, and `--batch` frames a step; LSTMs have two layers on 120 inputs (three frames of 40) and
1000 outputs, and read `--chunks` pieces of `--frames` steps.

Steps of the methods alternate. Times are means over all steps, since the patterns of a step decide how long it takes; a ratio is that
of the sums of one repeat of `--steps` steps each, given as mean ± standard deviation over the repeats. `open` is a step without dropout.
Figures mean something on a quiet machine alone. Ends with exit code 1 if the ratio of an MLP of 2048 units, or of an LSTM of 1024 cells, at
rate 0.5 is below what is wanted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from lstm import processor
from torch.nn import functional

from dropasr.data.chunks import Chunks, Inputs
from dropasr.methods import build_method
from dropasr.methods.base import BaseMethod, Schedule
from dropasr.models import build_model
from dropasr.models.base import AcousticModel

OUTPUTS, FEATURES = 1000, 40
HEADER = "| net | precision | rate | {kinds} | {ratios} |"


@dataclass
class Case:
    """One net, and what it is trained on."""

    label: str
    kind: str
    width: int
    make: Callable[[], AcousticModel]
    inputs: Inputs


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """The nets that were asked for."""
    generator = torch.Generator().manual_seed(0)
    for width in arguments.mlp if "mlp" in arguments.nets else []:
        inputs = torch.randn(arguments.batch, 17 * FEATURES, generator=generator)
        options = {"name": "feedforward", "layers": arguments.layers, "width": width}
        yield Case(
            f"mlp {arguments.layers} x {width}", "mlp", width, lambda options=options: build_model(options, FEATURES, OUTPUTS), inputs
        )
    for cells in arguments.cells if "lstm" in arguments.nets else []:
        frames = torch.randn(arguments.chunks, 3 * arguments.frames, FEATURES, generator=generator)
        rows = torch.arange(0, frames.shape[0] * frames.shape[1], 3)
        chunks = Chunks(frames, torch.full((arguments.chunks,), frames.shape[1]), rows)
        options = {"name": "lstm", "cells": cells, "subsampling": 3}
        yield Case(f"lstm 2 x {cells}", "lstm", cells, lambda options=options: build_model(options, FEATURES, OUTPUTS), chunks)


class Contestant:
    """A net of its own with an optimiser, trained by one method."""

    def __init__(self, case: Case, method: dict, bfloat16: bool) -> None:
        torch.manual_seed(0)
        self.net, self.inputs, self.bfloat16, self.steps = case.make().train(), case.inputs, bfloat16, 0
        self.labels = torch.randint(OUTPUTS, (len(case.inputs),))
        self.optimiser = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-5)
        self.method: BaseMethod = build_method(method["method"], method, Schedule(1, 1, 0))
        self.method.begin_epoch(self.net, 0, np.random.Generator(np.random.SFC64(0)))
        self.method.training_mode(self.net, 0)

    def step(self) -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        self.method.before_step(self.net, 0, self.steps)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            logits = self.net(self.inputs)
        loss = functional.cross_entropy(logits.float(), self.labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimiser.step()
        self.steps += 1
        return time.perf_counter() - began


def row(case: Case, rate: float, bfloat16: bool, arguments: argparse.Namespace) -> float:
    """Print one row; returns the lowest mean ratio of dropout to approximate dropout, of rows and blocks."""
    methods = {"open": {"method": "dense"}, "dropout": {"method": "dropout", "rate": rate}}
    for name in ["rows", *(name for name in arguments.patterns if case.kind == "mlp" or name != "tiles")]:
        methods[name] = {"method": "approximate_random_dropout", "rate": rate, "pattern": name}
        methods[name] |= {"parts": arguments.parts, "part_frames": arguments.part_frames} if name == "blocks" else {}
    contestants = {name: Contestant(case, method, bfloat16) for name, method in methods.items()}
    totals: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant.step()
    for _ in range(arguments.repeats):
        sums = dict.fromkeys(contestants, 0.0)
        for number in range(arguments.steps):
            names = list(contestants)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                sums[name] += contestants[name].step()
        for name, value in sums.items():
            totals[name].append(value)
    ratios = {name: [a / b for a, b in zip(totals["dropout"], totals[name])] for name in contestants if name != "dropout"}
    kinds = ["open", "dropout", "rows", *arguments.patterns]
    count = arguments.repeats * arguments.steps
    milliseconds = " | ".join(f"{1000 * sum(totals[name]) / count:.1f}" if name in totals else "–" for name in kinds)
    shown = " | ".join(_spread(ratios[name]) if name in ratios else "–" for name in kinds if name != "dropout")
    print(f"| {case.label} | {'bfloat16' if bfloat16 else 'float32'} | {rate:g} | {milliseconds} | {shown} |", flush=True)
    return min(statistics.mean(ratios[name]) for name in ("rows", "blocks") if name in ratios)


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"


def main() -> int:
    """Print hardware and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--nets", nargs="+", choices=("mlp", "lstm"), default=["mlp", "lstm"], help="kinds of nets")
    parser.add_argument("--mlp", nargs="+", type=int, default=[1024, 2048, 4096], help="widths of MLPs")
    parser.add_argument("--layers", type=int, default=4, help="hidden layers of MLPs")
    parser.add_argument("--cells", nargs="+", type=int, default=[512, 1024, 1500], help="cells of LSTMs")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.3, 0.5, 0.7], help="dropout rates")
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"], help="number types")
    parser.add_argument("--batch", type=int, default=256, help="frames per step of MLPs")
    parser.add_argument("--chunks", type=int, default=24, help="pieces per step of LSTMs")
    parser.add_argument("--frames", type=int, default=60, help="steps per piece of LSTMs")
    parser.add_argument("--steps", type=int, default=12, help="steps per method and repeat")
    parser.add_argument("--repeats", type=int, default=5, help="repeats")
    parser.add_argument("--patterns", nargs="*", choices=("blocks", "tiles"), default=["blocks"], help="beside rows (tiles: MLPs)")
    parser.add_argument("--parts", type=int, default=4, help="parts of a batch with blocks of their own, at most")
    parser.add_argument("--part-frames", type=int, default=128, help="frames of such a part, at least")
    parser.add_argument("--wanted-mlp", type=float, default=1.5, help="least ratio, MLP of 2048 units at rate 0.5")
    parser.add_argument("--wanted-lstm", type=float, default=1.4, help="least ratio, LSTM of 1024 cells at rate 0.5")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"hardware: {processor()}, {os.cpu_count()} cores, {arguments.threads} threads, torch {torch.__version__}")
    print(f"batch {arguments.batch} frames; {arguments.chunks} pieces of {arguments.frames} steps")
    print(f"blocks: {arguments.parts} parts of {arguments.part_frames} frames or more")
    print(f"{arguments.repeats} x {arguments.steps} steps\n")
    kinds = ["open", "dropout", "rows", *arguments.patterns]
    ratios = " | ".join(f"dropout / {name}" for name in kinds if name != "dropout")
    print(HEADER.format(kinds=" | ".join(f"{name} (ms)" for name in kinds), ratios=ratios))
    print("|" + "---|" * (2 + len(kinds) + len(kinds)))
    wanted = {("mlp", 2048): arguments.wanted_mlp, ("lstm", 1024): arguments.wanted_lstm}
    failed = []
    for case in cases(arguments):
        for precision in arguments.precisions:
            for rate in arguments.rates:
                ratio = row(case, rate, precision == "bfloat16", arguments)
                least = wanted.get((case.kind, case.width))
                if rate == 0.5 and least is not None and ratio < least:
                    failed.append(f"{case.label}, {precision}: {ratio:.2f} (wanted: {least:g})")
    if failed:
        print("\nbelow what is wanted at rate 0.5: " + "; ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
