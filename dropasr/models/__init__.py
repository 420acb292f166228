"""Acoustic models: one file each, found by name.

A model file defines `ModelOptions` (its keys in conf/model/NAME.yaml) and `build(options, num_features, num_outputs)`, which returns
an `AcousticModel`. Nothing else names a model, so adding one is one file and one YAML. A YAML whose key `model` names another file
shares it: conf/model/blstm.yaml says `model: lstm`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from dropasr.config import Options, nearest, parse_options
from dropasr.errors import ConfigError
from dropasr.models.base import AcousticModel

NOT_MODELS = ("base", "checkpoint", "gates", "patterns", "recurrence", "streaming")
"""Files of this folder that models share."""

BROUGHT = ("stack",)
"""Models of nets that users bring: checkpoints name them, configurations cannot."""


def _module(name: str, key: str = "model.name", excluded: tuple[str, ...] = NOT_MODELS + BROUGHT):
    known = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in excluded]
    if name not in known:
        raise ConfigError(f"{key}: there is no model '{name}' in dropasr/models{nearest(str(name), known)}.")
    return importlib.import_module(f"{__name__}.{name}")


def _module_of(values: dict[str, Any]):
    return _module(values["model"], "model.model") if "model" in values else _module(values["name"])


def model_options(values: dict[str, Any]) -> Options:
    """Type the `model` section of a configuration with the options of the model that it names."""
    own = {key: value for key, value in values.items() if key not in ("name", "model")}
    return parse_options(_module_of(values).ModelOptions, own, f"model '{values['name']}'")


def build_model(values: dict[str, Any], num_features: int, num_outputs: int) -> AcousticModel:
    """A randomly initialised net for the `model` section of a configuration, with `num_outputs` output units."""
    return _module_of(values).build(model_options(values), num_features, num_outputs)


def model_from_dims(dims: dict[str, Any]) -> AcousticModel:
    """A net of the shape that a checkpoint states (`dims`), its weights still to be loaded."""
    return _module(dims["model"], excluded=NOT_MODELS).from_dims(dims)
