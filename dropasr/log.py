"""Logging to the terminal and to a file, and progress bars that are quiet when nobody watches."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
_ROOT = "dropasr"


class _TerminalHandler(logging.Handler):
    """Writes to whatever `sys.stdout` is at that moment, so that lines pass above a progress bar that has captured it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stdout, flush=True)
        except BrokenPipeError:
            pass


def get_logger(name: str = "") -> logging.Logger:
    """The logger of one module: `get_logger(__name__)`."""
    return logging.getLogger(name if name.startswith(_ROOT) else f"{_ROOT}.{name}".rstrip("."))


def setup(log_file: str | Path | None = None, terminal: bool = True) -> None:
    """Send messages to the terminal (stdout) and, if given, append them with time stamps to `log_file`."""
    logger = logging.getLogger(_ROOT)
    logger.setLevel(logging.INFO)
    logger.handlers.clear()
    logger.propagate = False
    if terminal:
        handler = _TerminalHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    if log_file is not None:
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        file_handler = logging.FileHandler(log_file, encoding="utf-8")
        file_handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(file_handler)


def progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Iterate with a bar that shows the time left; no bar when the terminal is not one."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        yield from bar.track(items, total=total, description=description)
