"""Training and compaction methods: one file each, found by name.

A method file defines `MethodOptions` (its keys in conf/method/NAME.yaml, on top of those of `base.CommonOptions`) and a class `Method`.
Nothing else names a method, so adding one is one file and one YAML.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Union

from dropasr.config import nearest, parse_options
from dropasr.errors import ConfigError
from dropasr.methods.base import BaseMethod, CommonOptions, Schedule
from dropasr.models.base import AcousticModel


def _module(name: str, where: str):
    known = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("base")]
    if name not in known:
        raise ConfigError(f"{where}: there is no method '{name}' in dropasr/methods{nearest(name, known)}.")
    return importlib.import_module(f"{__name__}.{name}")


def method_options(label: str, values: dict[str, Any]) -> CommonOptions:
    """Type one entry of the `methods` section with the options of the method that it names."""
    where = f"method '{label}'"
    return parse_options(_module(values["method"], where).MethodOptions, values, where)


def build_method(label: str, values: dict[str, Any], schedule: Schedule) -> BaseMethod:
    """The method of one row, with its typed options."""
    options = method_options(label, values)
    return _module(values["method"], f"method '{label}'").Method(options, schedule)


def check_method(label: str, values: dict[str, Any], net: AcousticModel, teacher: Union[CommonOptions, None] = None) -> None:
    """Raise ConfigError where the method cannot train this net, or learn from a net trained with the options `teacher`."""
    _module(values["method"], f"method '{label}'").Method.check(method_options(label, values), net, teacher)


def makes_smaller(label: str, values: dict[str, Any]) -> bool:
    """Whether the method removes units while it trains."""
    return _module(values["method"], f"method '{label}'").Method.makes_smaller


def masks_teacher(label: str, values: dict[str, Any]) -> bool:
    """Whether the method learns from its teacher under masks, so that its share of the loss is another matter."""
    return _module(values["method"], f"method '{label}'").Method.masks_teacher


def has_own_schedule(label: str, values: dict[str, Any]) -> bool:
    """Whether the method has a schedule of its own, which is part of it."""
    return _module(values["method"], f"method '{label}'").Method.own_schedule


def learns_units(label: str, values: dict[str, Any]) -> bool:
    """Whether the method learns which units leave; one that makes nets smaller without that is a control."""
    return _module(values["method"], f"method '{label}'").Method.learns_units(method_options(label, values))
