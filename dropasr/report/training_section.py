"""What the report says of training: curves, retention probabilities, signal of the estimators, compactions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dropasr.report import plots
from dropasr.report.load import Net, Run
from dropasr.report.page import Block, Figure, Heading, Text
from dropasr.report.results import label
from dropasr.report.signals import estimators_of, over_updates
from dropasr.report.tables import Table, optional, units


def slug(name: str) -> str:
    """A name fit for files and ids."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def training_section(run: Run) -> Iterator[Block]:
    """Curves, retention histograms, gradient signal, compactions."""
    yield Heading("Training")
    yield Figure(
        "training", plots.training_curves(run.nets, run.criterion), "Training curves. While units are being removed, epochs become shorter."
    )
    compacted = [net for net in run.nets if net.summary.compactions or any(epoch.layers for epoch in net.summary.retention)]
    for net in compacted:
        retention = [epoch for epoch in net.summary.retention if epoch.layers]
        if retention:
            title = f"{label(net.row)}: units by retention probability"
            caption = f"{title}, per layer and epoch; darker is more. The titles say how many units were kept in the last epoch shown."
            groups = net.summary.group_names(max(len(epoch.layers) for epoch in retention))
            yield Figure(f"retention-{slug(net.name)}", plots.retention_histograms(slug(net.name), title, retention, groups), caption)
    yield from _inputs(run.nets)
    yield from _signal(compacted)
    removed = [line for net in compacted for line in _compaction_lines(net)]
    if removed:
        yield Heading("Compactions")
        header = ("net", "epoch", "units before", "units after", "largest difference", "largest logit", "relative")
        yield Table(header, removed)
        yield Text(
            "Largest difference between the outputs of the masked and the compacted net on real frames; training stops where it exceeds "
            "1e-4 of the largest logit."
        )


def _inputs(nets: list[Net]) -> Iterator[Block]:
    """Which inputs nets read that have lost some."""
    for net in nets:
        left = net.summary.inputs_left
        if left is not None:
            title = f"{label(net.row)}: {len(left.inputs)} of {left.num_features * (sum(left.context) + 1)} inputs left"
            caption = f"{title}, dark where one is; above and beside, the share of every frame and of every feature that is left."
            yield Figure(f"inputs-{slug(net.name)}", plots.inputs_left(slug(net.name), title, left), caption)


def _signal(nets: list[Net]) -> Iterator[Block]:
    """Split-half correlation of the estimators at the start of retention learning and, where it was recorded, over its updates."""
    start = [
        (label(net.row), name, str(estimator.frames), _by_group(net, estimator.split_half))
        for net in nets
        for name, estimator in net.summary.estimators.items()
    ]
    recorded = [net for net in nets if net.summary.signals]
    if not start and not recorded:
        return
    yield Heading("Signal of the gradient estimators")
    yield Text("Correlation over units between the gradients of two halves of held-out frames: 1 is all signal, 0 a coin flip.")
    if start:
        yield Text("When retention learning starts:")
        yield _layer_table(("net", "estimator", "frames"), start)
    for net in recorded:
        title = f"{label(net.row)}: split-half correlation at every update of retention learning"
        yield Figure(
            f"signal-{slug(net.name)}", plots.signal_curves(slug(net.name), title, net.summary.signals), f"{title}, mean over layers."
        )
    if recorded:
        yield Text("At its first and last update, on the frames of one update:")
        yield _layer_table(("net", "estimator", "update", "mean"), [line for net in recorded for line in _update_lines(net)])


def _update_lines(net: Net) -> Iterator[tuple[str, str, str, str, list[float | None]]]:
    updates = net.summary.signals
    for name in estimators_of(updates):
        means = over_updates(updates, name)
        for place, at in ((f"first of {len(updates)}", 0), ("last", -1)):
            mean = optional(None if np.isnan(means[at]) else means[at], 3)
            yield label(net.row), name, place, mean, _by_group(net, updates[at].split_half.get(name, []))


def _by_group(net: Net, values: list[float | None]) -> dict[str, float | None]:
    """Figures of groups of units by the name of the group."""
    return dict(zip(net.summary.group_names(len(values)), values))


def _layer_table(header: tuple[str, ...], lines: list[tuple]) -> Table:
    """Lines whose last cell has one figure per group of units."""
    groups = sorted({name for line in lines for name in line[-1]}, key=lambda name: (name != "inputs", len(name), name))
    cells = [[*line[:-1], *(optional(line[-1][name], 3) if name in line[-1] else "" for name in groups)] for line in lines]
    return Table((*header, *groups), cells, frozenset({0, 1, *range(2, len(header) - 1)}))


def _compaction_lines(net: Net) -> Iterator[list[str]]:
    for item in net.summary.compactions:
        relative = item.max_difference / item.largest_logit if item.largest_logit > 0 else 0.0
        figures = [f"{item.max_difference:.1e}", f"{item.largest_logit:.3g}", f"{relative:.1e}"]
        yield [label(net.row), str(item.epoch), units(item.units_before), units(item.units_after), *figures]
