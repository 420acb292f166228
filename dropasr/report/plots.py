"""Plots as SVG text: no window, no fonts inside, fit to be put into a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

from dropasr.report.inputs import EpochRetention, InputsLeft, SignalUpdate
from dropasr.report.load import Net
from dropasr.report.results import label
from dropasr.report.schema import Criterion, Described, Row
from dropasr.report.signals import estimators_of, over_updates
from dropasr.report.tables import NAMES, method_name
from dropasr.report.test_sets import set_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINES = {"large": "", "small": "--", "compact": "-"}
MARKERS = {"large": "s", "small": "o", "compact": "D"}
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#4a4e69", "#00a6a6", "#7f5539", "#b5179e", "#6c757d")


def figure(columns: float, rows: float) -> Figure:
    """An empty figure, sizes in inches; it does not touch matplotlib's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(columns, rows), layout="constrained")


def svg(figure_: Figure, name: str) -> str:
    """The SVG element of a figure. `name` makes the ids of its parts unique, since one page holds several."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure_.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="', f' id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    return text.strip()


def curves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by what a line joins: a method with its budgets, largest first; each large net stands alone, and so do rows of fewer seeds."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(method_name(row) + _few_seeds(row, rows), []).append(row)
    return {name: sorted(members, key=lambda row: -row.macs_per_second) for name, members in found.items()}


def _few_seeds(row: Row, rows: Sequence[Row]) -> str:
    """The seeds of a row of a recipe that has fewer than others: its figures are not theirs to be joined with."""
    seeds = getattr(row, "seeds", ())
    few = len(seeds) < max(len(getattr(other, "seeds", ())) for other in rows)
    return f" (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})" if few else ""


def rate_against_time(about: Described, rows: Sequence[Row], test: str) -> str:
    """Error rate on a test set with its interval against the RTF of the acoustic model, a line per method over its budgets."""
    figure_ = figure(8, 4.8)
    axes = figure_.add_subplot()
    joined = curves(rows)
    for colour, (name, members) in zip(_colours(len(joined)), joined.items()):
        rates = [row.on(test).rate(about.error_rate) for row in members]
        bars = [[rate.value - rate.interval[0] for rate in rates], [rate.interval[1] - rate.value for rate in rates]]
        style = {"fmt": f"{MARKERS[members[0].kind]}{_LINES[members[0].kind]}", "color": colour, "capsize": 3, "markersize": 6}
        times = [row.rtf.model for row in members]
        label_ = f"{name} (reference)" if members[0].reference else name
        axes.errorbar(times, [rate.value for rate in rates], yerr=np.maximum(bars, 0), label=label_, **style)
    _finish(axes, [row.rtf.model for row in rows], "RTF of the acoustic model (log scale; left is faster)")
    axes.set_ylabel(f"{about.rate_name} on {set_name(test)}, % (bars: 95 % interval)")
    return svg(figure_, "rate-time-" + re.sub(r"\W", "-", test))


def ce_against_macs(rows: Sequence[Row]) -> str:
    """Cross-entropy on dev against multiply-adds per second, a line per method over its budgets."""
    figure_ = figure(8, 4.2)
    axes = figure_.add_subplot()
    joined = curves(rows)
    for colour, (name, members) in zip(_colours(len(joined)), joined.items()):
        style = f"{MARKERS[members[0].kind]}{_LINES[members[0].kind]}"
        millions = [row.macs_per_second / 1e6 for row in members]
        axes.plot(millions, [row.dev_ce for row in members], style, color=colour, markersize=6, label=name)
    _finish(axes, [row.macs_per_second / 1e6 for row in rows], "million multiply-adds per second of audio (log scale)")
    axes.set_ylabel(f"{NAMES[rows[0].criterion].quantity} on dev")
    return svg(figure_, "ce-macs")


def size_curve(about: Described, rows: Sequence[Row]) -> str:
    """Error rate on the test set of the verdicts with its interval, and loss on dev, against multiply-adds."""
    figure_ = figure(9, 3.6)
    test = about.order(rows)[0]
    left, right = figure_.subplots(1, 2)
    by_seeds: dict[str, list[Row]] = {}
    for row in rows:
        by_seeds.setdefault(_few_seeds(row, rows), []).append(row)
    for colour, (few, members) in zip(_colours(len(by_seeds)), by_seeds.items()):
        rates = [row.on(test).rate(about.error_rate) for row in members]
        bars = [[max(rate.value - rate.interval[0], 0) for rate in rates], [max(rate.interval[1] - rate.value, 0) for rate in rates]]
        of_members = [row.macs_per_second / 1e6 for row in members]
        left.errorbar(
            of_members, [rate.value for rate in rates], yerr=bars, fmt="o--", color=colour, capsize=3, label=few.strip(" ()") or "all seeds"
        )
        right.plot(of_members, [row.dev_ce for row in members], "o--", color=colour)
    if len(by_seeds) > 1:
        left.legend(fontsize=8)
    left.set_ylabel(f"{about.rate_name} on {set_name(test)}, % (bars: 95 % interval)")
    right.set_ylabel(f"{NAMES[rows[0].criterion].quantity} on dev")
    millions = [row.macs_per_second / 1e6 for row in rows]
    for axes in (left, right):
        log_scale(axes, millions, "million multiply-adds per second of audio (log scale)")
    return svg(figure_, "size")


def signal_curves(name: str, title: str, updates: Sequence[SignalUpdate]) -> str:
    """Split-half correlation over the updates of retention learning, mean over layers, a line per estimator."""
    figure_ = figure(8, 3.2)
    axes = figure_.add_subplot()
    numbers = range(1, len(updates) + 1)
    estimators = estimators_of(updates)
    for colour, estimator in zip(_colours(len(estimators)), estimators):
        axes.plot(numbers, over_updates(updates, estimator), "-" if len(updates) > 1 else ".", color=colour, label=estimator, linewidth=1)
    axes.axhline(0, color="#6c757d", linewidth=0.8)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("update of retention learning")
    axes.set_ylabel("correlation")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(figure_, f"signal-{name}")


def log_scale(axes: Any, values: Sequence[float], label_: str) -> None:
    """A logarithmic axis of x that holds the values, with decimal labels."""
    axes.set_xscale("log")
    _plain_ticks(axes, values)
    axes.set_xlabel(label_)
    axes.grid(alpha=0.3)


def _finish(axes: Any, values: Sequence[float], label_: str) -> None:
    log_scale(axes, values, label_)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _plain_ticks(axes: object, values: Sequence[float]) -> None:
    """Decimal labels in place of powers of ten, at rounded places between the values."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = 0.8 * min(values), 1.25 * max(values)
    steps = [step * 10.0**power for power in range(-7, 7) for step in (1, 2, 5)]
    axes.set_xlim(low, high)  # type: ignore[attr-defined]
    axes.xaxis.set_major_locator(FixedLocator([step for step in steps if low <= step <= high]))  # type: ignore[attr-defined]
    axes.xaxis.set_minor_locator(NullLocator())  # type: ignore[attr-defined]
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # type: ignore[attr-defined]


def _colours(number: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(number)]


def training_curves(nets: Sequence[Net], criterion: Criterion) -> str:
    """Loss on train and dev, error of frames or tokens on dev, and seconds per epoch, one line per net."""
    figure_, names = figure(9, 6.5), NAMES[criterion]
    panels: list[tuple[str, Callable]] = [
        (f"{names.quantity} on train ({names.unit})", lambda epoch: epoch.train_ce),
        (f"{names.quantity} on dev ({names.unit})", lambda epoch: epoch.dev_ce),
        (f"{names.error} on dev (%)", lambda epoch: epoch.dev_frame_error),
        ("seconds per epoch", lambda epoch: epoch.seconds),
    ]
    all_axes = figure_.subplots(2, 2).ravel()
    for axes, (title, value) in zip(all_axes, panels):
        for colour, net in zip(_colours(len(nets)), nets):
            history = net.summary.history
            style = {"large": "-", "small": "--", "compact": "-"}[net.row.kind]
            marker = "." if net.row.kind == "compact" else None
            axes.plot([e.epoch for e in history], [value(e) for e in history], style, marker=marker, color=colour, label=label(net.row))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch", fontsize=8)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, names = all_axes[0].get_legend_handles_labels()
    figure_.legend(handles, names, fontsize=8, loc="outside lower center", ncols=3)
    return svg(figure_, "training")


def inputs_left(name: str, title: str, left: InputsLeft) -> str:
    """The inputs that a net reads, frames by features; beside them how many of each frame and of each feature are left."""
    before, after = left.context
    kept = np.zeros((before + 1 + after, left.num_features))
    kept.reshape(-1)[left.inputs] = 1
    frames, features = np.arange(-before, after + 1), np.arange(left.num_features)
    figure_ = figure(8, 4.6)
    grid = figure_.add_gridspec(2, 2, width_ratios=(4, 1), height_ratios=(1, 3))
    middle = figure_.add_subplot(grid[1, 0])
    middle.pcolormesh(np.arange(-before - 0.5, after + 1), np.arange(-0.5, left.num_features), kept.T, cmap="Blues", vmin=0, vmax=1.3)
    middle.set_xlabel("frame, from the current one")
    middle.set_ylabel("feature")
    above = figure_.add_subplot(grid[0, 0], sharex=middle)
    above.bar(frames, 100 * kept.mean(axis=1), color=COLOURS[0])
    above.set_ylabel("% left")
    beside = figure_.add_subplot(grid[1, 1], sharey=middle)
    beside.barh(features, 100 * kept.mean(axis=0), height=1, color=COLOURS[0])
    beside.set_xlabel("% left")
    above.set_ylim(0, 100)
    beside.set_xlim(0, 100)
    figure_.suptitle(title, fontsize=10)
    return svg(figure_, f"inputs-{name}")


def retention_histograms(name: str, title: str, retention: Sequence[EpochRetention], groups: Sequence[str]) -> str:
    """Histograms of retention probabilities: one panel per group of units, one line of cells per pass, darker for more units."""
    layers = len(groups)
    figure_ = figure(2.0 + 1.9 * layers, max(2.4, 1.6 + 0.22 * len(retention)))
    all_axes = figure_.subplots(1, layers, squeeze=False, sharey=True)[0]
    image = None
    for number, axes in enumerate(all_axes):
        counts = np.array([np.asarray(epoch.layers[number].counts, np.float64) for epoch in retention])
        shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        epochs = [epoch.epoch for epoch in retention]
        image = axes.pcolormesh(np.linspace(0, 1, counts.shape[1] + 1), np.arange(len(epochs) + 1), shares, cmap="Blues", vmin=0, vmax=100)
        axes.set_yticks(np.arange(len(epochs)) + 0.5, [str(epoch) for epoch in epochs], fontsize=7)
        axes.set_ylim(len(epochs), 0)
        axes.set_title(f"{groups[number]}: {retention[-1].layers[number].kept} kept", fontsize=9)
        axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=8)
    all_axes[0].set_ylabel("epoch")
    figure_.supxlabel("retention probability", fontsize=9)
    figure_.suptitle(title, fontsize=10)
    figure_.colorbar(image, ax=list(all_axes), label="% of units")
    return svg(figure_, f"retention-{name}")
