"""Real corpora, a Kaldi directory, and every way in which a corpus is missing or its options are wrong."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from lhotse.kaldi import load_kaldi_data_dir

from dropasr.config import REPOSITORY, Config, CorpusConfig, load_config
from dropasr.data import corpora as stage
from dropasr.data import kaldi_dir
from dropasr.errors import ConfigError, DataError
from dropasr.paths import Paths

DIGITS = "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1)


def configured(name: str, corpus_dir: Path | None, *settings: str) -> Config:
    return load_config(REPOSITORY / "conf" / f"{name}.yaml", corpus_dir=str(corpus_dir) if corpus_dir else None, settings=list(settings))


def report(paths: Paths) -> dict:
    return json.loads((paths.manifests / "report.json").read_text(encoding="utf-8"))


def test_the_options_of_every_shipped_corpus_are_valid() -> None:
    files = sorted((REPOSITORY / "conf").glob("*.yaml"))
    assert {path.stem for path in files} >= {"synth_commands", "fsdd", "yesno", "kaldi_dir"}
    for path in files:
        stage.parse_corpus_options(load_config(path).corpus)


@pytest.mark.parametrize("inside", [".", "waves_yesno"])
def test_yesno(corpora: Path, paths: Paths, inside: str) -> None:
    stage.prepare(configured("yesno", corpora / inside), paths, nj=1)
    cuts = {split: list(CutSet.from_file(paths.cuts(split))) for split in ("train", "dev", "test")}
    names = sorted(path.stem for path in (corpora / "waves_yesno").glob("*.wav"))
    assert [cut.id for cut in cuts["train"]] == names[::2][:24]
    assert [cut.id for cut in cuts["dev"]] == names[::2][24:]
    assert [cut.id for cut in cuts["test"]] == names[1::2]
    for cut in cuts["test"]:
        assert cut.supervisions[0].text.split() == ["YES" if digit == "1" else "NO" for digit in cut.id.split("_")]
        assert cut.supervisions[0].speaker == "yesno" and cut.sampling_rate == 8000
    assert np.array_equal(
        cuts["dev"][0].load_audio()[0], soundfile.read(corpora / "waves_yesno" / f"{cuts['dev'][0].id}.wav", dtype="float32")[0]
    )
    counts = report(paths)
    assert counts["one_speaker"] is True and counts["splits"]["test"]["words"] == 240 and counts["splits"]["dev"]["words"] == 48


def test_yesno_with_a_missing_recording_says_what_lhotse_expects(corpora: Path, paths: Paths, tmp_path: Path) -> None:
    shutil.copytree(corpora / "waves_yesno", tmp_path / "waves_yesno")
    next((tmp_path / "waves_yesno").glob("*.wav")).unlink()
    with pytest.raises(DataError, match=r"prepare_yesno refused .*waves_yesno.*== 60.*expected .*x_x_x_x_x_x_x_x.wav"):
        stage.prepare(configured("yesno", tmp_path), paths, nj=1)


def test_fsdd_connected_digits_use_each_clip_once(corpora: Path, paths: Paths) -> None:
    root = corpora / "free-spoken-digit-dataset"
    stage.prepare(configured("fsdd", root), paths, nj=1)
    cuts = {split: list(CutSet.from_file(paths.cuts(split))) for split in ("train", "dev", "test")}
    for split, speakers, passes in (("train", 3, 2), ("dev", 1, 1), ("test", 2, 1)):
        words = Counter(word for cut in cuts[split] for word in cut.supervisions[0].text.split())
        assert words == {digit: 50 * speakers * passes for digit in DIGITS}
        assert len({cut.supervisions[0].speaker for cut in cuts[split]}) == speakers
    cut = next(cut for cut in cuts["dev"] if len(cut.supervisions[0].text.split()) > 2)
    samples, _ = soundfile.read(cut.recording.sources[0].source, dtype="int16")
    at = 0
    for word in cut.supervisions[0].text.split():
        clips = (root / "recordings").glob(f"{DIGITS.index(word)}_lucas_*.wav")
        places = [samples.tobytes().find(soundfile.read(clip, dtype="int16")[0].tobytes(), 2 * at) for clip in clips]
        found = min(place for place in places if place >= 0)
        assert found // 2 - at >= 0.05 * 8000
        at = found // 2


def test_fsdd_isolated_digits_are_the_clips(corpora: Path, paths: Paths) -> None:
    stage.prepare(configured("fsdd", corpora, "corpus.options.mode=isolated"), paths, nj=1)
    cuts = list(CutSet.from_file(paths.cuts("test")))
    assert len(cuts) == 1000
    for cut in cuts[::97]:
        digit, speaker, _ = Path(cut.recording.sources[0].source).stem.split("_")
        assert (cut.supervisions[0].text, cut.supervisions[0].speaker) == (DIGITS[int(digit)], speaker)


def test_fsdd_with_an_unknown_or_shared_speaker(corpora: Path, paths: Paths) -> None:
    with pytest.raises(DataError, match="speaker 'lukas' .dev_speakers. has no clips; found george, jackson, lucas"):
        stage.prepare(configured("fsdd", corpora, "corpus.options.dev_speakers=[lukas]"), paths, nj=1)
    with pytest.raises(DataError, match="'theo'"):
        stage.prepare(configured("fsdd", corpora, "corpus.options.dev_speakers=[theo]", "corpus.options.mode=isolated"), paths, nj=1)


def test_a_word_outside_the_lexicon_stops_the_stage(corpora: Path, paths: Paths) -> None:
    config = configured("yesno", corpora)
    config = config.model_copy(update={"lang": config.lang.model_copy(update={"lexicon": {"YES": "K EH N"}})})
    with pytest.raises(DataError, match="the word 'NO' is not among the 1 words"):
        stage.prepare(config, paths, nj=1)


def test_with_a_dictionary_no_word_is_unknown_yet(corpora: Path, paths: Paths, caplog) -> None:
    caplog.set_level("INFO")
    config = configured("yesno", corpora, "lang.dictionary=cmudict", "corpus.unknown_words=drop")
    config = config.model_copy(update={"lang": config.lang.model_copy(update={"lexicon": {"YES": "K EH N"}})})
    stage.prepare(config, paths, nj=1)
    assert report(paths)["splits"]["train"]["dropped"] == [] and report(paths)["splits"]["test"]["unknown_words"] == {}
    assert "corpus.unknown_words drop changes nothing: lang.dictionary" in caplog.text


def test_references_with_words_outside_the_lexicon_are_told(corpora: Path, paths: Paths, caplog) -> None:
    config = configured("yesno", corpora, "corpus.unknown_words=map")
    config = config.model_copy(update={"lang": config.lang.model_copy(update={"lexicon": {"YES": "K EH N"}})})
    stage.prepare(config, paths, nj=1)
    splits = report(paths)["splits"]
    assert splits["train"]["mapped_words"]["NO"] > 0 and splits["train"]["unknown_words"] == {}
    assert splits["test"]["unknown_words"]["NO"] > 0 and splits["test"]["mapped_words"] == {}
    assert f"test: {splits['test']['unknown_words']['NO']} words (1 different, such as NO) are not in the lexicon" in caplog.text


def test_an_extra_test_that_the_corpus_does_not_have(corpora: Path, paths: Paths) -> None:
    with pytest.raises(ConfigError, match="has no part 'far' .far."):
        stage.prepare(configured("yesno", corpora, "corpus.extra_tests=[far]"), paths, nj=1)
    with pytest.raises(DataError, match="expected the splits train, dev, test, far, found no far"):
        stage.prepare(configured("fsdd", corpora, "corpus.extra_tests=[far]", "corpus.options.mode=isolated"), paths, nj=1)


def test_missing_corpora(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="git clone https://github.com/Jakobovski"):
        stage.prepare(configured("fsdd", None), paths, nj=1)
    with pytest.raises(DataError, match="DIGIT_SPEAKER_INDEX.wav.*git clone"):
        stage.prepare(configured("fsdd", tmp_path), paths, nj=1)
    with pytest.raises(DataError, match="nowhere', which is no folder"):
        stage.prepare(configured("yesno", tmp_path / "nowhere"), paths, nj=1)
    with pytest.raises(DataError, match="made on the spot"):
        stage.prepare(configured("synth_commands", tmp_path), paths, nj=1)

    def offline(target_dir: Path) -> Path:
        raise URLError("no route to host")

    monkeypatch.setattr("lhotse.recipes.download_yesno", offline)
    with pytest.raises(DataError, match="download_yesno.*no route to host.*--corpus-dir"):
        stage.prepare(configured("yesno", None), paths, nj=1)


def test_a_download_is_prepared_from_where_lhotse_put_it(corpora: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lhotse.recipes.download_yesno", lambda target_dir: shutil.copytree(corpora / "waves_yesno", target_dir / "waves_yesno")
    )
    stage.prepare(configured("yesno", None), paths, nj=1)
    cut = next(iter(CutSet.from_file(paths.cuts("test"))))
    assert Path(cut.recording.sources[0].source).parent == (paths.corpus / "waves_yesno").resolve()


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        ("lhotse:yesnoo", {}, "has no prepare_yesnoo .did you mean 'yesno'?"),
        ("local/prepare_fsd.py", {}, "did you mean 'local/prepare_fsdd.py'?"),
        ("local/prepare_fsdd.py", {"digit_low": 3}, "unknown key 'digit_low' .did you mean 'digits_low'?"),
        ("local/prepare_fsdd.py", {"digits_low": 9}, "digits_low is 9, above digits_high 7"),
        ("local/prepare_synth_commands.py", {"snr_low": 30}, "snr_low is 30.*, above snr_high 15"),
        ("lhotse:yesno", {"dev_utterance": 3}, "did you mean 'dev_utterances'?"),
    ],
)
def test_wrong_preparation(paths: Paths, tmp_path: Path, prepare: str, options: dict, message: str) -> None:
    corpus = CorpusConfig(name="x", prepare=prepare, corpus_dir=str(tmp_path), options=options)
    with pytest.raises(ConfigError, match=message):
        stage.prepare(Config(corpus=corpus), paths, nj=1)


def test_a_script_without_its_definitions(paths: Paths, tmp_path: Path) -> None:
    script = tmp_path / "prepare_empty.py"
    script.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected a definition of `PrepareOptions`"):
        stage.prepare(Config(corpus=CorpusConfig(name="x", prepare=str(script))), paths, nj=1)


def make_kaldi_dir(folder: Path, speaker: str, segments: bool) -> Path:
    folder.mkdir(parents=True)
    for name, seconds in (("rec1", 2.0), ("rec2", 1.5)):
        noise = np.random.default_rng(int(10 * seconds)).uniform(-0.3, 0.3, int(8000 * seconds))
        soundfile.write(folder / f"{speaker}-{name}.wav", noise, 8000)
    table = {"wav.scp": [f"{speaker}-{name} {folder}/{speaker}-{name}.wav" for name in ("rec1", "rec2")]}
    ids = [f"{speaker}-rec1", f"{speaker}-rec2"]
    if segments:
        ids = [f"{speaker}-a", f"{speaker}-b", f"{speaker}-c"]
        times = [f"{speaker}-rec1 0.25 1.0", f"{speaker}-rec1 1.0 -1", f"{speaker}-rec2 0 1.5"]
        table["segments"] = [f"{utterance} {time}" for utterance, time in zip(ids, times)]
    table["text"] = [f"{utterance} YES NO" for utterance in ids]
    table["utt2spk"] = [f"{utterance} {speaker}" for utterance in ids]
    for name, lines in table.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("segments", [False, True])
def test_kaldi_dir_is_read_as_lhotse_reads_it(tmp_path: Path, segments: bool) -> None:
    folder = make_kaldi_dir(tmp_path / "train", "ann", segments)
    recordings, supervisions = kaldi_dir.load(folder)
    expected_recordings, expected_supervisions, _ = load_kaldi_data_dir(folder, 8000)
    assert [recording.to_dict() for recording in recordings] == [recording.to_dict() for recording in expected_recordings]
    assert [item.to_dict() for item in supervisions] == [item.to_dict() for item in expected_supervisions]


def test_kaldi_dirs_become_cuts(tmp_path: Path, paths: Paths) -> None:
    for split, speaker in (("train", "ann"), ("dev", "bob"), ("test", "cem")):
        make_kaldi_dir(tmp_path / "kaldi" / split, speaker, segments=True)
    stage.prepare(configured("kaldi_dir", tmp_path / "kaldi", "corpus.sample_rate=8000"), paths, nj=2)
    cuts = list(CutSet.from_file(paths.cuts("dev")))
    assert [(cut.id, cut.start, cut.duration) for cut in cuts] == [("bob-a", 0.25, 0.75), ("bob-b", 1.0, 1.0), ("bob-c", 0.0, 1.5)]
    whole, _ = soundfile.read(tmp_path / "kaldi" / "dev" / "bob-rec1.wav", dtype="float32")
    assert np.array_equal(cuts[0].load_audio()[0], whole[2000:8000])
    assert cuts[0].supervisions[0].start == 0 and cuts[0].supervisions[0].speaker == "bob"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("wav.scp", "ann-rec1 ", "ann-rec1 sox a.flac -t wav - | #", "expected an audio file"),
        ("wav.scp", "ann-rec1.wav", "ann-rec1.wav |", "'ann-rec1': expected the path of a file, found a pipe"),
        ("wav.scp", "ann-rec2.wav", "gone.wav", "'ann-rec2': expected an audio file, found none at .*gone.wav"),
        ("text", "ann-a YES NO\n", "", "'ann-a' stands there, but not in .*text"),
        ("utt2spk", "ann-c ann\n", "ann-c ann\nann-d ann\n", "'ann-d' stands there, but not in .*segments"),
        ("utt2spk", "ann-c ann\n", "ann-c ann\nann-c ann\n", "line 4: 'ann-c' stands twice"),
        ("segments", "0.25 1.0", "0.25 one", "'ann-a': expected a time in seconds, found 'one'"),
        ("segments", "0.25 1.0", "0.25", "'ann-a': expected `RECORDING START END`"),
        ("segments", "ann-b ann-rec1", "ann-b ann-rec9", "'ann-b': the recording 'ann-rec9' is not in wav.scp"),
    ],
)
def test_defects_of_a_kaldi_dir(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    folder = make_kaldi_dir(tmp_path / "train", "ann", segments=True)
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        kaldi_dir.load(folder)


def test_a_kaldi_dir_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder. Expected a Kaldi data directory"):
        kaldi_dir.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="wav.scp: no such file"):
        kaldi_dir.load(tmp_path)
