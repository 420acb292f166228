"""Which rows may stand in one table: what only models and methods know of a configuration, and the rules of comparison."""

from __future__ import annotations

from dropasr.config import Config, rows
from dropasr.errors import ConfigError
from dropasr.methods import check_method, has_own_schedule, makes_smaller, masks_teacher, method_options
from dropasr.models import build_model
from dropasr.models.base import AcousticModel, check_skip
from dropasr.training.loop import mask_options


def check_rows(config: Config, compared: bool = True) -> None:
    """Check what only models and methods know: options, teachers, who may stand under large, small, compact, and the rules of comparison.

    `compared` False leaves the rules out: rows that are in no table, such as trials of learning rates.
    """
    large = config.experiment.large
    mask_options(config.train)
    net = build_model(config.model, config.features.num_mel_bins, 1)
    _check_rate(config, net)
    for label, values in config.methods.items():
        options = method_options(label, values)
        smaller = makes_smaller(label, values)
        if smaller and label in [*large, *config.experiment.small]:
            raise ConfigError(f"experiment: '{label}' makes nets smaller; it belongs under experiment.compact.")
        if not smaller and label in config.experiment.compact:
            raise ConfigError(f"experiment.compact: '{label}' does not make nets smaller; it belongs under experiment.large or small.")
        if options.teacher is not None and options.teacher not in large:
            raise ConfigError(f"method '{label}': the teacher '{options.teacher}' is not among experiment.large ({', '.join(large)}).")
        _check_chain(config, label)
        check_method(label, values, net, options.teacher and method_options(options.teacher, config.methods[options.teacher]))
    if compared:
        _check_fair(config)
        _check_taught(config)


def _check_taught(config: Config) -> None:
    """Raise ConfigError where a net gets smaller with a teacher that no net from scratch has, or with another share of it than any of
    these or than others that get smaller."""
    options = {label: method_options(label, config.methods[label]) for label in (*config.experiment.small, *config.experiment.compact)}
    small = {options[label].teacher for label in config.experiment.small}
    plain = [options[label] for label in config.experiment.small if not masks_teacher(label, config.methods[label])]
    first: dict[str, str] = {}
    for label in (label for label in config.experiment.compact if options[label].teacher is not None):
        teacher, weight = options[label].teacher, options[label].teacher_weight
        if teacher not in small:
            raise ConfigError(
                f"experiment.small: '{label}' learns from '{teacher}', so a net distilled from it from scratch must stand beside it "
                f"(rules of comparison); found none. Add 'distilled' to experiment.small with methods.distilled.teacher={teacher}."
            )
        other = first.setdefault(teacher, label)
        if weight != options[other].teacher_weight:
            raise ConfigError(
                f"experiment.compact: '{label}' has teacher_weight {weight:g}, but '{other}', which learns from '{teacher}', too, has "
                f"{options[other].teacher_weight:g}. Set methods.{label}.teacher_weight={options[other].teacher_weight:g}."
            )
        weights = [own.teacher_weight for own in plain if own.teacher == teacher]
        if weights and weight not in weights:
            raise ConfigError(
                f"experiment.small: '{label}' has teacher_weight {weight:g}, but those from scratch that learn from '{teacher}' have "
                f"{', '.join(f'{own:g}' for own in weights)} (rules of comparison). Set methods.distilled.teacher_weight={weight:g}."
            )


def _check_chain(config: Config, label: str) -> None:
    """Raise ConfigError where teachers wait for each other."""
    chain, teacher = [label], config.methods[label].get("teacher")
    while teacher in config.methods:
        chain.append(teacher)
        if teacher in chain[:-1]:
            raise ConfigError(f"method '{label}': expected teachers that are trained first, found {' <- '.join(chain)}. Set one to null.")
        teacher = config.methods[teacher].get("teacher")


def _check_rate(config: Config, net: AcousticModel) -> None:
    """Raise ConfigError where a net that reads sequences steps over frames at another rate than the one it is to be evaluated at."""
    wanted = config.train.frame_subsampling
    if net.reads_chunks and net.stride != wanted:
        raise ConfigError(
            f"train.frame_subsampling: expected {net.stride}, the rate of the net itself (model '{config.model['name']}'), found {wanted}. "
            f"Set train.frame_subsampling={net.stride}, or build the net for one of {wanted} (model.subsampling, model.frame_outputs)."
        )
    check_skip(net, config.decode.frame_skip)


SCHEDULE_KEYS = ("start", "end", "passes")
"""Options that methods whose schedule is their own (`own_schedule`) need not share."""
SHARED_KEYS = (*SCHEDULE_KEYS, "min_units", "width_multiple")
"""Options that the methods under experiment.compact must share, those that make nets of the size they learn excepted."""


def _check_fair(config: Config) -> None:
    """Raise ConfigError where methods that meet the same budgets were given another schedule."""
    labels = dict.fromkeys(row.method for row in rows(config) if row.kind == "compact" and row.budget)
    options = {label: method_options(label, config.methods[label]) for label in labels}
    for key in SHARED_KEYS:
        bound = [label for label in labels if key not in SCHEDULE_KEYS or not has_own_schedule(label, config.methods[label])]
        values = [(label, getattr(options[label], key)) for label in bound if hasattr(options[label], key)]
        for label, value in values[1:]:
            first, wanted = values[0]
            if value != wanted:
                raise ConfigError(
                    f"experiment.compact: '{label}' has {key} {value}, but '{first}' has {wanted}; methods that are compared share "
                    f"{', '.join(SHARED_KEYS)}. Set methods.{label}.{key}={wanted}, or compare them in experiments of their own."
                )
