from __future__ import annotations

import gzip
import json

import pytest

from dropasr.config import Config, TextConfig
from dropasr.errors import ConfigError, DataError, StageError
from dropasr.lang.build import build
from dropasr.lang.graph import load_words
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.lexicon_build import alignment_lexicon
from dropasr.lang.ngram import NGram, estimate
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
    write_cuts(paths, "test", ["no perhaps", "perhaps never yes"])
    return paths


def config(**lang) -> Config:
    return Config.model_validate({"corpus": {"name": "x", "prepare": "local/x.py"}, "lang": {"lexicon": LEXICON, "order": 2, **lang}})


def test_everything_is_written(paths):
    build(config(), paths, 1)
    assert load_words(paths.lang / "words.txt") == ["<eps>", "<unk>", "no", "yes", "#0", "<s>", "</s>"]
    expected = estimate([["yes", "no", "no"], ["no", "yes"]], 2, "witten_bell", LEXICON)
    read = NGram.from_arpa(paths.lang / "lm.arpa")
    assert read.log10_probability("no", ["yes"]) == pytest.approx(expected.log10_probability("no", ["yes"]), abs=1e-6)
    report = json.loads((paths.lang / "report.json").read_text())
    dev = expected.perplexity([["yes", "yes", "<unk>"], ["no"]])
    assert report["language_model"]["dev_perplexity"] == pytest.approx(dev.perplexity, abs=1e-3)
    assert report["lexicon"] == {"words": 3, "pronunciations": 3, "phones": 7}
    assert report["references"] == {"dev": {"words": 4, "outside_lexicon": 1}, "test": {"words": 5, "outside_lexicon": 3}}


def test_text_of_the_prepare_script_goes_before_transcripts(paths):
    (paths.manifests / "lm_text.txt").write_text("yes yes\nno maybe\n")
    build(config(), paths, 1)
    report = json.loads((paths.lang / "report.json").read_text())["language_model"]
    assert (report["sentences"], report["words"], report["words_outside_lexicon"]) == (2, 4, 1)
    expected = estimate([["yes", "yes"], ["no", "<unk>"]], 2, "witten_bell", LEXICON)
    assert NGram.from_arpa(paths.lang / "lm.arpa").log10_probability("<unk>", ["no"]) == pytest.approx(
        expected.log10_probability("<unk>", ["no"]), abs=1e-6
    )


@pytest.mark.parametrize("key", ["text", "texts"])
def test_a_given_text_is_rid_of_dev_and_test_sentences(paths, tmp_path, key):
    write_cuts(paths, "test", ["no no yes"])
    text = tmp_path / "text.txt"
    text.write_text("yes yes maybe\nno yes\nno no yes\nno yes\n")
    build(config(**{key: str(text) if key == "text" else [str(text)]}), paths, 1)
    sentences = [["no", "yes"], ["no", "yes"], *([["yes", "no", "no"], ["no", "yes"]] if key == "texts" else [])]
    expected = estimate(sentences, 2, "witten_bell", LEXICON)
    model = NGram.from_arpa(paths.lang / "lm.arpa")
    for history in ("yes", "no", "<s>"):
        assert model.log10_probability("no", [history]) == pytest.approx(expected.log10_probability("no", [history]), abs=1e-6)
    text.write_text("no no yes\nno\n")
    with pytest.raises(DataError, match=r"text\.txt \(lang\.text.*all of its 2 sentences are copies of dev or test.*lm_text\.txt"):
        build(config(**{key: str(text) if key == "text" else [str(text)]}), paths, 1)


def test_lexicon_file_of_the_prepare_script(paths):
    (paths.manifests / "lexicon.txt").write_text("yes Y\nno N\n")
    build(config(lexicon=None), paths, 1)
    assert Lexicon.load(paths.lang / "lexicon.txt").phones == ["N", "Y"]
    report = json.loads((paths.lang / "report.json").read_text())["language_model"]
    assert report["dev_oov_percent"] == 25.0


def test_given_arpa(paths, tmp_path):
    estimate([["yes"], ["no", "later"]], 3, "kneser_ney", ["yes", "no", "later"]).to_arpa(tmp_path / "given.arpa")
    build(config(arpa=str(tmp_path / "given.arpa")), paths, 1)
    assert (paths.lang / "lm.arpa").read_bytes() == (tmp_path / "given.arpa").read_bytes()
    estimate([["later"]], 1, "witten_bell", ["later"]).to_arpa(tmp_path / "given.arpa")
    with pytest.raises(DataError, match="none of its words"):
        build(config(arpa=str(tmp_path / "given.arpa")), paths, 1)


def test_words_that_the_graph_of_a_given_arpa_lacks_are_unknown(paths, tmp_path):
    """`later` is in the model alone, `no` in the lexicon alone: neither can be recognised, whatever one of the two files says."""
    write_cuts(paths, "train", ["yes yes no"])
    write_cuts(paths, "dev", ["yes later", "no yes", "yes maybe yes"])
    model = estimate([["yes", "later"], ["later", "yes"], ["yes"]], 2, "witten_bell", ["yes", "later", "maybe"])
    model.to_arpa(tmp_path / "given.arpa")
    build(config(lexicon={"yes": "Y EH S", "no": "N OW"}, arpa=str(tmp_path / "given.arpa")), paths, 1)
    report = json.loads((paths.lang / "report.json").read_text())["language_model"]
    assert report["dev_oov_percent"] == pytest.approx(100 * 3 / 7, abs=1e-3)
    assert (report["model_words"], report["graph_words"]) == (3, 1)
    pairs = [("yes", ["<s>"]), ("</s>", []), ("yes", []), ("</s>", ["yes"]), ("yes", ["<s>"]), ("yes", []), ("</s>", ["yes"])]
    # What follows an unknown word has no history.
    scores = [model.log10_probability(word, history) for word, history in pairs]
    assert report["dev_perplexity"] == pytest.approx(10 ** (-sum(scores) / len(scores)), abs=1e-3)


def test_a_word_that_is_mapped_to_the_unknown_word_is_unknown(paths):
    build(config(), paths, 1)
    report = json.loads((paths.lang / "report.json").read_text())["language_model"]
    assert report["dev_oov_percent"] == 25.0  # "maybe" of four words, though <unk> has a pronunciation


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


DICTIONARY = "yes Y EH1 S\nyes(2) Y AE1 S\nno N OW1\nsee S IY1\nney N EY1\nson S AH1 N\nnoes N OW1 Z\nsay S EY1\nsees S IY1 Z\n"


def test_dictionary_letter_model_and_word_list(paths, tmp_path):
    write_cuts(paths, "train", ["YES NO NO", "NOSE YES", "UM NO"])
    write_cuts(paths, "dev", ["YES YES MAYBE", "NO"])
    write_cuts(paths, "test", ["SAY NO NO"])
    (tmp_path / "dict").write_text(DICTIONARY)
    with gzip.open(tmp_path / "text.gz", "wt") as file:
        file.write("see, see no son\nsay no no\nrare words\nsee 99\n")
    (tmp_path / "words").write_text("UM AH M\nUNUSED Y\n")
    wanted = config(lexicon=str(tmp_path / "words"), dictionary=str(tmp_path / "dict"), texts=[str(tmp_path / "text.gz")], vocabulary=6)
    corpus = wanted.corpus.model_copy(update={"text": TextConfig(case="upper", remove=",")})
    build(wanted.model_copy(update={"corpus": corpus}), paths, 1)
    lexicon = Lexicon.load(paths.lang / "lexicon.txt").entries
    # The words of train, then the most frequent of the text, of which "99" has no letters; "SAY NO NO" is a test sentence, not counted.
    assert set(lexicon) == {"YES", "NO", "NOSE", "UM", "SEE"}
    assert lexicon["YES"] == [["Y", "EH", "S"], ["Y", "AE", "S"]] and lexicon["UM"] == [["AH", "M"]]
    assert [line.split()[0] for line in (paths.lang / "g2p.txt").read_text().splitlines()] == ["NOSE"]
    report = json.loads((paths.lang / "report.json").read_text())
    assert [report["lexicon"][key] for key in ("given", "from_dictionary", "g2p", "g2p_in_train", "left_out")] == [1, 3, 1, 1, 1]
    assert report["language_model"]["sentences"] == 3 + 3
    assert len(list((paths.data_dir / "g2p").iterdir())) == 1
    before = (paths.lang / "g2p.txt").read_bytes()
    build(wanted.model_copy(update={"corpus": corpus}), paths, 1)
    assert (paths.lang / "g2p.txt").read_bytes() == before


def test_a_word_of_train_that_cannot_be_pronounced(paths, tmp_path):
    (tmp_path / "dict").write_text(DICTIONARY)
    write_cuts(paths, "train", ["yes 99"])
    with pytest.raises(DataError, match="cannot be pronounced: 99.*lang.lexicon"):
        build(config(lexicon=None, dictionary=str(tmp_path / "dict")), paths, 1)


def test_pruned_and_interpolated_models(paths, tmp_path):
    (tmp_path / "text.txt").write_text("no yes no\nyes\nno no no\n" * 3)
    write_cuts(paths, "test", ["no"])
    options = {"order": 3, "smoothing": "kneser_ney", "texts": [str(tmp_path / "text.txt")], "prune_to": [4, 2], "rescore": True}
    build(config(**options, interpolate=True, rescore_order=4), paths, 1)
    report = json.loads((paths.lang / "report.json").read_text())["language_model"]
    graph, rescoring = NGram.from_arpa(paths.lang / "lm.arpa"), NGram.from_arpa(paths.lang / "lm-rescore.arpa")
    assert graph.sizes == report["ngrams"] and graph.order == 3 and graph.sizes[2] == 2
    assert rescoring.sizes == report["unpruned"]["ngrams"] and rescoring.order == 4
    assert sum(report["weights"].values()) == pytest.approx(1, abs=1e-3) and set(report["weights"]) == {"train", "text.txt"}
    dev = [["yes", "yes", "<unk>"], ["no"]]
    for model, figures in ((graph, report), (rescoring, report["unpruned"])):
        assert figures["dev_perplexity"] == pytest.approx(model.perplexity(dev).perplexity, rel=1e-4)
    build(config(order=2), paths, 1)
    assert not (paths.lang / "lm-rescore.arpa").exists()


def test_a_given_arpa_can_be_pruned(paths, tmp_path):
    model = estimate([["yes", "no", "no"], ["no", "yes"]], 2, "kneser_ney", LEXICON)
    model.to_arpa(tmp_path / "given.arpa")
    build(config(arpa=str(tmp_path / "given.arpa"), prune_to=[2], rescore=True), paths, 1)
    assert NGram.from_arpa(paths.lang / "lm.arpa").sizes == [5, 2]
    assert NGram.from_arpa(paths.lang / "lm-rescore.arpa").probabilities == NGram.from_arpa(tmp_path / "given.arpa").probabilities


def test_vocabulary_restricts_a_given_lexicon(paths):
    (paths.manifests / "lm_text.txt").write_text("yes maybe maybe\n")
    entries = {**LEXICON, "maybe": "M EY", "never": "N EH"}
    build(config(lexicon=entries, vocabulary=4), paths, 1)
    assert set(Lexicon.load(paths.lang / "lexicon.txt").entries) == {"yes", "no", "<unk>", "maybe"}


def test_words_without_phones_for_characters(paths):
    wanted = config(lexicon=None)
    build(wanted.model_copy(update={"lang": wanted.lang.model_copy(update={"units": "chars"})}), paths, 1)
    assert Lexicon.load(paths.lang / "lexicon.txt").entries == {"no": [["n", "o"]], "yes": [["y", "e", "s"]]}


def test_words_of_dev_are_pronounced_for_alignment_alone(paths, tmp_path):
    (tmp_path / "dictionary").write_text("yes Y EH S\nno N OW\nmaybe Y EH N OW\nodd ZH\n")
    write_cuts(paths, "dev", ["yes maybe", "odd no"])
    settings = config(lexicon=None, dictionary=str(tmp_path / "dictionary"))
    build(settings, paths, 1)
    assert set(Lexicon.load(paths.lang / "lexicon.txt").entries) == {"yes", "no"} <= set(load_words(paths.lang / "words.txt"))
    larger = Lexicon.load(alignment_lexicon(paths)).entries
    assert set(larger) == {"yes", "no", "maybe"} and larger["maybe"] == [["Y", "EH", "N", "OW"]]  # ZH is in no word of train
    write_cuts(paths, "dev", ["yes", "no"])
    build(settings, paths, 1)
    assert alignment_lexicon(paths) == paths.lang / "lexicon.txt"


def test_marks_of_other_tools_are_no_words(paths, tmp_path):
    for split in ("train", "dev", "test"):
        write_cuts(paths, split, ["YES NO"])
    (tmp_path / "dict").write_text(DICTIONARY)
    (tmp_path / "text").write_text("<unk> see <unk>\n#son no\n")
    wanted = config(lexicon=None, dictionary=str(tmp_path / "dict"), texts=[str(tmp_path / "text")])
    corpus = wanted.corpus.model_copy(update={"text": TextConfig(case="upper")})
    build(wanted.model_copy(update={"corpus": corpus}), paths, 1)
    assert set(Lexicon.load(paths.lang / "lexicon.txt").entries) == {"YES", "NO", "SEE"}
