"""The ARPA format of n-gram language models: reading and writing."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dropasr.errors import DataError
from dropasr.files import atomic_path
from dropasr.lang.lexicon import SENTENCE_END
from dropasr.lang.trie import Level, find, rows

_LINES = 100_000


def write(path: str | Path, words: Sequence[str], levels: Sequence[Level]) -> None:
    """Write an ARPA file, n-grams sorted by their words. `words`: by number, sorted."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("\n\\data\\\n" + "".join(f"ngram {order}={len(level)}\n" for order, level in enumerate(levels, start=1)))
        for order, level in enumerate(levels, start=1):
            file.write(f"\n\\{order}-grams:\n")
            table = rows([below.keys for below in levels[:order]], len(words))
            for begin in range(0, len(level), _LINES):
                part = slice(begin, begin + _LINES)
                values = zip(level.log10[part].tolist(), table[part].tolist(), level.backoff[part].tolist(), strict=True)
                file.writelines(_lines(values, words))
        file.write("\n\\end\\\n")


def _lines(values: Iterator[tuple[float, list[int], float]], words: Sequence[str]) -> Iterator[str]:
    for log10, numbers, backoff in values:
        text = " ".join([words[number] for number in numbers])
        yield f"{log10:.7g}\t{text}\n" if math.isnan(backoff) else f"{log10:.7g}\t{text}\t{backoff:.7g}\n"


@dataclass
class _Section:
    """The n-grams of one order as they stand in the file."""

    log10: array = field(default_factory=lambda: array("d"))
    words: array = field(default_factory=lambda: array("q"))
    backoff: array = field(default_factory=lambda: array("d"))


def read(path: Path) -> tuple[tuple[str, ...], list[Level]]:
    """Words by number (sorted) and levels of an ARPA file. Raises DataError with file and line."""
    numbers: dict[str, int] = {}
    declared: dict[int, int] = {}
    sections: list[_Section] = []
    place, ended, number = "", False, 0
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007
                if line.startswith("\\"):
                    place, ended = line.strip(), line.strip() == "\\end\\"
                    if place.endswith("-grams:"):
                        sections.append(_Section())
                        if place != f"\\{len(sections)}-grams:":
                            raise DataError(f"{path}, line {number}: expected \\{len(sections)}-grams:, found {place}.")
                elif line.isspace():
                    continue
                elif place.endswith("-grams:"):
                    _read_ngram(line, len(sections), sections[-1], numbers)
                elif place == "\\data\\":
                    order, _, count = line.strip().removeprefix("ngram").partition("=")
                    if not (order.strip().isdigit() and count.strip().isdigit()):
                        raise DataError(f"{path}, line {number}: expected 'ngram ORDER=COUNT', found '{line.strip()}'.")
                    declared[int(order)] = int(count)
    except FileNotFoundError:
        raise DataError(f"{path}: the ARPA language model is missing. Correct lang.arpa, or leave it out to estimate one.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected ARPA text in UTF-8 ({error}). Unpack or convert the file.") from None
    except KeyError as error:
        raise DataError(f"{path}, line {number}: the word {error} has no unigram. Give a complete ARPA model.") from None
    except (ValueError, IndexError):
        expected = f"'LOG10 {len(sections)} word(s) [BACKOFF]'"
        raise DataError(f"{path}, line {number}: expected {expected}, found '{line.strip()}'.") from None
    found = {order: len(section.log10) for order, section in enumerate(sections, start=1)}
    if not ended or not found or found != declared:
        end = "" if ended else ", and no \\end\\ line (is the file cut off?)"
        raise DataError(f"{path}: the ARPA header declares {declared or 'nothing'} n-grams by order, found {found or 'none'}{end}.")
    if SENTENCE_END not in numbers:
        raise DataError(f"{path}: the ARPA model has no unigram '{SENTENCE_END}', so no sentence could end. Give another.")
    return _levels(path, numbers, sections)


def _read_ngram(line: str, order: int, section: _Section, numbers: dict[str, int]) -> None:
    fields = line.split()
    if not order + 1 <= len(fields) <= order + 2:
        raise ValueError
    section.log10.append(float(fields[0]))
    section.backoff.append(float(fields[-1]) if len(fields) == order + 2 else math.nan)
    if order == 1:
        section.words.append(numbers.setdefault(fields[1], len(numbers)))
    else:
        section.words.extend([numbers[word] for word in fields[1 : order + 1]])


def _levels(path: Path, numbers: dict[str, int], sections: list[_Section]) -> tuple[tuple[str, ...], list[Level]]:
    words = tuple(sorted(numbers))
    renumbered = np.empty(len(words), dtype=np.int64)
    renumbered[[numbers[word] for word in words]] = np.arange(len(words))
    levels: list[Level] = []
    for order, section in enumerate(sections, start=1):
        table = renumbered[np.frombuffer(section.words, dtype=np.int64)].reshape(-1, order) if section.words else np.empty((0, order), int)
        history = np.zeros(len(table), dtype=np.int64) if order == 1 else table[:, 0]
        for length in range(2, order):
            history = find(levels[length - 1].keys, history, table[:, length - 1], len(words))
        if (history < 0).any():
            bad = " ".join(words[number] for number in table[np.flatnonzero(history < 0)[0]])
            raise DataError(f"{path}: the {order}-gram '{bad}' has a history that is no {order - 1}-gram. Give a complete ARPA model.")
        keys = history * len(words) + table[:, -1]
        sort = np.argsort(keys, kind="stable")
        keys = keys[sort]
        if (keys[1:] == keys[:-1]).any():
            bad = " ".join(words[number] for number in table[sort[np.flatnonzero(keys[1:] == keys[:-1])[0]]])
            raise DataError(f"{path}: the {order}-gram '{bad}' stands there twice. Remove one.")
        levels.append(Level(keys, len(words), np.array(section.log10)[sort], np.array(section.backoff)[sort]))
    return words, levels
