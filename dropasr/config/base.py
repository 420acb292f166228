"""The base of all option groups, and how values are typed with errors that name the nearest valid key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dropasr.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent.parent
OptionsType = TypeVar("OptionsType", bound="Options")


class Options(BaseModel):
    """Base of every group of options: frozen, unknown keys refused, field docstrings kept for the help text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def nearest(word: str, candidates: list[str]) -> str:
    """` (did you mean X?)`, or the list of candidates when nothing is near."""
    match = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else f" (known: {', '.join(sorted(candidates))})"


def _known_keys(options: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for part in location:
        field = options.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        options = field.annotation
    return list(options.model_fields)


def parse_options(options: type[OptionsType], values: dict[str, Any], where: str) -> OptionsType:
    """Type and check `values`. `where` (a file or a section) begins the message of the ConfigError."""
    try:
        return options.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        location = first["loc"]
        key = ".".join(str(part) for part in location)
        if first["type"] == "extra_forbidden":
            hint = nearest(str(location[-1]), _known_keys(options, location[:-1]))
            raise ConfigError(f"{where}: unknown key '{key}'{hint}.") from None
        if first["type"] == "missing":
            raise ConfigError(f"{where}: the key '{key}' is missing; it has no default.") from None
        found = "" if isinstance(first["input"], dict) else f", found {first['input']!r}"
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{first['msg']}{found}.") from None
