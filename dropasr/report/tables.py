"""Tables as text: figures with their units and intervals, columns that line up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dropasr.report.schema import Comparison, Criterion, Described, ErrorRate, Results, Row
from dropasr.report.test_sets import set_name

GAP = "  "
MISSING = "–"


class Names(NamedTuple):
    """What the figures of training are called."""

    loss: str
    error: str
    quantity: str
    unit: str


NAMES: dict[Criterion, Names] = {
    "frames": Names("dev CE", "frame error", "cross-entropy", "nats per frame"),
    "ctc": Names("dev loss per token", "token error", "CTC loss", "nats per token"),
}
"""By the criterion of training."""


class TrainingTime:
    """Seconds of training of some rows: of the processor where all have them, so that what else ran does not count, else by the clock."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.of_processor = all(row.train_cpu_seconds is not None for row in rows)
        self.head = "training s (processor)" if self.of_processor else "training s"

    def of(self, row: Row) -> float:
        """Seconds of one of the rows."""
        return row.train_cpu_seconds if self.of_processor and row.train_cpu_seconds is not None else row.train_seconds


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


def method_name(row: Row) -> str:
    """What the nets of a method have in common, whatever their budget; each large net stands alone."""
    name = row.label if row.kind == "large" else f"{row.method} from scratch" if row.kind == "small" else row.method
    return name.replace("_", " ")


def units(widths: Sequence[int]) -> str:
    """Units per layer: `4×512`, or `452 430 421 411`."""
    return f"{len(widths)}×{widths[0]}" if len(set(widths)) == 1 else " ".join(map(str, widths))


def short_units(widths: Sequence[int]) -> str:
    """Units per layer where room is scarce: `4×512`, or `4×(411-452)`."""
    return units(widths) if len(set(widths)) == 1 else f"{len(widths)}×({min(widths)}-{max(widths)})"


def sizes(row: Row, short: bool = False) -> str:
    """Units per layer of a net, before them, where inputs were removed, how many are left: `375 in, 155 155 155 154`."""
    hidden = short_units(row.units) if short else units(row.units)
    return hidden if row.inputs is None else f"{row.inputs} in, {hidden}"


def error_rate(row: Row, test: str, kind: ErrorRate) -> str:
    """The error rate on a test set with its interval; systems of one recipe may have different test sets."""
    return interval(*row.on(test).rate(kind)[:2]) if row.has(test) else MISSING


def difference(row: Row, test: str, kind: ErrorRate) -> str:
    """The difference to the reference on a test set, or that this is the reference."""
    found = row.on(test).rate(kind).difference
    return "reference" if row.reference else interval(found.mean, found.interval, signed=True)


def plain_rate(row: Row, test: str, kind: ErrorRate) -> str:
    """The error rate on a test set without interval."""
    return f"{row.on(test).rate(kind).value:.2f}"


def rate_heads(results: Described, tests: Sequence[str]) -> list[str]:
    """Heads of columns of error rates on test sets; `test` alone needs no name."""
    rate = f"{results.rate_name} %"
    return [rate] if list(tests) == ["test"] else [f"{set_name(test)}: {rate}" for test in tests]


def speedup(row: Row) -> str:
    """The speed-up of the acoustic model with its interval."""
    return "1" if row.reference else interval(row.speedup.model, row.speedup.interval)


def optional(value: float | None, decimals: int = 2) -> str:
    """A figure that files of older versions do not have."""
    return MISSING if value is None else f"{value:.{decimals}f}"


def other_rate(kind: ErrorRate) -> tuple[str, ErrorRate]:
    """Name and kind of the error rate that is not the headline."""
    return ("CER", "character") if kind == "word" else ("WER", "word")


def other_value(row: Row, test: str, kind: ErrorRate) -> str:
    """The error rate that is not the headline."""
    return optional(row.on(test).cer if kind == "word" else row.on(test).wer)


def tight_head(results: Described, test: str) -> str:
    """Head of the column of error rates with intervals where room is scarce."""
    return f"{'' if test == 'test' else f'{test}: '}{results.rate_name} % [95 %]"


def terminal_table(results: Results) -> str:
    """The main table for the terminal, about 150 columns wide."""

    def tight(text: str) -> str:
        return text.replace(", ", ",")

    kind, test, training = results.error_rate, results.headline, TrainingTime(results.rows)
    rate = tight_head(results, test)
    header = ("net", "units", "param", "MAC/s", rate, "difference [95 %]", "RTF feat", "model", "search", "total")
    lines = [
        (
            row.label,
            sizes(row, short=True),
            count(row.parameters),
            count(row.macs_per_second),
            tight(error_rate(row, test, kind)),
            tight(difference(row, test, kind)),
            *(rtf(value).lstrip("0") for value in (row.rtf.features, row.rtf.model, row.rtf.search, row.rtf.total)),
            f"{row.speedup.model:.2f}",
            f"{row.speedup.total:.2f}",
            f"{training.of(row):.0f}s",
        )
        for row in results.rows
    ]
    return Table((*header, "×model", "×total", "train"), lines).terminal()


def main_table(results: Results) -> Table:
    """The main table in full: figures on the test set of the verdicts, error rates on those beside it."""
    kind, tests, training = results.error_rate, results.order(results.rows), TrainingTime(results.rows)
    rate, *beside = rate_heads(results, tests)
    header = (
        "net", "units per layer", "parameters", "multiply-adds per second", f"{rate} [95 %]",
        "difference to the reference [95 %]", f"{other_rate(kind)[0]} %", *beside,
        "RTF features", "RTF model", "RTF search", "RTF total", "model × faster [95 %]", "total × faster [95 %]", training.head,
    )  # fmt: skip
    lines = [
        (
            row.label,
            sizes(row),
            count(row.parameters),
            count(row.macs_per_second),
            error_rate(row, tests[0], kind),
            difference(row, tests[0], kind),
            other_value(row, tests[0], kind),
            *(plain_rate(row, test, kind) for test in tests[1:]),
            rtf(row.rtf.features),
            rtf(row.rtf.model),
            rtf(row.rtf.search),
            rtf(row.rtf.total),
            speedup(row),
            "1" if row.reference else interval(row.speedup.total, row.speedup.total_interval),
            f"{training.of(row):.0f}",
        )
        for row in results.rows
    ]
    return Table(header, lines)


def extra_table(results: Described, rows: Sequence[Row]) -> Table:
    """Error rates on the test sets beside that of the verdicts, decoded with what dev chose."""
    kind, name, tests = results.error_rate, results.rate_name, results.order(rows)[1:]
    header = ["net"]
    for test in tests:
        header += [f"{set_name(test)}: {name} % [95 %]", "difference [95 %]", f"{other_rate(kind)[0]} %"]
    cells = (error_rate, difference, other_value)
    lines = [[row.label, *(cell(row, test, kind) for test in tests for cell in cells)] for row in rows]
    return Table(header, lines)


def detail_table(results: Results) -> Table:
    """Errors on test by kind, figures of dev, and single utterances' real-time factors."""
    names = NAMES[results.rows[0].criterion]
    wer = "WER %" if len(results.tests) == 1 else "test: WER %"
    header = (
        "net", wer, "substituted", "deleted", "inserted", "dev WER % [95 %]", names.loss, f"dev {names.error} %", "acoustic scale",
        "LM scale", "insertion penalty", "RTF model median", "95th percentile", "RTF total median", "95th percentile", "epochs",
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
                dev_wer(row),
                f"{row.dev_ce:.4f}",
                f"{row.dev_frame_error:.2f}",
                f"{row.acoustic_scale:g}",
                f"{row.lm_scale:g}",
                f"{row.insertion_penalty:g}",
                rtf(row.rtf_median.model),
                rtf(row.rtf_p95.model),
                rtf(row.rtf_median.total),
                rtf(row.rtf_p95.total),
                str(row.epochs),
            )
        )
    return Table(header, lines)


def dev_wer(row: Row) -> str:
    """WER on dev, with its interval where the file has one."""
    return f"{row.dev_wer:.2f}" if row.dev_wer_interval is None else interval(row.dev_wer, row.dev_wer_interval)


def comparison_table(results: Described, rows: Sequence[Row], comparisons: Sequence[Comparison], head: str = "compacted") -> Table:
    """Nets (`head` says which) against rivals of the same budget, on every test set, over the seeds that both have."""
    by_name = {row.name: row for row in rows}
    several = len(results.tests) > 1
    lines = []
    for item in comparisons:
        row, other = by_name[item.row], by_name[item.difference.to]
        rates = [f"{rate:.2f}" for rate in item.rates]
        gained = interval(item.difference.mean, item.difference.interval, signed=True)
        test = [set_name(item.test)] if several else []
        lines.append((row.label, other.label, *test, *rates, gained, f"{item.dev_ce_difference:+.4f}", item.outcome))
    name, loss = results.rate_name, NAMES[rows[0].criterion].loss
    test = ["test set"] if several else []
    header = (head, "rival", *test, f"{name} %", f"{name} % of the rival", "difference [95 %]", f"difference of {loss}", "outcome")
    return Table(header, lines, frozenset({0, 1, len(header) - 1, *([2] if several else [])}))
