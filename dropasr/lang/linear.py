"""The graph of one transcript, for alignment; and the uniform alignment that flat start begins with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dropasr.errors import DataError
from dropasr.lang.fst import FINAL, Arcs
from dropasr.lang.lexicon import SILENCE, Lexicon
from dropasr.lang.units import OutputUnits

_Ends = dict[str, list[tuple[int, float]]]
"""States in which a word may have ended and scores on the way from them, by the phone that they ended with."""


def _pronunciations(word: str, lexicon: Lexicon) -> list[list[str]]:
    if word not in lexicon.entries:
        raise DataError(f"the word '{word}' is not in the lexicon. Add it, or set corpus.unknown_words to map or drop.")
    return lexicon.entries[word]


def _pdfs(phones: list[str], left: str, units: OutputUnits) -> list[int]:
    """Units of phones that follow the phone `left`."""
    return [pdf for before, phone in zip([left, *phones], phones) for pdf in units.pdfs(phone, before)]


class _Builder:
    def __init__(self, units: OutputUnits) -> None:
        self.units = units
        self.rows: list[tuple[int, int, int, int, float]] = []
        self.states = 1

    def chain(self, entries: list[tuple[int, float]], pdfs: list[int], score: float) -> int:
        """Append a left-to-right chain of states with self-loops behind `entries`; its last state."""
        first = self.states
        self.rows += [(src, first, pdfs[0], 0, score + before) for src, before in entries]
        for offset, pdf in enumerate(pdfs):
            state = first + offset
            self.rows.append((state, state, pdf, 0, 0.0))
            if offset + 1 < len(pdfs):
                self.rows.append((state, state + 1, pdfs[offset + 1], 0, 0.0))
        self.states += len(pdfs)
        return self.states - 1

    def word(self, entries: _Ends, phones: list[str], ends: _Ends) -> None:
        """Append a pronunciation: its first phone once for all left contexts in which it has the same units, the others once."""
        first: dict[tuple[int, ...], list[tuple[int, float]]] = {}
        for left, states in entries.items():
            first.setdefault(tuple(self.units.pdfs(phones[0], left)), []).extend(states)
        last = [(self.chain(states, list(pdfs), 0.0), 0.0) for pdfs, states in first.items()]
        if len(phones) > 1:
            last = [(self.chain(last, _pdfs(phones[1:], phones[0], self.units), 0.0), 0.0)]
        ends.setdefault(phones[-1], []).extend(last)


def linear_graph(words: Sequence[str], lexicon: Lexicon, units: OutputUnits, silence_probability: float) -> Arcs:
    """Epsilon-free graph of all pronunciations of `words`, with optional silence before, between and after them.

    The left context of a word's first phone is the last phone of the word before, or silence. Input labels are units. An arc carries
    log(silence_probability) where it enters silence, log(1 - silence_probability) where it passes silence by; HMM transitions are
    equally likely, a constant per frame, and carry nothing. Every arc but those into the final state takes one frame. Raises
    DataError for a word outside the lexicon.
    """
    enter, skip = math.log(silence_probability), math.log1p(-silence_probability)
    silence = units.pdfs(SILENCE)
    builder = _Builder(units)
    ends: _Ends = {SILENCE: [(0, 0.0)]}
    for word in [*words, None]:
        states = [end for at_phone in ends.values() for end in at_phone]
        after_silence = builder.chain(states, silence, enter)
        entries = {phone: [(state, skip) for state, _ in at_phone] for phone, at_phone in ends.items()}
        entries.setdefault(SILENCE, []).append((after_silence, 0.0))
        if word is None:
            final = builder.states
            builder.rows += [(state, final, FINAL, 0, score) for at_phone in entries.values() for state, score in at_phone]
        else:
            ends = {}
            for phones in _pronunciations(word, lexicon):
                builder.word(entries, phones, ends)
    return Arcs.from_rows(builder.rows)


def uniform_alignment(words: Sequence[str], lexicon: Lexicon, units: OutputUnits, num_frames: int) -> np.ndarray:
    """Units spread evenly over the frames, int32 `(num_frames,)`: silence, the first pronunciation of each word, silence.

    The silences are left out where the frames do not suffice. Raises DataError where they do not suffice for the words.
    """
    spoken = _pdfs([phone for word in words for phone in _pronunciations(word, lexicon)[0]], SILENCE, units)
    silence = units.pdfs(SILENCE)
    sequence = silence + spoken + silence
    if num_frames < len(sequence):
        sequence = spoken or silence
    if num_frames < len(sequence):
        raise DataError(f"the transcript '{' '.join(words)}' needs at least {len(sequence)} frames, found {num_frames}. Check the segment.")
    return np.array(sequence, dtype=np.int32)[np.arange(num_frames, dtype=np.int64) * len(sequence) // num_frames]


def minimal_frames(words: Sequence[str], lexicon: Lexicon, units: OutputUnits) -> int:
    """Fewest frames in which `words` can be aligned: one per HMM state of the shortest pronunciations, without silence."""
    return max(1, sum(min(sum(map(units.num_states, phones)) for phones in _pronunciations(word, lexicon)) for word in words))
