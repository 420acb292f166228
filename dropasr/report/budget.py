"""Which net of a finished experiment, or of a recipe, meets a budget of a device: `python -m dropasr budget`.

Dev chooses. Of the rows that meet a budget of size or speed the one with the lowest error rate on dev is taken; of those whose error rate
on dev is within `wer-loss` of the reference's, the one with the fewest multiply-adds. Test stands beside, with its interval.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dropasr.adapt.budgets import Budget, parse_budget
from dropasr.errors import CompactionError, ConfigError, StageError
from dropasr.files import read_json
from dropasr.report.test_sets import SplitSize, headline_test, set_name

BYTES = 4
"""Bytes of a parameter, in float32."""


def _figures(row: dict[str, Any], reference: dict[str, Any], character: bool, test: str) -> dict[str, Any]:
    """What budgets are about: sizes, model time, and the error rates that decide (`dev`, `loss`) and that are told (of `test`).

    `loss` and `latency` are to the reference of the same seeds: a row of a recipe may have fewer of them.
    """
    kind = "cer" if character and row.get("dev_cer") is not None else "wer"
    paired = row.get("dev_difference")
    told = row if test == "test" else row["extra"][test]
    return {
        "name": row["name"],
        "label": row.get("label", row["name"]),
        "units": row["units"],
        "macs": row["macs_per_second"],
        "params": row["parameters"],
        "bytes": BYTES * row["parameters"],
        "rtf": row["rtf"]["model"],
        "latency": 1 / row["speedup"]["model"] if "speedup" in row else row["rtf"]["model"] / reference["rtf"]["model"],
        "dev": row[f"dev_{kind}"],
        "loss": row[f"dev_{kind}"] - reference[f"dev_{kind}"] if paired is None else paired,
        "test": told[kind],
        "interval": told[f"{kind}_interval"],
        "difference": told[f"{kind}_difference"],
    }


def _told_test(results: dict[str, Any]) -> str:
    """The test set of the verdicts, where all rows have it."""
    about = {key: results[f"test_{key}"] for key in ("words", "speakers") if f"test_{key}" in results}
    if len(about) < 2:
        return "test"
    sizes = {"test": SplitSize(**about, bootstrap_unit=results["bootstrap_unit"])}
    sizes |= {name: SplitSize(**size) for name, size in results.get("extra_tests", {}).items()}
    test = headline_test(sizes)
    return test if all(test in row.get("extra", {}) for row in results["rows"]) else "test"


def meets(row: dict[str, Any], reference: dict[str, Any], budget: Budget, tolerance: float = 0.02) -> bool:
    """Whether a row meets a budget; shares of multiply-adds within the `tolerance` that rows of an experiment have."""
    if budget.kind == "wer-loss":
        return row["loss"] <= budget.value
    limit = budget.value * reference[budget.kind] if budget.relative else budget.value
    return row[budget.kind] <= limit * (1 + tolerance if budget.kind == "macs" else 1)


def choose(results: dict[str, Any], budget: Budget) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures of the row that is taken, and those of all rows, large to small, each with whether it `meets` the budget.

    `results`: the content of a results.json. Raises ConfigError for a budget that its rows say nothing about, CompactionError where none
    of them meets it.
    """
    if budget.kind in ("dev-loss", "error"):
        raise ConfigError(
            f"budget {budget.kind}: nets of an experiment are judged by words: take wer-loss=+0.5, macs, params, bytes or latency."
        )
    if not budget.relative and budget.kind in ("macs", "latency"):
        raise ConfigError(f"budget {budget.kind}: expected a share of the reference's, such as {budget.kind}=1/4, found {budget.value:g}.")
    first, character, test = (
        next(row for row in results["rows"] if row["reference"]),
        results["error_rate"] == "character",
        _told_test(results),
    )
    reference = _figures(first, first, character, test)
    rows = [_figures(row, first, character, test) for row in results["rows"]]
    for row in rows:
        row["meets"] = meets(row, reference, budget)
    within = [row for row in rows if row["meets"]]
    if not within:
        raise CompactionError(f"budget {budget.kind}: none of {len(rows)} nets meets it. Train smaller ones: --set experiment.budgets=[…].")
    by_dev, by_size = (lambda row: (row["loss"], row["macs"])), (lambda row: (row["macs"], row["loss"]))
    return min(within, key=by_size if budget.kind == "wer-loss" else by_dev), sorted(rows, key=by_size, reverse=True)


def groups(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is compared with one reference: the results of each corpus, model and system of a results.json, by title.

    Rows of several of these have references of their own, and their names may be the same.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for corpus, part in results.get("corpora", {"": results}).items():
        for row in part["rows"]:
            key = (corpus, row.get("model", ""), row.get("system", ""))
            found.setdefault(key, {**part, "rows": []})["rows"].append(row)
    return {", ".join(name for name in key if name): part for key, part in found.items()}


def show(path: Path, text: str) -> list[str]:
    """Lines that say which net of a results.json meets the budget `text`, of each corpus, model and system that it has.

    Raises StageError where there is no such file, CompactionError where no net of any meets the budget.
    """
    budget = parse_budget(text)
    if not path.exists():
        raise StageError(f"{path}: no finished experiment. Run all stages first (bash run.sh), or name the folder of a recipe.")
    of_group, lines, failed = groups(read_json(path)), [], []
    for title, results in of_group.items():
        lines += [title] if len(of_group) > 1 else []
        try:
            lines += _table(results, budget, text)
        except CompactionError as error:
            failed.append(error)
            lines.append(str(error))
    if len(failed) == len(of_group):
        raise failed[0]
    return lines


def _table(results: dict[str, Any], budget: Budget, text: str) -> list[str]:
    chosen, rows = choose(results, budget)
    reference = next(row for row in results["rows"] if row["reference"])
    rate = "CER" if results["error_rate"] == "character" else "WER"
    test, width = set_name(_told_test(results)), max(29, *(len(row["label"]) for row in rows))
    lines = [f"{'net':<{width + 3}} {'MAC':>7} {'bytes':>10} {'model RTF':>10} {rate + ' dev':>8} {'loss':>6}  {rate} {test} % [95 %]"]
    for row in rows:
        low, high = row["interval"]
        mark = "->" if row is chosen else "  " if row["meets"] else " x"
        lines.append(
            f"{mark} {row['label']:<{width}} {row['macs'] / reference['macs_per_second']:>7.3f} {row['bytes']:>10} {row['rtf']:>10.4f} "
            f"{row['dev']:>8.2f} {row['loss']:>+6.2f}  {row['test']:.2f} [{low:.2f}, {high:.2f}]"
        )
    low, high = chosen["difference"]["interval"]
    name = reference.get("label", reference["name"])
    lines.append(f"x: does not meet {text}; MAC: share of {name}; bytes: float32; loss: {rate} on dev above that of {name}, same seeds")
    if chosen["name"] != reference["name"]:
        lines.append(f"{chosen['label']}: {rate} on {test} {chosen['difference']['mean']:+.2f} [{low:+.2f}, {high:+.2f}] against {name}")
    return lines
