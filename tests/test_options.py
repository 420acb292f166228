"""Parsing of command lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY

from dropasr.errors import UsageError
from dropasr.options import CALLER_DIR, main, parse

WRONG = [
    (["--stage", "abc"], ["'--stage'", "'abc'", "1 (data)", "9 (report)"]),
    (["--stage", "tarin"], ["'tarin'", "nearest stage is 5 (train)"]),
    (["--stage", "99"], ["'--stage'", "'99'", "nearest stage is 9 (report)"]),
    (["--stage", "0"], ["'0'", "nearest stage is 1 (data)"]),
    (["--stage", "-1"], ["'-1'", "nearest stage is 1 (data)"]),
    (["--stage", "1.5"], ["'1.5'"]),
    (["--stop-stage=10"], ["'--stop-stage'", "'10'", "9"]),
    (["--stage"], ["'--stage'", "missing", "'--stage N'"]),
    (["--stage="], ["'--stage'", "empty"]),
    (["--stage", "--stop-stage", "3"], ["'--stage'", "missing", "'--stop-stage'"]),
    (["--stage", "4", "--stop-stage", "3"], ["'--stop-stage'", "'--stage 4'"]),
    (["--confg", "x"], ["'--confg'", "did you mean '--conf'"]),
    (["--sead=1"], ["'--sead'", "did you mean '--seed'"]),
    (["-stage", "1"], ["'-stage'", "did you mean '--stage'"]),
    (["--conf", "conf/fsd.yaml"], ["'conf/fsd.yaml'", "did you mean 'conf/fsdd.yaml'"]),
    (
        ["--with", "recipes/compare/method.yaml"],
        ["'--with'", "'recipes/compare/method.yaml'", "did you mean 'recipes/compare/methods.yaml'"],
    ),
    (["--with"], ["'--with'", "missing", "'--with FILE'"]),
    (["--row="], ["'--row'", "empty"]),
    (["--budget", "macs=1/8"], ["unknown option '--budget'"]),
    (["--method", "dropout_compacton"], ["'--method'", "did you mean 'dropout_compaction'"]),
    (["--model", "feedfoward"], ["'--model'", "did you mean 'feedforward'"]),
    (["--corpus-dir", "no/such/place"], ["'--corpus-dir'", "no/such/place"]),
    (["--nj", "0"], ["'--nj'", "'0'"]),
    (["--seed", "one"], ["'--seed'", "'one'"]),
    (["--set", "epochs=1"], ["'--set'", "SECTION.KEY=VALUE", "'epochs=1'"]),
    (["--set", "train.epochs"], ["'--set'", "'train.epochs'"]),
    (["--help=yes"], ["'--help'", "no value"]),
    (["stage"], ["'stage'"]),
]


@pytest.mark.parametrize(("argv", "words"), WRONG, ids=lambda value: " ".join(value))
def test_wrong_options_are_quoted_with_the_nearest_valid_one(argv: list[str], words: list[str]):
    with pytest.raises(UsageError) as caught:
        parse(argv)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_both_ways_to_write_a_value():
    assert parse(["--stage", "3", "--seed", "7"]) == parse(["--stage=3", "--seed=7"])


def test_files_laid_over_are_found_beside_the_caller_and_in_the_repository(tmp_path: Path):
    (tmp_path / "mine.yaml").touch()
    found = parse(["--with", "mine.yaml", "--with=recipes/compare/methods.yaml"], base=tmp_path).overlays
    assert found == ((tmp_path / "mine.yaml").resolve(), REPOSITORY / "recipes/compare/methods.yaml")


def test_a_row_alone_is_one_verb(capsys):
    assert main(["--row", "svd@0.125"]) == 0 and capsys.readouterr().out == "run: row\n"


def test_defaults():
    options = parse([])
    assert (options.stage, options.stop_stage, options.seed, options.settings) == (1, 9, 1, ())
    assert options.conf == REPOSITORY / "conf/synth_commands.yaml"
    assert (options.exp_dir, options.data_dir) == (REPOSITORY / "exp/synth_commands", REPOSITORY / "data/synth_commands")
    assert options.nj >= 1 and options.corpus_dir is None


def test_folders_follow_the_configuration():
    options = parse(["--conf", "conf/fsdd.yaml"])
    assert (options.exp_dir, options.data_dir) == (REPOSITORY / "exp/fsdd", REPOSITORY / "data/fsdd")


def test_relative_paths_are_meant_from_the_callers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.yaml").write_text("corpus: {}\n", encoding="utf-8")
    monkeypatch.setenv(CALLER_DIR, str(tmp_path))
    options = parse(["--conf", "mine.yaml", "--exp-dir", "e", "--data-dir", "../d", "--corpus-dir", "."])
    assert options.conf == tmp_path / "mine.yaml"
    assert (options.exp_dir, options.data_dir, options.corpus_dir) == (tmp_path / "e", tmp_path.parent / "d", tmp_path)


def test_settings_repeat_and_the_last_of_other_options_wins():
    options = parse(["--set", "a.b=1", "--set=c.d=x=y", "--seed", "1", "--seed", "2"])
    assert options.settings == ("a.b=1", "c.d=x=y")
    assert options.seed == 2


def test_main_names_the_verbs_of_a_run(capsys: pytest.CaptureFixture[str]):
    assert main(["--stage", "5", "--stop-stage", "7"]) == 0
    assert capsys.readouterr().out == "run: train compact decode\n"


def test_main_answers_a_wrong_option_with_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["--confg", "x"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: unknown option '--confg'") and captured.err.count("\n") == 1
