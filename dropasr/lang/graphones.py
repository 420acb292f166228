"""Alignment of letters and phones: which letters of a word are spoken as which of its phones.

A pair of letters and phones is a graphone; a word is a sequence of graphones. Their probabilities come from expectation
maximisation over all alignments, and each word gets its likeliest one (Bisani and Ney 2008, with the graphones of Jiampojamarn et
al. 2007: one letter with none to two phones, two letters with one). Words of one length are aligned together, as arrays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHAPES = ((1, 0), (1, 1), (1, 2), (2, 1))
"""Letters and phones of a graphone."""
Graphone = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Group:
    """Words of one length: `letters` `(N, L)`, `phones` `(N, P)`, and where they stand in the list, `(N,)`."""

    letters: np.ndarray
    phones: np.ndarray
    places: np.ndarray


class Aligner:
    """Aligns spellings with pronunciations. `iterations`: of expectation maximisation."""

    def __init__(self, pairs: Sequence[tuple[str, Sequence[str]]], iterations: int = 8) -> None:
        self.pairs = pairs
        self.letters = sorted({letter for word, _ in pairs for letter in word})
        self.phones = sorted({phone for _, phones in pairs for phone in phones})
        self._groups = self._grouped()
        n, m = len(self.letters), len(self.phones)
        self._probabilities = {shape: np.full(n ** shape[0] * m ** shape[1], 1.0 / (n ** shape[0] * m ** shape[1])) for shape in SHAPES}
        for _ in range(iterations):
            self._maximise()

    def _grouped(self) -> list[_Group]:
        letter = {letter: number for number, letter in enumerate(self.letters)}
        phone = {phone: number for number, phone in enumerate(self.phones)}
        by_length: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, (word, phones) in enumerate(self.pairs):
            if word and phones and len(phones) <= 2 * len(word):
                by_length[len(word), len(phones)].append(place)
        groups = []
        for places in by_length.values():
            letters = np.array([[letter[each] for each in self.pairs[place][0]] for place in places])
            phones = np.array([[phone[each] for each in self.pairs[place][1]] for place in places])
            groups.append(_Group(letters, phones, np.array(places)))
        return groups

    def _symbols(self, group: _Group, shape: tuple[int, int], i: int, j: int) -> np.ndarray:
        """Numbers of the graphones that end behind letter i and phone j, `(N,)`."""
        number = np.zeros(len(group.places), dtype=np.int64)
        for place in range(i - shape[0], i):
            number = number * len(self.letters) + group.letters[:, place]
        for place in range(j - shape[1], j):
            number = number * len(self.phones) + group.phones[:, place]
        return number

    def _steps(self, group: _Group):  # noqa: ANN202
        """(i, j, shape, graphone numbers) of all steps, in an order in which every step comes after those that lead to it."""
        for i in range(1, group.letters.shape[1] + 1):
            for j in range(group.phones.shape[1] + 1):
                for shape in SHAPES:
                    if i >= shape[0] and j >= shape[1]:
                        yield i, j, shape, self._symbols(group, shape, i, j)

    def _maximise(self) -> None:
        counts = {shape: np.zeros_like(table) for shape, table in self._probabilities.items()}
        for group in self._groups:
            num, length, depth = len(group.places), group.letters.shape[1], group.phones.shape[1]
            forward = np.zeros((length + 1, depth + 1, num))
            backward = np.zeros_like(forward)
            forward[0, 0] = backward[length, depth] = 1.0
            steps = list(self._steps(group))
            for i, j, shape, symbols in steps:
                forward[i, j] += forward[i - shape[0], j - shape[1]] * self._probabilities[shape][symbols]
            total = forward[length, depth]
            scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
            shares: dict[tuple[int, int], list[np.ndarray]] = {shape: [] for shape in SHAPES}
            for i, j, shape, symbols in reversed(steps):
                through = backward[i, j] * self._probabilities[shape][symbols]
                backward[i - shape[0], j - shape[1]] += through
                shares[shape].append(forward[i - shape[0], j - shape[1]] * through * scale)
            for shape, table in counts.items():
                symbols = [symbols for _, _, used, symbols in reversed(steps) if used == shape]
                if symbols:
                    table += np.bincount(np.concatenate(symbols), weights=np.concatenate(shares[shape]), minlength=len(table))
        whole = sum(table.sum() for table in counts.values()) or 1.0
        self._probabilities = {shape: table / whole for shape, table in counts.items()}

    def alignments(self) -> list[list[Graphone] | None]:
        """The likeliest sequence of graphones of each pair, None where there is none (a word with far more phones than letters)."""
        result: list[list[Graphone] | None] = [None] * len(self.pairs)
        with np.errstate(divide="ignore"):
            logs = {shape: np.log(table) for shape, table in self._probabilities.items()}
        for group in self._groups:
            length, depth = group.letters.shape[1], group.phones.shape[1]
            best = np.full((length + 1, depth + 1, len(group.places)), -np.inf)
            choice = np.full(best.shape, -1, dtype=np.int8)
            best[0, 0] = 0.0
            for i, j, shape, symbols in self._steps(group):
                value = best[i - shape[0], j - shape[1]] + logs[shape][symbols]
                better = value > best[i, j]
                best[i, j][better] = value[better]
                choice[i, j][better] = SHAPES.index(shape)
            for row, place in enumerate(group.places.tolist()):
                if np.isfinite(best[length, depth, row]):
                    result[place] = self._trace(self.pairs[place], choice[:, :, row])
        return result

    @staticmethod
    def _trace(pair: tuple[str, Sequence[str]], choice: np.ndarray) -> list[Graphone]:
        word, phones = pair
        i, j = len(word), len(phones)
        graphones: list[Graphone] = []
        while i:
            letters, spoken = SHAPES[choice[i, j]]
            graphones.append((word[i - letters : i], tuple(phones[j - spoken : j])))
            i, j = i - letters, j - spoken
        return graphones[::-1]
