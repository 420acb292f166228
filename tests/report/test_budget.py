"""Choosing among finished nets by a budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY

from dropasr.adapt.budgets import parse_budget
from dropasr.cli import main
from dropasr.errors import CompactionError, ConfigError
from dropasr.report.budget import choose

# name: multiply-adds, parameters, model RTF, WER on dev, WER on test (which must not decide)
ROWS = {
    "large": (1000.0, 400, 0.020, 7.0, 8.0),
    "a@1/4": (251.0, 100, 0.005, 7.4, 9.0),
    "b@1/4": (250.0, 100, 0.006, 7.3, 9.9),
    "a@1/8": (125.0, 50, 0.003, 7.6, 8.1),
    "b@1/8": (124.0, 50, 0.004, 8.2, 7.9),
}


def results(error_rate: str = "word") -> dict:
    rows = [
        {
            "name": name, "units": [4], "macs_per_second": macs, "parameters": parameters, "rtf": {"model": rtf}, "dev_wer": dev,
            "dev_cer": 10 - dev, "wer": test, "wer_interval": [test - 1, test + 1], "cer": test, "cer_interval": [test - 1, test + 1],
            "reference": name == "large",
            "wer_difference": {"to": "large", "mean": test - 8, "interval": [test - 9, test - 7]},
            "cer_difference": {"to": "large", "mean": test - 8, "interval": [test - 9, test - 7]},
        }
        for name, (macs, parameters, rtf, dev, test) in ROWS.items()
    ]  # fmt: skip
    return {"rows": rows, "error_rate": error_rate}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("macs=1/4", "b@1/4"),
        ("macs=1/8", "a@1/8"),
        ("params=100", "b@1/4"),
        ("bytes=399", "a@1/8"),
        ("latency=1/4", "a@1/4"),
        ("wer-loss=0.5", "b@1/4"),
        ("wer-loss=0.65%", "a@1/8"),
        ("wer-loss=+2", "b@1/8"),
        ("wer-loss=0", "large"),
    ],
)
def test_the_row_that_is_taken(text: str, name: str):
    assert choose(results(), parse_budget(text))[0]["name"] == name


def test_characters_decide_where_they_are_the_error_rate():
    assert choose(results("character"), parse_budget("macs=1/4"))[0]["name"] == "b@1/8"


def test_what_rows_cannot_say():
    for text in ("dev-loss=0.1", "error=1%", "latency=1ms", "macs=2M"):
        with pytest.raises(ConfigError):
            choose(results(), parse_budget(text))
    with pytest.raises(CompactionError, match="none of 5 nets"):
        choose(results(), parse_budget("bytes=10"))


def test_the_verb_reads_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["budget", str(REPOSITORY / "recipes" / "synth_commands"), "--budget", "macs=1/8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = json.loads((REPOSITORY / "recipes" / "synth_commands" / "results.json").read_text())["rows"]
    [chosen] = [line.split()[1] for line in lines if line.startswith("->")]
    assert chosen == min((row for row in rows if 0 < row["budget"] <= 0.125), key=lambda row: row["dev_wer"])["name"]
    assert len(lines) == len(rows) + 3 and "against" in lines[-1]
    assert main(["budget", str(tmp_path), "--budget", "macs=1/8"]) == 1 and "no finished experiment" in capsys.readouterr().err
    assert main(["budget", str(tmp_path)]) == 2 and "wer-loss=0.5" in capsys.readouterr().err
