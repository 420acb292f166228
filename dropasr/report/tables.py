"""Tables as text: figures with their units and intervals, columns that line up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dropasr.report.schema import ResultRow, Results

GAP = "  "


@dataclass(frozen=True)
class Table:
    """A table; columns listed in `left` are words, the others are figures and line up on the right."""

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: frozenset[int] = frozenset({0})

    def terminal(self) -> str:
        """Columns padded with spaces."""
        cells = [list(self.header), *map(list, self.lines)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(self.header))]
        padded = [[cell.ljust(w) if i in self.left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))] for line in cells]
        return "\n".join(GAP.join(line).rstrip() for line in padded)

    def markdown(self) -> str:
        """A table of GitHub's Markdown."""
        marks = [":--" if i in self.left else "--:" for i in range(len(self.header))]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [self.header, marks, *self.lines])


def count(value: float) -> str:
    """A count with three figures: 4460000 → `4.46M`."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * limit:
            scaled = value / limit
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{letter}"
    return f"{value:.0f}"


def rtf(value: float) -> str:
    """A real-time factor with four decimals, five below 0.001."""
    return f"{value:.{4 if value >= 0.001 else 5}f}"


def interval(mean: float, bounds: Sequence[float], decimals: int = 2, signed: bool = False) -> str:
    """`5.23 [4.61, 5.90]`."""
    sign = "+" if signed else ""
    low, high = (f"{value:{sign}.{decimals}f}" for value in bounds)
    return f"{mean:{sign}.{decimals}f} [{low}, {high}]"


def units(widths: Sequence[int]) -> str:
    """Units per layer: `4×512`, or `452 430 421 411`."""
    return f"{len(widths)}×{widths[0]}" if len(set(widths)) == 1 else " ".join(map(str, widths))


def short_units(widths: Sequence[int]) -> str:
    """Units per layer where room is scarce: `4×512`, or `4×(411-452)`."""
    return units(widths) if len(set(widths)) == 1 else f"{len(widths)}×({min(widths)}-{max(widths)})"


def difference(row: ResultRow) -> str:
    """The difference to the reference, or that this is the reference."""
    return "reference" if row.reference else interval(row.wer_difference.mean, row.wer_difference.interval, signed=True)


def speedup(row: ResultRow) -> str:
    """The speed-up of the acoustic model with its interval."""
    return "1" if row.reference else interval(row.speedup.model, row.speedup.interval)


def terminal_table(results: Results) -> str:
    """The main table for the terminal, about 150 columns wide."""

    def tight(text: str) -> str:
        return text.replace(", ", ",")

    header = ("net", "units", "param", "MAC/s", "WER % [95 %]", "difference [95 %]", "RTF feat", "model", "search", "total")
    lines = [
        (
            row.label,
            short_units(row.units),
            count(row.parameters),
            count(row.macs_per_second),
            tight(interval(row.wer, row.wer_interval)),
            tight(difference(row)),
            *(rtf(value).lstrip("0") for value in (row.rtf.features, row.rtf.model, row.rtf.search, row.rtf.total)),
            f"{row.speedup.model:.2f}",
            f"{row.speedup.total:.2f}",
            f"{row.train_seconds:.0f}s",
        )
        for row in results.rows
    ]
    return Table((*header, "×model", "×total", "train"), lines).terminal()


def main_table(results: Results) -> Table:
    """The main table in full."""
    header = (
        "net", "units per layer", "parameters", "multiply-adds per second", "WER % [95 %]", "difference to the reference [95 %]",
        "RTF features", "RTF model", "RTF search", "RTF total", "model × faster [95 %]", "total × faster [95 %]", "training s",
    )  # fmt: skip
    lines = [
        (
            row.label,
            units(row.units),
            count(row.parameters),
            count(row.macs_per_second),
            interval(row.wer, row.wer_interval),
            difference(row),
            rtf(row.rtf.features),
            rtf(row.rtf.model),
            rtf(row.rtf.search),
            rtf(row.rtf.total),
            speedup(row),
            "1" if row.reference else interval(row.speedup.total, row.speedup.total_interval),
            f"{row.train_seconds:.0f}",
        )
        for row in results.rows
    ]
    return Table(header, lines)


def detail_table(results: Results) -> Table:
    """Errors by kind, figures of dev, and single utterances' real-time factors."""
    header = (
        "net", "WER %", "substituted", "deleted", "inserted", "dev WER %", "dev CE", "dev frame error %", "acoustic scale",
        "RTF model median", "95th percentile", "RTF total median", "95th percentile", "epochs",
    )  # fmt: skip
    lines = []
    for row in results.rows:
        counts = row.wer_counts
        lines.append(
            (
                row.label,
                f"{row.wer:.2f}",
                str(counts.substitutions),
                str(counts.deletions),
                str(counts.insertions),
                f"{row.dev_wer:.2f}",
                f"{row.dev_ce:.4f}",
                f"{row.dev_frame_error:.2f}",
                f"{row.acoustic_scale:g}",
                rtf(row.rtf_median.model),
                rtf(row.rtf_p95.model),
                rtf(row.rtf_median.total),
                rtf(row.rtf_p95.total),
                str(row.epochs),
            )
        )
    return Table(header, lines)


def comparison_table(results: Results) -> Table:
    """Compacted nets against nets from scratch of the same budget."""
    by_name = {row.name: row for row in results.rows}
    lines = []
    for item in results.comparisons:
        row, other = by_name[item.row], by_name[item.difference.to]
        gained = interval(item.difference.mean, item.difference.interval, signed=True)
        more_ce = f"{row.dev_ce - other.dev_ce:+.4f}"
        lines.append((row.label, other.label, f"{row.wer:.2f}", f"{other.wer:.2f}", gained, more_ce, item.outcome))
    header = ("compacted", "from scratch", "WER %", "WER % from scratch", "difference [95 %]", "difference of dev CE", "outcome")
    return Table(header, lines, frozenset({0, 1, 6}))
