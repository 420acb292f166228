"""Characters and word pieces: what is encoded comes back, and sizes that do not fit are refused with those that do."""

from __future__ import annotations

import re

import pytest

from dropasr.config import Config
from dropasr.errors import ConfigError, DataError
from dropasr.lang.pieces import BLANK, PieceEncoder, PieceUnits, load_units, train_pieces, write_pieces
from dropasr.lang.units import OutputUnits

TEXT = [line.split() for line in ("ZERO ONE TWO THREE", "FOUR FIVE SIX SEVEN", "EIGHT NINE") * 20]
CHARACTERS = set("".join(word for words in TEXT for word in words))


@pytest.mark.parametrize("kind,size", [("chars", None), ("bpe", 30), ("bpe", None)])
def test_sentences_survive_encoding(kind, size, tmp_path):
    encoder = train_pieces(TEXT, kind, size)
    assert encoder.units.pieces[BLANK] == "<blk>" and len(set(encoder.units.pieces)) == encoder.units.num_units
    for words in TEXT[:3]:
        tokens = encoder.sentence(words)
        assert BLANK not in tokens and max(tokens) < encoder.units.num_units
        assert encoder.units.words(tokens) == words
        assert tokens == sum((encoder.word(word) for word in words), [])
    encoder.save(tmp_path)
    again = PieceEncoder.load(tmp_path)
    assert again.units == encoder.units and again.sentence(TEXT[0]) == encoder.sentence(TEXT[0])
    encoder.units.save(tmp_path / "units.json")
    assert load_units(tmp_path / "units.json") == encoder.units


def test_characters_are_those_of_the_text_and_the_boundary():
    encoder = train_pieces(TEXT, "chars")
    assert set(encoder.units.pieces) == CHARACTERS | {"<blk>", "\u2581"}
    assert [encoder.units.pieces[token] for token in encoder.sentence(["SIX", "ONE"])] == ["\u2581", *"SIX", "\u2581", *"ONE"]


def test_where_every_character_is_a_word_it_is_one_unit(tmp_path):
    text = [list("甲乙乙"), ["e\u0301", "甲"]]
    encoder = train_pieces(text, "chars", character_words=True)
    assert encoder.units.pieces == ("<blk>", "e\u0301", "乙", "甲")
    assert encoder.sentence(["甲", "e\u0301", "乙", "乙"]) == [3, 1, 2, 2] and encoder.word("丙") is None
    encoder.save(tmp_path)
    encoder.units.save(tmp_path / "units.json")
    for units in (PieceEncoder.load(tmp_path).units, load_units(tmp_path / "units.json")):
        assert units == encoder.units and units.words([3, 1, 2, 2]) == ["甲", "e\u0301", "乙", "乙"]


@pytest.mark.parametrize("split,pieces", [("characters", ["<blk>", "A", "B"]), ("words", ["<blk>", "\u2581", "A", "B"])])
def test_the_split_of_the_corpus_decides_about_the_boundary(tmp_path, split, pieces):
    corpus = {"name": "x", "prepare": "lhotse:yesno", "text": {"split": split}}
    config = Config.model_validate({"corpus": corpus, "lang": {"units": "chars"}, "train": {"criterion": "ctc"}})
    write_pieces(config, [["B", "A"]], tmp_path)
    assert list(PieceEncoder.load(tmp_path).units.pieces) == pieces


def test_the_same_text_gives_the_same_model():
    assert train_pieces(TEXT, "bpe", 40).model == train_pieces(TEXT, "bpe", 40).model


def test_words_with_unseen_characters_have_no_units():
    for kind in ("chars", "bpe"):
        encoder = train_pieces(TEXT, kind)
        assert encoder.word("QUIZ") is None and encoder.sentence(["ONE", "QUIZ"]) is None and encoder.word("SEX") is not None


def test_too_large_a_vocabulary_names_the_largest_that_fits():
    with pytest.raises(ConfigError, match="at most [0-9]+ word pieces, found 500") as error:
        train_pieces(TEXT, "bpe", 500)
    largest = int(re.search(r"at most (\d+)", str(error.value))[1])
    assert train_pieces(TEXT, "bpe", largest).units.num_units == largest == train_pieces(TEXT, "bpe").units.num_units
    with pytest.raises(ConfigError, match=f"at most {largest}"):
        train_pieces(TEXT, "bpe", largest + 1)


def test_too_small_a_vocabulary_names_the_smallest():
    smallest = len(CHARACTERS) + 2
    with pytest.raises(ConfigError, match=f"at least {smallest} units, found {smallest - 1}"):
        train_pieces(TEXT, "bpe", smallest - 1)
    assert train_pieces(TEXT, "bpe", smallest).units.num_units == smallest


def test_bad_texts_and_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="found no words"):
        train_pieces([[]], "bpe")
    with pytest.raises(DataError, match="mark of word boundaries"):
        train_pieces([["A\u2581B"]], "chars")
    with pytest.raises(DataError, match="pieces.txt: the pieces are missing"):
        PieceEncoder.load(tmp_path)
    (tmp_path / "pieces.txt").write_text("<blk> 0\nA 2\n")
    with pytest.raises(DataError, match="pieces.txt: expected lines"):
        PieceEncoder.load(tmp_path)
    (tmp_path / "units.json").write_text('{"kind": "bpe", "pieces": ["<blk>"], "blank": 0}')
    with pytest.raises(DataError, match="units.json: expected the pieces"):
        load_units(tmp_path / "units.json")
    units = OutputUnits(("A", "B"), 3, 3)
    units.save(tmp_path / "units.json")
    assert load_units(tmp_path / "units.json") == units
    assert PieceUnits("chars", ("<blk>", "\u2581", "A")).words([1, 2, 2, 1, 2]) == ["AA", "A"]
