"""Acoustic models: one file each, found by name.

A model file defines `ModelOptions` (its keys in conf/model/NAME.yaml) and `build(options, num_features, num_outputs)`, which returns
an `AcousticModel`. Nothing else names a model, so adding one is one file and one YAML.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from dropasr.config import Options, nearest, parse_options
from dropasr.errors import ConfigError
from dropasr.models.base import AcousticModel


def _module(name: str):
    known = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in ("base", "checkpoint", "gates")]
    if name not in known:
        raise ConfigError(f"model.name: there is no model '{name}' in dropasr/models{nearest(name, known)}.")
    return importlib.import_module(f"{__name__}.{name}")


def model_options(values: dict[str, Any]) -> Options:
    """Type the `model` section of a configuration with the options of the model that it names."""
    values = dict(values)
    name = values.pop("name")
    return parse_options(_module(name).ModelOptions, values, f"model '{name}'")


def build_model(values: dict[str, Any], num_features: int, num_outputs: int) -> AcousticModel:
    """A randomly initialised net for the `model` section of a configuration, with `num_outputs` output units."""
    return _module(values["name"]).build(model_options(values), num_features, num_outputs)


def model_from_dims(dims: dict[str, Any]) -> AcousticModel:
    """A net of the shape that a checkpoint states (`dims`), its weights still to be loaded."""
    return _module(dims["model"]).from_dims(dims)
