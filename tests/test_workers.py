"""Processes of a pool end with the process that made them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from dropasr import workers

PROGRAM = """
import os, time
from dropasr import workers

if __name__ == "__main__":
    with workers.pool(2, "METHOD") as pool:
        print(*[future.result() for future in [pool.submit(os.getpid) for _ in range(1)]], flush=True)
        time.sleep(60)
"""


MANAGER = """
import time
from dropasr import workers

if __name__ == "__main__":
    with workers.manager() as manager:
        manager.Queue().put("work")
        print(manager._process.pid, flush=True)
        time.sleep(60)
"""


def _alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def test_workers_of_a_killed_process_end(tmp_path):
    for method in ("spawn", "fork"):
        program = tmp_path / f"{method}.py"
        program.write_text(PROGRAM.replace("METHOD", method))
        parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
        worker = int(parent.stdout.readline())
        assert _alive(worker) and worker != parent.pid
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        until = time.monotonic() + 20
        while _alive(worker) and time.monotonic() < until:
            time.sleep(0.1)
        assert not _alive(worker), method
        parent.stdout.close()


def test_the_manager_of_a_killed_process_ends(tmp_path):
    program = tmp_path / "manager.py"
    program.write_text(MANAGER)
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    server = int(parent.stdout.readline())
    assert _alive(server) and server != parent.pid
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 20
    while _alive(server) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _alive(server)
    parent.stdout.close()


@pytest.mark.parametrize("before", [None, "7"])
def test_a_worker_has_one_thread(monkeypatch, before):
    monkeypatch.delenv("OMP_NUM_THREADS")
    if before:
        monkeypatch.setenv("OMP_NUM_THREADS", before)
    with workers.pool(0, "fork") as pool:
        assert pool.submit(_threads).result() == "1"
    assert _threads() == before


def test_a_spawned_worker_has_it_before_its_initializer_is_imported(tmp_path, monkeypatch):
    """As numpy and torch do, which the initializer and its arguments import, the module reads the variable when it is imported."""
    (tmp_path / "reads_threads.py").write_text(
        "import os\nFOUND = os.environ.get('OMP_NUM_THREADS')\n\ndef start():\n    pass\n\ndef found():\n    return FOUND\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    import reads_threads

    with workers.pool(2, "spawn", reads_threads.start) as pool:
        assert [pool.submit(reads_threads.found).result() for _ in range(2)] == ["1", "1"]
    assert reads_threads.found() == "7"
