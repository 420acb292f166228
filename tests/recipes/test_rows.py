"""The rows that recipes hold are of the present configurations: their commands, given again, find them instead of training anew."""

import os
import shlex
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from dropasr.config import system_name
from dropasr.files import read_json
from dropasr.invocation import load
from dropasr.options import REPOSITORY, parse
from dropasr.report.recipe import row_path
from dropasr.report.results import row_hashes

RECIPES = sorted(path.parent for path in (REPOSITORY / "recipes").glob("**/rows"))


def without_corpus(command: str) -> list[str]:
    """The options of a recorded command, but for the folder of the corpus, which is not here and does not count."""
    words = shlex.split(command)[2:]
    if "--corpus-dir" in words:
        place = words.index("--corpus-dir")
        del words[place : place + 2]
    return words


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_rows_are_of_the_present_configuration(recipe: Path) -> None:
    of_command = defaultdict(dict)
    for path in sorted((recipe / "rows").glob("*.json")):
        row = read_json(path)
        of_command[row["command"]][path.name] = (row["figures"]["name"], row["config_hash"])
    assert of_command
    for command, stored in of_command.items():
        config, _ = load(parse(without_corpus(command), base=REPOSITORY))
        wanted = row_hashes(config)
        old = [name for name, (row, config_hash) in stored.items() if wanted.get(row) != config_hash]
        assert not old, f"rows of another configuration, to be removed and made again: {old}"


def recorded_calls(script: Path, folder: Path, *options: str) -> list[tuple[str, list[str]]]:
    """What a recipe's script would give to local/recipe.sh: the seeds, and its arguments, in a tree like this one but for that file."""
    for name in ("conf", "dropasr"):
        (folder / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "recipes", folder / "recipes", ignore=shutil.ignore_patterns("rows", "plots", "*.md", "*.json"))
    (folder / "local").mkdir()
    told = folder / "told"
    (folder / "local" / "recipe.sh").write_text(f'printf "%q " "${{SEEDS:-1 2 3}}" "$@" >>"{told}"; echo >>"{told}"\n')
    copy = folder / script.relative_to(REPOSITORY)
    environment = {key: value for key, value in os.environ.items() if key != "SEEDS"}
    subprocess.run(["bash", str(copy), *options], cwd=folder, env=environment, check=True, timeout=60)
    calls = [shlex.split(line) for line in told.read_text().splitlines()]
    return [(words[0], words[1:]) for words in calls]


CALLS = [(path, ()) for path in sorted((REPOSITORY / "recipes").glob("*/run.sh")) if (path.parent / "rows").exists()]
CALLS += [(REPOSITORY / "recipes/compare/run.sh", options) for options in (("--smoke",), ("--conf", "conf/fsdd.yaml"))]


@pytest.mark.parametrize("script, options", CALLS, ids=lambda value: value.parent.name if isinstance(value, Path) else " ".join(value))
def test_scripts_of_recipes_find_their_rows(script: Path, options: tuple[str, ...], tmp_path: Path) -> None:
    found = 0
    for seeds, (recipe, *words) in recorded_calls(script, tmp_path, *options):
        for seed in seeds.split():
            config, paths = load(parse([*words, "--seed", seed], base=tmp_path))
            for name, wanted in row_hashes(config).items():
                place = REPOSITORY / (tmp_path / recipe).relative_to(tmp_path)
                path = row_path(place, config.corpus.name, paths.model, name, paths.seed, system_name(config))
                if path.exists():
                    found += 1
                    assert read_json(path)["config_hash"] == wanted, f"{path.name}: a row of another configuration than the script's"
    assert found
