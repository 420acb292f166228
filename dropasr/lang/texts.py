"""Text for language models: reading it, keeping test sentences out of it, and the word list that follows from it."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from dropasr.errors import DataError

Sentences = list[list[str]]
RUN = 10
"""A sentence of the text with this many words in a row from a dev or test transcript counts as a copy of it."""
PART = 5
"""So does a sentence of this many words or more that is itself a part of such a transcript."""
COPY_RULES = {
    "whole": "copies of dev or test sentences",
    "part": "parts of one",
    "run": f"with {RUN} words in a row from one",
}
"""The kinds of copies, and how the log speaks of them."""


def read_sentences(path: Path, normalise: Callable[[str], str] | None = None) -> Sentences:
    """One sentence a line, as lists of words; a name that ends in `.gz` is unpacked. Raises DataError for a file that is no such text."""
    opener = gzip.open if path.suffix == ".gz" else open
    # The words of a large text are few: one object for each of them is what keeps it small in memory.
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            lines = (line if normalise is None else normalise(line) for line in file)
            return [words for words in ([sys.intern(word) for word in line.split()] for line in lines) if words]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, one sentence a line ({error}). Convert the file.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: expected text packed by gzip, found something else or a damaged file ({error}). Replace it.") from None


def _runs(sentence: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(sentence[begin : begin + length]) for begin in range(len(sentence) - length + 1))


class HeldOut:
    """The sentences of dev and test, by what a text must not share with them."""

    def __init__(self, sentences: Iterable[Sequence[str]]) -> None:
        held_out = [tuple(sentence) for sentence in sentences]
        self._whole = set(held_out)
        self._runs = set(chain.from_iterable(_runs(sentence, RUN) for sentence in held_out))
        # Longer parts have a run.
        self._parts = {part for sentence in held_out for length in range(PART, RUN) for part in _runs(sentence, length)}
        # Most sentences have no word pair that begins a run, and need no closer look.
        self._pairs = {run[:2] for run in self._runs}

    def rule(self, sentence: Sequence[str]) -> str | None:
        """Which of COPY_RULES makes a copy of a sentence; None for a sentence that is none."""
        words = tuple(sentence)
        if words in self._whole:
            return "whole"
        if words in self._parts:
            return "part"
        if len(words) < RUN or self._pairs.isdisjoint(zip(words, words[1:])) or self._runs.isdisjoint(_runs(words, RUN)):
            return None
        return "run"


def without_copies(sentences: Sentences, held_out: HeldOut) -> tuple[Sentences, Counter[str]]:
    """The sentences that are no copies of held-out ones, whole or in part; and how many each of COPY_RULES left out."""
    left_out: Counter[str] = Counter()
    kept = []
    for sentence in sentences:
        rule = held_out.rule(sentence)
        if rule is None:
            kept.append(sentence)
        else:
            left_out[rule] += 1
    return kept, left_out


def count_words(sentences: Iterable[Sequence[str]]) -> Counter[str]:
    """How often each word occurs."""
    return Counter(chain.from_iterable(sentences))


def mean_frequencies(texts: Iterable[Iterable[Sequence[str]]]) -> dict[str, float]:
    """Relative frequencies of words, averaged over texts: a small text that suits the task is not drowned by a large one."""
    total: Counter[str] = Counter()
    for text in texts:
        counts = count_words(text)
        number = sum(counts.values())
        for word, count in counts.items():
            total[word] += count / number  # type: ignore[assignment]
    return dict(total)


def choose_words(frequencies: Mapping[str, float], required: Iterable[str], number: int | None) -> set[str]:
    """All required words, then the most frequent others until there are `number`; ties by alphabet. None: all words."""
    chosen = set(required)
    if number is None:
        return chosen | set(frequencies)
    for word, _ in sorted(frequencies.items(), key=lambda item: (-item[1], item[0])):
        if len(chosen) >= number:
            break
        chosen.add(word)
    return chosen
