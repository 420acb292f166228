"""Trials of a search that are nets of the table: the same training under another name is done once."""

from __future__ import annotations

from typing import Any

from dropasr.config import Config, Row, rows
from dropasr.files import hash_of, read_json
from dropasr.log import get_logger
from dropasr.methods import method_options
from dropasr.models.checkpoint import load_net
from dropasr.paths import Paths
from dropasr.training.rows import is_trained, row_by_name, row_parts, write_row

logger = get_logger(__name__)
_OF_ONE_KIND = ("training_rate", "small_training_rate")


def training_identity(config: Config, paths: Paths, row: Row) -> str:
    """Hash of what decides a net's training, whatever the row, its method and its teacher are called.

    Two rows that have it in common are the same net, bit for bit: seeds hang on no name.
    """
    parts = row_parts(config, paths, row)
    values: dict[str, Any] = config.methods[row.method]
    options = method_options(row.method, values)
    rate = options.rate_of(row.kind)
    parts["row"] = [row.kind, row.budget]
    parts["method"] = {key: value for key, value in values.items() if key not in (*_OF_ONE_KIND, "teacher")}
    parts["rate"] = config.train.learning_rate if rate is None else rate
    parts["teacher"] = training_identity(config, paths, row_by_name(config, options.teacher)) if options.teacher else None
    return hash_of(parts)


def reuse(config: Config, trial: Config, paths: Paths) -> list[str]:
    """Give rows of `config` that are not trained the nets of `trial` (same seed) that are the same training; the names of these rows."""
    done = {training_identity(trial, paths, row): row for row in rows(trial) if is_trained(trial, paths, row)}
    found = []
    for row in rows(config) if done else []:
        same = done.get(training_identity(config, paths, row))
        if same is None or is_trained(config, paths, row):
            continue
        summary = read_json(paths.net(same.name) / "summary.json")
        write_row(config, paths, row, load_net(paths.net(same.name)), summary)
        found.append(row.name)
        logger.info(f"{row.name} (seed {paths.seed}): is {same.name}, not trained again")
    return found
