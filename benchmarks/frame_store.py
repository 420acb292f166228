"""Does the frame store keep a training step fed? Frames per second of the samplers against those of a training step.

    python benchmarks/frame_store.py [--threads 1] [--frames 400000] [--steps 40] [--wanted 10]

The frames are random, the net is 4 hidden layers of 1024 units on 17 spliced frames of 40 features, as in the main job,
in bfloat16 autocast where the processor has it. Beside frames, whole utterances for CTC and pieces for nets that read
sequences are drawn, at every frame and at every third (frames per second of the net), and masking is timed.
Ends with exit code 1 if the slowest sampler is below the wanted ratio.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from dropasr.data.batches import FrameSampler
from dropasr.data.chunks import ChunkSampler
from dropasr.data.masking import MaskOptions, mask_spliced
from dropasr.data.sequences import SequenceSampler, TokenSequences
from dropasr.data.store import FrameStore, FrameStoreWriter

FEATURES, CONTEXT, BATCH, WIDTH, LAYERS, OUTPUTS = 40, (8, 8), 512, 1024, 4, 120
UTTERANCE_FRAMES = 300
BATCH_FRAMES = 3000


def processor() -> tuple[str, bool]:
    """Name of the processor, and whether it computes in bfloat16."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return (names[0] if names else platform.processor() or "unknown processor"), "avx512_bf16" in text or "amx_bf16" in text


def make_store(folder: Path, num_frames: int) -> FrameStore:
    """A float16 store of random utterances."""
    generator = np.random.default_rng(0)
    with FrameStoreWriter(folder, FEATURES) as writer:
        for number in range(max(2, num_frames // UTTERANCE_FRAMES)):
            frames = generator.standard_normal((UTTERANCE_FRAMES, FEATURES), dtype=np.float32)
            writer.add(f"utterance{number}", f"speaker{number % 10}", ["word"], UTTERANCE_FRAMES / 100, frames)
    return FrameStore.open(folder)


def sampler_speed(sampler: FrameSampler | ChunkSampler | SequenceSampler, steps: int) -> float:
    """Inputs per second of drawing batches, the shuffle of the epoch included; the median of three passes."""
    speeds = []
    for epoch in range(3):
        began, frames = time.perf_counter(), 0
        for step, (inputs, _, _) in enumerate(sampler.epoch(epoch)):
            frames += len(inputs)
            if step >= 10 * steps:
                break
        speeds.append(frames / (time.perf_counter() - began))
    return sorted(speeds)[1]


def masking_speed(sampler: FrameSampler, steps: int) -> float:
    """Inputs per second of masking bands and spans."""
    inputs, generator = next(sampler.epoch(0))[0], torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for _ in range(steps):
        mask_spliced(inputs, FEATURES, generator, MaskOptions())
    return steps * len(inputs) / (time.perf_counter() - began)


def step_speed(sampler: FrameSampler, steps: int, bfloat16: bool) -> float:
    """Frames per second of forward, backward and SGD on batches that are already drawn; the first tenth warms up."""
    torch.manual_seed(0)
    widths = [sampler.input_size] + [WIDTH] * LAYERS
    layers = [module for a, b in zip(widths[:-1], widths[1:], strict=True) for module in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, OUTPUTS))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    inputs, labels, _ = next(sampler.epoch(0))
    warm_up = max(1, steps // 10)
    began = time.perf_counter()
    for step in range(warm_up + steps):
        if step == warm_up:
            began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = net(inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return steps * len(labels) / (time.perf_counter() - began)


def main() -> int:
    """Print hardware, both speeds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--frames", type=int, default=400_000, help="frames in the store")
    parser.add_argument("--steps", type=int, default=40, help="training steps timed")
    parser.add_argument("--wanted", type=float, default=10.0, help="smallest ratio that passes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name, bfloat16 = processor()
    print(f"hardware: {name}, {os.cpu_count()} cores, {arguments.threads} threads, torch {torch.__version__}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), arguments.frames)
        labels = np.random.default_rng(1).integers(OUTPUTS, size=store.num_frames).astype(np.int16)
        fed = {}
        for where, in_memory in (("in memory", True), ("memory-mapped", False)):
            sampler = FrameSampler(store, labels, CONTEXT, BATCH, in_memory=in_memory)
            fed[where] = sampler_speed(sampler, arguments.steps)
            print(f"sampler, {where}: {fed[where]:,.0f} frames/s")
        step = step_speed(sampler, arguments.steps, bfloat16)
        masking = masking_speed(sampler, arguments.steps)
        tokens = TokenSequences.from_lists([[1, 2]] * len(store))
        for stride in (1, 3):
            name = f"whole utterances, every {stride}. frame"
            fed[name] = sampler_speed(SequenceSampler(store, tokens, CONTEXT, BATCH_FRAMES, frame_subsampling=stride), arguments.steps)
            print(f"sampler, {name}: {fed[name]:,.0f} frames/s")
            name = f"pieces of 100 frames after 40 others, every {stride}. frame"
            pieces = ChunkSampler(store, labels, (40, 0), 100, BATCH_FRAMES, frame_subsampling=stride)
            fed[name] = sampler_speed(pieces, arguments.steps)
            print(f"sampler, {name}: {fed[name]:,.0f} frames/s")
    print(f"masking: {masking:,.0f} frames/s")
    print(f"training step {LAYERS}x{WIDTH}, batch {BATCH}, {'bfloat16 autocast' if bfloat16 else 'float32'}: {step:,.0f} frames/s")
    ratio = min(fed.values()) / step
    print(f"the slowest sampler is {ratio:.1f} times as fast as the step (wanted: {arguments.wanted:g})")
    return 0 if ratio >= arguments.wanted else 1


if __name__ == "__main__":
    sys.exit(main())
