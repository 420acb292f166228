"""The learning rate of each family of methods, searched on dev: frame error (CTC: token error) after the last epoch, no search, never test.

The first method of a family is trained at each rate, with the budget and the epochs of the table, from several seeds, and the rate with
the lowest mean goes to all of the family. Every trial is a row of its own (`norm_removal-rate0.05@0.125`), trained once and found again
when the search is repeated. Families that have a rate keep it: a family that is added is searched alone. Teachers have the rate that was
chosen before, or that of the configuration. The trial with the chosen rate is the table's net of that seed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
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
_TITLE = "# Learning rates chosen on dev by --search-rates: of each family the error on dev of one method, %, after the last epoch by rate:"
_LINE = re.compile(r"#   (?P<family>\S+) \((?P<kind>large|small|compact) (?P<method>\S+)\)")


class Family(Options):
    """Methods that share a learning rate."""

    kind: Literal["large", "small", "compact"]
    """Where they stand: under experiment.large, small or compact."""
    methods: list[str] = Field(min_length=1)
    """Their names; the first one that the experiment has is tried."""


class Trials(Options):
    """What is tried of each family."""

    factors: list[float] = Field(default=[0.5, 1.0, 2.0], min_length=2)
    """Rates that are tried first, times train.learning_rate; rising."""
    most: int = Field(default=5, ge=2)
    """Where the best rate lies at the edge, further ones are tried, up to this many."""
    budget: float = Field(default=0.125, gt=0, lt=1)
    """Budget of the small and compacted nets that are tried."""
    seeds: int = Field(default=3, ge=1)
    """Nets of each method and rate, with seeds 1, 2 and so on; the mean of their errors counts."""


class RateSearch(Trials):
    """families.yaml of a recipe."""

    corpora: dict[str, Trials] = {}
    """Corpora that have other values; what one of them leaves out is as for the rest."""
    families: dict[str, Family]
    """By name."""

    def of(self, corpus: str) -> Trials:
        """What is tried on a corpus."""
        own = self.corpora.get(corpus, Trials())
        return Trials(**{**self.model_dump(include=set(Trials.model_fields)), **own.model_dump(exclude_unset=True)})


@dataclass(frozen=True)
class Chosen:
    """A file of rates: why they were chosen, a line for each family, and the rates of methods, which are options of theirs."""

    lines: dict[str, str]
    methods: dict[str, dict[str, float]]

    @classmethod
    def read(cls, path: Path, model: str) -> Chosen:
        """What an earlier search chose for a model; nothing where there was none."""
        if not path.exists():
            return cls({}, {})
        found = [(_LINE.match(line), line) for line in path.read_text(encoding="utf-8").splitlines()]
        methods = (read_layers(path).get("models") or {}).get(model, {}).get("methods", {})
        return cls({match["family"]: line for match, line in found if match}, methods)

    def rate(self, name: str, family: Family) -> float | None:
        """The rate of a family, if it was searched with a method that is still in it."""
        match = _LINE.match(self.lines.get(name, ""))
        if match is None or match["kind"] != family.kind or match["method"] not in family.methods:
            return None
        return self.methods.get(match["method"], {}).get(_KEYS[family.kind])

    def text(self, model: str) -> str:
        """The file."""
        body = yaml.safe_dump({"models": {model: {"methods": self.methods}}}, sort_keys=False, default_flow_style=None)
        return "\n".join([_TITLE, *self.lines.values(), body])


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


def trial_config(
    config: Config, families: dict[str, Family], rates: dict[str, list[float]], budget: float, of_teachers: dict[str, float] | None = None
) -> Config:
    """An experiment whose rows are the first method of each family at each of its rates, and the teachers of these.

    Teachers have train.learning_rate where `of_teachers` has none for them.
    """
    methods: dict[str, dict[str, Any]] = {}
    lists: dict[str, list[str]] = {kind: [] for kind in _KEYS}

    def add(kind: str, method: str, rate: float) -> None:
        values = {**config.methods[method], "training_rate": rate, "small_training_rate": rate}
        if values.get("teacher"):
            of_teacher = (of_teachers or {}).get(values["teacher"], config.train.learning_rate)
            add("large", values["teacher"], of_teacher)
            values["teacher"] = _label(values["teacher"], of_teacher)
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


def _trials(config: Config, source: Path) -> tuple[RateSearch, Trials]:
    search = parse_options(RateSearch, read_layers(source), str(source))
    return search, search.of(config.corpus.name)


def seeds_of(config: Config, source: Path) -> list[int]:
    """The seeds of which nets are trained for every rate, and, as far as they are the table's, kept for it."""
    return list(range(1, _trials(config, source)[1].seeds + 1))


def search_rates(config: Config, paths: Paths, source: Path, target: Path, nj: int) -> None:
    """Search the rates of `source` (a families.yaml), in `nj` processes, and write a configuration with the best ones to `target`.

    What `target` has stays: only families without a rate there are searched.
    """
    search, tried = _trials(config, source)
    chosen = Chosen.read(target, config.model["name"])
    found = families_of(config, search, str(source))
    known = {name: rate for name in found if (rate := chosen.rate(name, search.families[name])) is not None}
    for name, rate in known.items():
        logger.info(f"{name}: keeps its rate of {rate:g}; to search it again, remove its line from {target}")
    families = {name: family for name, family in found.items() if name not in known}
    of_teachers = {method: rate for name, rate in known.items() if found[name].kind == "large" for method in found[name].methods}

    def trials() -> Config:
        return trial_config(config, families, rates, tried.budget, of_teachers)

    first = [float(f"{factor * config.train.learning_rate:.4g}") for factor in sorted(set(tried.factors))]
    rates = {name: list(dict.fromkeys(first)) for name in families}
    errors: dict[str, dict[float, float]] = {name: {} for name in families}
    diverged: set[str] = set()
    seeds = [replace(paths, seed=seed) for seed in seeds_of(config, source)]
    while any(len(errors[name]) < len(rates[name]) for name in families):
        trial = trials()
        trained = rows(trial)
        for of_seed in seeds:  # a rate at which one net diverges is out, and so is one whose teacher does
            diverged |= {row.name for row in trained if teacher_of(trial, row) in diverged}
            wanted = [row for row in trained if row.name not in diverged]
            diverged |= run_jobs(trial, of_seed, wanted, nj, spared=DivergedError, compared=False)
        for name, family in families.items():
            of_rate = {rate: _label(family.methods[0], rate) for rate in rates[name]}
            errors[name] = {
                rate: math.inf if row.name in diverged else fmean(_dev_error(of_seed, row) for of_seed in seeds)
                for rate, label in of_rate.items()
                for row in trained
                if (row.method, row.kind) == (label, family.kind)
            }
            further = next_rate(errors[name], tried.most)
            rates[name] += [] if further is None else [further]
    best = {name: min(sorted(errors[name]), key=errors[name].__getitem__) for name in families}
    for name, rate in best.items():
        if math.isinf(errors[name][rate]):
            told = ", ".join(f"{other:g}" for other in sorted(errors[name]))
            raise StageError(
                f"{source}: family '{name}': {families[name].methods[0]} diverges at every learning rate tried ({told}). Try lower ones"
                " (factors, train.learning_rate), or see why."
            )
    write_text(target, _choose(config, chosen, found, {**known, **best}, errors, len(seeds)).text(config.model["name"]))
    logger.info(f"learning rates written to {target}; a run of the recipe reads them")
    table = with_rates(config, found, {**known, **best})
    for of_seed in seeds:
        reuse(table, trials(), of_seed)


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


def _choose(
    config: Config, before: Chosen, families: dict[str, Family], best: dict[str, float], errors: dict[str, dict[float, float]], seeds: int
) -> Chosen:
    """What was chosen before, and what has been chosen now, with its reason."""
    error, lines = CRITERIA[config.train.criterion].error_name, dict(before.lines)
    for name, of_rate in errors.items():
        told = ", ".join(f"{rate:g}: {of_rate[rate]:.2f}" for rate in sorted(of_rate))
        edge = " (at the edge)" if best[name] in (min(of_rate), max(of_rate)) else ""
        how = f"{error}, %, mean of {seeds} seed{'s' * (seeds > 1)}"
        lines[name] = f"#   {name} ({families[name].kind} {families[name].methods[0]}), {how}: {told}; chosen: {best[name]:g}{edge}"
        logger.info(lines[name].lstrip("# "))
    methods = {method: dict(rates) for method, rates in before.methods.items()}
    for method, rates in _rates_of_methods(families, best).items():  # a method that has come to a family gets what the others have
        methods[method] = {**rates, **methods.get(method, {})}
    for method, rates in _rates_of_methods({name: families[name] for name in errors}, best).items():
        methods[method] |= rates
    return Chosen(lines, methods)
