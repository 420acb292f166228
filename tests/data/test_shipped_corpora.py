"""Every shipped configuration of a published corpus prepares a tiny imitation of the publisher's layout."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut

from dropasr.config import REPOSITORY, load_config
from dropasr.data.corpora import prepare
from dropasr.errors import DataError
from dropasr.lang.build import build
from dropasr.lang.ngram import NGram
from dropasr.paths import Paths
from dropasr.stages import BY_VERB

RATE = 16000


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1)


def sound(path: Path, seconds: float = 0.3, rate: int = RATE, **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).uniform(-0.3, 0.3, int(rate * seconds))
    soundfile.write(path, noise, rate, **options)


def prepared(name: str, corpus_dir: Path, paths: Paths, *settings: str) -> dict[str, list[MonoCut]]:
    """The cuts of every split after stage 1."""
    config = load_config(REPOSITORY / "conf" / f"{name}.yaml", corpus_dir=str(corpus_dir), settings=list(settings))
    prepare(config, paths, nj=1)
    return {split: list(CutSet.from_file(paths.cuts(split))) for split in config.corpus.splits}


def ids(cuts: dict[str, list[MonoCut]]) -> dict[str, list[str]]:
    return {split: [cut.id for cut in found] for split, found in cuts.items()}


def check_language(name: str, paths: Paths, tmp_path: Path) -> None:
    """Stage 3 after `prepared`: lexicon and models of the transcripts, for nets with tied units and a search as for large vocabularies."""
    words = {word for cut in CutSet.from_file(paths.cuts("train")) for word in cut.supervisions[0].text.split()}
    dictionary = tmp_path / "cmudict.txt"
    dictionary.write_text("".join(f"{word}  {' '.join(c for c in word if c.isalpha())}\n" for word in sorted(words)), encoding="utf-8")
    config = load_config(REPOSITORY / "conf" / f"{name}.yaml", settings=[f"lang.dictionary={dictionary}"])
    build(config, paths)
    report = json.loads((paths.lang / "report.json").read_text(encoding="utf-8"))
    assert report["lexicon"]["words"] == len(words) and report["language_model"]["smoothing"] == "kneser_ney"
    assert NGram.from_arpa(paths.lang / "lm-rescore.arpa").order == 4 and NGram.from_arpa(paths.lang / "lm.arpa").order == 3
    assert (config.lang.tying, config.decode.max_active) == ("likelihood", 3000)


def texts(cuts: list[MonoCut]) -> list[str]:
    return [cut.supervisions[0].text for cut in cuts]


def make_librispeech(folder: Path, parts: dict[str, list[str]]) -> Path:
    """`LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac`, one chapter of two utterances each."""
    for part, speakers in parts.items():
        for speaker in speakers:
            chapter = folder / "LibriSpeech" / part / speaker / "7"
            for number, words in enumerate(("A TALE", "OF TWO CITIES")):
                sound(chapter / f"{speaker}-7-{number:04d}.flac", 0.3 + 0.1 * number)
                with open(chapter / f"{speaker}-7.trans.txt", "a", encoding="utf-8") as file:
                    file.write(f"{speaker}-7-{number:04d} {words}\n")
    return folder


MINI = {"train-clean-5": ["19", "1898", "2136", "3526", "3664", "4680", "6848"], "test-other": ["367"]}


@pytest.mark.parametrize("inside", [".", "LibriSpeech"])
def test_mini_librispeech(tmp_path: Path, paths: Paths, inside: str) -> None:
    cuts = prepared("mini_librispeech", make_librispeech(tmp_path, MINI) / inside, paths)
    speakers = {split: sorted({cut.supervisions[0].speaker for cut in found}) for split, found in cuts.items()}
    assert speakers == {"train": ["19"], "dev": ["2136", "3664", "4680"], "test": ["1898", "3526", "6848"], "test_other": ["367"]}
    assert texts(cuts["train"]) == ["A TALE", "OF TWO CITIES"] and cuts["train"][1].load_audio().shape == (1, int(0.4 * RATE))
    config = load_config(REPOSITORY / "conf" / "mini_librispeech.yaml")
    assert paths.cuts("test_other") in BY_VERB["data"].outputs(config, paths)
    assert paths.features("test_other") in BY_VERB["features"].outputs(config, paths)
    report = json.loads((paths.manifests / "report.json").read_text(encoding="utf-8"))
    assert report["splits"]["test_other"]["utterances"] == 2 and report["extra_test_sentences_seen"]["test_other"]["in_train"] == 1


def test_mini_librispeech_with_its_official_dev_part(tmp_path: Path, paths: Paths) -> None:
    make_librispeech(tmp_path, {**MINI, "dev-clean-2": ["84", "174"]})
    cuts = prepared("mini_librispeech", tmp_path, paths, "corpus.options.dev_parts=[dev-clean-2]")
    assert {cut.supervisions[0].speaker for cut in cuts["dev"]} == {"84", "174"}
    assert {cut.supervisions[0].speaker for cut in cuts["train"]} == {"19", "2136", "3664", "4680"}


def test_parts_and_speakers_that_are_not_there(tmp_path: Path, paths: Paths) -> None:
    make_librispeech(tmp_path, {"train-clean-5": MINI["train-clean-5"]})
    with pytest.raises(DataError, match=r"part 'test-other' .test_other. has no utterances.*train-clean-5.*corpus\.extra_tests"):
        prepared("mini_librispeech", tmp_path, paths)
    assert set(prepared("mini_librispeech", tmp_path, paths, "corpus.extra_tests=[]")) == {"train", "dev", "test"}
    with pytest.raises(DataError, match=r"speaker '20' .test_speakers. is not among the 7 speakers"):
        prepared("mini_librispeech", tmp_path, paths, "corpus.extra_tests=[]", "corpus.options.test_speakers=['20']")
    with pytest.raises(DataError, match="test_parts, or test_speakers"):
        prepared("mini_librispeech", tmp_path, paths, "corpus.extra_tests=[]", "corpus.options.test_speakers=[]")


def test_a_speaker_of_train_in_an_extra_test(tmp_path: Path, paths: Paths) -> None:
    make_librispeech(tmp_path, {**MINI, "test-other": ["19"]})
    with pytest.raises(DataError, match="speaker '19' stands in train .* and in test_other"):
        prepared("mini_librispeech", tmp_path, paths)


@pytest.mark.parametrize(
    ("name", "train"), [("librispeech", ["19"]), ("librispeech_960", ["100", "19", "25"])], ids=["100 hours", "960 hours"]
)
def test_librispeech(tmp_path: Path, paths: Paths, name: str, train: list[str]) -> None:
    parts = {"train-clean-100": ["19"], "train-clean-360": ["100"], "train-other-500": ["25"], "dev-other": ["116"]}
    make_librispeech(tmp_path, {**parts, "dev-clean": ["84"], "test-clean": ["61"], "test-other": ["367"]})
    cuts = prepared(name, tmp_path, paths)
    speakers = {split: sorted({cut.supervisions[0].speaker for cut in found}) for split, found in cuts.items()}
    assert speakers == {"train": train, "dev": ["84"], "test": ["61"], "test_other": ["367"]}
    check_language(name, paths, tmp_path)


def test_tedlium3(tmp_path: Path, paths: Paths) -> None:
    legacy = tmp_path / "TEDLIUM_release-3" / "legacy"
    for split, talk in (("train", "AnnSmith_2009"), ("dev", "BobJones_2010"), ("test", "CemKaya_2011")):
        sound(legacy / split / "sph" / f"{talk}.sph", 3.0, format="NIST", subtype="PCM_16")
        lines = (
            "0.00 0.50 <F0_M> ignore_time_segment_in_scoring",
            "0.50 1.25 <o,f0,male> they 're {NOISE} here <unk>",
            "1.25 3.00 <o,f0,male> ' cause it 's late",
        )
        stm = legacy / split / "stm" / f"{talk}.stm"
        stm.parent.mkdir()
        stm.write_text("".join(f"{talk} 1 {talk} {line}\n" for line in lines), encoding="utf-8")
    cuts = prepared("tedlium3", tmp_path, paths)
    assert [(cut.id, cut.start, cut.duration) for cut in cuts["dev"]] == [
        ("BobJones_2010-1", 0.5, 0.75),
        ("BobJones_2010-2", 1.25, 1.75),
    ]
    assert texts(cuts["test"]) == ["THEY'RE HERE", "'CAUSE IT'S LATE"]
    whole, _ = soundfile.read(legacy / "dev" / "sph" / "BobJones_2010.sph", dtype="float32")
    np.testing.assert_array_equal(cuts["dev"][0].load_audio()[0], whole[RATE // 2 : RATE // 2 + 12000])
    check_language("tedlium3", paths, tmp_path)


def test_aishell(tmp_path: Path, paths: Paths) -> None:
    data = tmp_path / "aishell" / "data_aishell"
    lines = []
    for split, speaker in (("train", "S0002"), ("dev", "S0724"), ("test", "S0764")):
        for number, text in enumerate(("而 对 楼市", "ｔ 恤 四 十 k")):
            name = f"BAC009{speaker}W{number:04d}"
            sound(data / "wav" / split / speaker / f"{name}.wav")
            lines.append(f"{name} {text}\n")
    (data / "transcript").mkdir()
    (data / "transcript" / "aishell_transcript_v0.8.txt").write_text("".join(lines), encoding="utf-8")
    cuts = prepared("aishell", tmp_path, paths)
    assert ids(cuts)["test"] == ["BAC009S0764W0000", "BAC009S0764W0001"]
    assert texts(cuts["dev"]) == ["而 对 楼 市", "T 恤 四 十 K"]
    report = json.loads((paths.manifests / "report.json").read_text(encoding="utf-8"))
    assert report["text"]["split"] == "characters" and report["splits"]["dev"]["normalised_transcripts"] == 2


def test_commonvoice(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its recipe spawns processes, each of which imports torch for seconds.
    monkeypatch.setattr("lhotse.recipes.commonvoice.mp_get_context", lambda _: multiprocessing.get_context("fork"))
    language = tmp_path / "cv-corpus-13.0-2023-03-09" / "en"
    columns = "client_id path sentence up_votes down_votes age gender accents variant locale segment".split()
    for split, client in (("train", "aa"), ("dev", "bb"), ("test", "cc")):
        rows = ["\t".join(columns)]
        for number, sentence in enumerate(("“It’s a well-known day,” he said.", "...", "Vive la cafe\u0301!")):
            path = f"common_voice_en_{client}{number}.mp3"
            sound(language / "clips" / path, 0.6, 32000, format="MP3")
            rows.append("\t".join((client, path, sentence, "2", "0", "", "", "", "", "en", "")))
        (language / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    cuts = prepared("commonvoice", tmp_path, paths, "corpus.max_dropped=0.4")
    assert texts(cuts["train"]) == ["IT'S A WELL KNOWN DAY HE SAID", "VIVE LA CAF\u00c9"]
    assert ids(cuts)["test"] == ["common_voice_en_cc0", "common_voice_en_cc2"]
    found = cuts["test"][0]
    assert (found.sampling_rate, found.load_audio().shape, found.supervisions[0].speaker) == (RATE, (1, 9600), "cc")
    check_language("commonvoice", paths, tmp_path)


def make_speechocean(folder: Path, speakers: int = 10) -> Path:
    """Directories train and test beside WAVE, which `wav.scp` names from their parent."""
    for split, first in (("train", 1), ("test", 5001)):
        tables: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": []}
        for speaker in range(first, first + speakers):
            for number in (11, 35):
                name, wav = f"{speaker:04d}{number:05d}", f"WAVE/SPEAKER{speaker:04d}/{speaker:04d}{number:05d}.WAV"
                sound(folder / wav, format="WAV")
                for table, value in (("wav.scp", wav), ("text", "MARK IS GOING"), ("utt2spk", f"{speaker:04d}")):
                    tables[table].append(f"{name}\t{value}\n")
        (folder / split).mkdir()
        for name, lines in tables.items():
            (folder / split / name).write_text("".join(lines), encoding="utf-8")
    return folder


def test_speechocean762(tmp_path: Path, paths: Paths) -> None:
    cuts = prepared("speechocean762", make_speechocean(tmp_path), paths)
    counts = {split: Counter(cut.supervisions[0].speaker for cut in found) for split, found in cuts.items()}
    assert counts["dev"] == {"0005": 2, "0010": 2}
    assert set(counts["train"]) == {f"{speaker:04d}" for speaker in range(1, 11)} - {"0005", "0010"}
    assert len(counts["test"]) == 10 and cuts["test"][0].load_audio().shape == (1, int(0.3 * RATE))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["dev_every=0"], "expected one of dev, dev_speakers and dev_every.*found none"),
        (["dev_every=1"], "leaves no speaker to train on"),
        (["dev_every=5", "dev=test"], "found dev and dev_every"),
        (["dev_every=11"], "some of the 10 speakers of 'train' for dev, found 0"),
        (["dev_every=0", "dev_speakers=['0003', '9999']"], "found '9999', which is none"),
    ],
)
def test_wrong_ways_to_hold_out_speakers(tmp_path: Path, paths: Paths, settings: list[str], message: str) -> None:
    make_speechocean(tmp_path)
    with pytest.raises(Exception, match=message):
        prepared("speechocean762", tmp_path, paths, *(f"corpus.options.{setting}" for setting in settings))


def test_an_extra_kaldi_directory(tmp_path: Path, paths: Paths) -> None:
    make_speechocean(tmp_path)
    (tmp_path / "test").rename(tmp_path / "far")
    make_speechocean(tmp_path / "other", 2)
    settings = ["corpus.options.test=other/test", "corpus.extra_tests=[far, near]", "corpus.options.extra={near: other/test}"]
    with pytest.raises(DataError, match="utterance id '500100011' stands in test and in far"):
        prepared("speechocean762", tmp_path, paths, *settings)
