"""N-grams of one order as sorted arrays, sentences as word numbers: what counting, smoothing, pruning and scoring share.

An n-gram of k words is the pair (number of its first k-1 words in the level below, number of its last word). Its key is
`history * num_words + word`, so that a level is one sorted array whatever the order, and looking n-grams up is a binary search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from dropasr.lang.lexicon import SENTENCE_BEGIN, SENTENCE_END

NONE = -1
"""Number of a word or n-gram that does not exist."""


@dataclass(frozen=True)
class Level:
    """N-grams of one order.

    `keys`: int64 `(N,)`, ascending, different. `log10`, `backoff`: float64 `(N,)`, as in ARPA files; `backoff` is NaN for none. The first
    level holds all words: its keys are 0 to N-1.
    """

    keys: np.ndarray
    num_words: int
    log10: np.ndarray
    backoff: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def history(self) -> np.ndarray:
        """Number of each n-gram's history in the level below, int64 `(N,)`."""
        return self.keys // self.num_words

    @property
    def word(self) -> np.ndarray:
        """Number of each n-gram's last word, int64 `(N,)`."""
        return self.keys % self.num_words

    def find(self, history: np.ndarray, word: np.ndarray) -> np.ndarray:
        """Numbers of n-grams given as (history, word), -1 where there is none or either is -1."""
        return find(self.keys, history, word, self.num_words)


def find(keys: np.ndarray, history: np.ndarray, word: np.ndarray, num_words: int) -> np.ndarray:
    """Places of `history * num_words + word` in the sorted `keys`, -1 where it is not there or either is -1. int64 `(N,)`."""
    wanted = history.astype(np.int64) * num_words + word
    if not len(keys):
        return np.full(wanted.shape, NONE)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((keys[place] == wanted) & (history >= 0) & (word >= 0), place, NONE)


def rows(keys: Sequence[np.ndarray], num_words: int) -> np.ndarray:
    """Word numbers of the n-grams of the last of the levels `keys` (orders 1 to k), int64 `(N, k)`."""
    columns: list[np.ndarray] = []
    at = np.arange(len(keys[-1]))
    for level in reversed(keys):
        chosen = level[at]
        columns.append(chosen % num_words)
        at = chosen // num_words
    return np.stack(columns[::-1], axis=1)


def suffixes(keys: Sequence[np.ndarray], num_words: int) -> list[np.ndarray]:
    """For each level, the numbers in the level below of its n-grams without their first word, -1 where it is not there.

    The first level's are all 0.
    """
    result = [np.zeros(len(keys[0]), dtype=np.int64)]
    for order in range(1, len(keys)):
        history, word = keys[order] // num_words, keys[order] % num_words
        result.append(word if order == 1 else find(keys[order - 1], result[order - 1][history], word, num_words))
    return result


@dataclass(frozen=True)
class Text:
    """Sentences `<s> w1 … wn </s>` one after the other.

    `tokens`: int64 `(T,)` word numbers, -1 for words that have none. `position`: int64 `(T,)`, place in the sentence, 0 for `<s>`.
    """

    tokens: np.ndarray
    position: np.ndarray

    @classmethod
    def encode(cls, sentences: Iterable[Sequence[str]], numbers: Mapping[str, int]) -> Text:
        """Number the words of sentences; `<s>` and `</s>` get theirs at the ends only."""
        begin, end = numbers.get(SENTENCE_BEGIN, NONE), numbers.get(SENTENCE_END, NONE)
        inner = {word: number for word, number in numbers.items() if word not in (SENTENCE_BEGIN, SENTENCE_END)}
        sentences = list(sentences)
        lengths = np.array([len(sentence) + 2 for sentence in sentences], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        tokens = np.empty(int(lengths.sum()), dtype=np.int64)
        position = np.arange(len(tokens)) - np.repeat(starts, lengths)
        words = np.ones(len(tokens), dtype=bool)
        words[starts] = words[starts + lengths - 1] = False
        tokens[starts], tokens[starts + lengths - 1] = begin, end
        flat = (inner.get(word, NONE) for word in chain.from_iterable(sentences))
        tokens[words] = np.fromiter(flat, dtype=np.int64, count=int(words.sum()))
        return cls(tokens, position)

    def windows(self, order: int) -> np.ndarray:
        """For every token but `<s>`, it and the `order - 1` tokens before it in its sentence; -1 before `<s>`. int64 `(M, order)`."""
        ends = np.flatnonzero(self.position > 0)
        back = np.arange(order - 1, -1, -1)
        taken = self.tokens[np.maximum(ends[:, None] - back, 0)]
        return np.where(self.position[ends, None] >= back, taken, NONE)
