"""Pools of processes that end with the process that made them, also when that one is killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.managers
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkContext, ForkProcess, SpawnContext, SpawnProcess
from typing import Any, Callable, Literal, Union

Initializer = Union[Callable[..., None], None]
THREADS = "OMP_NUM_THREADS"
"""Environment variable: threads of the libraries for linear algebra."""
_SECONDS = 1.0


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)


def _watch(parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _start(parent: int, initializer: Initializer, arguments: tuple[Any, ...]) -> None:
    _watch(parent)
    if initializer is not None:
        initializer(*arguments)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The environment of a process that starts inside. Two processes with a thread for each core would wait for each other."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before


class _Spawned(SpawnProcess):
    def start(self) -> None:
        # Libraries read the variable when they are imported, which reading the initializer and its arguments may do already.
        with _one_thread():
            super().start()


class _Forked(ForkProcess):
    def start(self) -> None:
        with _one_thread():
            super().start()


class _SpawnContext(SpawnContext):
    Process = _Spawned


class _ForkContext(ForkContext):
    Process = _Forked


def pool(
    nj: int, method: Literal["spawn", "fork"] = "spawn", initializer: Initializer = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """`nj` (at least one) processes with one thread each. `fork` shares what is imported, `spawn` starts afresh.

    `initializer(*arguments)` runs in each of them first. Without the watch, workers of a killed run would wait for work forever.
    """
    context = _SpawnContext() if method == "spawn" else _ForkContext()
    return ProcessPoolExecutor(max(1, nj), context, _start, (os.getpid(), initializer, arguments))


def manager() -> multiprocessing.managers.SyncManager:
    """The process of a manager, which makes queues that the workers of a pool share; to be used in a `with`."""
    made = multiprocessing.managers.SyncManager(ctx=multiprocessing.get_context("spawn"))
    made.start(_watch, (os.getpid(),))
    return made
