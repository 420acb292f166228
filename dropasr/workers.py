"""Pools of processes that end with the process that made them, also when that one is killed."""

from __future__ import annotations

import multiprocessing
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


def _start(parent: int, initializer: Initializer, arguments: tuple[Any, ...]) -> None:
    # Two processes with a thread for each core would wait for each other; libraries read this when they are imported.
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
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
