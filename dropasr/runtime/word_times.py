"""When each word of a best path was said: its frames, found from the units of the path, and the phones or pieces that spell it.

Output labels of a determinised graph come where a word is the only one left, not where it begins; the units of the path say which phone
each frame belongs to, and the pronunciations which word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Union

import numpy as np

from dropasr.lang.lexicon import SILENCE, Lexicon
from dropasr.lang.pieces import BLANK, BOUNDARY, PieceUnits
from dropasr.lang.units import OutputUnits


@dataclass(frozen=True)
class Run:
    """Frames in a row, `begin` to `end` (not included), that belong to one phone or piece."""

    label: Union[str, int]
    begin: int
    end: int


Span = tuple[int, int]
"""First frame, and the frame after the last."""


def runs(labels: Sequence[Union[str, int]]) -> list[Run]:
    """Equal labels in a row joined."""
    found, begin = [], 0
    for label, group in groupby(labels):
        end = begin + sum(1 for _ in group)
        found.append(Run(label, begin, end))
        begin = end
    return found


def _steps(found: list[Run], last: int, phones: Sequence[str]) -> Iterator[list[int]]:
    """The ways to lay a word's phones over the runs where the word before ends in run `last`: for each way the run of each phone."""
    for first in (last + 1, last + 2, last):  # right after it, after silence, or in the same run, where two equal phones meet
        if not 0 <= first < len(found) or found[first].label != phones[0] or (first == last + 2 and found[last + 1].label != SILENCE):
            continue
        places = [first]
        for before, phone in zip(phones, phones[1:]):
            places.append(places[-1] + (phone != before))
            if places[-1] >= len(found) or found[places[-1]].label != phone:
                break
        else:
            yield places


def _match(found: list[Run], words: Sequence[str], lexicon: Lexicon) -> list[list[int]] | None:
    """The runs of each word's phones, or None where the words do not explain the runs (silence between them aside)."""
    reached: list[dict[int, tuple[int, list[int]]]] = []
    ends = [-1]
    for word in words:
        ways: dict[int, tuple[int, list[int]]] = {}
        for last in ends:
            for phones in lexicon.entries.get(word, []):
                for places in _steps(found, last, phones):
                    ways.setdefault(places[-1], (last, places))
        reached.append(ways)
        ends = sorted(ways)
    complete = [end for end in ends if end == len(found) - 1 or (end == len(found) - 2 and found[-1].label == SILENCE)]
    if not complete or not words:
        return None
    matched, end = [], complete[-1]
    for ways in reversed(reached):
        end, places = ways[end]
        matched.append(places)
    return matched[::-1]


def _shared(units: np.ndarray, run: Run, count: int, table: OutputUnits) -> list[Span]:
    """The frames of each of `count` equal phones that share a run: they change where the state goes back, else in equal parts."""
    states = table.state_index(units[run.begin : run.end])
    falls = (np.flatnonzero(np.diff(states) < 0) + 1).tolist()
    length = run.end - run.begin
    cuts = falls if len(falls) == count - 1 else [length * part // count for part in range(1, count)]
    edges = [run.begin + cut for cut in (0, *cuts, length)]
    return list(zip(edges, edges[1:]))


def phone_spans(units: np.ndarray, words: Sequence[str], table: OutputUnits, lexicon: Lexicon) -> list[Span] | None:
    """Frames of each word on a path of phone states, silence around it left out. `units` `(T,)`. None where the words do not fit the path,
    as on one that stops within a word."""
    names = np.array([SILENCE, *table.phones], dtype=object)
    found = runs(names[table.phone_index(units)].tolist())
    matched = _match(found, words, lexicon)
    if matched is None:
        return None
    sharing: dict[int, list[Span]] = {}
    for place, same in groupby(place for places in matched for place in places):
        sharing[place] = _shared(units, found[place], sum(1 for _ in same), table)
    spans = []
    for places in matched:
        parts = [sharing[place].pop(0) for place in places]
        spans.append((parts[0][0], parts[-1][1]))
    return spans


def piece_spans(units: np.ndarray, table: PieceUnits) -> tuple[list[str], list[Span]]:
    """Words, as their pieces spell them, and their frames, on a path of CTC units `(T,)`: from the first frame of the first piece to the
    last of the last. Nets trained with CTC put a piece on few frames, late rather than early, and blanks between."""
    pieces = [run for run in runs(units.tolist()) if run.label != BLANK]
    starts = [table.are_words or BOUNDARY in table.pieces[int(run.label)] for run in pieces]
    words, spans = [], []
    for _, group in groupby(zip(accumulate(starts), pieces), key=lambda item: item[0]):
        members = [run for _, run in group]
        spelt = table.words(int(run.label) for run in members)
        if spelt:
            words.append("".join(spelt))
            heard = [run for run in members if table.pieces[int(run.label)] != BOUNDARY]  # the mark itself makes no sound
            spans.append((heard[0].begin, heard[-1].end))
    return words, spans


def even_spans(frames: int, count: int) -> list[Span]:
    """Frames in equal parts, for words of a path that no pronunciation explains."""
    edges = [frames * part // max(count, 1) for part in range(count + 1)]
    return list(zip(edges, edges[1:]))


Table = Union[OutputUnits, PieceUnits]


def group_of_unit(table: Table) -> np.ndarray:
    """A number `(K,)` for what each unit stands for: its phone, or the piece itself."""
    units = np.arange(table.num_units)
    return table.phone_index(units) if isinstance(table, OutputUnits) else units


def is_silent(units: np.ndarray, table: Table) -> np.ndarray:
    """Which frames of a path are silence, or blank."""
    return table.is_silence(units) if isinstance(table, OutputUnits) else np.asarray(units) == BLANK


def path_posteriors(scores: np.ndarray, units: np.ndarray, log_prior: np.ndarray, scale: float, groups: np.ndarray) -> np.ndarray:
    """For each frame the net's posterior of the phone (all of its units together) or piece that the path takes, `(T,)`.

    `scores` `(T, K)`: scale times log posterior minus log prior, from which the posterior is had back without looking at other units.
    """
    own, found = groups[units], np.zeros(len(units))
    for group in np.unique(own):
        frames, members = np.flatnonzero(own == group), np.flatnonzero(groups == group)
        found[frames] = np.exp(scores[np.ix_(frames, members)] / scale + log_prior[members]).sum(axis=1)
    return found
