"""Pronunciations of words that no dictionary has: an n-gram over graphones, trained on the dictionary (Bisani and Ney 2008).

The model is an ordinary ARPA file whose words are graphones, such as `ph}F`, `x}K|S`, `e}_` (`_`: silent).
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dropasr.errors import DataError
from dropasr.lang.graphones import Aligner, Graphone
from dropasr.lang.lexicon import SENTENCE_BEGIN, SENTENCE_END
from dropasr.lang.ngram import NGram, estimate

ORDER = 7
BEAM = 12
VERSION = 1
"""Counts the ways in which models were trained from the same dictionary; a new one makes kept models anew."""
_SILENT = "_"
_RARE = 3
"""Graphones seen less often than this are mostly errors of the dictionary or abbreviations; words with them are left out of training."""


def _symbol(graphone: Graphone) -> str:
    return f"{graphone[0]}}}{'|'.join(graphone[1]) or _SILENT}"


def _graphone(symbol: str) -> Graphone:
    letters, _, phones = symbol.rpartition("}")
    return letters, () if phones == _SILENT else tuple(phones.split("|"))


def train(entries: Mapping[str, Sequence[Sequence[str]]], order: int = ORDER, iterations: int = 5) -> NGram:
    """The graphone n-gram of a dictionary. Words with a full stop, which are abbreviations, are left out.

    Raises DataError where the dictionary is too small to learn from.
    """
    pairs = [(word, phones) for word, variants in entries.items() for phones in variants if "." not in word]
    aligned = [graphones for graphones in Aligner(pairs, iterations).alignments() if graphones] if pairs else []
    counts = Counter(graphone for graphones in aligned for graphone in graphones)
    # In a small dictionary every graphone is rare.
    rare = _RARE if len(aligned) > 1000 else 1
    usable = [[_symbol(each) for each in graphones] for graphones in aligned if all(counts[each] >= rare for each in graphones)]
    if not usable:
        raise DataError("grapheme-to-phoneme: no word of the dictionary can be aligned with its phones. Check lang.dictionary.")
    return estimate(usable, order, "kneser_ney", {symbol for graphones in usable for symbol in graphones})


@dataclass
class _Hypotheses:
    """Beginnings of words, all of the same number of letters. Arrays `(N,)`; `ends`: what `NGram.advance` returned."""

    word: np.ndarray
    score: np.ndarray
    ends: list[np.ndarray]
    node: np.ndarray

    def take(self, chosen: np.ndarray) -> _Hypotheses:
        """Some of them, in the given order."""
        return _Hypotheses(self.word[chosen], self.score[chosen], [end[chosen] for end in self.ends], self.node[chosen])

    def best(self, beam: int) -> _Hypotheses:
        """The `beam` likeliest of each word."""
        sort = np.lexsort((-self.score, self.word))
        word = self.word[sort]
        rank = np.arange(len(word)) - np.searchsorted(word, word)
        return self.take(sort[rank < beam])

    @staticmethod
    def joined(parts: Sequence[_Hypotheses]) -> _Hypotheses:
        """All of several groups; a history that one of them lacks is -1."""
        depth = max(len(part.ends) for part in parts)
        ends = []
        for length in range(depth):
            ends.append(np.concatenate([part.ends[length] if length < len(part.ends) else np.full(len(part.word), -1) for part in parts]))
        return _Hypotheses(
            np.concatenate([part.word for part in parts]),
            np.concatenate([part.score for part in parts]),
            ends,
            np.concatenate([part.node for part in parts]),
        )


class Pronouncer:
    """Says words with a graphone model: the likeliest sequence of graphones, by a beam search over all words at once."""

    def __init__(self, model: NGram, beam: int = BEAM) -> None:
        self.model, self.beam = model, beam
        self._graphones = [None if word in (SENTENCE_BEGIN, SENTENCE_END) else _graphone(word) for word in model.words]
        by_letters: dict[str, list[int]] = defaultdict(list)
        for number, graphone in enumerate(self._graphones):
            if graphone:
                by_letters[graphone[0]].append(number)
        self._by_letters = {letters: np.array(numbers) for letters, numbers in by_letters.items()}
        self._letters = {letter for letters in by_letters for letter in letters}

    @classmethod
    def load(cls, path: str | Path) -> Pronouncer:
        """Read the model from its ARPA file."""
        return cls(NGram.from_arpa(path))

    def spelling(self, word: str) -> str:
        """The letters of a word that the model knows: lower case, without accents and foreign signs; may be empty."""
        plain = unicodedata.normalize("NFKD", word.lower())
        return "".join(letter for letter in plain if letter in self._letters)

    def pronounce(self, words: Iterable[str]) -> dict[str, list[str]]:
        """Phones of each word; words for which there are none (no letter that the model knows) are missing in the answer."""
        words = sorted(set(words))
        spellings = [self.spelling(word) for word in words]
        nodes: list[tuple[np.ndarray, np.ndarray]] = []
        final = self._search(spellings, nodes)
        parents, graphones = (np.concatenate(column) for column in zip(*nodes, strict=True)) if nodes else (np.empty(0), np.empty(0))
        result = {}
        for word, node in sorted(final.items()):
            phones: list[str] = []
            while node >= 0:
                phones = [*self._graphones[graphones[node]][1], *phones]  # type: ignore[index]
                node = int(parents[node])
            if phones:
                result[words[word]] = phones
        return result

    def _search(self, spellings: list[str], nodes: list[tuple[np.ndarray, np.ndarray]]) -> dict[int, int]:
        """The last node of each word's best path. `nodes` collects (parent, graphone) of all nodes."""
        longest = max(map(len, spellings), default=0)
        begin = np.array([number for number, spelling in enumerate(spellings) if spelling], dtype=np.int64)
        ones = np.ones(len(begin), dtype=np.int64)
        start = _Hypotheses(begin, np.zeros(len(begin)), [ones * self.model.numbers[SENTENCE_BEGIN]], -ones)
        waiting: list[list[_Hypotheses]] = [[start], *([] for _ in range(longest + 1))]
        lengths = np.array([len(spelling) for spelling in spellings])
        final: dict[int, int] = {}
        for position in range(longest + 1):
            if not waiting[position]:
                continue
            reached = _Hypotheses.joined(waiting[position]).best(self.beam)
            waiting[position] = []
            ended = lengths[reached.word] == position
            final |= self._finish(reached.take(np.flatnonzero(ended)))
            going = reached.take(np.flatnonzero(~ended))
            for letters in (1, 2):
                step = self._expand(going, spellings, position, letters, nodes)
                if step is not None:
                    waiting[position + letters].append(step)
        return final

    def _finish(self, reached: _Hypotheses) -> dict[int, int]:
        end = np.full(len(reached.word), self.model.numbers[SENTENCE_END])
        reached.score = reached.score + self.model.score_ends(reached.ends, self.model.advance(reached.ends, end))
        best = reached.best(1)
        return dict(zip(best.word.tolist(), best.node.tolist(), strict=True))

    def _expand(
        self, going: _Hypotheses, spellings: list[str], position: int, letters: int, nodes: list[tuple[np.ndarray, np.ndarray]]
    ) -> _Hypotheses | None:
        """All continuations by graphones of `letters` letters."""
        nothing = np.empty(0, dtype=np.int64)
        options = [self._by_letters.get(spellings[word][position : position + letters], nothing) for word in going.word.tolist()]
        numbers = np.array([len(each) for each in options], dtype=np.int64)
        # A slice at the end of a word is shorter than `letters`.
        numbers[[len(spellings[word]) < position + letters for word in going.word.tolist()]] = 0
        if not numbers.sum():
            return None
        graphone = np.concatenate([each for each, number in zip(options, numbers.tolist(), strict=True) if number])
        source = going.take(np.repeat(np.arange(len(numbers)), numbers))
        ends = self.model.advance(source.ends, graphone)
        score = source.score + self.model.score_ends(source.ends, ends)
        first = sum(len(parent) for parent, _ in nodes)
        nodes.append((source.node, graphone))
        node = np.arange(first, first + len(graphone))
        return _Hypotheses(source.word, score, ends, node).best(self.beam)
