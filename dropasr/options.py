"""The options of run.sh and of `python -m dropasr VERB`, parsed with the standard library alone.

`run.sh` runs this module (`python3 -m dropasr.options …`) with whatever Python there is, from 3.8 on, before anything is installed, so
that a wrong option is answered at once. It prints `run: VERB VERB …` for a run, and the text itself for `--help` and `--list`.
"""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from dropasr.errors import UsageError
from dropasr.stages import STAGES, list_text

REPOSITORY = Path(__file__).resolve().parent.parent
CALLER_DIR = "DROPASR_CALLER_DIR"
"""Environment variable: the folder where the user typed the command; relative paths are meant from there."""
RUN_HELP = "bash run.sh --help"


@dataclass(frozen=True)
class Option:
    """One `--name VALUE`; without `value`, a switch."""

    name: str
    value: str
    help: str


OPTIONS = (
    Option("--stage", "N", "first stage to run (default 1)"),
    Option("--stop-stage", "M", "last stage to run (default 9)"),
    Option("--conf", "FILE", "configuration of the corpus (default conf/synth_commands.yaml)"),
    Option("--with", "FILE", "YAML whose sections lie over those of the configuration; may be repeated, later files over earlier ones"),
    Option("--model", "NAME", "model, a file of conf/model/, in place of the one that the configuration names"),
    Option("--method", "NAME", "compaction method, a file of conf/method/, in place of those that the configuration names"),
    Option("--seed", "S", "seed of training (default 1)"),
    Option("--exp-dir", "DIR", "folder of the experiment (default exp/NAME for conf/NAME.yaml)"),
    Option("--data-dir", "DIR", "folder of the prepared data (default data/NAME)"),
    Option("--corpus-dir", "DIR", "where your copy of the corpus lies"),
    Option("--row", "NAME", "train this net of the table alone, such as svd@0.125; others may be trained beside it"),
    Option("--nj", "N", "processes (default: one per CPU)"),
    Option("--set", "SECTION.KEY=VALUE", "set any value of the configuration; may be repeated"),
    Option("--list", "", "show the stages with what each reads and writes, and stop"),
    Option("--help", "", "show this text, and stop"),
)


@dataclass(frozen=True)
class Invocation:
    """What a command line asks for. Paths are absolute; `settings` are `section.key=value`."""

    stage: int
    stop_stage: int
    conf: Path
    overlays: tuple[Path, ...]
    model: str | None
    method: str | None
    seed: int
    row: str | None
    exp_dir: Path
    data_dir: Path
    corpus_dir: Path | None
    nj: int
    settings: tuple[str, ...]
    wants_list: bool
    wants_help: bool
    arguments: tuple[str, ...]
    base: Path
    """The folder that relative paths were resolved against."""
    own: dict[str, list[str]]
    """Values of the options that the verb alone has, by name."""


def nearest(word: str, candidates: list[str]) -> str:
    """The candidate that looks most like `word`."""
    return max(candidates, key=lambda candidate: difflib.SequenceMatcher(None, word, candidate).ratio())


def line(option: Option) -> str:
    """What a help text says of an option."""
    return f"  {(option.name + ' ' + option.value).strip():<26} {option.help}"


def help_text() -> str:
    """The answer to `--help`."""
    lines = [
        "usage: bash run.sh [options]              train, compact, decode and measure: all stages, or those of --stage to --stop-stage",
        "       bash run.sh test [fast|slow|lint]  linters and fast tests (default), slow tests, linters alone; the rest goes to pytest",
        "",
        "options (`--name value` or `--name=value`):",
    ]
    lines += [*map(line, OPTIONS), "", "stages: " + ", ".join(f"{stage.number} {stage.verb}" for stage in STAGES)]
    return "\n".join(lines)


def split(
    argv: list[str], max_arguments: int, where: str, options: Sequence[Option] = OPTIONS, help_command: str = RUN_HELP
) -> tuple[dict[str, list[str]], list[str]]:
    """Values by option name, and the arguments that are no options. Raises UsageError that names the nearest valid option."""
    by_name = {option.name: option for option in options}
    values: dict[str, list[str]] = {}
    arguments: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            if len(arguments) == max_arguments:
                raise UsageError(f"unexpected argument '{word}': {where}. Options begin with '--'; {help_command} lists them.")
            arguments.append(word)
            continue
        name, equals, value = word.partition("=")
        option = by_name.get("--help" if name == "-h" else name)
        if option is None:
            raise UsageError(f"unknown option '{name}': did you mean '{nearest(name, list(by_name))}'? See {help_command}.")
        if not option.value:
            if equals:
                raise UsageError(f"option '{option.name}' takes no value, found '{word}': write '{option.name}' alone.")
            value = "yes"
        elif not equals:
            if not rest or rest[0].startswith("--"):
                found = f"the next word is '{rest[0]}'" if rest else "it is the last word"
                raise UsageError(f"option '{option.name}': its value is missing ({found}); expected '{option.name} {option.value}'.")
            value = rest.pop(0)
        if not value:
            raise UsageError(f"option '{option.name}': its value is empty; expected '{option.name} {option.value}'.")
        values.setdefault(option.name, []).append(value)
    return values, arguments


def whole_number(values: dict[str, list[str]], name: str, default: int, least: int) -> int:
    """The value of an option that takes a whole number. Raises UsageError quoting it."""
    text = values.get(name, [str(default)])[-1]
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise UsageError(f"option '{name}': expected a whole number of at least {least}, found '{text}'; the default is {default}.")
    return int(text)


def _stage(values: dict[str, list[str]], name: str, default: int) -> int:
    text = values.get(name, [str(default)])[-1]
    first, last = STAGES[0], STAGES[-1]
    known = f"expected a number from {first.number} ({first.verb}) to {last.number} ({last.verb})"
    try:
        number = int(text)
    except ValueError:
        alike = difflib.get_close_matches(text, [stage.verb for stage in STAGES], n=1)
        near = next((stage for stage in STAGES if stage.verb in alike), first)
        raise UsageError(f"option '{name}': {known}, found '{text}'; the nearest stage is {near.number} ({near.verb}).") from None
    if not first.number <= number <= last.number:
        near = first if number < first.number else last
        raise UsageError(f"option '{name}': {known}, found '{text}'; the nearest stage is {near.number} ({near.verb}).")
    return number


def _conf(values: dict[str, list[str]], base: Path) -> Path:
    """The YAML meant by `--conf`: from the caller's folder, or else from the repository."""
    text = values.get("--conf", ["conf/synth_commands.yaml"])[-1]
    places = [base / text, REPOSITORY / text] if "--conf" in values else [REPOSITORY / text]
    return _found("--conf", text, places, sorted(f"conf/{path.name}" for path in (REPOSITORY / "conf").glob("*.yaml")))


def _overlays(values: dict[str, list[str]], base: Path) -> tuple[Path, ...]:
    """The YAML files meant by `--with`, found as that of `--conf`."""
    known = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "recipes").glob("*/*.yaml"))
    return tuple(_found("--with", text, [base / text, REPOSITORY / text], known) for text in values.get("--with", []))


def _found(option: str, text: str, places: list[Path], known: list[str]) -> Path:
    """The first of the places that is a file."""
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        hint = f"did you mean '{nearest(text, known)}'?" if known else "the repository has none."
        raise UsageError(f"option '{option}': there is no file '{text}'; {hint}")
    return found.resolve()


def _component(values: dict[str, list[str]], name: str, conf: Path) -> str | None:
    """The value of `--model` or `--method`, which must be a file of conf/model or conf/method."""
    if name not in values:
        return None
    kind, text = name[2:], values[name][-1]
    known = {path.stem for folder in (conf.parent, REPOSITORY / "conf") for path in (folder / kind).glob("*.yaml")}
    if text not in known:
        hint = f"did you mean '{nearest(text, sorted(known))}'?" if known else "there are none."
        raise UsageError(f"option '{name}': there is no conf/{kind}/{text}.yaml; {hint}")
    return text


def _corpus_dir(values: dict[str, list[str]], base: Path) -> Path | None:
    if "--corpus-dir" not in values:
        return None
    folder = (base / values["--corpus-dir"][-1]).resolve()
    if not folder.is_dir():
        raise UsageError(f"option '--corpus-dir': expected a folder with the corpus, but '{folder}' is not one.")
    return folder


def _settings(values: dict[str, list[str]]) -> tuple[str, ...]:
    for setting in values.get("--set", []):
        key, equals, _ = setting.partition("=")
        if not equals or "." not in key.strip("."):
            raise UsageError(f"option '--set': expected SECTION.KEY=VALUE, such as 'train.epochs=5', found '{setting}'.")
    return tuple(values.get("--set", []))


def parse(
    argv: list[str],
    base: Path | None = None,
    max_arguments: int = 0,
    where: str = "run.sh takes 'test' or options",
    known: Sequence[Option] = OPTIONS,
    help_command: str = RUN_HELP,
) -> Invocation:
    """Read a command line that may have the options `known`; values of those that run.sh has not are in `own`.

    `base` is the folder of relative paths (default: the caller's folder that run.sh exports, else the current one); up to
    `max_arguments` words may stand beside the options. Raises UsageError quoting the option and naming the nearest valid one.
    """
    base = base or Path(os.environ.get(CALLER_DIR) or os.getcwd())
    values, arguments = split(argv, max_arguments, where, known, help_command)
    stage = _stage(values, "--stage", STAGES[0].number)
    stop_stage = _stage(values, "--stop-stage", STAGES[-1].number)
    if stop_stage < stage:
        raise UsageError(f"option '--stop-stage': {stop_stage} lies before '--stage {stage}'; the nearest stage is {stage}.")
    seed = whole_number(values, "--seed", 1, 0)
    nj = whole_number(values, "--nj", len(os.sched_getaffinity(0)), 1)
    settings = _settings(values)
    wants_text = "--help" in values or "--list" in values
    conf = REPOSITORY / "conf" / "synth_commands.yaml" if wants_text else _conf(values, base)
    return Invocation(
        stage=stage,
        stop_stage=stop_stage,
        conf=conf,
        overlays=() if wants_text else _overlays(values, base),
        model=_component(values, "--model", conf),
        method=_component(values, "--method", conf),
        seed=seed,
        row=values["--row"][-1] if "--row" in values else None,
        exp_dir=_folder(values, "--exp-dir", base, REPOSITORY / "exp" / conf.stem),
        data_dir=_folder(values, "--data-dir", base, REPOSITORY / "data" / conf.stem),
        corpus_dir=_corpus_dir(values, base),
        nj=nj,
        settings=settings,
        wants_list="--list" in values,
        wants_help="--help" in values,
        arguments=tuple(arguments),
        base=base,
        own={option.name: values[option.name] for option in known if option not in OPTIONS and option.name in values},
    )


def _folder(values: dict[str, list[str]], name: str, base: Path, default: Path) -> Path:
    return (base / values[name][-1]).resolve() if name in values else default


def main(argv: list[str] | None = None) -> int:
    """Check the options of run.sh; exit code 2 and one line on stderr when they cannot be used."""
    try:
        invocation = parse(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if invocation.wants_help:
        print(help_text())
    elif invocation.wants_list:
        print(list_text())
    elif invocation.row is not None:
        print("run: row")
    else:
        print("run: " + " ".join(stage.verb for stage in STAGES if invocation.stage <= stage.number <= invocation.stop_stage))
    return 0


if __name__ == "__main__":
    sys.exit(main())
