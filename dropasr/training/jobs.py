"""Stages 5 and 6: train the rows of the table as independent one-thread jobs, side by side, skipping those that are done."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from queue import Empty
from typing import Any

from dropasr import workers
from dropasr.config import Config, Row, rows
from dropasr.errors import DropasrError, StageError
from dropasr.log import get_logger, progress
from dropasr.methods import method_options
from dropasr.paths import Paths
from dropasr.training.row_checks import check_rows
from dropasr.training.rows import is_trained, row_by_name, train_row, update_dev_figures

logger = get_logger(__name__)
_messages: Any = None


def _start_worker(messages: Any) -> None:
    global _messages
    _messages = messages


def _work(config: Config, paths: Paths, row: Row) -> None:
    def say(text: str) -> None:
        _messages.put(("line", f"{row.name}: {text}"))

    train_row(config, paths, row, say, lambda figures: _messages.put(("epoch", row.name)))


def _cost(config: Config, row: Row) -> float:
    """Rough training cost, to start the longest jobs first."""
    return {"large": 1.0, "compact": 0.3 + row.budget, "small": row.budget}[row.kind]


def teacher_of(config: Config, row: Row) -> str | None:
    """Name of the row whose posteriors the row learns."""
    return method_options(row.method, config.methods[row.method]).teacher


def _ready(config: Config, waiting: list[Row], running: set[str]) -> list[Row]:
    def teacher_done(row: Row) -> bool:
        teacher = teacher_of(config, row)
        return teacher is None or all(other.name != teacher for other in waiting) and teacher not in running

    return [row for row in waiting if teacher_done(row)]


def run_jobs(
    config: Config, paths: Paths, wanted: list[Row], nj: int, spared: type[DropasrError] | None = None, compared: bool = True
) -> set[str]:
    """Train `wanted` in up to `nj` processes. The first failure stops the queue; finished rows stay, unfinished ones can be resumed.

    Rows that fail with an error of the class `spared` are passed over, and so are their students; the names of both are returned.
    `compared` False: the rows are in no table, so that its rules do not hold for them.
    """
    check_rows(config, compared)
    waiting = []
    for row in wanted:
        if is_trained(config, paths, row):
            again = "; dev has changed, its figures were measured again" if update_dev_figures(config, paths, row) else ""
            logger.info(f"{row.name}: already trained for this configuration{again}")
        else:
            waiting.append(row)
    if not waiting:
        return set()
    waiting.sort(key=lambda row: -_cost(config, row))
    with workers.manager() as manager:
        messages = manager.Queue()
        epochs = len(waiting) * config.train.epochs
        with workers.pool(min(nj, len(waiting)), "spawn", _start_worker, (messages,)) as pool:
            queue = _Queue(config, paths, waiting, spared)
            for _ in progress(queue.drive(pool, nj, messages), "training", epochs):
                pass
    return queue.failed


class _Queue:
    """Rows that wait for a process or for their teacher, and those that are being trained."""

    def __init__(self, config: Config, paths: Paths, waiting: list[Row], spared: type[DropasrError] | None) -> None:
        self.config, self.paths, self.waiting, self.spared = config, paths, waiting, spared
        self.running: dict[Future, Row] = {}
        self.failed: set[str] = set()

    def drive(self, pool: ProcessPoolExecutor, nj: int, messages: Any):
        """Submit rows as they become ready and yield once per finished epoch; names of spared rows go into `failed`."""
        while self.waiting or self.running:
            names = {row.name for row in self.running.values()}
            for row in _ready(self.config, self.waiting, names)[: nj - len(self.running)]:
                self.waiting.remove(row)
                self.running[pool.submit(_work, self.config, self.paths, row)] = row
            done, _ = wait(self.running, timeout=0.5, return_when=FIRST_COMPLETED)
            yield from _messages_until_empty(messages)
            for future in done:
                self._end(future)
        yield from _messages_until_empty(messages)

    def _end(self, future: Future) -> None:
        row = self.running.pop(future)
        try:
            future.result()
        except DropasrError as error:
            if self.spared is not None and isinstance(error, self.spared):
                logger.warning(f"{row.name}: passed over: {error}")
                self._pass_over(row)
                return
            for other in self.running:
                other.cancel()
            logger.error(f"{row.name}: stopped; the other running nets are finished or can be resumed by running this stage again")
            raise
        logger.info(f"{row.name}: done")

    def _pass_over(self, row: Row) -> None:
        self.failed.add(row.name)
        for student in [other for other in self.waiting if teacher_of(self.config, other) == row.name]:
            logger.warning(f"{student.name}: passed over with its teacher")
            self.waiting.remove(student)
            self._pass_over(student)


def _messages_until_empty(messages: Any):
    while True:
        try:
            kind, text = messages.get_nowait()
        except Empty:
            return
        if kind == "line":
            logger.info(text)
        else:
            yield text


def train_large_and_small(config: Config, paths: Paths, nj: int) -> None:
    """Stage 5: the large nets and the small nets from scratch."""
    run_jobs(config, paths, [row for row in rows(config) if row.kind != "compact"], nj)


def train_all(config: Config, paths: Paths, nj: int) -> None:
    """Stages 5 and 6 in one queue, so that no core waits for the last net of stage 5; stage 6 then finds its nets trained."""
    logger.info("the nets of stage 6 are trained in the same queue, so that no core waits between the stages")
    run_jobs(config, paths, list(rows(config)), nj)


def train_one(config: Config, paths: Paths, name: str) -> None:
    """Train one row of the table, beside other processes that train others. StageError where its teacher is not trained."""
    row = row_by_name(config, name)
    teacher = teacher_of(config, row)
    if teacher is not None and not is_trained(config, paths, row_by_name(config, teacher)):
        raise StageError(f"{name}: its teacher '{teacher}' is not trained for this configuration. Run: bash run.sh … --row {teacher}.")
    run_jobs(config, paths, [row], 1)


def waves(config: Config, paths: Paths) -> list[list[Row]]:
    """The rows that are not trained, each list after the one before it: teachers first, the longest first in each."""
    found: list[list[Row]] = []
    waiting = [row for row in rows(config) if not is_trained(config, paths, row)]
    while waiting:
        found.append(sorted(_ready(config, waiting, set()), key=lambda row: -_cost(config, row)))
        waiting = [row for row in waiting if row not in found[-1]]
    return found


def compact(config: Config, paths: Paths, nj: int) -> None:
    """Stage 6: the nets that become smaller while they train."""
    run_jobs(config, paths, [row for row in rows(config) if row.kind == "compact"], nj)
