"""A run that is killed in every stage goes on where it was, and ends with the figures of a run that was not. Slow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dropasr.stages import STAGES

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = ("model.layers=2", "model.width=128", "train.epochs=6", "experiment.budgets=[0.25]", "rtf.utterances=3", "rtf.repeats=2")
KEPT = {
    2: "data/features/*/finished.json",
    4: "exp/align/rounds/*.npz",
    5: "exp/feedforward/seed1/nets/*/training.json",
    6: "exp/feedforward/seed1/nets/dropout_compaction@*/training.json",
    7: "exp/feedforward/seed1/scores/*.json",
}
"""Files of stages that are killed as soon as one is there; the others are killed as soon as they write their log."""
pytestmark = pytest.mark.slow


def command(folder: Path, corpus: Path, stage: int) -> list[str]:
    options = ["--conf", "conf/yesno.yaml", "--corpus-dir", str(corpus), "--nj", "1", "--stop-stage", str(stage)]
    places = ["--data-dir", str(folder / "data"), "--exp-dir", str(folder / "exp")]
    settings = (part for setting in SETTINGS for part in ("--set", setting))
    return [sys.executable, "-m", "dropasr", STAGES[stage - 1].verb, *options, *places, *settings]


def finish(arguments: list[str]) -> None:
    done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def kill(arguments: list[str], folder: Path, pattern: str) -> dict[Path, int]:
    """Kill the command and its children when a file of the pattern is there; the files and their times."""
    process = subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not any(folder.glob(pattern)):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the command ended before it was killed"
    return {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def figures(folder: Path) -> list[dict]:
    """What a row says, times left out."""
    rows = json.loads((folder / "exp" / "feedforward" / "seed1" / "results.json").read_text(encoding="utf-8"))["rows"]
    same = ("name", "wer", "wer_interval", "dev_wer", "acoustic_scale", "units", "parameters", "dev_ce")
    return [{key: row[key] for key in same} for row in rows]


def test_a_run_killed_in_every_stage_ends_with_the_same_figures(tmp_path: Path, corpora: Path):
    corpus, whole, killed = corpora / "waves_yesno", tmp_path / "whole", tmp_path / "killed"
    for stage in range(1, 10):
        finish(command(whole, corpus, stage))
        kept = kill(command(killed, corpus, stage), killed, KEPT.get(stage, f"exp/feedforward/seed1/log/{stage}-*.log"))
        finish(command(killed, corpus, stage))
        if stage in (2, 7):  # the others are checkpoints, which go when there are later ones
            assert all(path.stat().st_mtime_ns == made for path, made in kept.items()), stage
    assert figures(killed) == figures(whole)
