"""The learning rate of each family of methods, searched on dev: frame error (CTC: token error) after the last epoch, no search, never test.

The first method of a family is trained at each rate, with the budget and the epochs of the table, from several seeds, and the rate with
the lowest mean goes to all of the family. Every trial is a row of its own (`norm_removal-rate0.05@0.125`), trained once and found again
when the search is repeated. Teachers have the rate of the configuration. The trial with the chosen rate is the table's net of that seed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import yaml
from pydantic import Field

from dropasr.config import Config, Options, Row, parse_options, read_layers, rows
from dropasr.errors import ConfigError, DivergedError, StageError
from dropasr.files import read_json, write_text
from dropasr.log import get_logger
from dropasr.paths import Paths
from dropasr.training.criteria import CRITERIA
from dropasr.training.jobs import run_jobs, teacher_of
from dropasr.training.reuse import reuse

logger = get_logger(__name__)
_KEYS = {"large": "training_rate", "small": "small_training_rate", "compact": "training_rate"}


class Family(Options):
    """Methods that share a learning rate."""

    kind: Literal["large", "small", "compact"]
    """Where they stand: under experiment.large, small or compact."""
    methods: list[str] = Field(min_length=1)
    """Their names; the first one that the experiment has is tried."""


class RateSearch(Options):
    """families.yaml of a recipe."""

    factors: list[float] = Field(default=[0.5, 1.0, 2.0], min_length=2)
    """Rates that are tried first, times train.learning_rate; rising."""
    most: int = Field(default=5, ge=2)
    """Where the best rate lies at the edge, further ones are tried, up to this many."""
    budget: float = Field(default=0.125, gt=0, lt=1)
    """Budget of the small and compacted nets that are tried."""
    seeds: int = Field(default=3, ge=1)
    """Nets of each method and rate, with seeds 1, 2 and so on; the mean of their errors counts."""
    seeds_of: dict[str, int] = {}
    """Other numbers of nets, by corpus."""
    families: dict[str, Family]
    """By name."""


def families_of(config: Config, search: RateSearch, where: str) -> dict[str, Family]:
    """The families with those of their methods that the experiment has; ConfigError where a method is in none, or in two of a kind."""
    of_kind = {kind: getattr(config.experiment, kind) for kind in _KEYS}
    found = {}
    for name, family in search.families.items():
        methods = [method for method in family.methods if method in of_kind[family.kind]]
        if methods:
            found[name] = family.model_copy(update={"methods": methods})
    for kind, methods in of_kind.items():
        for method in methods:
            having = [name for name, family in found.items() if family.kind == kind and method in family.methods]
            if len(having) != 1:
                told = f"found it in {', '.join(having)}" if having else "found it in none"
                raise ConfigError(f"{where}: expected '{method}' (experiment.{kind}) in one family of kind {kind}, {told}. Add it to one.")
    return found


def _label(method: str, rate: float) -> str:
    return f"{method}-rate{rate:g}"


def trial_config(config: Config, families: dict[str, Family], rates: dict[str, list[float]], budget: float) -> Config:
    """An experiment whose rows are the first method of each family at each of its rates, and the teachers of these."""
    methods: dict[str, dict[str, Any]] = {}
    lists: dict[str, list[str]] = {kind: [] for kind in _KEYS}

    def add(kind: str, method: str, rate: float) -> None:
        values = {**config.methods[method], "training_rate": rate, "small_training_rate": rate}
        if values.get("teacher"):
            add("large", values["teacher"], config.train.learning_rate)
            values["teacher"] = _label(values["teacher"], config.train.learning_rate)
        label = _label(method, rate)
        methods[label] = values
        if label not in lists[kind]:
            lists[kind].append(label)

    for name, family in families.items():
        for rate in rates[name]:
            add(family.kind, family.methods[0], rate)
    experiment = config.experiment.model_copy(update={**lists, "budgets": [budget]})
    return config.model_copy(update={"methods": methods, "experiment": experiment})


def _dev_error(paths: Paths, row: Row) -> float:
    """Frame error on dev in percent (CTC: token error) after the last epoch; infinite where the cross-entropy is no number.

    Cross-entropy says what nets are worth to the search only where they are equally sure of themselves: of nets that overfit it prefers
    those that have hardly learnt.
    """
    last = read_json(paths.net(row.name) / "summary.json")["history"][-1]
    learnt = last["dev_ce"] is not None and math.isfinite(last["dev_ce"])
    return last["dev_frame_error"] if learnt else math.inf


def next_rate(errors: dict[float, float], most: int) -> float | None:
    """The rate beyond the best one, as far from it as its neighbour, where it lies at the edge; None elsewhere, or if all were tried."""
    tried = sorted(errors)
    best = min(tried, key=errors.__getitem__)
    if len(tried) >= most or best not in (tried[0], tried[-1]):
        return None
    neighbour = tried[1] if best == tried[0] else tried[-2]
    return float(f"{best * best / neighbour:.4g}")


def seeds_of(config: Config, source: Path) -> list[int]:
    """The seeds of which nets are trained for every rate, and, as far as they are the table's, kept for it."""
    search = parse_options(RateSearch, read_layers(source), str(source))
    return list(range(1, search.seeds_of.get(config.corpus.name, search.seeds) + 1))


def search_rates(config: Config, paths: Paths, source: Path, target: Path, nj: int) -> None:
    """Search the rates of `source` (a families.yaml), in `nj` processes, and write a configuration with the best ones to `target`."""
    search = parse_options(RateSearch, read_layers(source), str(source))
    families = families_of(config, search, str(source))
    first = [float(f"{factor * config.train.learning_rate:.4g}") for factor in sorted(set(search.factors))]
    rates = {name: list(dict.fromkeys(first)) for name in families}
    errors: dict[str, dict[float, float]] = {name: {} for name in families}
    diverged: set[str] = set()
    seeds = [replace(paths, seed=seed) for seed in seeds_of(config, source)]
    while any(len(errors[name]) < len(rates[name]) for name in families):
        trial = trial_config(config, families, rates, search.budget)
        trained = rows(trial)
        for of_seed in seeds:  # a rate at which one net diverges is out, and so is one whose teacher does
            diverged |= {row.name for row in trained if teacher_of(trial, row) in diverged}
            diverged |= run_jobs(trial, of_seed, [row for row in trained if row.name not in diverged], nj, spared=DivergedError)
        for name, family in families.items():
            of_rate = {rate: _label(family.methods[0], rate) for rate in rates[name]}
            errors[name] = {
                rate: math.inf if row.name in diverged else fmean(_dev_error(of_seed, row) for of_seed in seeds)
                for rate, label in of_rate.items()
                for row in trained
                if (row.method, row.kind) == (label, family.kind)
            }
            further = next_rate(errors[name], search.most)
            rates[name] += [] if further is None else [further]
    best = {name: min(sorted(errors[name]), key=errors[name].__getitem__) for name in families}
    for name, rate in best.items():
        if math.isinf(errors[name][rate]):
            tried = ", ".join(f"{other:g}" for other in sorted(errors[name]))
            raise StageError(
                f"{source}: family '{name}': {families[name].methods[0]} diverges at every learning rate tried ({tried}). Try lower ones"
                " (factors, train.learning_rate), or see why."
            )
    write_text(target, _chosen(config, families, errors, best, len(seeds)))
    logger.info(f"learning rates written to {target}; a run of the recipe reads them")
    table = with_rates(config, families, best)
    for of_seed in seeds:
        reuse(table, trial_config(config, families, rates, search.budget), of_seed)


def _rates_of_methods(families: dict[str, Family], best: dict[str, float]) -> dict[str, dict[str, float]]:
    """Rates of families as options of their methods."""
    methods: dict[str, dict[str, float]] = {}
    for name, family in families.items():
        for method in family.methods:
            methods.setdefault(method, {})[_KEYS[family.kind]] = best[name]
    return methods


def with_rates(config: Config, families: dict[str, Family], best: dict[str, float]) -> Config:
    """The experiment with the best rate of each family."""
    chosen = _rates_of_methods(families, best)
    return config.model_copy(update={"methods": {label: {**values, **chosen.get(label, {})} for label, values in config.methods.items()}})


def _chosen(config: Config, families: dict[str, Family], errors: dict[str, dict[float, float]], best: dict[str, float], seeds: int) -> str:
    """The chosen rates as a configuration, and why, as its comment."""
    error = CRITERIA[config.train.criterion].error_name
    told = f"{error} on dev, %, after the last epoch by rate, mean of {seeds} seed{'s' * (seeds > 1)}"
    lines = [f"# Learning rates chosen on dev by --search-rates; {told}:"]
    for name, family in families.items():
        told = ", ".join(f"{rate:g}: {errors[name][rate]:.2f}" for rate in sorted(errors[name]))
        edge = " (at the edge)" if best[name] in (min(errors[name]), max(errors[name])) else ""
        lines.append(f"#   {name} ({family.kind} {family.methods[0]}): {told}; chosen: {best[name]:g}{edge}")
        logger.info(lines[-1].lstrip("# "))
    methods = {"methods": _rates_of_methods(families, best)}
    body = yaml.safe_dump({"models": {config.model["name"]: methods}}, sort_keys=False, default_flow_style=None)
    return "\n".join([*lines, body])
