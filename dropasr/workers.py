"""Pools of processes that end with the process that made them, also when that one is killed."""

from __future__ import annotations

import multiprocessing
import multiprocessing.managers
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable, Literal, Union

Initializer = Union[Callable[..., None], None]
_SECONDS = 1.0


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)


def _watch(parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _start(parent: int, initializer: Initializer, arguments: tuple[Any, ...]) -> None:
    # Two processes with a thread for each core would wait for each other; libraries read this when they are imported.
    os.environ["OMP_NUM_THREADS"] = "1"
    _watch(parent)
    if initializer is not None:
        initializer(*arguments)


def pool(
    nj: int, method: Literal["spawn", "fork"] = "spawn", initializer: Initializer = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """`nj` (at least one) processes with one thread each. `fork` shares what is imported, `spawn` starts afresh.

    `initializer(*arguments)` runs in each of them first. Without the watch, workers of a killed run would wait for work forever.
    """
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(max(1, nj), context, _start, (os.getpid(), initializer, arguments))


def manager() -> multiprocessing.managers.SyncManager:
    """The process of a manager, which makes queues that the workers of a pool share; to be used in a `with`."""
    made = multiprocessing.managers.SyncManager(ctx=multiprocessing.get_context("spawn"))
    made.start(_watch, (os.getpid(),))
    return made
