"""Memory of one exported net in one engine, in a process that does nothing else: `python -m dropasr.bench.memory FOLDER ENGINE FRAMES`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from dropasr.errors import MeasurementError
from dropasr.runtime.engines import load_engine
from dropasr.runtime.exported import Exported

STATUS = Path("/proc/self/status")


def _mebibytes(name: str) -> float:
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def peak_memory(folder: Path, engine: str, frames: int) -> float | None:
    """Peak resident memory, MiB, of a process that imports the engine, loads the net and scores one utterance of so many frames.

    None where the system does not tell (it is Linux that does). Raises MeasurementError where that process fails.
    """
    if not STATUS.exists():
        return None
    command = [sys.executable, "-m", "dropasr.bench.memory", str(folder), engine, str(frames)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise MeasurementError(f"{folder}: engine {engine} failed while its memory was measured: {run.stderr.strip()[-300:]}")
    return json.loads(run.stdout)["peak"]


def main(argv: list[str]) -> None:
    """Print the peak as JSON."""
    folder, engine, frames = Path(argv[0]), argv[1], int(argv[2])
    exported = Exported.read(folder, verify=False)
    mean, std = exported.training_statistics()
    noise = np.random.default_rng(0).standard_normal((frames, len(mean))).astype(np.float32)
    net = load_engine(folder, engine, 1, exported)
    for _ in range(3):
        net.scores(noise * std + mean, mean, std)
    print(json.dumps({"peak": round(_mebibytes("VmHWM"), 1)}))


if __name__ == "__main__":
    main(sys.argv[1:])
