"""Recurrent nets: what masks cost in a training step, what sharing them costs in gradient noise, and what compaction saves.

    python benchmarks/lstm.py [--threads 1] [--cells 128] [--batch 24] [--steps 120] [--repeats 5] [--keep 0.5] [--wanted 1.3]

Three tables, for lstm, lstmp and blstm of two layers on 40 features:

1. seconds of a training step (forward, backward) with open gates, with a mask per sequence, with one for the batch, interleaved, and
   the first against the others; every sequence is a chunk of `--steps` frames;
2. variance of the gradient of a batch over draws of batches and masks, summed over parameters, and the squared norm of its mean, with
   open gates, with a mask per sequence, with one for each of four runs of sequences, and with one for the batch;
3. seconds of inference over one utterance, large and compacted to `--keep` of the units of every group, interleaved, in every engine
   that can run them on this machine.

Figures mean something on a quiet machine alone. Ends with exit code 1 if a step that draws its masks as in training costs more than
`--wanted` open ones.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from dropasr.compaction.proof import compact
from dropasr.data.chunks import Chunks
from dropasr.models import build_model
from dropasr.models.gates import sample_mask, sampled
from dropasr.models.lstm import Lstm
from dropasr.runtime.engines import Engine, engine_names, load_engine, why_not
from dropasr.runtime.export import write_files
from dropasr.runtime.exported import Exported
from dropasr.runtime.graphs import layout_of

FEATURES, OUTPUTS, RETENTION = 40, 120, 0.75


def make_net(name: str, cells: int) -> Lstm:
    """Two layers; a projection has half as many outputs as there are cells, a half of a bidirectional layer fewer cells."""
    torch.manual_seed(0)
    options = {"lstm": {}, "lstmp": {"projection": cells // 2}, "blstm": {"bidirectional": True}}[name]
    return build_model({"name": "lstm", "cells": cells, **options}, FEATURES, OUTPUTS)


def make_batch(batch: int, steps: int, seed: int = 1) -> tuple[Chunks, torch.Tensor]:
    """Chunks of random frames, all of them scored, and labels that depend on the last eight frames: something to learn."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(batch, steps, FEATURES, generator=generator)
    weights = torch.randn(FEATURES, OUTPUTS, generator=torch.Generator().manual_seed(0))
    smooth = functional.avg_pool1d(functional.pad(frames, (0, 0, 7, 0)).transpose(1, 2), 8, 1).transpose(1, 2)
    labels = (smooth @ weights).argmax(dim=2).flatten()
    return Chunks(frames, torch.full((batch,), steps), torch.arange(batch * steps)), labels


def set_gates(net: Lstm, kind: str, generator: np.random.Generator) -> None:
    """`open`; `drawn`: as methods draw masks in training, one per sequence, for a projection one per batch; `shared`: one per batch."""
    for group in net.unit_groups():
        retention = torch.full((group.gate.width,), RETENTION)
        if kind == "open":
            group.gate.multiplier = None
        elif kind == "drawn":
            group.gate.multiplier = sampled(generator, retention)
        else:
            group.gate.multiplier = sample_mask(generator, 1, retention)[0].float()


def step(net: Lstm, chunks: Chunks, labels: torch.Tensor, bfloat16: bool = False) -> None:
    """Forward and backward of one batch."""
    net.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        logits = net(chunks)
    functional.cross_entropy(logits.float(), labels).backward()


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, taken in turns after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def training_steps(name: str, arguments: argparse.Namespace, bfloat16: bool) -> float:
    """Print one row of the first table; returns the ratio of a step with drawn masks to an open one."""
    net, (chunks, labels) = make_net(name, arguments.cells), make_batch(arguments.batch, arguments.steps)
    generator = np.random.Generator(np.random.SFC64(0))

    def call(kind: str) -> Callable[[], None]:
        def run() -> None:
            set_gates(net, kind, generator)
            step(net, chunks, labels, bfloat16)

        return run

    taken = interleaved({kind: call(kind) for kind in ("open", "drawn", "shared")}, arguments.repeats)
    seconds = {kind: statistics.median(values) for kind, values in taken.items()}
    ratios = {kind: seconds[kind] / seconds["open"] for kind in ("drawn", "shared")}
    precision = "bfloat16" if bfloat16 else "float32"
    milliseconds = " | ".join(f"{1000 * seconds[kind]:.0f}" for kind in seconds)
    print(f"| {name} | {precision} | {milliseconds} | {ratios['drawn']:.2f} | {ratios['shared']:.2f} |")
    return ratios["drawn"]


def gradient_noise(arguments: argparse.Namespace, kinds: dict[str, int]) -> None:
    """Print the second table, of an lstm that has learned for a while; `kinds`: masks per batch, 0 for open gates."""
    net = make_net("lstm", arguments.cells)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    for number in range(2 * arguments.draws):
        step(net, *make_batch(arguments.batch, arguments.steps, number))
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    generator = np.random.Generator(np.random.SFC64(1))
    for kind, masks in kinds.items():
        gradients = []
        for number in range(arguments.draws):
            for group in net.unit_groups():
                drawn = sample_mask(generator, max(masks, 1), torch.full((group.gate.width,), RETENTION))
                own = torch.arange(arguments.batch) * masks // arguments.batch
                group.gate.multiplier = drawn[own].float() / RETENTION if masks else None
            step(net, *make_batch(arguments.batch, arguments.steps, 1000 + number))
            gradients.append(torch.cat([parameter.grad.flatten() for parameter in net.parameters()]))
        stacked = torch.stack(gradients)
        mean = stacked.mean(dim=0)
        variance = float((stacked - mean).square().sum()) / (len(gradients) - 1)
        # The square of the mean of a few draws holds a share of their variance.
        print(f"| {kind} | {variance:.3g} | {float(mean.square().sum()) - variance / len(gradients):.3g} |")


def engines_of(net: Lstm, folder: Path) -> dict[str, Callable[[np.ndarray], object]]:
    """The net in every engine that can run it here: what takes features `(T, F)` to scores."""
    folder.mkdir()
    layout = layout_of(net, net.stride)
    about = {"num_mel_bins": FEATURES, "frame_shift": 0.01, "frame_length": 0.025, "low_freq": 20.0, "high_freq": -400.0}
    card = Exported(
        corpus="random frames",
        licence="none",
        model="lstm",
        row="benchmark",
        dims=net.dims,
        widths=net.widths,
        git_revision="unknown",
        sample_rate=16000,
        features=about,
        normalisation={"kind": "none", "prior_frames": 0.0, "mean": [0.0] * FEATURES, "std": [1.0] * FEATURES},
        stride=layout.stride,
        left_context=layout.left_context,
        right_context=layout.right_context,
        output_delay=layout.output_delay,
        recurrent=True,
        states=[],
        acoustic_scale=0.1,
        prior="none",
        units=OUTPUTS,
        frames_scored=net.frames_scored,
    )
    exported = write_files(net, torch.zeros(OUTPUTS), card, folder, [])
    mean, std = np.zeros(FEATURES, np.float32), np.ones(FEATURES, np.float32)

    def call(engine: Engine) -> Callable[[np.ndarray], object]:
        return lambda features: engine.scores(features, mean, std)

    return {name: call(load_engine(folder, name, 1, exported)) for name in engine_names() if why_not(name, exported) is None}


def inference(name: str, arguments: argparse.Namespace) -> None:
    """Print the rows of one net in the third table."""
    large = make_net(name, arguments.cells).eval()
    small, (chunks, _) = copy.deepcopy(large), make_batch(1, 10 * arguments.steps)
    generator = torch.Generator().manual_seed(0)
    scales = []
    for width in small.widths:
        chosen = torch.randperm(width, generator=generator)[: max(1, round(arguments.keep * width))]
        scales.append(torch.zeros(width).index_fill(0, chosen, 1.0))
    compact(small, scales, chunks, fold=True)
    share = small.macs_per_frame() / large.macs_per_frame()
    features = chunks.frames[0].numpy()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        nets = {which: engines_of(net, Path(folder) / which) for which, net in (("large", large), ("compacted", small))}
        for engine in nets["large"]:
            calls = {which: functools.partial(found[engine], features) for which, found in nets.items()}
            seconds = interleaved(calls, arguments.repeats)
            ratios = [slow / fast for slow, fast in zip(seconds["large"], seconds["compacted"])]
            microseconds = " | ".join(f"{1e6 * statistics.median(values) / len(features):.1f}" for values in seconds.values())
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {name} | {engine} | {share:.3f} | {microseconds} | {spread} |")


def main() -> int:
    """Print hardware and the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--cells", type=int, default=128, help="cells per layer and direction")
    parser.add_argument("--batch", type=int, default=24, help="chunks per step")
    parser.add_argument("--steps", type=int, default=120, help="frames per chunk, contexts included")
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions")
    parser.add_argument("--draws", type=int, default=24, help="draws of masks for the gradient noise")
    parser.add_argument("--keep", type=float, default=0.5, help="share of the units that stay")
    parser.add_argument("--wanted", type=float, default=1.3, help="largest ratio of a step with drawn masks to an open one that passes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"hardware: {processor()}, {os.cpu_count()} cores, {arguments.threads} threads, torch {torch.__version__}")
    print(f"2 x {arguments.cells} cells, {arguments.batch} chunks of {arguments.steps} frames, retention {RETENTION}\n")
    print("| net | precision | open (ms) | drawn (ms) | shared (ms) | drawn / open | shared / open |\n|---|---|---|---|---|---|---|")
    names = ("lstm", "lstmp", "blstm")
    worst = max(training_steps(name, arguments, bfloat16) for name in names for bfloat16 in (False, True))
    print("\n| masks | variance of the gradient | squared mean |\n|---|---|---|")
    gradient_noise(arguments, {"none": 0, "one per sequence": arguments.batch, "four per batch": 4, "one per batch": 1})
    print("\n| net | engine | multiply-adds | large (µs per frame) | compacted (µs per frame) | speed-up |\n|---|---|---|---|---|---|")
    for name in names:
        inference(name, arguments)
    print(f"\na step with drawn masks costs at most {worst:.2f} open ones (wanted: {arguments.wanted:g})")
    return 0 if worst <= arguments.wanted else 1


def processor() -> str:
    """Name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    sys.exit(main())
