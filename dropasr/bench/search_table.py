"""The figures of `dropasr bench search` as Markdown and as a plot."""

from __future__ import annotations

from typing import Any

from dropasr.bench.ways import WAYS
from dropasr.report.tables import MISSING, Table, interval
from dropasr.runtime.busy import busy_caution

TITLES = {way.name: way.title for way in WAYS}


def options_of(row: dict[str, Any]) -> str:
    """What gives this setting on a command line."""
    return f"--set decode.backend={row['backend']} --set decode.beam={row['beam']:g} --set decode.max_active={row['max_active']}"


def _interval(value: dict[str, float], signed: bool = False) -> str:
    return interval(value["estimate"], (value["low"], value["high"]), signed=signed)


def markdown(result: dict[str, Any]) -> str:
    """The table, what is recommended, and what has to be known to read it. `result`: what `dropasr.bench.search.measure` returns."""
    rows = result["rows"]
    widest = {row["way"]: max((r["beam"], r["max_active"]) for r in rows if r["way"] == row["way"]) for row in rows}
    lines = [
        [
            TITLES[row["way"]],
            f"{row['beam']:g}",
            str(row["max_active"]),
            _interval(row["wer"]),
            MISSING if (row["beam"], row["max_active"]) == widest[row["way"]] else _interval(row["difference"], signed=True),
            f"{row['rtf']:.5f}",
            "knee" if row["knee"] else "",
        ]
        for row in rows
    ]
    rate = "CER" if result["error_rate"] == "character" else "WER"
    header = ("search", "beam", "max active", f"{rate} % on dev", "difference to the widest", "search RTF", "")
    knees = sorted((row for row in rows if row["knee"]), key=lambda row: row["rtf"])
    edge = ", the widest of all: wider ones may be better, try them"
    advice = [
        f"- {TITLES[row['way']]} (search RTF {row['rtf']:.5f}{edge if (row['beam'], row['max_active']) == widest[row['way']] else ''}): "
        f"`{options_of(row)}`"
        for row in knees
    ]
    scored, of = result["scored_utterances"], result["of_utterances"]
    part = f"all {scored}" if scored == of else f"{scored} of {of}"
    skips = "" if result["frame_skip"] == 1 else f", each for {result['frame_skip']} frames"
    size = f"{result['size']} {'characters' if result['error_rate'] == 'character' else 'words'}"
    notes = [
        f"Knees, the fastest first: of each search the fastest setting whose {rate} on dev is at most {result['tolerance']:g} % absolute "
        "above that of its widest (times within 5 % count as equal; of those the widest).\n\n" + "\n".join(advice),
        f"{result['corpus']}, {result['row']}: {part} utterances of dev ({size}), 95 % intervals, acoustic scale "
        f"{result['acoustic_scale']:g}, a score every {result['stride']} frame(s){skips}. "
        f"Processor times of the search alone: {result['timed_utterances']} utterances "
        f"({result['timed_seconds']:.0f} s), {result['repeats']} interleaved passes, one thread on one core. {result['hardware']['cpu']}; "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + ".",
    ]
    if result["under_load"]:
        notes.insert(0, f"**Measured under load.** {busy_caution(result['busy_share'])}")
    return "\n\n".join([Table(header, lines, frozenset({0, 6})).markdown(), *notes]) + "\n"


def plot(result: dict[str, Any]) -> str:
    """Error rate against search RTF: a line for each beam of each way, over the numbers of active states; circles are knees."""
    from dropasr.report.plots import COLOURS, MARKERS, figure, log_scale, svg

    rows, marks = result["rows"], list(MARKERS.values())
    figure_ = figure(8, 4.8)
    axes = figure_.add_subplot()
    for number, way in enumerate(dict.fromkeys(row["way"] for row in rows)):
        own = [row for row in rows if row["way"] == way]
        for shade, beam in enumerate(sorted({row["beam"] for row in own})):
            line = sorted((row for row in own if row["beam"] == beam), key=lambda row: row["max_active"])
            points = [row["rtf"] for row in line], [row["wer"]["estimate"] for row in line]
            strength = 0.3 + 0.7 * (shade + 1) / len({row["beam"] for row in own})
            style = f"{marks[number % len(marks)]}-"
            axes.plot(*points, style, color=COLOURS[number], alpha=strength, markersize=4, label=f"{TITLES[way]}, beam {beam:g}")
        for row in own:
            if row["knee"]:
                axes.plot([row["rtf"]], [row["wer"]["estimate"]], "o", markersize=13, fillstyle="none", color=COLOURS[number])
    log_scale(axes, [row["rtf"] for row in rows], "RTF of the search (log scale; left is faster)")
    axes.set_ylabel(f"{'CER' if result['error_rate'] == 'character' else 'WER'} on dev, %")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(figure_, "search")
