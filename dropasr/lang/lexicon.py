"""The pronunciation lexicon: words, their phone sequences, and the phone of silence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dropasr.errors import DataError
from dropasr.files import read_lines, write_text

SILENCE = "SIL"
"""The phone of silence; it may also be the pronunciation of a word, such as `<SIL> SIL`."""

EPSILON, SENTENCE_BEGIN, SENTENCE_END = "<eps>", "<s>", "</s>"
_RESERVED = {EPSILON, SENTENCE_BEGIN, SENTENCE_END}


def _check_symbol(symbol: str, kind: str, where: str) -> None:
    if symbol in _RESERVED or symbol.startswith("#"):
        reserved = ", ".join(sorted(_RESERVED))
        raise DataError(f"{where}: the {kind} '{symbol}' is reserved ({reserved} and names that begin with '#'). Rename it.")


@dataclass(frozen=True)
class Lexicon:
    """`entries[word]` lists the pronunciations of a word, each a list of phones."""

    entries: dict[str, list[list[str]]]

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, list[str]]], where: str) -> Lexicon:
        """Collect `(word, phones)`; several pairs of one word are its variants, repeated ones count once.

        Raises DataError (its message begins with `where`) for an empty lexicon or pronunciation and for reserved symbols.
        """
        entries: dict[str, list[list[str]]] = {}
        for word, phones in pairs:
            _check_symbol(word, "word", where)
            if not phones:
                raise DataError(f"{where}: the word '{word}' has no phones; expected 'WORD PHONE PHONE …'. Add its pronunciation.")
            for phone in phones:
                _check_symbol(phone, "phone", where)
            variants = entries.setdefault(word, [])
            if phones not in variants:
                variants.append(list(phones))
        if not entries:
            raise DataError(f"{where}: the lexicon is empty; expected lines 'WORD PHONE PHONE …'.")
        return cls(dict(sorted(entries.items())))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str | list[str]], where: str = "lang.lexicon") -> Lexicon:
        """From `{WORD: "P P P"}`; a list of strings gives variants."""
        pairs = []
        for word, value in mapping.items():
            variants = [value] if isinstance(value, str) else value
            pairs += [(str(word), variant.split()) for variant in variants]
        return cls.from_pairs(pairs, where)

    @classmethod
    def load(cls, path: str | Path) -> Lexicon:
        """Read lines `WORD PHONE PHONE …`; empty lines and lines that begin with `;;;` are skipped. Raises DataError with the line."""
        path = Path(path)
        try:
            lines = read_lines(path)
        except FileNotFoundError:
            raise DataError(f"{path}: the lexicon is missing. Set lang.lexicon, or run the stage that makes it.") from None
        pairs = []
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith(";;;"):
                continue
            word, *phones = line.split()
            if not phones:
                raise DataError(f"{path}, line {number}: expected 'WORD PHONE PHONE …', found only '{word}'. Add its pronunciation.")
            pairs.append((word, phones))
        return cls.from_pairs(pairs, str(path))

    def save(self, path: str | Path) -> None:
        """Write one line per pronunciation, sorted by word."""
        lines = [" ".join([word, *phones]) for word, variants in self.entries.items() for phones in variants]
        write_text(path, "\n".join(lines) + "\n")

    @property
    def phones(self) -> list[str]:
        """The phones that occur, sorted, without silence."""
        found = {phone for variants in self.entries.values() for phones in variants for phone in phones}
        return sorted(found - {SILENCE})

    def missing(self, words: Iterable[str]) -> list[str]:
        """The words that have no entry, sorted, each once."""
        return sorted({word for word in words if word not in self.entries})
