"""Alignment against enumeration of all alignments, pronunciation against enumeration of all graphone sequences."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import pytest

from dropasr.errors import DataError
from dropasr.lang import g2p
from dropasr.lang.g2p import Pronouncer, train
from dropasr.lang.graphones import SHAPES, Aligner, Graphone

DICTIONARY = {
    "tax": ["T AE K S"], "axe": ["AE K S"], "tap": ["T AE P"], "pat": ["P AE T"], "phat": ["F AE T"], "fat": ["F AE T"],
    "sap": ["S AE P"], "ape": ["EY P"], "tape": ["T EY P"], "fate": ["F EY T"], "phase": ["F EY Z"], "sax": ["S AE K S"],
    "tt": ["T IY T IY", "T"], "a": ["AH", "EY"],
}  # fmt: skip
ENTRIES = {word: [variant.split() for variant in variants] for word, variants in DICTIONARY.items()}


def alignments(word: str, phones: tuple[str, ...]) -> list[list[Graphone]]:
    if not word:
        return [[]] if not phones else []
    found = []
    for letters, spoken in SHAPES:
        if len(word) >= letters and len(phones) >= spoken:
            first = (word[:letters], phones[:spoken])
            found += [[first, *rest] for rest in alignments(word[letters:], phones[spoken:])]
    return found


def test_expectation_maximisation_by_enumeration():
    pairs = [("tax", ("T", "AE", "K", "S")), ("ax", ("AE", "K", "S")), ("at", ("AE", "T")), ("q", ("K", "Y", "UW"))]
    # Four letters and six phones in all; the start is uniform over the graphones of a shape.
    start = {shape: 1 / (4 ** shape[0] * 6 ** shape[1]) for shape in SHAPES}
    probability: dict[Graphone, float] = {}
    for _ in range(3):
        counts: dict[Graphone, float] = defaultdict(float)
        for pair in pairs:
            paths = alignments(*pair)
            values = []
            for path in paths:
                value = 1.0
                for graphone in path:
                    value *= probability.get(graphone, 0.0) if probability else start[len(graphone[0]), len(graphone[1])]
                values.append(value)
            for path, value in zip(paths, values, strict=True):
                for graphone in path:
                    counts[graphone] += value / sum(values)
        whole = sum(counts.values())
        probability = {graphone: count / whole for graphone, count in counts.items()}
    found = Aligner(pairs, iterations=3)
    for (spelling, spoken), value in probability.items():
        number = 0
        for letter in spelling:
            number = number * len(found.letters) + found.letters.index(letter)
        for phone in spoken:
            number = number * len(found.phones) + found.phones.index(phone)
        assert found._probabilities[len(spelling), len(spoken)][number] == pytest.approx(value)
    assert sum(table.sum() for table in found._probabilities.values()) == pytest.approx(1.0)
    assert found.alignments()[3] is None


def regular_dictionary() -> dict[str, list[list[str]]]:
    """All words of five spelled sounds, each spelled in one way."""
    consonants = {"t": "T", "p": "P", "s": "S", "ph": "F", "x": "K S"}
    vowels = {"a": "AE", "o": "AA"}
    return {
        "".join(part): [" ".join({**consonants, **vowels}[each] for each in part).split()]
        for part in product(consonants, vowels, consonants, vowels, consonants)
    }


def test_regular_spellings_are_learnt():
    entries = regular_dictionary()
    words = sorted(entries)
    held_out = words[::7]
    pairs = [(word, entries[word][0]) for word in words]
    found = dict(zip(words, Aligner(pairs, 8).alignments(), strict=True))
    assert found["taxop"] == [("t", ("T",)), ("a", ("AE",)), ("x", ("K", "S")), ("o", ("AA",)), ("p", ("P",))]
    assert found["phatos"] == [("ph", ("F",)), ("a", ("AE",)), ("t", ("T",)), ("o", ("AA",)), ("s", ("S",))]
    pronouncer = Pronouncer(train({word: entries[word] for word in words if word not in held_out}))
    assert pronouncer.pronounce(held_out) == {word: entries[word][0] for word in held_out}


def test_search_finds_the_likeliest_sequence_of_graphones(tmp_path):
    model = train(ENTRIES, order=3)
    graphones = [word for word in model.words if word not in ("<s>", "</s>")]
    for word in ("pax", "phap", "stat", "taxe"):
        best = (float("-inf"), ())
        for length in range(1, len(word) + 1):
            for sequence in product(graphones, repeat=length):
                if "".join(symbol.partition("}")[0] for symbol in sequence) == word:
                    history = ["<s>"]
                    score = 0.0
                    for symbol in (*sequence, "</s>"):
                        score += model.log10_probability(symbol, history)
                        history.append(symbol)
                    best = max(best, (score, sequence))
        phones = [phone for symbol in best[1] for phone in g2p._graphone(symbol)[1]]
        assert Pronouncer(model, beam=500).pronounce([word]) == {word: phones}
    model.to_arpa(tmp_path / "g2p.arpa")
    words = ["PAT", "Phap", "fátax", "fatax", "123", ""]
    said = Pronouncer.load(tmp_path / "g2p.arpa").pronounce(words)
    assert said == Pronouncer(model).pronounce(words)
    assert said["fátax"] == said["fatax"] and set(said) == {"PAT", "Phap", "fátax", "fatax"}


def test_a_dictionary_that_cannot_be_aligned():
    with pytest.raises(DataError, match=r"lang\.dictionary"):
        train({"b": [["B", "IY", "IY"]]})
