"""`python -m dropasr bench rtf|roofline|auto|search|causes|retime …`: from a command line to figures on disk and text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropasr.config import Config
from dropasr.errors import UsageError
from dropasr.files import write_json, write_text
from dropasr.options import nearest, whole_number
from dropasr.paths import Paths
from dropasr.runtime.engines import engine_module

if TYPE_CHECKING:
    from dropasr.bench.rtf import Plan
    from dropasr.options import Invocation


def _names(invocation: Invocation, option: str) -> tuple[str, ...]:
    return tuple(name for text in invocation.own.get(option, []) for name in text.split(",") if name)


def _plan(invocation: Invocation) -> Plan:
    from dropasr.bench.rtf import Plan

    own = invocation.own
    return Plan(
        folders=tuple((invocation.base / folder).resolve() for folder in invocation.arguments[1:]),
        engines=_names(invocation, "--engines"),
        repeats=whole_number(own, "--repeats", 3, 2) if "--repeats" in own else None,
        utterances=whole_number(own, "--utterances", 100, 1) if "--utterances" in own else None,
        threads=whole_number(own, "--threads", 1, 1),
        batch=whole_number(own, "--batch", 1, 1),
        under_load="--under-load" in own,
    )


def _engine_plan(invocation: Invocation) -> Plan:
    plan = _plan(invocation)
    for name in plan.engines:
        engine_module(name)
    return plan


def _tolerance(invocation: Invocation) -> float:
    text = invocation.own.get("--tolerance", ["0.1"])[-1]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise UsageError(f"option '--tolerance': expected percent of WER from 0 to 100, found '{text}'; the default is 0.1.")
    return value


def _numbers(invocation: Invocation, option: str, least: float) -> list[float]:
    found = []
    for text in _names(invocation, option):
        try:
            found.append(float(text))
        except ValueError:
            found.append(-1.0)
        if not least <= found[-1] < 1e9:
            raise UsageError(f"option '{option}': expected numbers of at least {least:g} with commas between them, found '{text}'.")
    return found


def _folder(invocation: Invocation, paths: Paths) -> Path:
    own = invocation.own.get("--out")
    return (invocation.base / own[-1]).resolve() if own else paths.system_home / "bench"


def _written(folder: Path, name: str, result: Any, text: str) -> str:
    write_json(folder / f"{name}.json", result)
    write_text(folder / f"{name}.md", text)
    return text


def _rtf(config: Config, paths: Paths, invocation: Invocation) -> str:
    from dropasr.bench.rtf import measure
    from dropasr.bench.table import markdown

    result = measure(config, paths, _engine_plan(invocation))
    return _written(_folder(invocation, paths), "rtf", result, markdown(result))


def _roofline(config: Config, paths: Paths, invocation: Invocation) -> str:
    from dropasr.bench import roofline

    result = roofline.measure(config, paths, _engine_plan(invocation))
    return _written(_folder(invocation, paths), "roofline", result, roofline.markdown(result))


def _auto(config: Config, paths: Paths, invocation: Invocation) -> str:
    from dropasr.bench import choice

    plan = _engine_plan(invocation)
    result = [choice.choose(config, paths, plan, folder, _tolerance(invocation)) for folder in plan.folders]
    return _written(_folder(invocation, paths), "auto", result, "\n".join(choice.told(item) for item in result) + "\n")


def _search(config: Config, paths: Paths, invocation: Invocation) -> str:
    from dropasr.bench import search, search_table
    from dropasr.bench.journal import Journal

    if len(invocation.arguments) != 2:
        raise UsageError("expected python -m dropasr bench search ROW [options], found more than one row.")
    row, folder = invocation.arguments[1], _folder(invocation, paths)
    beams = _numbers(invocation, "--beams", 1)
    grid = search.grid_of(config, beams, [int(number) for number in _numbers(invocation, "--max-active", 31)])
    journal = Journal(folder / f"search-{row}.jsonl")
    result = search.measure(config, paths, _plan(invocation), row, grid, _tolerance(invocation), journal)
    write_text(folder / f"search-{row}.svg", search_table.plot(result) + "\n")
    return _written(folder, f"search-{row}", result, search_table.markdown(result))


def _causes(config: Config, paths: Paths, invocation: Invocation) -> str:
    from dropasr.bench import causes

    if len(invocation.arguments) != 3:
        raise UsageError("expected python -m dropasr bench causes LARGE_ROW SMALL_ROW [options], found another number of rows.")
    large, small = invocation.arguments[1:]
    first = causes.first_system(config, invocation)
    result = causes.measure(first, config, paths, _engine_plan(invocation), large, small)
    return _written(_folder(invocation, paths), "causes", result, causes.markdown(result))


def _retime(config: Config, paths: Paths, invocation: Invocation) -> str:
    from dropasr.bench.retime import retime

    if len(invocation.arguments) != 2:
        raise UsageError("expected python -m dropasr bench retime RECIPE_DIR [options], found more than one folder.")
    return retime(config, paths, (invocation.base / invocation.arguments[1]).resolve(), "--under-load" in invocation.own)


KINDS: dict[str, Callable[[Config, Paths, Invocation], str]] = {
    "rtf": _rtf,
    "roofline": _roofline,
    "auto": _auto,
    "search": _search,
    "causes": _causes,
    "retime": _retime,
}


def run(config: Config, paths: Paths, invocation: Invocation) -> str:
    """Measure what the command line asks for; write `NAME.json` and `NAME.md`, or the rows of a recipe; return what is to be said."""
    kind = invocation.arguments[0]
    if kind not in KINDS:
        raise UsageError(f"unknown benchmark '{kind}': did you mean '{nearest(kind, list(KINDS))}'? Benchmarks: {', '.join(KINDS)}.")
    return KINDS[kind](config, paths, invocation)
