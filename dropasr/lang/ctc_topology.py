"""Decoding graphs of connectionist temporal classification: H is the CTC topology, L spells words with pieces, C changes nothing.

They are composed and determinised as the graphs of hidden Markov models are (Miao, Gowayyed and Metze 2015).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dropasr.errors import DataError
from dropasr.lang.fst import FINAL, Arcs
from dropasr.lang.graph import BACKOFF, Transducers, disambiguated, grammar, load_words
from dropasr.lang.lexicon import EPSILON, SENTENCE_BEGIN, SENTENCE_END, Lexicon
from dropasr.lang.pieces import BLANK, PieceEncoder
from dropasr.log import get_logger

logger = get_logger(__name__)


def ctc_topology(num_units: int) -> Arcs:
    """H: units + 1 to pieces, numbered as their units. A piece is read on its first frame; two equal ones in a row need a blank between.

    State 0 follows a blank, state k unit k. All transitions cost nothing.
    """
    count, final = num_units, num_units
    src, unit = (grid.ravel().astype(np.int32) for grid in np.mgrid[:count, :count])
    olabel = np.where((unit == src) | (unit == BLANK), 0, unit)
    ends = np.arange(count, dtype=np.int32)
    src = np.concatenate([src, ends])
    dst = np.concatenate([unit, np.full(count, final)])
    ilabel = np.concatenate([unit + 1, np.full(count, FINAL)])
    olabel = np.concatenate([olabel, np.full(count, FINAL)])
    order = np.argsort(src, kind="stable")
    columns = (values[order].astype(np.int32) for values in (src, dst, ilabel, olabel))
    return Arcs(*columns, np.zeros(len(src), dtype=np.float32))


def piece_lexicon(spelling: dict[str, list[int]], words: list[str], num_units: int) -> tuple[Arcs, int]:
    """L: pieces to words, each word as it is spelt, and the number of its disambiguation symbols, which follow the pieces.

    `words` by number. Pieces mark where a word begins, so that nothing stands between words.
    """
    numbers = {word: number for number, word in enumerate(words)}
    symbols = disambiguated(Lexicon({word: [[str(unit) for unit in units]] for word, units in spelling.items()}))
    largest = max(symbol for _, _, symbol in symbols)
    loop, states = 0, 1
    rows: list[tuple[int, int, int, int, float]] = [(loop, loop, num_units, numbers[BACKOFF], 0.0)]
    for word, pieces, symbol in symbols:
        labels = [int(piece) for piece in pieces] + ([num_units + symbol] if symbol else [])
        state, olabel = loop, numbers[word]
        for label in labels[:-1]:
            rows.append((state, states, label, olabel, 0.0))
            state, olabel, states = states, 0, states + 1
        rows.append((state, loop, labels[-1], olabel, 0.0))
    rows.append((loop, states, FINAL, FINAL, 0.0))
    return Arcs.from_rows(rows), largest + 1


def ctc_transducers(encoder: PieceEncoder, arpa: Path, words_file: Path) -> Transducers:
    """All four transducers for the words of `words_file` that the pieces can spell. Raises DataError where they can spell none."""
    words = load_words(words_file)
    spelling = {word: encoder.word(word) for word in words if word not in (EPSILON, BACKOFF, SENTENCE_BEGIN, SENTENCE_END)}
    known = {word: units for word, units in spelling.items() if units}
    if not known:
        raise DataError(f"{words_file}: the pieces can spell none of its words. Check upper and lower case of transcripts and word list.")
    if len(known) < len(spelling):
        absent = [word for word in spelling if word not in known]
        logger.warning(f"{len(absent)} of {len(spelling)} words cannot be spelt with the pieces and are left out: {' '.join(absent[:10])}")
    count = encoder.units.num_units
    lexicon, num_disambiguation = piece_lexicon(known, words, count)
    rows = [(0, 0, unit, unit, 0.0) for unit in range(1, count)]
    rows += [(0, 0, 0, count + index, 0.0) for index in range(num_disambiguation)]
    context = Arcs.from_rows([*rows, (0, 1, FINAL, FINAL, 0.0)])
    return Transducers(ctc_topology(count), context, lexicon, grammar(arpa, words_file))
