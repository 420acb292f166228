"""2026-11-22: `--set` for one of several sections that a YAML anchor gave the same mapping changed all of them; with the LSTM's methods,
a teacher given to one method under experiment.compact taught the others, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropasr.config import read_layers
from dropasr.config.loading import apply_setting, read_yaml
from dropasr.errors import ConfigError
from dropasr.invocation import load
from dropasr.options import parse


def test_setting_for_one_method_leaves_the_others():
    config = load(
        parse(
            [
                "--model=lstm",
                "--set=experiment.small=[dense,distilled]",
                "--set=experiment.compact=[dropout_compaction,distilled_compaction]",
                "--set=methods.distilled_compaction.teacher=annealed_dropout",
            ]
        )
    )[0]
    assert config.methods["distilled_compaction"]["teacher"] == "annealed_dropout"
    assert config.methods["distilled_compaction"]["path"] == config.methods["dropout_compaction"]["path"] == "even"
    assert "teacher" not in config.methods["dropout_compaction"]


def test_anchors_are_mappings_of_their_own(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text("a: &shared {list: [{deep: 1}]}\nb: *shared\n")
    values = read_layers(path)
    apply_setting(values, "a.other=2")
    values["a"]["list"][0]["deep"] = 3
    assert values["b"] == {"list": [{"deep": 1}]}


def test_an_anchor_that_holds_itself_is_refused(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text("a: &shared\n  b: *shared\n")
    with pytest.raises(ConfigError, match="x.yaml: .*an anchor that holds itself"):
        read_yaml(path)
