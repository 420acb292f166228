"""N-gram language models: estimation, the ARPA format, perplexity.

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
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dropasr.errors import DataError
from dropasr.files import write_text
from dropasr.lang.lexicon import SENTENCE_BEGIN, SENTENCE_END

Words = tuple[str, ...]
LOG10_ZERO = -99.0
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class Perplexity:
    """Perplexity per word, sentence ends counted and words outside the vocabulary left out (SRILM's `ppl`)."""

    perplexity: float
    log10_probability: float
    words: int
    sentences: int
    out_of_vocabulary: int

    @property
    def oov_rate(self) -> float:
        """Share of the words that the model does not know."""
        return self.out_of_vocabulary / self.words if self.words else 0.0


@dataclass(frozen=True)
class NGram:
    """`probabilities[k-1]` and `backoffs[k-1]` map n-grams of k words to log10 values, as ARPA files do."""

    probabilities: list[dict[Words, float]]
    backoffs: list[dict[Words, float]]

    @property
    def order(self) -> int:
        """Longest n-gram, in words."""
        return len(self.probabilities)

    @property
    def vocabulary(self) -> set[str]:
        """Words with a unigram probability, without the sentence begin."""
        return {words[0] for words in self.probabilities[0]} - {SENTENCE_BEGIN}

    def log10_probability(self, word: str, history: Sequence[str] = ()) -> float:
        """log10 P(word | history), `history` oldest word first; minus infinity for a word outside the vocabulary."""
        context = tuple(history)[max(0, len(history) - self.order + 1) :]
        total = 0.0
        while True:
            found = self.probabilities[len(context)].get((*context, word))
            if found is not None:
                return total + found
            if not context:
                return -math.inf
            total += self.backoffs[len(context) - 1].get(context, 0.0)
            context = context[1:]

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> Perplexity:
        """Perplexity of sentences given as lists of words."""
        vocabulary = self.vocabulary
        log10, words, count, unknown = 0.0, 0, 0, 0
        for sentence in sentences:
            count += 1
            words += len(sentence)
            history = [SENTENCE_BEGIN]
            for word in [*sentence, SENTENCE_END]:
                if word in vocabulary:
                    log10 += self.log10_probability(word, history)
                else:
                    unknown += 1
                history.append(word)
        scored = words - unknown + count
        value = 10.0 ** (-log10 / scored) if scored else math.nan
        return Perplexity(value, log10, words, count, unknown)

    def to_arpa(self, path: str | Path) -> None:
        """Write the ARPA file."""
        lines = ["", "\\data\\"]
        lines += [f"ngram {order}={len(table)}" for order, table in enumerate(self.probabilities, start=1)]
        for order, table in enumerate(self.probabilities, start=1):
            lines += ["", f"\\{order}-grams:"]
            for words, log10 in sorted(table.items()):
                backoff = self.backoffs[order - 1].get(words)
                lines.append(f"{log10:.7g}\t{' '.join(words)}" + ("" if backoff is None else f"\t{backoff:.7g}"))
        write_text(path, "\n".join([*lines, "", "\\end\\", ""]))

    @classmethod
    def from_arpa(cls, path: str | Path) -> NGram:
        """Read an ARPA file. Raises DataError with file and line."""
        path = Path(path)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise DataError(f"{path}: the ARPA language model is missing. Correct lang.arpa, or leave it out to estimate one.") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: expected ARPA text in UTF-8 ({error}). Unpack or convert the file.") from None
        declared: dict[int, int] = {}
        probabilities: list[dict[Words, float]] = []
        backoffs: list[dict[Words, float]] = []
        section, ended = "", False
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text:
                continue
            if text.startswith("\\") and text.endswith(("\\", ":")):
                section, ended = text, text == "\\end\\"
                if text.endswith("-grams:"):
                    probabilities.append({})
                    backoffs.append({})
                    if text != f"\\{len(probabilities)}-grams:":
                        raise DataError(f"{path}, line {number}: expected \\{len(probabilities)}-grams:, found {text}.")
            elif section == "\\data\\":
                order, _, count = text.removeprefix("ngram").partition("=")
                if not (order.strip().isdigit() and count.strip().isdigit()):
                    raise DataError(f"{path}, line {number}: expected 'ngram ORDER=COUNT', found '{text}'.")
                declared[int(order)] = int(count)
            elif section.endswith("-grams:"):
                order, fields = len(probabilities), text.split()
                try:
                    if not order + 1 <= len(fields) <= order + 2:
                        raise ValueError
                    words = tuple(fields[1 : order + 1])
                    probabilities[-1][words] = float(fields[0])
                    if len(fields) == order + 2:
                        backoffs[-1][words] = float(fields[-1])
                except ValueError:
                    raise DataError(f"{path}, line {number}: expected 'LOG10 {order} word(s) [BACKOFF]', found '{text}'.") from None
        found = {order: len(table) for order, table in enumerate(probabilities, start=1)}
        if not ended or not found or found != declared:
            end = "" if ended else ", and no \\end\\ line (is the file cut off?)"
            raise DataError(f"{path}: the ARPA header declares {declared or 'nothing'} n-grams by order, found {found or 'none'}{end}.")
        if (SENTENCE_END,) not in probabilities[0]:
            raise DataError(f"{path}: the ARPA model has no unigram '{SENTENCE_END}', so no sentence could end. Give another.")
        return cls(probabilities, backoffs)


def _raw_counts(sentences: Iterable[Sequence[str]], order: int, vocabulary: set[str]) -> list[Counter[Words]]:
    counts: list[Counter[Words]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        words = [SENTENCE_BEGIN, *sentence, SENTENCE_END]
        known = [True, *(word in vocabulary for word in sentence), True]
        for end in range(1, len(words)):
            for length in range(1, min(order, end + 1) + 1):
                begin = end + 1 - length
                if not known[begin]:
                    break
                counts[length - 1][tuple(words[begin : end + 1])] += 1
    return counts


def _continuation_counts(counts: list[Counter[Words]]) -> list[Counter[Words]]:
    """Kneser-Ney: orders below the highest count different left neighbours."""
    result = list(counts)
    for index in range(len(counts) - 1):
        lower = Counter({words: count for words, count in counts[index].items() if words[0] == SENTENCE_BEGIN})
        lower.update(words[1:] for words in counts[index + 1])
        # A word behind an unknown word has no counted left neighbour, but stays in the model with count 1.
        lower.update(words for words in counts[index] if words not in lower)
        result[index] = lower
    return result


def kneser_ney_discounts(counts: Iterable[int]) -> tuple[float, float, float]:
    """Discounts of the counts 1, 2 and 3 or more (Chen and Goodman 1998, equation 26), or 0.5, 1, 1.5 where they do not exist."""
    histogram = Counter(counts)
    n1, n2, n3, n4 = (histogram[count] for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return _FALLBACK_DISCOUNTS
    share = n1 / (n1 + 2 * n2)
    discounts = (1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3)
    if not all(0 < discount <= count for count, discount in enumerate(discounts, start=1)):
        return _FALLBACK_DISCOUNTS
    return discounts


def _shares(counts: Counter[Words], smoothing: str) -> tuple[dict[Words, float], dict[Words, float]]:
    """`a` per n-gram and `g` per history, of one order."""
    totals: dict[Words, int] = defaultdict(int)
    kinds: dict[Words, list[int]] = defaultdict(lambda: [0, 0, 0])
    for words, count in counts.items():
        totals[words[:-1]] += count
        kinds[words[:-1]][min(count, 3) - 1] += 1
    if smoothing == "witten_bell":
        types = {history: sum(kind) for history, kind in kinds.items()}
        own = {words: count / (totals[words[:-1]] + types[words[:-1]]) for words, count in counts.items()}
        return own, {history: types[history] / (total + types[history]) for history, total in totals.items()}
    discounts = kneser_ney_discounts(counts.values())
    own = {words: (count - discounts[min(count, 3) - 1]) / totals[words[:-1]] for words, count in counts.items()}
    taken = {history: sum(discount * number for discount, number in zip(discounts, kind, strict=True)) for history, kind in kinds.items()}
    return own, {history: taken[history] / total for history, total in totals.items()}


def estimate(sentences: Iterable[Sequence[str]], order: int, smoothing: str, vocabulary: Iterable[str]) -> NGram:
    """Estimate an n-gram from sentences (lists of words); `smoothing` is `witten_bell` or `kneser_ney`.

    Every word of `vocabulary` gets a probability. Raises DataError where no sentence or an unknown smoothing is given.
    """
    known = set(vocabulary) - {SENTENCE_BEGIN, SENTENCE_END}
    counts = _raw_counts(sentences, order, known)
    if not counts[0]:
        raise DataError("language model: the training text is empty. Give text in lang.text, or transcripts.")
    if smoothing == "kneser_ney":
        counts = _continuation_counts(counts)
    elif smoothing != "witten_bell":
        raise DataError(f"language model: expected the smoothing witten_bell or kneser_ney, found '{smoothing}'.")
    events = sorted(known | {SENTENCE_END})
    uniform = 1.0 / len(events)
    own, freed = _shares(counts[0], smoothing)
    linear: dict[Words, float] = {(word,): own.get((word,), 0.0) + freed[()] * uniform for word in events}
    probabilities = [{words: math.log10(value) for words, value in linear.items()} | {(SENTENCE_BEGIN,): LOG10_ZERO}]
    backoffs: list[dict[Words, float]] = []
    for count in counts[1:]:
        own, freed = _shares(count, smoothing)
        linear = {words: value + freed[words[:-1]] * linear[words[1:]] for words, value in own.items()}
        probabilities.append({words: math.log10(value) for words, value in linear.items()})
        backoffs.append({history: math.log10(value) for history, value in freed.items()})
    return NGram(probabilities, [*backoffs, {}])
