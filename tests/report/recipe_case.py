"""Recipes of several seeds, of the runs that report_case.py makes by hand."""

from __future__ import annotations

import json
from pathlib import Path

from report_case import dump, edit, make_config, make_run

from dropasr.config import Config, rows
from dropasr.paths import Paths
from dropasr.report.load import load_run
from dropasr.report.recipe import collect, row_path, table
from dropasr.report.recipe_schema import RecipeResults
from dropasr.report.results import make_results

COMPACT4, COMPACT8 = "dropout_compaction@0.25", "dropout_compaction@0.125"
MANY_WORDS = {"words": 1250}  # of each of 4 speakers


def finish(config: Config, paths: Paths, folder: Path) -> None:
    """What stage 9 and the recipe do with a run."""
    dump(paths.results, make_results(config, load_run(config, paths)).model_dump(mode="json"))
    collect(config, paths, folder)


def make_recipe(root: Path, seeds=(1, 2, 3), errors=None, config=None, folder=None, **split) -> Path:
    config, folder = config or make_config(), folder or root / "recipe"
    for seed in seeds:
        paths = make_run(root, config, seed, (errors or {}).get(seed), **split)
        if config.train.frame_subsampling > 1:
            for row in rows(config):
                edit(paths.scores(row.name), lambda value: value.update(frame_subsampling=config.train.frame_subsampling))
        finish(config, paths, folder)
    return folder


def read(folder: Path) -> RecipeResults:
    table(folder)
    return RecipeResults.model_validate(json.loads((folder / "results.json").read_text(encoding="utf-8")))


def spoil(folder: Path, name: str, change) -> None:
    """Change the row of seed 2."""
    edit(row_path(folder, "hand", "feedforward", name, 2), change)
