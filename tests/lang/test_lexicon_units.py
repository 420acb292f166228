from __future__ import annotations

import numpy as np
import pytest

from dropasr.errors import DataError
from dropasr.lang.lexicon import SILENCE, Lexicon
from dropasr.lang.units import OutputUnits


def test_lexicon_round_trip_with_variants(tmp_path):
    lexicon = Lexicon.from_mapping({"b": ["B IY", "B EH", "B IY"], "a": "AH", "<SIL>": "SIL"})
    assert lexicon.entries == {"<SIL>": [["SIL"]], "a": [["AH"]], "b": [["B", "IY"], ["B", "EH"]]}
    assert lexicon.phones == ["AH", "B", "EH", "IY"]
    assert lexicon.missing(["c", "a", "c", "0"]) == ["0", "c"]
    lexicon.save(tmp_path / "lexicon.txt")
    assert (tmp_path / "lexicon.txt").read_text() == "<SIL> SIL\na AH\nb B IY\nb B EH\n"
    assert Lexicon.load(tmp_path / "lexicon.txt") == lexicon


@pytest.mark.parametrize(("text", "message"), [("a A\nb\n", "line 2"), ("#0 A\n", "reserved"), ("\n", "empty"), ("a #1\n", "reserved")])
def test_lexicon_refuses(tmp_path, text, message):
    (tmp_path / "lexicon.txt").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        Lexicon.load(tmp_path / "lexicon.txt")
    assert "lexicon.txt" in str(error.value)


def test_units_are_numbered_silence_first(tmp_path):
    units = OutputUnits(("A", "B"), 2, 3)
    assert units.num_units == 7
    assert units.pdfs(SILENCE) == [0, 1, 2] and units.pdfs("A") == [3, 4] and units.pdfs("B") == [5, 6]
    assert [units.phone_of(pdf) for pdf in range(7)] == ["SIL"] * 3 + ["A"] * 2 + ["B"] * 2
    assert units.is_silence(np.array([0, 2, 3])).tolist() == [True, True, False]
    units.save(tmp_path / "units.json")
    assert OutputUnits.load(tmp_path / "units.json") == units
    for bad in (lambda: units.pdf("C", 0), lambda: units.pdf("A", 2), lambda: units.phone_of(7)):
        with pytest.raises(DataError):
            bad()
