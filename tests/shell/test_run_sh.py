"""run.sh: what it answers before anything is installed, and how it calls the verbs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement

from dropasr.config import system_name
from dropasr.files import read_json
from dropasr.invocation import load
from dropasr.options import parse
from dropasr.report.recipe import row_path
from dropasr.report.results import row_hashes

RUN = REPOSITORY / "run.sh"


@pytest.fixture
def no_venv(tmp_path: Path) -> dict[str, str]:
    """An environment whose virtual environment does not exist yet."""
    return {**os.environ, "DROPASR_VENV": str(tmp_path / "venv")}


def run_sh(environment: dict[str, str], cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(RUN), *argv], capture_output=True, text=True, cwd=cwd, env=environment, timeout=60)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--stage", "abc"], ["'--stage'", "'abc'", "from 1 (data) to 9 (report)"]),
        (["--stage", "99"], ["'--stage'", "'99'", "9 (report)"]),
        (["--stage"], ["'--stage'", "missing"]),
        (["--confg", "x"], ["'--confg'", "did you mean '--conf'"]),
        (["--conf", "$(touch evaluated).yaml"], ["'$(touch evaluated).yaml'"]),
        (["--stage", "3", "--stop-stage", "2"], ["'--stop-stage'"]),
        (["tests"], ["'tests'"]),
        (["test", "quick"], ["'quick'", "fast", "slow"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_options_exit_with_2_and_install_nothing(no_venv: dict[str, str], tmp_path: Path, argv: list[str], words: list[str]):
    started = time.monotonic()
    result = run_sh(no_venv, tmp_path, *argv)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and result.stdout == ""
    assert all(word in result.stderr for word in words), result.stderr
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("option", "words"), [("--help", ["--stop-stage M", "usage:"]), ("--list", ["5 train", "DATA/manifests"])])
def test_help_and_list_install_nothing(no_venv: dict[str, str], tmp_path: Path, option: str, words: list[str]):
    result = run_sh(no_venv, tmp_path, option)
    assert result.returncode == 0 and result.stderr == ""
    assert all(word in result.stdout for word in words)
    assert list(tmp_path.iterdir()) == []


def test_the_two_pins_of_k2_agree():
    """local/k2.txt names the wheel by hash, requirements.txt the version; pip would replace the one by the other."""
    lines = [line for name in ("requirements.txt", "local/k2.txt") for line in (REPOSITORY / name).read_text(encoding="utf-8").splitlines()]
    # pip ignores a marker that stands behind a hash.
    version, pinned = (Requirement(line.split(" --hash=")[0]) for line in lines if line.startswith("k2=="))
    assert version.specifier == pinned.specifier
    for requirement in (version, pinned):
        assert requirement.marker.evaluate({"python_version": "3.10"}) and not requirement.marker.evaluate({"python_version": "3.11"})


def test_an_unusable_python_is_named(no_venv: dict[str, str], tmp_path: Path):
    result = run_sh({**no_venv, "DROPASR_PYTHON": "/bin/false"}, tmp_path)
    assert result.returncode == 1 and "DROPASR_PYTHON=/bin/false" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_environment_is_left_alone(no_venv: dict[str, str], tmp_path: Path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "thesis.txt").write_text("mine", encoding="utf-8")
    result = run_sh(no_venv, tmp_path)
    assert result.returncode == 1 and "is no virtual environment" in result.stderr
    assert (tmp_path / "venv" / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_a_failing_pip_shows_its_last_lines_and_leaves_no_stamp(tmp_path: Path):
    """With a Python whose `-m venv` makes an environment in which pip fails."""
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/bash
if [[ $1 == -c ]]; then [[ $2 != *realpath* ]] || echo "$0"; exit 0; fi
if [[ $1 == -m && $2 == venv ]]; then mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; touch "$4/pyvenv.cfg"; exit 0; fi
if [[ $1 == -m && $2 == dropasr.options ]]; then exec {sys.executable} "$@"; fi
echo "no matching distribution"; exit 1
""",
        encoding="utf-8",
    )
    python.chmod(0o755)
    environment = {**os.environ, "DROPASR_VENV": str(tmp_path / "venv"), "DROPASR_PYTHON": str(python)}
    for _ in range(2):
        result = run_sh(environment, tmp_path)
        assert result.returncode == 1
        assert "no matching distribution\nerror: pip could not install the packages" in result.stderr
        assert "making the environment" in result.stdout
        assert not (tmp_path / "venv" / "dropasr-stamp").exists()


@pytest.fixture
def recording_venv(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """A finished environment whose Python parses options and only writes down every other call; verb `lang` fails with exit code 7.

    Verb `collect` fails with the code that DROPASR_TEST_COLLECT gives, if it is set.
    """
    calls = tmp_path / "calls.txt"
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"""#!/bin/bash
if [[ $1 == -c || $2 == dropasr.options ]]; then exec {sys.executable} "$@"; fi
{{ printf '%s|' "$PWD" "$DROPASR_CALLER_DIR" "${{@:2}}"; echo; }} >> {calls}
[[ $3 != lang || -n ${{DROPASR_TEST_NO_FAILURE:-}} ]] || exit 7
[[ $3 != collect ]] || exit ${{DROPASR_TEST_COLLECT:-0}}
""",
        encoding="utf-8",
    )
    python.chmod(0o755)
    packages = tmp_path / "venv" / "lib" / "python3.10" / "site-packages"
    packages.mkdir(parents=True)
    made_from = hashlib.sha256(
        b"".join((REPOSITORY / name).read_bytes() for name in ("requirements.txt", "local/k2.txt", "pyproject.toml"))
    ).hexdigest()
    (tmp_path / "venv" / "dropasr-stamp").write_text(f"{REPOSITORY} {made_from}\nsome stack\nsome python\n", encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "DROPASR_PYTHON"}
    return {**environment, "DROPASR_VENV": str(tmp_path / "venv")}, calls


def test_every_stage_is_one_call_with_the_same_options(recording_venv: tuple[dict[str, str], Path], tmp_path: Path):
    environment, calls = recording_venv
    argv = ["--stage", "5", "--stop-stage=6", "--set", "corpus.note=a  $(b) 'c'", "--exp-dir", "my exp"]
    result = run_sh(environment, tmp_path, *argv)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("some stack, threads: ")
    expected = ["|".join([str(REPOSITORY), str(tmp_path), "dropasr", verb, *argv, ""]) for verb in ("plan", "train", "compact")]
    assert calls.read_text(encoding="utf-8").splitlines() == expected


def test_tests_do_not_get_the_folder_of_the_caller(recording_venv: tuple[dict[str, str], Path], tmp_path: Path):
    environment, calls = recording_venv
    assert run_sh(environment, tmp_path, "test", "slow", "-x").returncode == 0
    assert calls.read_text(encoding="utf-8") == "|".join([str(REPOSITORY), "", "pytest", "-m", "slow", "-x", "\n"])


def recorded(calls: Path) -> list[list[str]]:
    """Verb and options of every call."""
    return [line.split("|")[3:-1] for line in calls.read_text(encoding="utf-8").splitlines()]


def compare(environment: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "recipes/compare/run.sh", *argv]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=60)


def test_the_comparison_runs_any_configuration(recording_venv: tuple[dict[str, str], Path]):
    environment, calls = recording_venv
    result = compare({**environment, "SEEDS": "1 2"}, "--nj", "1", "--conf=conf/yesno.yaml", "--exp-dir", "mine")
    assert (result.returncode, result.stderr) == (0, "")
    options = ["--conf", "conf/yesno.yaml", "--data-dir", "./data/yesno", "--exp-dir", "./exp/compare_yesno"]
    options += ["--with", "./recipes/compare/methods.yaml"]
    rates = [
        word
        for path in sorted(REPOSITORY.glob("recipes/compare/rates/yesno-*.yaml"))
        for word in ("--with", f"./{path.relative_to(REPOSITORY)}")
    ]
    options += [*rates, "--nj", "1", "--exp-dir", "mine"]
    folder = str(REPOSITORY / "recipes" / "compare")
    assert recorded(calls) == [*(["collect", *options, "--seed", seed, folder] for seed in "12"), ["table", folder]]


@pytest.mark.parametrize("code, verbs", [(1, ["collect", "plan", "data", "collect"]), (2, ["collect", "collect"])])
def test_rows_that_cannot_stand_beside_others_are_not_trained(recording_venv: tuple[dict[str, str], Path], code: int, verbs: list[str]):
    """1: the run has not been made yet. 2: what it makes could not be added to the table."""
    environment, calls = recording_venv
    result = compare({**environment, "DROPASR_TEST_COLLECT": str(code)}, "--conf=conf/yesno.yaml", "--stop-stage", "1")
    assert result.returncode == code
    assert [words[0] for words in recorded(calls)] == verbs


def test_smoke_has_one_seed_and_folders_of_its_own(recording_venv: tuple[dict[str, str], Path]):
    environment, calls = recording_venv
    made = (REPOSITORY / "recipes" / "compare" / "smoke").exists()
    assert compare(environment, "--smoke").returncode == 0
    folder = REPOSITORY / "recipes" / "compare" / "smoke"
    if not made:
        folder.rmdir()
    (collect, table, recurrent, *rest) = recorded(calls)
    assert collect[1:7] == [
        "--conf",
        "./conf/synth_commands.yaml",
        "--data-dir",
        "./data/synth_commands",
        "--exp-dir",
        "./exp/compare_synth_commands_smoke",
    ]
    assert collect[7:] == ["--with", "./recipes/compare/smoke.yaml", "--seed", "1", str(folder)] and table == ["table", str(folder)]
    assert recurrent == [*collect[:-3], "--model", "lstm", *collect[-3:]] and rest == [table]
    calls.unlink()
    assert compare(environment, "--smoke", "--model=blstm").returncode == 0 and len(recorded(calls)) == 2


def test_rates_are_searched_after_the_alignment(recording_venv: tuple[dict[str, str], Path]):
    environment, calls = recording_venv
    environment["DROPASR_TEST_NO_FAILURE"] = "1"
    result = compare(environment, "--search-rates", "--conf", "conf/yesno.yaml")
    assert result.returncode == 0, result.stderr
    found = recorded(calls)
    assert [line[0] for line in found] == ["plan", "data", "features", "lang", "align", "rates"]
    assert found[-1][1] == "recipes/compare" and not any("rates/" in word for word in found[-1])


def test_jobs_are_listed_for_every_seed(recording_venv: tuple[dict[str, str], Path]):
    environment, calls = recording_venv
    environment["DROPASR_TEST_NO_FAILURE"] = "1"
    result = compare(environment, "--list-jobs", "--conf", "conf/yesno.yaml")
    assert result.returncode == 0 and result.stdout == "", "what is printed comes from the verb alone"
    assert [line[-2:] for line in recorded(calls) if line[0] == "jobs"] == [["--seed", seed] for seed in "123"]


@pytest.mark.parametrize(
    ("argv", "words"), [(["--smoke", "--list-jobs"], "cannot stand beside '--smoke'"), (["--conf"], "its value is missing")]
)
def test_wrong_options_of_the_comparison(recording_venv: tuple[dict[str, str], Path], argv: list[str], words: str):
    environment, calls = recording_venv
    result = compare(environment, *argv)
    assert result.returncode == 2 and words in result.stderr and not calls.exists()


def test_a_row_alone_is_planned_and_trained(recording_venv: tuple[dict[str, str], Path], tmp_path: Path):
    environment, calls = recording_venv
    assert run_sh(environment, tmp_path, "--row", "dense").returncode == 0
    assert recorded(calls) == [["plan", "--row", "dense"], ["row", "--row", "dense"]]


def test_a_failing_stage_ends_the_run_with_its_exit_code(recording_venv: tuple[dict[str, str], Path], tmp_path: Path):
    environment, calls = recording_venv
    assert run_sh(environment, tmp_path, "--stage", "2").returncode == 7
    assert [line.split("|")[3] for line in calls.read_text(encoding="utf-8").splitlines()] == ["plan", "features", "lang"]


def test_a_ready_environment_costs_less_than_a_second(recording_venv: tuple[dict[str, str], Path], tmp_path: Path):
    environment, _ = recording_venv
    started = time.monotonic()
    subprocess.run(["bash", "-c", "source local/env.sh; dropasr_environment"], cwd=REPOSITORY, env=environment, check=True)
    assert time.monotonic() - started < 1.0


SCRIPTS = [(path, ()) for path in sorted(REPOSITORY.glob("recipes/*/run.sh")) if (path.parent / "rows").exists()]
SCRIPTS += [(REPOSITORY / "recipes/compare/run.sh", options) for options in (("--smoke",), ("--conf", "conf/fsdd.yaml"))]


@pytest.mark.parametrize("script, options", SCRIPTS, ids=lambda value: value.parent.name if isinstance(value, Path) else " ".join(value))
def test_scripts_of_recipes_find_their_rows(recording_venv: tuple[dict[str, str], Path], script: Path, options: tuple[str, ...]):
    environment, calls = recording_venv
    environment = {key: value for key, value in environment.items() if key != "SEEDS"}
    subprocess.run(["bash", str(script.relative_to(REPOSITORY)), *options], cwd=REPOSITORY, env=environment, check=True, timeout=120)
    found = 0
    for verb, *words in recorded(calls):
        if verb != "collect":
            continue
        config, paths = load(parse(words[:-1], base=REPOSITORY))
        for name, wanted in row_hashes(config).items():
            path = row_path(Path(words[-1]), config.corpus.name, paths.model, name, paths.seed, system_name(config))
            if path.exists():
                found += 1
                assert read_json(path)["config_hash"] == wanted, f"{path.name}: a row of another configuration than the script's"
    assert found
