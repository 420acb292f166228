from __future__ import annotations

import numpy as np
import pytest

from dropasr.lang.lexicon import Lexicon
from dropasr.lang.pieces import PieceUnits
from dropasr.lang.units import OutputUnits
from dropasr.runtime.word_times import even_spans, group_of_unit, is_silent, path_posteriors, phone_spans, piece_spans

TABLE = OutputUnits(("A", "B", "N"), states_per_phone=2, silence_states=1)
LEXICON = Lexicon({"AN": [["A", "N"]], "BAN": [["B", "A", "N"]], "NAB": [["N", "A", "B"], ["N", "B"]], "N": [["N"]], "HM": [["SIL"]]})


def path(text: str) -> np.ndarray:
    """Units of `A0 A1:3 SIL:2 …`: a phone with its state, and how often it comes in a row."""
    units = []
    for item in text.split():
        name, _, count = item.partition(":")
        unit = TABLE.pdf("SIL", 0) if name == "SIL" else TABLE.pdf(name[0], int(name[1]))
        units += [unit] * int(count or 1)
    return np.array(units)


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("SIL:3 A0:2 A1 N0 N1:4 SIL:2", ["AN"], [(3, 11)]),
        ("A0 A1 N0 N1 B0 B1 A0 A1 N0 N1", ["AN", "BAN"], [(0, 4), (4, 10)]),
        ("A0 A1 N0 N1 SIL:5 B0 B1 A0 A1 N0 N1", ["AN", "BAN"], [(0, 4), (9, 15)]),
        # Two equal phones meet: the state goes back where the second begins.
        ("A0 A1 N0:2 N1:3 N0 N1 B0 B1", ["AN", "NAB"], [(0, 7), (7, 11)]),
        # With a pause between them each has its own.
        ("A0 A1 N0 N1 SIL N0 N1 A0 A1 B0 B1", ["AN", "NAB"], [(0, 4), (5, 11)]),
        ("N0 N1 N0 N1 SIL N0 N1", ["N", "N", "N"], [(0, 2), (2, 4), (5, 7)]),
        # States may be skipped where the net sees every third frame: then equal parts.
        ("A0 N1:4 B1", ["AN", "NAB"], [(0, 3), (3, 6)]),
        # A word that is pronounced as silence.
        ("A0 N0 SIL:4 B0 A0 N0", ["AN", "HM", "BAN"], [(0, 2), (2, 6), (6, 9)]),
    ],
)
def test_frames_of_words(text, words, expected):
    assert phone_spans(path(text), words, TABLE, LEXICON) == expected


@pytest.mark.parametrize(("text", "words"), [("A0 N0 B0", ["AN"]), ("A0 N0", ["AN", "AN"]), ("SIL:4", []), ("A0 N0", ["OTHER"])])
def test_words_that_do_not_explain_the_path(text, words):
    assert phone_spans(path(text), words, TABLE, LEXICON) is None


def test_many_words_take_no_recursion():
    words = ["AN", "BAN", "NAB"] * 1000
    units = path("A0 N0 SIL B0 A0 N0 N0 B0 " * 1000)
    spans = phone_spans(units, words, TABLE, LEXICON)
    assert spans is not None and len(spans) == 3000 and all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))


def test_frames_of_word_pieces():
    table = PieceUnits("bpe", ("<blk>", "▁on", "▁e", "o", "e"))
    units = np.array([0, 0, 1, 1, 0, 4, 0, 0, 2, 0, 3, 3, 0, 3, 0])
    assert piece_spans(units, table) == (["one", "eoo"], [(2, 6), (8, 14)])


def test_frames_of_characters():
    table = PieceUnits("chars", ("<blk>", "▁", "a", "b"))
    assert piece_spans(np.array([1, 2, 0, 3, 0, 1, 0, 3, 0]), table) == (["ab", "b"], [(1, 4), (7, 8)])
    words = PieceUnits("chars", ("<blk>", "中", "国"))
    assert piece_spans(np.array([0, 1, 1, 0, 2, 0]), words) == (["中", "国"], [(1, 3), (4, 5)])
    assert piece_spans(np.array([0, 0]), table) == ([], [])


def test_even_spans():
    assert even_spans(10, 3) == [(0, 3), (3, 6), (6, 10)] and even_spans(5, 0) == []


def test_posteriors_add_up_the_units_of_a_phone_and_undo_scale_and_prior():
    posteriors = np.array([[0.1, 0.2, 0.3, 0.05, 0.05, 0.2, 0.1], [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]])
    prior = np.log(np.array([0.3, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1]))
    scores = 0.05 * (np.log(posteriors) - prior)
    units = np.array([TABLE.pdf("A", 1), TABLE.pdf("SIL", 0)])
    assert np.allclose(path_posteriors(scores, units, prior, 0.05, group_of_unit(TABLE)), [0.5, 0.4])
    assert is_silent(units, TABLE).tolist() == [False, True]
    assert is_silent(np.array([0, 2]), PieceUnits("chars", ("<blk>", "a", "b"))).tolist() == [True, False]
