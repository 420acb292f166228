"""The rows that recipes hold are of the present configurations: their commands, given again, find them instead of training anew.

That the scripts of recipes find them, too, is in tests/shell/test_run_sh.py.
"""

import re
import shlex
from collections import defaultdict
from pathlib import Path

import pytest

from dropasr.files import read_json
from dropasr.invocation import load
from dropasr.options import REPOSITORY, parse
from dropasr.report.results import row_hashes

RECIPES = sorted(path.parent for path in (REPOSITORY / "recipes").glob("**/RESULTS.md"))
"""By their pages: one whose rows are gone is found, too."""


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


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_pages_have_no_empty_sections(recipe: Path) -> None:
    assert re.findall(r"^(## .*)\n+(?=## )", (recipe / "RESULTS.md").read_text(encoding="utf-8"), re.MULTILINE) == []
