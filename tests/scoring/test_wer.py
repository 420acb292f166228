"""Word errors against a Levenshtein distance computed by recursion, and by hand."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropasr.errors import MeasurementError
from dropasr.scoring.wer import alignment_text, character_errors, score

WORDS = st.lists(st.sampled_from(["a", "b", "c", "***", ""]), max_size=7)


def _levenshtein(reference: list[str], hypothesis: list[str]) -> int:
    @functools.cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        same = reference[i - 1] == hypothesis[j - 1]
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (not same))

    return distance(len(reference), len(hypothesis))


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=3), st.tuples(WORDS.filter(len), WORDS), min_size=1, max_size=4))
def test_errors_are_the_levenshtein_distance(pairs: dict[str, tuple[list[str], list[str]]]) -> None:
    references = {id: pair[0] for id, pair in pairs.items()}
    hypotheses = {id: pair[1] for id, pair in reversed(list(pairs.items()))}
    result = score(references, hypotheses)
    assert [item.id for item in result.utterances] == list(references)
    for item in result.utterances:
        reference, hypothesis = references[item.id], hypotheses[item.id]
        assert item.errors == _levenshtein(reference, hypothesis)
        assert item.reference == reference and item.hypothesis == hypothesis
        assert item.insertions - item.deletions == len(hypothesis) - len(reference)
        assert (None, None) not in item.alignment
    assert result.words == sum(map(len, references.values()))
    assert result.errors == sum(item.errors for item in result.utterances)
    assert result.wer == pytest.approx(100 * result.errors / result.words)


def test_counts_by_hand() -> None:
    references = {"u1": "turn the light on".split(), "u2": "stop".split(), "u3": "yes no".split()}
    hypotheses = {"u1": "turn light off now".split(), "u2": [], "u3": "yes no".split()}
    result = score(references, hypotheses)
    assert (result.words, result.errors) == (7, 4)
    assert result.wer == pytest.approx(400 / 7)
    assert [item.errors for item in result.utterances] == [3, 1, 0]
    assert (result.utterances[1].deletions, result.utterances[1].alignment) == (1, (("stop", None),))
    inserted = score({"u": ["yes"]}, {"u": "oh yes indeed".split()})
    assert (inserted.substitutions, inserted.deletions, inserted.insertions, inserted.wer) == (0, 0, 2, 200.0)


def test_alignment_text_shows_the_errors_in_columns() -> None:
    text = alignment_text(score({"u1": "turn light on".split()}, {"u1": "turn the light off".split()}))
    assert text.splitlines()[2:] == [
        "u1: 3 words, 1 substitutions, 0 deletions, 1 insertions",
        "REF: turn *** light on",
        "HYP: turn the light off",
        "          I         S",
        "",
    ]
    assert text.startswith("WER 66.67 % of 3 words: ")


def test_what_cannot_be_scored_is_refused_by_id() -> None:
    with pytest.raises(MeasurementError, match="'u2'.*reference is empty"):
        score({"u1": ["a"], "u2": []}, {"u1": ["a"], "u2": ["a"]})
    with pytest.raises(MeasurementError, match=r"'u2'.*found none \(1 of 2"):
        score({"u1": ["a"], "u2": ["a"]}, {"u1": ["a"]})
    with pytest.raises(MeasurementError, match="'u3'.*without a reference"):
        score({"u1": ["a"]}, {"u1": ["a"], "u3": ["a"]})
    with pytest.raises(MeasurementError, match="no references"):
        score({}, {})


def test_character_errors():
    # "SEVEN ONE" against "SEVEN ON": spaces do not count, one character is missing.
    assert character_errors(["SEVEN", "ONE"], ["SEVEN", "ON"]) == (8, 1)
    assert character_errors(["A", "B"], ["AB"]) == (2, 0)
    assert character_errors(["AB"], []) == (2, 2)
    for reference, hypothesis in ((["abc", "de"], ["ab", "xde", "f"]), (["zz"], ["z", "z", "z"])):
        assert character_errors(reference, hypothesis)[1] == _levenshtein(list("".join(reference)), list("".join(hypothesis)))
