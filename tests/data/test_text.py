"""Rules for transcripts against results written by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropasr.config import TextConfig
from dropasr.data.text import Normaliser


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        ({}, "  Hello,\tworld \n", "Hello, world"),
        ({"case": "upper"}, "straße I'm", "STRASSE I'M"),
        ({"case": "lower"}, "ABC Élan", "abc élan"),
        ({"remove": ',.!?"-'}, 'Well - "yes"!', "Well yes"),
        ({"replace": {"’": "'", "&": " and "}}, "it’s you&me", "it's you and me"),
        ({"replace": {"Mr.": "MISTER"}, "remove": ".", "case": "upper"}, "Mr. J. Smith mr.", "MISTER J SMITH MR"),
        ({"remove_words": ["<UNK>", "[NOISE]"], "case": "upper"}, "so <unk> it [NOISE]", "SO IT"),
        ({"remove": "-"}, "- -", ""),
        ({"split": "characters"}, "今天 天气ok", "今 天 天 气 o k"),
        ({"split": "characters"}, "e\u0301a", "e\u0301 a"),
        ({"unicode": "NFC", "split": "characters"}, "e\u0301a", "\u00e9 a"),
        ({"unicode": "NFKC"}, "ａｂ①", "ab1"),
    ],
)
def test_rules_by_hand(rules: dict, text: str, expected: str) -> None:
    assert Normaliser(TextConfig(**rules))(text) == expected


def test_rules_that_say_something_else_when_applied_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="'OK' becomes 'OKAY', which the rules turn into 'OKAYAY'"):
        TextConfig(replace={"OK": "OKAY"})
    with pytest.raises(ValueError, match="'b' becomes 'a', which the rules turn into 'b'"):
        TextConfig(replace={"b": "a", "a": "b"})
    assert Normaliser(TextConfig(replace={" OK ": " OKAY "})).words(["IT", "IS", "OK", "NOW"]) == ["IT", "IS", "OKAY", "NOW"]


@given(st.text(max_size=40))
def test_without_rules_only_white_space_changes(text: str) -> None:
    assert Normaliser(TextConfig())(text).split() == text.split()


@given(st.text(max_size=40))
def test_what_is_normal_stays(text: str) -> None:
    for rules in (TextConfig(remove=",.-", case="lower", remove_words=["a"]), TextConfig(split="characters")):
        once = Normaliser(rules)(text)
        assert Normaliser(rules)(once) == once
