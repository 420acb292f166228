"""The transducers H (HMM), C (context), L (lexicon), G (grammar) that a decoding graph is composed of, for every backend.

L and its disambiguation symbols follow Kaldi (Mohri, Pereira and Riley 2002): a pronunciation that another word shares or begins
with ends in `#1`, `#2`, …; `#0` passes the back-off arcs of G; one more symbol follows silence. They make L∘G determinisable
and are erased by C. Arc scores are natural logs.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dropasr.errors import DataError
from dropasr.files import write_text
from dropasr.lang.fst import FINAL, Arcs
from dropasr.lang.lexicon import EPSILON, SENTENCE_BEGIN, SENTENCE_END, SILENCE, Lexicon
from dropasr.lang.units import OutputUnits

BACKOFF = "#0"


@functools.cache
def import_error(backend: str) -> str | None:
    """Why the packages of a backend cannot be used, or None where they can."""
    try:
        if backend == "k2":
            import k2  # noqa: F401
        else:
            import kaldi_decoder  # noqa: F401
            import kaldifst  # noqa: F401
    except Exception as error:  # a k2 built for another torch fails with OSError or RuntimeError
        return f"{type(error).__name__}: {error}"
    return None


def installed_backends() -> list[str]:
    """The search backends that can be imported here, the preferred one first."""
    return [backend for backend in ("k2", "kaldi") if import_error(backend) is None]


def word_symbols(lexicon: Lexicon) -> list[str]:
    """Words by number: `<eps>` is 0, then the lexicon's words, `#0`, `<s>`, `</s>`."""
    return [EPSILON, *lexicon.entries, BACKOFF, SENTENCE_BEGIN, SENTENCE_END]


def save_words(path: Path, words: list[str]) -> None:
    """Write lines `WORD NUMBER`."""
    write_text(path, "".join(f"{word} {number}\n" for number, word in enumerate(words)))


def load_words(path: Path) -> list[str]:
    """Read what `save_words` wrote. Raises DataError naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: the word list is missing. Run stage 3 (lang).") from None
    words = []
    for number, line in enumerate(lines):
        fields = line.split()
        if len(fields) != 2 or fields[1] != str(number):
            raise DataError(f"{path}, line {number + 1}: expected 'WORD {number}', found '{line}'. Run stage 3 (lang) again.")
        words.append(fields[0])
    return words


@dataclass(frozen=True)
class PhoneSymbols:
    """Phones by number: 0 is epsilon, then silence and the phones, then `num_disambiguation` disambiguation symbols."""

    phones: tuple[str, ...]
    num_disambiguation: int

    def number(self, phone: str) -> int:
        """Number of a phone."""
        return 1 + self.phones.index(phone)

    def disambiguation(self, index: int) -> int:
        """Number of `#index`."""
        return 1 + len(self.phones) + index


def disambiguated(lexicon: Lexicon) -> list[tuple[str, list[str], int]]:
    """(word, phones, symbol) for every pronunciation; symbol 0 where it needs none."""
    pairs = [(word, tuple(phones)) for word, variants in lexicon.entries.items() for phones in variants]
    shared = Counter(phones for _, phones in pairs)
    prefixes = {phones[:length] for phones in shared for length in range(1, len(phones))}
    used: Counter[tuple[str, ...]] = Counter()
    result = []
    for word, phones in pairs:
        if shared[phones] > 1 or phones in prefixes:
            used[phones] += 1
        result.append((word, list(phones), used[phones]))
    return result


def lexicon_transducer(lexicon: Lexicon, silence_probability: float) -> tuple[Arcs, PhoneSymbols]:
    """L: phones to words, each word once, with optional silence at the start and after every word."""
    enter, skip = math.log(silence_probability), math.log1p(-silence_probability)
    pronunciations = disambiguated(lexicon)
    largest = max(symbol for _, _, symbol in pronunciations)
    symbols = PhoneSymbols((SILENCE, *lexicon.phones), largest + 2)
    numbers = {phone: number for number, phone in enumerate(symbols.phones, start=1)}
    words = {word: number for number, word in enumerate(word_symbols(lexicon))}
    start, loop, silence, after_silence, states = 0, 1, 2, 3, 4
    rows: list[tuple[int, int, int, int, float]] = [
        (start, loop, 0, 0, skip),
        (start, silence, 0, 0, enter),
        (silence, after_silence, numbers[SILENCE], 0, 0.0),
        (after_silence, loop, symbols.disambiguation(largest + 1), 0, 0.0),
        (loop, loop, symbols.disambiguation(0), words[BACKOFF], 0.0),
    ]
    for word, phones, symbol in pronunciations:
        labels = [numbers[phone] for phone in phones] + ([symbols.disambiguation(symbol)] if symbol else [])
        state, olabel = loop, words[word]
        for label in labels[:-1]:
            rows.append((state, states, label, olabel, 0.0))
            state, olabel, states = states, 0, states + 1
        rows += [(state, loop, labels[-1], olabel, skip), (state, silence, labels[-1], olabel, enter)]
    rows.append((loop, states, FINAL, FINAL, 0.0))
    return Arcs.from_rows(rows), symbols


def _biphones(units: OutputUnits, phones: Sequence[str]) -> tuple[np.ndarray, list[tuple[str, list[int]]]]:
    """The number from 1 of every (left phone, phone), `(P, P)`, and for each number its phone and units.

    Left contexts in which a phone has the same units are one biphone; so a phone without tying is one in all contexts.
    """
    numbers = np.zeros((len(phones), len(phones)), dtype=np.int64)
    found: dict[tuple[str, tuple[int, ...]], int] = {}
    for column, phone in enumerate(phones):
        for row, left in enumerate(phones):
            numbers[row, column] = found.setdefault((phone, tuple(units.pdfs(phone, left))), len(found) + 1)
    return numbers, [(phone, list(pdfs)) for phone, pdfs in found]


def context_transducer(units: OutputUnits, symbols: PhoneSymbols) -> Arcs:
    """C: left biphones to phones, with a state for each phone, the left context of what follows; it starts after silence.

    Where no unit depends on the context it has one state. Disambiguation symbols are erased in every state.
    """
    numbers, _ = _biphones(units, symbols.phones)
    phones = [symbols.number(phone) for phone in symbols.phones]
    erased = [symbols.disambiguation(index) for index in range(symbols.num_disambiguation)]
    states = len(phones) if (numbers != numbers[0]).any() else 1
    rows: list[tuple[int, int, int, int, float]] = []
    for left in range(states):
        following = zip(numbers[left].tolist(), phones, strict=True)
        rows += [(left, column if states > 1 else 0, number, phone, 0.0) for column, (number, phone) in enumerate(following)]
        rows += [(left, left, 0, symbol, 0.0) for symbol in erased]
        rows.append((left, states, FINAL, FINAL, 0.0))
    return Arcs.from_rows(rows)


def _states(pdfs: list[int], first: int, biphone: int) -> list[tuple[int, int, int, int, float]]:
    """Arcs of a left-to-right HMM with self-loops whose states are `first`, …; it begins in state 0."""
    last = first + len(pdfs) - 1
    rows = [(state, state, pdf + 1, 0, 0.0) for state, pdf in enumerate(pdfs, start=first)]
    rows += [(state, state + 1, pdf + 1, 0, 0.0) for state, pdf in enumerate(pdfs[1:], start=first)]
    return [(0, first, pdfs[0] + 1, biphone, 0.0), *rows, (last, 0, 0, 0, 0.0)]


def _states_with_skips(pdfs: list[int], first: int, biphone: int) -> list[tuple[int, int, int, int, float]]:
    """As `_states`, but states may be skipped: the phone passes in one frame of its middle state, or from its first state on.

    Only the last state can be left. A phone that ends in another one takes it for one frame, which leads to the last state. A graph
    without epsilons repeats the arcs behind a phone for each state that can be left, and those into it for each that can be entered;
    with every choice of states it had three times the arcs and found more errors.
    """
    last = first + len(pdfs) - 1
    rows = {(0, first, pdfs[0] + 1, biphone, 0.0), (0, last, pdfs[(len(pdfs) - 1) // 2] + 1, biphone, 0.0), (last, 0, 0, 0, 0.0)}
    for state, pdf in enumerate(pdfs, start=first):
        rows.add((state, state, pdf + 1, 0, 0.0))
        rows |= {(before, after, pdf + 1, 0, 0.0) for before in range(first, state) for after in (state, last)}
    return sorted(rows)


def hmm_transducer(units: OutputUnits, symbols: PhoneSymbols, skips: bool = False) -> Arcs:
    """H: units + 1 to left biphones. Left to right with self-loops, all transitions equally likely.

    Their probability is a constant per frame, the same for every path, and is left out. With `skips` a phone passes in one frame or
    more, for scores at a lower frame rate; without, in as many as it has states or more.
    """
    make = _states_with_skips if skips else _states
    rows: list[tuple[int, int, int, int, float]] = []
    states = 1
    for number, (_, pdfs) in enumerate(_biphones(units, symbols.phones)[1], start=1):
        rows += make(pdfs, states, number)
        states += len(pdfs)
    return Arcs.from_rows([*rows, (0, states, FINAL, FINAL, 0.0)])


def grammar(arpa: Path, words_file: Path) -> str:
    """G in OpenFst's text form, from an ARPA file: `#0` on back-off arcs, sentence begin and end turned into start and final states.

    N-grams with words outside `words_file` are left out.
    """
    import kaldilm

    # kaldilm reports every section it reads on the process's standard error; only a failure is worth the user's attention.
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            return kaldilm.arpa2fst(str(arpa), disambig_symbol=BACKOFF, read_symbol_table=str(words_file), max_arpa_warnings=0)
        except RuntimeError as error:
            messages.seek(0)
            said = " ".join(messages.read().decode("utf-8", "replace").split())[-300:]
            raise DataError(f"{arpa}: the ARPA model could not be turned into a transducer ({error}; {said}). Check the file.") from None
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


@dataclass(frozen=True)
class Transducers:
    """What a backend composes: H∘C∘det(L∘G)."""

    hmm: Arcs
    context: Arcs
    lexicon: Arcs
    grammar: str


def make_transducers(
    lexicon: Lexicon, units: OutputUnits, silence_probability: float, arpa: Path, words_file: Path, skips: bool = False
) -> Transducers:
    """All four transducers; `skips` as in `hmm_transducer`."""
    lexicon_arcs, symbols = lexicon_transducer(lexicon, silence_probability)
    context = context_transducer(units, symbols)
    return Transducers(hmm_transducer(units, symbols, skips), context, lexicon_arcs, grammar(arpa, words_file))
