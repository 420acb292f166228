from __future__ import annotations

import gzip
import json

import pytest

from dropasr.config import Config
from dropasr.errors import ConfigError, DataError, StageError
from dropasr.lang.build import build
from dropasr.lang.graph import installed_backends, load_words
from dropasr.lang.ngram import NGram, estimate
from dropasr.lang.units import OutputUnits
from dropasr.paths import Paths

LEXICON = {"yes": "Y EH S", "no": "N OW", "<unk>": "S P N"}


def write_cuts(paths: Paths, split: str, texts: list[str]) -> None:
    paths.manifests.mkdir(parents=True, exist_ok=True)
    with gzip.open(paths.cuts(split), "wt") as file:
        for index, text in enumerate(texts):
            name = f"{split}{index}"
            supervision = {"id": name, "recording_id": name, "start": 0.0, "duration": 1.0, "channel": 0, "text": text, "speaker": split}
            recording = {"id": name, "sources": [], "sampling_rate": 8000, "num_samples": 8000, "duration": 1.0}
            cut = {"id": name, "start": 0.0, "duration": 1.0, "channel": 0, "supervisions": [supervision], "recording": recording}
            file.write(json.dumps({**cut, "type": "MonoCut"}) + "\n")


@pytest.fixture
def paths(tmp_path) -> Paths:
    paths = Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1)
    write_cuts(paths, "train", ["yes no no", "no yes"])
    write_cuts(paths, "dev", ["yes yes maybe", "no"])
    return paths


def config(**lang) -> Config:
    return Config.model_validate({"corpus": {"name": "x", "prepare": "local/x.py"}, "lang": {"lexicon": LEXICON, "order": 2, **lang}})


def test_everything_is_written(paths):
    build(config(), paths, 1)
    assert load_words(paths.lang / "words.txt") == ["<eps>", "<unk>", "no", "yes", "#0", "<s>", "</s>"]
    assert OutputUnits.load(paths.lang / "units.json").num_units == 3 + 3 * 6
    expected = estimate([["yes", "no", "no"], ["no", "yes"]], 2, "witten_bell", LEXICON)
    read = NGram.from_arpa(paths.lang / "lm.arpa")
    assert read.log10_probability("no", ["yes"]) == pytest.approx(expected.log10_probability("no", ["yes"]), abs=1e-6)
    report = json.loads((paths.lang / "report.json").read_text())
    dev = expected.perplexity([["yes", "yes", "<unk>"], ["no"]])
    assert report["language_model"]["dev_perplexity"] == pytest.approx(dev.perplexity, abs=1e-3)
    assert set(report["graphs"]) == set(installed_backends())
    assert all(size["states"] > 20 and size["arcs"] > size["states"] for size in report["graphs"].values())
    assert report["lexicon"] == {"words": 3, "pronunciations": 3, "phones": 7}


def test_text_of_the_prepare_script_goes_before_transcripts(paths):
    (paths.manifests / "lm_text.txt").write_text("yes yes\nno maybe\n")
    build(config(), paths, 1, backends=["kaldi"])
    report = json.loads((paths.lang / "report.json").read_text())["language_model"]
    assert (report["sentences"], report["words"], report["words_outside_lexicon"]) == (2, 4, 1)
    expected = estimate([["yes", "yes"], ["no", "<unk>"]], 2, "witten_bell", LEXICON)
    assert NGram.from_arpa(paths.lang / "lm.arpa").log10_probability("<unk>", ["no"]) == pytest.approx(
        expected.log10_probability("<unk>", ["no"]), abs=1e-6
    )


def test_lexicon_file_of_the_prepare_script(paths):
    (paths.manifests / "lexicon.txt").write_text("yes Y\nno N\n")
    build(config(lexicon=None), paths, 1, backends=["kaldi"])
    assert OutputUnits.load(paths.lang / "units.json").phones == ("N", "Y")
    report = json.loads((paths.lang / "report.json").read_text())["language_model"]
    assert report["dev_oov_percent"] == 25.0


def test_given_arpa(paths, tmp_path):
    estimate([["yes"], ["no", "later"]], 3, "kneser_ney", ["yes", "no", "later"]).to_arpa(tmp_path / "given.arpa")
    build(config(arpa=str(tmp_path / "given.arpa")), paths, 1)
    assert (paths.lang / "lm.arpa").read_bytes() == (tmp_path / "given.arpa").read_bytes()
    estimate([["later"]], 1, "witten_bell", ["later"]).to_arpa(tmp_path / "given.arpa")
    with pytest.raises(DataError, match="none of its words"):
        build(config(arpa=str(tmp_path / "given.arpa")), paths, 1)


def test_errors(paths):
    with pytest.raises(ConfigError, match=r"lang\.arpa: no such file 'nowhere\.arpa'"):
        build(config(arpa="nowhere.arpa"), paths, 1)
    with pytest.raises(ConfigError, match=r"lang\.lexicon is not set"):
        build(config(lexicon=None), paths, 1)
    with pytest.raises(DataError, match="1 words are not in the lexicon: yes"):
        build(config(lexicon={"no": "N OW"}), paths, 1)
    paths.cuts("train").unlink()
    with pytest.raises(StageError, match="stage 1"):
        build(config(), paths, 1)
