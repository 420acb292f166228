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
from dataclasses import dataclass
from pathlib import Path

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


def _disambiguation(lexicon: Lexicon) -> list[tuple[str, list[str], int]]:
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
    pronunciations = _disambiguation(lexicon)
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


def context_transducer(symbols: PhoneSymbols) -> Arcs:
    """C: phones in context to phones. For context-independent phones the identity; it also erases the disambiguation symbols."""
    phones = [symbols.number(phone) for phone in symbols.phones]
    erased = [symbols.disambiguation(index) for index in range(symbols.num_disambiguation)]
    rows: list[tuple[int, int, int, int, float]] = [(0, 0, phone, phone, 0.0) for phone in phones]
    rows += [(0, 0, 0, symbol, 0.0) for symbol in erased]
    return Arcs.from_rows([*rows, (0, 1, FINAL, FINAL, 0.0)])


def hmm_transducer(units: OutputUnits, symbols: PhoneSymbols) -> Arcs:
    """H: units + 1 to phones in context. Left to right with self-loops, all transitions equally likely.

    Their probability is a constant per frame, the same for every path, and is left out.
    """
    rows: list[tuple[int, int, int, int, float]] = []
    states = 1
    for phone in symbols.phones:
        source, olabel = 0, symbols.number(phone)
        for pdf in units.pdfs(phone):
            rows += [(source, states, pdf + 1, olabel, 0.0), (states, states, pdf + 1, 0, 0.0)]
            source, olabel, states = states, 0, states + 1
        rows.append((source, 0, 0, 0, 0.0))
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


def make_transducers(lexicon: Lexicon, units: OutputUnits, silence_probability: float, arpa: Path, words_file: Path) -> Transducers:
    """All four transducers."""
    lexicon_arcs, symbols = lexicon_transducer(lexicon, silence_probability)
    return Transducers(hmm_transducer(units, symbols), context_transducer(symbols), lexicon_arcs, grammar(arpa, words_file))
