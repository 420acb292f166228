"""Normalisation of transcripts, hypotheses and language-model text by the rules of one corpus (`corpus.text`)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from dropasr.config import TextConfig


class Normaliser:
    """The rules of a corpus as a function: `Normaliser(config.corpus.text)(text)` is the normalised text, words joined by single spaces.

    Rules apply in the order of the fields of TextConfig: Unicode form, replacements, characters left out, case, words left out, split
    into characters. Without rules only runs of white space change.
    """

    def __init__(self, rules: TextConfig) -> None:
        self.rules = rules
        self._removed = str.maketrans("", "", rules.remove)
        self._removed_words = frozenset(rules.remove_words)

    def __call__(self, text: str) -> str:
        """Normalise one sentence."""
        rules = self.rules
        if rules.unicode != "keep":
            text = unicodedata.normalize(rules.unicode, text)
        for old, new in rules.replace.items():
            text = text.replace(old, new)
        text = text.translate(self._removed)
        if rules.case == "upper":
            text = text.upper()
        elif rules.case == "lower":
            text = text.lower()
        words = text.split()
        if self._removed_words:
            words = [word for word in words if word not in self._removed_words]
        if rules.split == "characters":
            words = [character for word in words for character in _characters(word)]
        return " ".join(words)

    def words(self, words: Sequence[str]) -> list[str]:
        """Normalise words that were found or said."""
        return list(words) if self.rules == TextConfig() else self(" ".join(words)).split()


def _characters(word: str) -> list[str]:
    """The characters of a word; a combining mark stays with the character before it."""
    result: list[str] = []
    for character in word:
        if result and unicodedata.combining(character):
            result[-1] += character
        else:
            result.append(character)
    return result
