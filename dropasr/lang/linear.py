"""The graph of one transcript, for alignment; and the uniform alignment that flat start begins with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dropasr.errors import DataError
from dropasr.lang.fst import FINAL, Arcs
from dropasr.lang.lexicon import SILENCE, Lexicon
from dropasr.lang.units import OutputUnits

_Ends = list[tuple[int, float]]


def _pronunciations(word: str, lexicon: Lexicon, units: OutputUnits) -> list[list[int]]:
    """The unit sequences of a word, one per variant, each unit once."""
    if word not in lexicon.entries:
        raise DataError(f"the word '{word}' is not in the lexicon. Add it, or set corpus.unknown_words to map or drop.")
    return [[pdf for phone in phones for pdf in units.pdfs(phone)] for phones in lexicon.entries[word]]


class _Builder:
    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int, float]] = []
        self.states = 1

    def chain(self, entries: _Ends, pdfs: list[int], score: float) -> int:
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


def linear_graph(words: Sequence[str], lexicon: Lexicon, units: OutputUnits, silence_probability: float) -> Arcs:
    """Epsilon-free graph of all pronunciations of `words`, with optional silence before, between and after them.

    Input labels are units. An arc carries log(silence_probability) where it enters silence, log(1 - silence_probability)
    where it passes silence by; HMM transitions are equally likely, a constant per frame, and carry nothing. Every arc but
    those into the final state takes one frame. Raises DataError for a word outside the lexicon.
    """
    enter, skip = math.log(silence_probability), math.log1p(-silence_probability)
    silence = units.pdfs(SILENCE)
    builder = _Builder()
    ends = [0]
    for word in [*words, None]:
        after_silence = builder.chain([(end, 0.0) for end in ends], silence, enter)
        entries = [(end, skip) for end in ends] + [(after_silence, 0.0)]
        if word is None:
            final = builder.states
            builder.rows += [(end, final, FINAL, 0, score) for end, score in entries]
        else:
            ends = [builder.chain(entries, pdfs, 0.0) for pdfs in _pronunciations(word, lexicon, units)]
    return Arcs.from_rows(builder.rows)


def uniform_alignment(words: Sequence[str], lexicon: Lexicon, units: OutputUnits, num_frames: int) -> np.ndarray:
    """Units spread evenly over the frames, int32 `(num_frames,)`: silence, the first pronunciation of each word, silence.

    The silences are left out where the frames do not suffice. Raises DataError where they do not suffice for the words.
    """
    spoken = [pdf for word in words for pdf in _pronunciations(word, lexicon, units)[0]]
    silence = units.pdfs(SILENCE)
    sequence = silence + spoken + silence
    if num_frames < len(sequence):
        sequence = spoken or silence
    if num_frames < len(sequence):
        raise DataError(f"the transcript '{' '.join(words)}' needs at least {len(sequence)} frames, found {num_frames}. Check the segment.")
    return np.array(sequence, dtype=np.int32)[np.arange(num_frames, dtype=np.int64) * len(sequence) // num_frames]


def minimal_frames(words: Sequence[str], lexicon: Lexicon, units: OutputUnits) -> int:
    """Fewest frames in which `words` can be aligned: one per HMM state of the shortest pronunciations, without silence."""
    return max(1, sum(min(map(len, _pronunciations(word, lexicon, units))) for word in words))
