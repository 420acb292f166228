"""N-gram language models: probabilities, perplexity, estimation.

Both smoothings are interpolated and written as back-off models, P(w|h) = a(h,w) + g(h) P(w|h'), where h' is h without its
first word; g(h) is then exactly the back-off weight. The unigram level interpolates with the uniform distribution over the
vocabulary and the sentence end, so that every word of the vocabulary has a probability.

- Witten-Bell (Chen and Goodman 1998, equation 15): a = c(h,w) / (c(h) + T(h)), g = T(h) / (c(h) + T(h)); T(h): different words after h.
- Modified Kneser-Ney (Chen and Goodman 1998, section 3): three discounts per order from the counts of counts; lower orders
  count different left neighbours, except n-grams that begin a sentence, which have none. Where the text is too small to
  give discounts between 0 and the count, they are 0.5, 1 and 1.5 (as in KenLM's `--discount_fallback`).

Sentences are counted as `<s> w1 … wn </s>` with one `<s>`. A word outside the vocabulary interrupts the counting: no n-gram
contains it. No package of the index estimates ARPA models, hence the code here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dropasr.errors import DataError
from dropasr.lang import arpa
from dropasr.lang.lexicon import SENTENCE_BEGIN, SENTENCE_END
from dropasr.lang.trie import NONE, Level, Text, rows, suffixes

Words = tuple[str, ...]
LOG10_ZERO = -99.0
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
_ROWS = 1 << 20


@dataclass(frozen=True)
class Perplexity:
    """Perplexity per word, sentence ends counted and words outside the vocabulary left out (SRILM's `ppl`)."""

    perplexity: float
    log10_probability: float
    words: int
    sentences: int
    out_of_vocabulary: int


@dataclass(frozen=True)
class NGram:
    """A back-off model. `words`: by number, sorted, `<s>` and `</s>` among them; `levels[k-1]`: the n-grams of k words."""

    words: tuple[str, ...]
    levels: list[Level]

    @property
    def order(self) -> int:
        """Longest n-gram, in words."""
        return len(self.levels)

    @property
    def sizes(self) -> list[int]:
        """N-grams per order."""
        return [len(level) for level in self.levels]

    @cached_property
    def vocabulary(self) -> set[str]:
        """Words with a unigram probability, without the sentence begin."""
        return set(self.words) - {SENTENCE_BEGIN}

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    @property
    def keys(self) -> list[np.ndarray]:
        """The levels' keys."""
        return [level.keys for level in self.levels]

    def rows(self, order: int) -> np.ndarray:
        """Word numbers of all n-grams of one order, int64 `(N, order)`."""
        return rows(self.keys[:order], len(self.words))

    @property
    def probabilities(self) -> list[dict[Words, float]]:
        """For each order, n-grams and their log10 probabilities, as dictionaries: for small models."""
        return [self._table(order, self.levels[order - 1].log10) for order in range(1, self.order + 1)]

    @property
    def backoffs(self) -> list[dict[Words, float]]:
        """For each order, histories and their log10 back-off weights, as dictionaries: for small models."""
        return [self._table(order, self.levels[order - 1].backoff) for order in range(1, self.order + 1)]

    def _table(self, order: int, values: np.ndarray) -> dict[Words, float]:
        pairs = zip(self.rows(order).tolist(), values.tolist(), strict=True)
        return {tuple(self.words[number] for number in ngram): value for ngram, value in pairs if not math.isnan(value)}

    def unigrams(self) -> dict[str, float]:
        """Probability of each word without history; sentence begin and end left out."""
        pairs = zip(self.words, (10 ** self.levels[0].log10).tolist(), strict=True)
        return {word: value for word, value in pairs if word not in (SENTENCE_BEGIN, SENTENCE_END)}

    def score(self, ngrams: np.ndarray) -> np.ndarray:
        """log10 P(last column | columns before it, as many as the order has). float64 `(N,)`.

        `ngrams`: word numbers `(N, k)`, -1 for unknown words and where the history is shorter; minus infinity for an unknown last word.
        """
        parts = [self._score(ngrams[begin : begin + _ROWS, -self.order :]) for begin in range(0, len(ngrams), _ROWS)]
        return np.concatenate(parts) if parts else np.empty(0)

    def _score(self, ngrams: np.ndarray) -> np.ndarray:
        ends: list[np.ndarray] = []
        before: list[np.ndarray] = []
        for column in ngrams.T:
            before, ends = ends, self.advance(ends, column)
        return self.score_ends(before, ends)

    def advance(self, before: Sequence[np.ndarray], word: np.ndarray) -> list[np.ndarray]:
        """Numbers of the n-grams of 1, 2, … words that end with `word`, given those that end with the word before; -1 for none."""
        return [word, *(level.find(history, word) for level, history in zip(self.levels[1:], before))]

    def score_ends(self, before: Sequence[np.ndarray], ends: Sequence[np.ndarray]) -> np.ndarray:
        """log10 probabilities of last words: `ends` as `advance` returns them from `before`. float64 `(N,)`."""
        total = np.where(ends[0] >= 0, self.levels[0].log10[ends[0]], -np.inf)
        for below, level, history, end in zip(self.levels, self.levels[1:], before, ends[1:]):
            if len(below):
                total = total + np.where(history >= 0, np.nan_to_num(below.backoff[history]), 0.0)
            if len(level):
                total = np.where(end >= 0, level.log10[end], total)
        return total

    def log10_probability(self, word: str, history: Sequence[str] = ()) -> float:
        """log10 P(word | history), `history` oldest word first; minus infinity for a word outside the vocabulary."""
        row = [self.numbers.get(each, NONE) for each in (*history, word)]
        return float(self.score(np.array([row], dtype=np.int64))[0])

    def perplexity(self, sentences: Iterable[Sequence[str]], known: Set[str] | None = None) -> Perplexity:
        """Perplexity of sentences given as lists of words; words of the model that are not among `known` count as outside it."""
        sentences = list(sentences)
        words = sum(map(len, sentences))
        values = self.word_scores(sentences, known)
        log10 = float(values[np.isfinite(values)].sum())
        scored = int(np.isfinite(values).sum())
        value = 10.0 ** (-log10 / scored) if scored else math.nan
        return Perplexity(value, log10, words, len(sentences), words + len(sentences) - scored)

    def word_scores(self, sentences: Iterable[Sequence[str]], known: Set[str] | None = None) -> np.ndarray:
        """log10 probability of every word and sentence end; minus infinity for words outside the vocabulary, or outside `known`.
        float64 `(T,)`."""
        ends, numbers = (SENTENCE_BEGIN, SENTENCE_END), self.numbers
        if known is not None:
            numbers = {word: number for word, number in numbers.items() if word in known or word in ends}
        return self.score(Text.encode(sentences, numbers).windows(self.order))

    def to_arpa(self, path: str | Path) -> None:
        """Write the ARPA file."""
        arpa.write(path, self.words, self.levels)

    @classmethod
    def from_arpa(cls, path: str | Path) -> NGram:
        """Read an ARPA file. Raises DataError with file and line."""
        return cls(*arpa.read(Path(path)))


def _raw_counts(text: Text, order: int, num_words: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Keys and counts of the n-grams of each order; the first level has all words, those that do not occur with count 0."""
    tokens = text.tokens
    inside = text.position[1:] > 0
    ends = tokens
    heard = tokens[(text.position > 0) & (tokens >= 0)]
    keys, counts = [np.arange(num_words)], [np.bincount(heard, minlength=num_words)]
    for _ in range(1, order):
        usable = 1 + np.flatnonzero(inside & (ends[:-1] >= 0) & (tokens[1:] >= 0))
        found, inverse, number = np.unique(ends[usable - 1] * num_words + tokens[usable], return_inverse=True, return_counts=True)
        ends = np.full(len(tokens), NONE)
        ends[usable] = inverse.reshape(-1)
        keys.append(found)
        counts.append(number)
    return keys, counts


def _continuation_counts(
    keys: list[np.ndarray], counts: list[np.ndarray], suffix: list[np.ndarray], num_words: int, begin: int
) -> list[np.ndarray]:
    """Kneser-Ney: orders below the highest count different left neighbours."""
    result = list(counts)
    starts_sentence = keys[0] == begin
    for index in range(len(counts) - 1):
        if index:
            starts_sentence = starts_sentence[keys[index] // num_words]
        neighbours = np.bincount(suffix[index + 1], minlength=len(keys[index]))
        # A word behind an unknown word has no counted left neighbour, but stays in the model with count 1.
        neighbours = np.maximum(neighbours, counts[index] > 0)
        result[index] = np.where(starts_sentence, counts[index], neighbours)
    return result


def kneser_ney_discounts(counts: Iterable[int] | np.ndarray) -> tuple[float, float, float]:
    """Discounts of the counts 1, 2 and 3 or more (Chen and Goodman 1998, equation 26), or 0.5, 1, 1.5 where they do not exist."""
    histogram = np.bincount(np.minimum(np.fromiter(counts, dtype=np.int64), 5), minlength=5)
    n1, n2, n3, n4 = histogram[1:5].tolist()
    if not (n1 and n2 and n3):
        return _FALLBACK_DISCOUNTS
    share = n1 / (n1 + 2 * n2)
    discounts = (1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3)
    if not all(0 < discount <= count for count, discount in enumerate(discounts, start=1)):
        return _FALLBACK_DISCOUNTS
    return discounts


def _shares(counts: np.ndarray, history: np.ndarray, histories: int, smoothing: str) -> tuple[np.ndarray, np.ndarray]:
    """`a` per n-gram and `g` per history (NaN for a history without counts), of one order."""
    totals = np.bincount(history, weights=counts, minlength=histories)
    if smoothing == "witten_bell":
        freed = np.bincount(history, weights=counts > 0, minlength=histories)
        own, whole = counts.astype(np.float64), totals + freed
    else:
        discounts = np.array([0.0, *kneser_ney_discounts(counts)])[np.minimum(counts, 3)]
        freed = np.bincount(history, weights=discounts, minlength=histories)
        own, whole = counts - discounts, totals
    with np.errstate(invalid="ignore"):
        return own / whole[history], freed / whole


def estimate(sentences: Iterable[Sequence[str]], order: int, smoothing: str, vocabulary: Iterable[str]) -> NGram:
    """Estimate an n-gram from sentences (lists of words); `smoothing` is `witten_bell` or `kneser_ney`.

    Every word of `vocabulary` gets a probability. Raises DataError where no sentence or an unknown smoothing is given.
    """
    words = tuple(sorted(set(vocabulary) | {SENTENCE_BEGIN, SENTENCE_END}))
    numbers = {word: number for number, word in enumerate(words)}
    begin, size = numbers[SENTENCE_BEGIN], len(words)
    text = Text.encode(sentences, numbers)
    if not len(text.tokens):
        raise DataError("language model: the training text is empty. Give text in lang.text, or transcripts.")
    keys, counts = _raw_counts(text, order, size)
    suffix = suffixes(keys, size)
    if smoothing == "kneser_ney":
        counts = _continuation_counts(keys, counts, suffix, size, begin)
    elif smoothing != "witten_bell":
        raise DataError(f"language model: expected the smoothing witten_bell or kneser_ney, found '{smoothing}'.")
    own, freed = _shares(counts[0], np.zeros(size, dtype=np.int64), 1, smoothing)
    linear = own + freed[0] / (size - 1)
    log10 = np.log10(linear)
    log10[begin] = LOG10_ZERO
    levels: list[Level] = []
    for index in range(1, order):
        history = keys[index] // size
        own, freed = _shares(counts[index], history, len(keys[index - 1]), smoothing)
        levels.append(Level(keys[index - 1], size, log10, np.log10(freed)))
        linear = own + freed[history] * linear[suffix[index]]
        log10 = np.log10(linear)
    return NGram(words, [*levels, Level(keys[order - 1], size, log10, np.full(len(log10), np.nan))])
