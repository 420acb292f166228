"""Error rate against the time of the acoustic model for many nets, with the front of those that no other net beats."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dropasr.report.plots import COLOURS, figure, log_scale, svg
from dropasr.report.rivals import PIVOT
from dropasr.report.schema import Described, Row
from dropasr.report.tables import method_name
from dropasr.report.test_sets import set_name

_SHAPES = ("o", "^", "s", "v", "P", "X")
"""Each with all colours: 60 methods can be told apart."""
SAME_TIME = 1.05
"""Nets of one budget differ by less when they are timed twice."""
_FRONT = "#222222"


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points `(time, errors)` that no other one beats, fastest first. Times within 5 % of each other count as equal."""

    def beats(other: tuple[float, float], point: tuple[float, float]) -> bool:
        faster, as_fast = other[0] * SAME_TIME < point[0], other[0] <= point[0] * SAME_TIME
        return (as_fast and other[1] < point[1]) or (faster and other[1] <= point[1])

    left = [place for place, point in enumerate(points) if not any(beats(other, point) for other in points)]
    return sorted(left, key=lambda place: points[place])


def front_rows(about: Described, rows: Sequence[Row], test: str) -> list[Row]:
    """The nets of the front, fastest first."""
    return [rows[place] for place in front([(row.rtf.model, row.on(test).rate(about.error_rate).value) for row in rows])]


def pareto_plot(about: Described, rows: Sequence[Row], test: str) -> str:
    """All nets, a colour and shape per method; those of the front are ringed, numbered from fast to slow, and joined by steps."""
    figure_ = figure(10, 6)
    axes = figure_.add_subplot()
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(method_name(row), []).append(row)
    for place, (name, members) in enumerate(by_method.items()):
        large, pivot = members[0].kind == "large", members[0].kind == "compact" and members[0].method == PIVOT
        shape = "*" if large else "D" if pivot else _SHAPES[place // len(COLOURS) % len(_SHAPES)]
        style = {"color": COLOURS[place % len(COLOURS)], "markersize": 9 if large or pivot else 6, "linestyle": "none"}
        style |= {"markeredgecolor": _FRONT, "zorder": 3} if pivot else {"alpha": 0.85}
        times = [row.rtf.model for row in members]
        axes.plot(times, [row.on(test).rate(about.error_rate).value for row in members], shape, label=name, **style)
    best = front_rows(about, rows, test)
    times, rates = [row.rtf.model for row in best], [row.on(test).rate(about.error_rate).value for row in best]
    axes.step(times, rates, where="post", color=_FRONT, linewidth=1, zorder=1, label="front")
    axes.plot(times, rates, "o", markersize=13, markerfacecolor="none", markeredgecolor=_FRONT, markeredgewidth=1)
    for number, (time, rate) in enumerate(zip(times, rates), start=1):
        side = 11 if number % 2 else -11
        axes.annotate(str(number), (time, rate), xytext=(-11, side), textcoords="offset points", fontsize=9, ha="center", va="center")
    log_scale(axes, [row.rtf.model for row in rows], "RTF of the acoustic model (log scale; left is faster)")
    axes.set_ylabel(f"{about.rate_name} on {set_name(test)}, %")
    axes.margins(y=0.08)
    handles, names = axes.get_legend_handles_labels()
    order = np.argsort([name == "front" for name in names], kind="stable")
    axes.legend([handles[i] for i in order], [names[i] for i in order], fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(figure_, "pareto-" + re.sub(r"\W", "-", test))
