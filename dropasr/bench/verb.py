"""`python -m dropasr bench rtf|roofline|auto FOLDER...`: from a command line to figures on disk and text."""

from __future__ import annotations

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


def _plan(invocation: Invocation) -> Plan:
    from dropasr.bench.rtf import Plan

    own = invocation.own
    engines = tuple(name for text in own.get("--engines", []) for name in text.split(",") if name)
    for name in engines:
        engine_module(name)
    return Plan(
        folders=tuple((invocation.base / folder).resolve() for folder in invocation.arguments[1:]),
        engines=engines,
        repeats=whole_number(own, "--repeats", 3, 2) if "--repeats" in own else None,
        utterances=whole_number(own, "--utterances", 100, 1) if "--utterances" in own else None,
        threads=whole_number(own, "--threads", 1, 1),
        batch=whole_number(own, "--batch", 1, 1),
        under_load="--under-load" in own,
    )


def _tolerance(invocation: Invocation) -> float:
    text = invocation.own.get("--tolerance", ["0.1"])[-1]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise UsageError(f"option '--tolerance': expected percent of WER from 0 to 100, found '{text}'; the default is 0.1.")
    return value


def run(config: Config, paths: Paths, invocation: Invocation) -> str:
    """Measure what the command line asks for; write `NAME.json` and `NAME.md`, and return the latter."""
    kind, plan = invocation.arguments[0], _plan(invocation)
    result: Any
    if kind == "rtf":
        from dropasr.bench.rtf import measure
        from dropasr.bench.table import markdown

        result = measure(config, paths, plan)
        text = markdown(result)
    elif kind == "roofline":
        from dropasr.bench import roofline

        result = roofline.measure(config, paths, plan)
        text = roofline.markdown(result)
    elif kind == "auto":
        from dropasr.bench import choice

        result = [choice.choose(config, paths, plan, folder, _tolerance(invocation)) for folder in plan.folders]
        text = "\n".join(choice.told(item) for item in result) + "\n"
    else:
        known = ["rtf", "roofline", "auto"]
        raise UsageError(f"unknown benchmark '{kind}': did you mean '{nearest(kind, known)}'? Benchmarks: {', '.join(known)}.")
    own = invocation.own.get("--out")
    folder = (invocation.base / own[-1]).resolve() if own else paths.system_home / "bench"
    write_json(folder / f"{kind}.json", result)
    write_text(folder / f"{kind}.md", text)
    return text
