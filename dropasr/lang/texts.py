"""Text for language models: reading it, keeping test sentences out of it, and the word list that follows from it."""

from __future__ import annotations

import gzip
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from dropasr.errors import DataError

Sentences = list[list[str]]
RUN = 10
"""A sentence of the text with this many words in a row from a dev or test transcript counts as a copy of it."""


def read_sentences(path: Path, normalise: Callable[[str], str] | None = None) -> Sentences:
    """One sentence a line, as lists of words; a name that ends in `.gz` is unpacked. Raises DataError for a file that is no such text."""
    opener = gzip.open if path.suffix == ".gz" else open
    # The words of a large text are few: one object for each of them is what keeps it small in memory.
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            lines = (line if normalise is None else normalise(line) for line in file)
            return [words for words in ([sys.intern(word) for word in line.split()] for line in lines) if words]
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: expected UTF-8 text, one sentence a line ({error}). Convert the file.") from None


def _runs(sentence: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return (tuple(sentence[begin : begin + RUN]) for begin in range(len(sentence) - RUN + 1))


def without_copies(sentences: Sentences, held_out: Iterable[Sequence[str]]) -> tuple[Sentences, int]:
    """The sentences that are no copy of a held-out one, nor share `RUN` words in a row with one; and how many were left out."""
    held_out = [tuple(sentence) for sentence in held_out]
    whole, runs = set(held_out), set(chain.from_iterable(map(_runs, held_out)))
    # Most sentences have no word pair that begins a run, and need no closer look.
    pairs = {run[:2] for run in runs}

    def is_copy(sentence: list[str]) -> bool:
        if tuple(sentence) in whole:
            return True
        return len(sentence) >= RUN and not pairs.isdisjoint(zip(sentence, sentence[1:])) and not runs.isdisjoint(_runs(sentence))

    kept = [sentence for sentence in sentences if not is_copy(sentence)]
    return kept, len(sentences) - len(kept)


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
