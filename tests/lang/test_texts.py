from __future__ import annotations

import gzip
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from dropasr.config import TextConfig
from dropasr.data.text import Normaliser
from dropasr.errors import DataError
from dropasr.lang.texts import (
    COPY_RULES,
    PART,
    RUN,
    HeldOut,
    choose_words,
    count_words,
    mean_frequencies,
    read_sentences,
    without_copies,
)


def test_plain_and_packed_text_under_the_rules_of_the_corpus(tmp_path: Path):
    text = "The cat, sat.\n\n  on the mat \n"
    (tmp_path / "a.txt").write_text(text)
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write(text)
    assert read_sentences(tmp_path / "a.txt") == [["The", "cat,", "sat."], ["on", "the", "mat"]]
    normalise = Normaliser(TextConfig(case="upper", remove=",."))
    assert read_sentences(tmp_path / "a.txt.gz", normalise) == [["THE", "CAT", "SAT"], ["ON", "THE", "MAT"]]


def test_files_that_are_no_text(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "b.gz").write_bytes(b"not packed")
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"cut off " * 1000)[:-12])
    packed = bytearray(gzip.compress(b"cut off " * 1000))
    packed[10] |= 6  # the kind of the first block: there is none of this number
    (tmp_path / "d.gz").write_bytes(packed)
    for name in ("a.txt", "b.gz", "c.gz", "d.gz"):
        with pytest.raises(DataError, match=name):
            read_sentences(tmp_path / name)


def test_copies_of_held_out_sentences_go():
    held_out = [[f"w{number}" for number in range(RUN + 2)], ["short", "one"], ["a", "b", "c", "d", "e", "f"]]
    run = held_out[0][1 : RUN + 1]
    copies = {
        "whole": [held_out[0], ["short", "one"]],
        "part": [held_out[0][3 : 3 + PART], held_out[0][: RUN - 1], ["b", "c", "d", "e", "f"]],
        "run": [["before", *run, "after"], run],
    }
    others = [
        held_out[0][: PART - 1],
        ["x", *run[:-1], "y"],
        ["a", "short", "one"],
        held_out[0][::-1],
        ["a", "b", "c", "d", "f"],
        ["f", "short", "one", "a", "b"],
    ]
    kept, numbers = without_copies([*others[:2], *chain.from_iterable(copies.values()), *others[2:]], HeldOut(held_out))
    assert kept == others and numbers == {rule: len(sentences) for rule, sentences in copies.items()}
    assert without_copies(others, HeldOut([])) == (others, {})


def test_the_filter_against_a_slow_one():
    rng = np.random.default_rng(0)

    def sentences(number: int) -> list[list[str]]:
        return [list(rng.choice(["a", "b"], rng.integers(1, 16))) for _ in range(number)]

    def inside(part: list[str], whole: list[str]) -> bool:
        return f" {' '.join(part)} " in f" {' '.join(whole)} "

    def is_copy(words: list[str]) -> bool:
        runs = [words[begin : begin + RUN] for begin in range(len(words) - RUN + 1)]
        return any(
            words == line or (len(words) >= PART and inside(words, line)) or any(inside(run, line) for run in runs) for line in held_out
        )

    held_out, text = sentences(15), sentences(600)
    kept, numbers = without_copies(text, HeldOut(held_out))
    assert kept == [words for words in text if not is_copy(words)] and 100 < len(kept) < 550
    assert sum(numbers.values()) == len(text) - len(kept) and min(numbers[rule] for rule in COPY_RULES) > 5


def test_words_are_chosen_by_frequency():
    counts = count_words([["b", "b", "a"], ["c", "a", "d"]])
    assert counts == {"a": 2, "b": 2, "c": 1, "d": 1}
    assert choose_words(counts, ["z"], 3) == {"z", "a", "b"}
    assert choose_words(counts, ["z", "y"], 1) == {"z", "y"}
    assert choose_words(counts, ["z"], None) == {"a", "b", "c", "d", "z"}
    assert mean_frequencies([[["a", "b"]], [["b", "c", "c", "c"]]]) == pytest.approx({"a": 0.5, "b": 0.75, "c": 0.75})
