"""Real-time factor of exported nets on this machine. Needs Python from 3.8 on, numpy and ONNX Runtime, nothing else.

    python bench.py                       the net beside this file
    python bench.py ../dense ../compact   several, interleaved; speed-ups are against the first, in the same engine

One thread pinned to one core, batch 1, warmed up; nets and engines take turns over the same utterances, in an order that changes from
pass to pass. The factor is the sum of times over the sum of durations. Frames are drawn at random with the mean and deviation of the
training set: no speech is in this folder, and a matrix takes the same time for any. Word error rates are those of the card (model.json).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np

GRAPHS = {"float32": "model.onnx", "int8 dynamic": "model.int8.onnx", "int8 static": "model.int8s.onnx"}
STREAM = "stream.onnx"
SECONDS = (1.5, 3.0, 5.0, 8.0, 12.0)
"""Lengths of the utterances."""
CHUNK_SECONDS = 0.3
"""Speech at once in a stream."""
WARM_UP = 2
BUSY = 0.5
"""Load of the machine, as a share of its cores, above which times are doubtful."""


def machine() -> dict[str, Any]:
    """Processor, cores, system and versions; no names or addresses."""
    import onnxruntime

    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Hardware"))]
        cpu = names[0] if names else cpu
    except OSError:
        pass
    return {
        "cpu": cpu,
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2) if hasattr(os, "getloadavg") else None,
    }


def pin() -> bool:
    """Keep this process on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return True


def peak_memory() -> Any:
    """Peak resident memory of this process in MiB, or None."""
    try:
        import resource
    except ImportError:
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), 1)


def session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # no sums in 16 bits where the processor has no VNNI
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Net:
    """One exported net: its card, and a way to run each of its graphs on frames."""

    def __init__(self, folder: Path, threads: int) -> None:
        path = folder / "model.json"
        if not path.is_file():
            sys.exit(f"error: {folder}: expected the folder of an exported net with model.json, found none.")
        self.name, self.card = folder.resolve().name, json.loads(path.read_text(encoding="utf-8"))
        for name, expected in self.card["files"].items():
            data = (folder / name).read_bytes() if (folder / name).is_file() else b""
            if hashlib.sha256(data).hexdigest() != expected:
                sys.exit(f"error: {folder / name}: the file is missing or damaged. Copy the folder again.")
        self.mean = np.array(self.card["normalisation"]["mean"], np.float32)
        self.std = np.array(self.card["normalisation"]["std"], np.float32)
        self.shift = self.card["features"]["frame_shift"]
        self.runs: dict[str, Callable[[np.ndarray], None]] = {}
        self.bytes: dict[str, int] = {}
        for engine, file in {**GRAPHS, "float32, stream": STREAM}.items():
            if file in self.card["files"]:
                run = self._stream if file == STREAM else self._whole
                self.runs[engine] = run(session(folder / file, threads))
                self.bytes[engine] = (folder / file).stat().st_size

    def frames(self, seconds: float, seed: int) -> np.ndarray:
        drawn = np.random.default_rng(seed).standard_normal((round(seconds / self.shift), len(self.mean)))
        return (self.mean + self.std * drawn).astype(np.float32)

    def _whole(self, graph: Any) -> Callable[[np.ndarray], None]:
        return lambda frames: graph.run(["scores"], {"features": frames, "mean": self.mean, "std": self.std})

    def _stream(self, graph: Any) -> Callable[[np.ndarray], None]:
        card = self.card
        stride, left, right = card["stride"], card["left_context"], card["right_context"]
        part = max(1, round(CHUNK_SECONDS / self.shift / stride))
        first = {
            "state_in_" + state["name"]: np.array(state.get("initial", np.zeros(state["shape"])), np.float32).reshape(state["shape"])
            for state in card["states"]
        }
        given = ["state_in_" + item.name[len("state_out_") :] for item in graph.get_outputs()[1:]]

        def run(frames: np.ndarray) -> None:
            states, total = first, -(-len(frames) // stride) + card["output_delay"]
            for begin in range(0, total, part):
                count = min(part, total - begin)
                numbers = np.arange(begin * stride - left, (begin + count - 1) * stride + right + 1).clip(0, len(frames) - 1)
                _, *after = graph.run(None, {"window": frames[numbers], "mean": self.mean, "std": self.std, **states})
                states = dict(zip(given, after))

        return run


def order(count: int, number: int) -> list[int]:
    """The order of one pass: begun one later each time, every second one backwards."""
    turned = [(position + number) % count for position in range(count)]
    return turned[::-1] if number % 2 else turned


def measure(nets: list[Net], repeats: int) -> dict[Any, np.ndarray]:
    """Seconds `(repeats, utterances)` by (number of the net, engine)."""
    things = [(number, engine) for number, net in enumerate(nets) for engine in net.runs]
    utterances = [[net.frames(seconds, seed) for seed, seconds in enumerate(SECONDS)] for net in nets]
    times: dict[Any, list[list[float]]] = {thing: [] for thing in things}
    for repeat in range(-WARM_UP, repeats):
        for position in order(len(things), repeat % len(things)):
            number, engine = things[position]
            run, found = nets[number].runs[engine], []
            for frames in utterances[number]:
                begin = time.perf_counter()
                run(frames)
                found.append(time.perf_counter() - begin)
            if repeat >= 0:
                times[number, engine].append(found)
    return {thing: np.array(found) for thing, found in times.items()}


def speed_up(reference: np.ndarray, other: np.ndarray) -> list[float]:
    """How many times faster, with a 95 % interval: bootstrap over the passes."""
    draws = np.random.default_rng(0).integers(0, len(other), (2000, len(other)))
    ratios = reference.sum(axis=1)[draws].sum(axis=1) / other.sum(axis=1)[draws].sum(axis=1)
    return [round(float(value), 3) for value in (reference.sum() / other.sum(), *np.percentile(ratios, [2.5, 97.5]))]


def rows(nets: list[Net], times: dict[Any, np.ndarray]) -> list[dict[str, Any]]:
    """The figures of each net and engine."""
    durations, found = np.array(SECONDS), []
    for (number, engine), seconds in times.items():
        each, reference = seconds / durations, times.get((0, engine))
        net = nets[number]
        found.append(
            {
                "net": net.name,
                "row": net.card["row"],
                "engine": engine,
                "rtf": float(seconds.sum() / (len(seconds) * durations.sum())),
                "median": float(np.median(each)),
                "p95": float(np.percentile(each, 95)),
                "speed_up": speed_up(reference, seconds) if number and reference is not None else None,
                "bytes": net.bytes[engine],
                "wer": net.card["wer"] if engine.startswith("float32") else {},
            }
        )
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| net | engine | RTF | median | 95th percentile | speed-up (95 %) | MB | WER % (card) |", "|---|---|---|---|---|---|---|---|"]
    for row in found:
        gain = "" if row["speed_up"] is None else "{:.2f} [{:.2f}, {:.2f}]".format(*row["speed_up"])
        wer = ", ".join(f"{split} {value:.2f}" for split, value in row["wer"].items()) or "not measured here"
        figures = " | ".join(f"{row[key]:.5f}" for key in ("rtf", "median", "p95"))
        lines.append(f"| {row['net']} | {row['engine']} | {figures} | {gain} | {row['bytes'] / 1e6:.1f} | {wer} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="exported nets (default: the folder of this file)")
    parser.add_argument("--repeats", type=int, default=10, help="timed passes (default 10)")
    parser.add_argument("--threads", type=int, default=1, help="threads; with more than one, nothing is pinned (default 1)")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    options = parser.parse_args()
    if options.repeats < 2 or options.threads < 1:
        parser.error("expected --repeats of at least 2 and --threads of at least 1")
    about = machine()
    pinned = options.threads == 1 and pin()
    nets = [Net(folder, options.threads) for folder in options.folders or [Path(__file__).resolve().parent]]
    found = rows(nets, measure(nets, options.repeats))
    audio = f"{options.repeats} passes over {sum(SECONDS):g} s in {len(SECONDS)} utterances"
    caution = "; BUSY: times are too long" if (about["load"] or 0) > BUSY else ""
    print(f"{about['cpu']} ({about['architecture']}), ONNX Runtime {about['onnxruntime']}, {options.threads} thread(s){caution}")
    print(f"{audio}, acoustic model alone; {'pinned' if pinned else 'not pinned'}, peak memory {peak_memory()} MiB\n")
    print(table(found))
    if options.out:
        figures = {"machine": about, "threads": options.threads, "pinned": pinned, "repeats": options.repeats, "rows": found}
        options.out.write_text(json.dumps({**figures, "peak_memory_mib": peak_memory()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
