"""The figures of a benchmark as Markdown."""

from __future__ import annotations

from typing import Any

from dropasr.report.tables import MISSING, Table
from dropasr.runtime.busy import busy_caution
from dropasr.runtime.engines import engine_module

HEADER = (
    "net",
    "engine",
    "WER %",
    "WER difference",
    "features",
    "model",
    "search",
    "RTF",
    "p95",
    "model speed-up",
    "total speed-up",
    "peak MiB",
    "model MB",
)


def _interval(value: dict[str, Any], digits: int, sign: str = "") -> str:
    return f"{value['estimate']:{sign}.{digits}f} [{value['low']:{sign}.{digits}f}, {value['high']:{sign}.{digits}f}]"


def _rtf(value: float) -> str:
    return f"{value:.5f}"


def _line(row: dict[str, Any], reference: str) -> list[str]:
    times, first = row["rtf"], row["name"] == reference
    return [
        row["folder"] if row["shared"] == 1 else f"{row['folder']}, each score for {row['shared']} frames",
        engine_module(row["engine"]).TITLE,
        _interval(row["wer"], 2),
        MISSING if first else _interval(row["wer_difference"], 2, "+"),
        *(_rtf(times[part]) for part in ("features", "model", "search", "total")),
        _rtf(times["p95"]["total"]),
        *("1" if first else _interval(row["speedup"][part], 2) for part in ("model", "total")),
        MISSING if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}",
        f"{row['bytes'] / 1e6:.2f}",
    ]


def markdown(result: dict[str, Any]) -> str:
    """The table and what has to be known to read it. `result`: what `dropasr.bench.rtf.measure` returns."""
    rows, header = result["rows"], list(HEADER)
    lines = [_line(row, result["reference"]) for row in rows]
    if any(row["throughput"] for row in rows):
        settings = rows[0]["throughput"]
        header.append(f"times real time, {settings['threads']} threads, {settings['batch']} at once")
        for line, row in zip(lines, rows):
            line.append(f"{row['throughput']['median']:.0f}")
    if any(row["joules_per_second_of_speech"] is not None for row in rows):
        header.append("J per s")
        for line, row in zip(lines, rows):
            energy = row["joules_per_second_of_speech"]
            line.append(MISSING if energy is None else f"{energy:.3f}")
    scored = result["scored_utterances"]
    part = f"all {scored}" if scored == result["of_utterances"] else f"{scored} of {result['of_utterances']}"
    hardware = result["hardware"]
    notes = [
        f"{result['corpus']}: WER of {part} utterances of test ({rows[0]['words']} words) with 95 % intervals; differences and speed-ups "
        f"are to {result['reference']}. Real-time factors: {result['timed_utterances']} utterances ({result['timed_seconds']:.0f} s), "
        f"{result['repeats']} interleaved passes, one thread on one core, one utterance at a time; p95: 95th percentile over utterances.",
        f"Search: {result['backend']}, beam {result['beam']:g}, at most {result['max_active']} states, a score every "
        f"{result['stride']} frame(s). Peak MiB: a process that does nothing but score the longest utterance. {hardware['cpu']}, "
        f"{hardware['cores']} cores, {hardware['memory_gib']:g} GiB; "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + ".",
    ]
    if result["under_load"]:
        notes.insert(0, f"**Measured under load.** {busy_caution(result['busy_share'])}")
    return "\n\n".join([Table(header, lines, frozenset({0, 1})).markdown(), *notes]) + "\n"
