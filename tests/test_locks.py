"""Processes that work in the same folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stages_case import Experiment

from dropasr.errors import StageError
from dropasr.stages import BY_VERB
from dropasr.stamps import lock_folder

HOLD = """
import os, sys, time
from pathlib import Path
from dropasr.stamps import lock_folder
with lock_folder(Path(sys.argv[1]), shared=False):
    if sys.argv[2:] and os.fork():
        time.sleep(60)
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *flags: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds a lock, or that has forked a worker while it does; and the id that it printed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *flags], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_two_processes_in_one_folder(experiment: Experiment, calls: list[str]):
    other, _ = holder(experiment.folder / "data")
    try:
        with pytest.raises(StageError, match=r"data/\.lock: another dropasr process"):
            experiment.stamps().run(BY_VERB["data"], nj=1)
    finally:
        other.kill()
        other.communicate()
    experiment.stamps().run(BY_VERB["data"], nj=1)
    assert calls == ["data"]


def test_a_worker_that_outlives_a_killed_stage_does_not_keep_the_lock(tmp_path: Path):
    parent, worker = holder(tmp_path, "fork")
    try:
        with pytest.raises(StageError), lock_folder(tmp_path, shared=False):
            pass
        parent.kill()
        parent.wait()
        os.kill(worker, 0)
        with lock_folder(tmp_path, shared=False):
            pass
    finally:
        os.kill(worker, 9)
        parent.communicate()


def test_readers_share_a_folder(tmp_path: Path):
    with lock_folder(tmp_path, shared=True), lock_folder(tmp_path, shared=True):
        with pytest.raises(StageError), lock_folder(tmp_path, shared=False):
            pass
    with lock_folder(tmp_path, shared=False):
        pass


def test_rows_are_trained_beside_each_other_but_not_beside_their_stage(experiment: Experiment):
    stamps, stage = experiment.stamps(), BY_VERB["train"]
    with stamps.locked(stage, beside_others=True):
        with experiment.stamps().locked(stage, beside_others=True):
            pass
        with pytest.raises(StageError, match="another dropasr process"), experiment.stamps().locked(stage):
            pass
        with pytest.raises(StageError, match="another dropasr process"), experiment.stamps().locked(BY_VERB["align"]):
            pass
