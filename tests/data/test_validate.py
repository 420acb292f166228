"""Each defect of a corpus is found, and named with its id, what was expected, what was found, and the remedy."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet

from dropasr.config import CorpusConfig
from dropasr.data.audio import declared_wav_samples
from dropasr.data.validate import Split, check_split, check_splits, model_frames, read_words, too_short, with_frames
from dropasr.errors import DataError

RATE = 8000


def write_wav(path: Path, samples: int = 4000, rate: int = RATE, subtype: str = "PCM_16", channels: int = 1) -> Path:
    noise = np.random.default_rng(samples).uniform(-0.5, 0.5, (samples, channels))
    soundfile.write(path, noise, rate, subtype=subtype, format="WAV")
    return path


class Corpus:
    """Three utterances, each a recording of its own, by two speakers."""

    def __init__(self, folder: Path) -> None:
        self.recordings, self.supervisions = [], []
        for number, (speaker, text) in enumerate((("ann", "YES NO"), ("bob", "NO"), ("ann", "NO YES YES")), 1):
            path = write_wav(folder / f"utt{number}.wav", 4000 + number)
            self.recordings.append(Recording.from_file(path))
            self.supervisions.append(
                SupervisionSegment(f"utt{number}", f"utt{number}", 0.0, (4000 + number) / RATE, 0, text, speaker=speaker)
            )

    def check(self, words: set[str] | None = None, nj: int = 1, name: str = "train", **options: object) -> Split:
        options = {"name": "tiny", "prepare": "lhotse:yesno", "sample_rate": RATE, **options}
        sets = RecordingSet.from_recordings(self.recordings), SupervisionSet.from_segments(self.supervisions)
        return check_split(name, *sets, CorpusConfig(**options), words, "<unk>", nj)

    def refused(self, *parts: str, words: set[str] | None = None, **options: object) -> None:
        with pytest.raises(DataError) as caught:
            self.check(words, **options)
        for part in parts:
            assert part in str(caught.value)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def test_a_good_corpus_becomes_sorted_cuts_and_counts(corpus: Corpus) -> None:
    corpus.supervisions.reverse()
    split = corpus.check(words={"YES", "NO"})
    assert [cut.id for cut in split.cuts] == ["utt1", "utt2", "utt3"]
    assert split.sentences() == ["YES NO", "NO", "NO YES YES"]
    report = split.report()
    assert (report["seen"], report["utterances"], report["words"], report["speakers"]) == (3, 3, 6, 2)
    assert report["hours"] == pytest.approx((4001 + 4002 + 4003) / RATE / 3600, abs=1e-6)
    assert split.cuts[1].load_audio().shape == (1, 4002)


def test_missing_wav(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "utt2.wav").unlink()
    corpus.refused("'utt2'", "expected an audio file, found none", "Restore", str(tmp_path / "utt2.wav"))


@pytest.mark.parametrize("nj", [1, 2])
def test_truncated_wav_is_found_though_its_manifest_agrees_with_what_is_left(corpus: Corpus, tmp_path: Path, nj: int, monkeypatch) -> None:
    monkeypatch.setattr("dropasr.data.audio._FEW", 0)
    path = tmp_path / "utt2.wav"
    path.write_bytes(path.read_bytes()[:-2000])
    corpus.recordings[1] = Recording.from_file(path)
    corpus.supervisions[1].duration = corpus.recordings[1].duration
    corpus.refused("'utt2'", "expected 4002 samples as its header says, found 3002", "truncated", "intact copy", nj=nj)


def test_file_that_is_no_audio(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "utt3.wav").write_bytes(b"not audio at all")
    corpus.refused("'utt3'", "cannot be decoded", "Replace")


def test_wrong_sample_rate(corpus: Corpus) -> None:
    corpus.refused("'utt1'", "expected 16000 Hz (corpus.sample_rate), found 8000 Hz", "2 more recordings", sample_rate=16000)


def test_manifest_with_another_rate_or_length_than_the_file(corpus: Corpus, tmp_path: Path) -> None:
    source = [AudioSource("file", [0], str(tmp_path / "utt1.wav"))]
    good = corpus.recordings[0]
    corpus.recordings[0] = Recording("utt1", source, RATE, 5000, 5000 / RATE)
    corpus.refused("'utt1'", "expected 5000 samples as its manifest says, found 4001")
    corpus.recordings[0] = Recording("utt1", source, 16000, 8002, 8002 / 16000)
    corpus.refused("'utt1'", "expected 16000 Hz as its manifest says, found 8000 Hz")
    corpus.recordings[0] = good
    corpus.check()


def test_command_in_place_of_a_file(corpus: Corpus) -> None:
    corpus.recordings[0].sources[0] = AudioSource("command", [0], "sox a.wav -t wav -")
    corpus.refused("'utt1'", "found a command", "sox a.wav")


def test_repeated_and_unmatched_ids(corpus: Corpus) -> None:
    first = corpus.supervisions[0]
    corpus.supervisions.append(first)
    corpus.refused("utterance id 'utt1' stands 2 times")
    corpus.supervisions.pop()
    corpus.recordings.append(corpus.recordings[2])
    corpus.refused("recording id 'utt3' stands 2 times")
    corpus.recordings.pop()
    corpus.recordings.pop()
    corpus.refused("utterance 'utt3'", "recording 'utt3' is not among the 2 recordings")
    corpus.supervisions.pop()
    corpus.supervisions.pop()
    corpus.refused("recording 'utt2' has no transcript")


def test_segment_outside_its_recording(corpus: Corpus) -> None:
    corpus.supervisions[0].duration = 0.6
    corpus.refused("'utt1'", "expected a time within 0 to 0.500 s", "found 0.000 to 0.600 s")
    for wrong in (0.03, float("nan")):
        corpus.supervisions[0].duration = wrong
        corpus.refused("'utt1'", "of at least 0.05 s", f"found 0.000 to {wrong:.3f} s")
    corpus.supervisions[0].duration, corpus.supervisions[0].channel = 0.5, 1
    corpus.refused("'utt1'", "expected a channel of [0]", "found 1")


def test_empty_transcript_policies(corpus: Corpus) -> None:
    corpus.supervisions[1].text = "  "
    corpus.refused("'utt2'", "empty transcript", "corpus.empty_transcripts")
    corpus.refused("1 of 3 utterances (33.3 %)", "at most 1.0 %", "'utt2': empty transcript", empty_transcripts="drop")
    split = corpus.check(empty_transcripts="drop", max_dropped=0.4)
    assert split.report()["dropped"] == [{"id": "utt2", "reason": "empty transcript"}]
    assert [cut.id for cut in split.cuts] == ["utt1", "utt3"]


def test_unknown_word_policies(corpus: Corpus) -> None:
    corpus.supervisions[2].text = "NO MAYBE YES MAYBE"
    known = {"YES", "NO"}
    corpus.refused("'utt3'", "the word 'MAYBE' is not among the 2 words of the lexicon", "corpus.unknown_words", words=known)
    mapped = corpus.check(known, unknown_words="map")
    assert mapped.sentences()[2] == "NO <unk> YES <unk>" and mapped.report()["mapped_words"] == {"MAYBE": 2}
    corpus.supervisions[2].text = "NO MAYBE YES MAYBE"
    dropped = corpus.check(known, unknown_words="drop", max_dropped=0.5)
    assert [cut.id for cut in dropped.cuts] == ["utt1", "utt2"] and dropped.dropped[0]["id"] == "utt3"
    assert len(corpus.check(None).cuts) == 3


@pytest.mark.parametrize("policy", ["map", "drop"])
@pytest.mark.parametrize("name", ["dev", "test", "far"])
def test_references_keep_every_word(corpus: Corpus, policy: str, name: str) -> None:
    corpus.supervisions[2].text = "NO MAYBE YES MAYBE"
    split = corpus.check({"YES", "NO"}, name=name, unknown_words=policy)
    assert split.sentences()[2] == "NO MAYBE YES MAYBE" and split.dropped == []
    assert split.report()["unknown_words"] == {"MAYBE": 2} and split.report()["mapped_words"] == {}


def test_text_rules_come_before_the_policies(corpus: Corpus) -> None:
    corpus.supervisions[0].text, corpus.supervisions[1].text = "Yes,  no!", "[noise]"
    rules = {"case": "upper", "remove": ",!", "remove_words": ["[NOISE]"]}
    split = corpus.check({"YES", "NO"}, text=rules, empty_transcripts="drop", max_dropped=0.5)
    assert split.sentences() == ["YES NO", "NO YES YES"]
    assert split.report()["normalised_transcripts"] == 2 and split.dropped == [{"id": "utt2", "reason": "empty transcript"}]
    corpus.supervisions[1].text = "no"
    corpus.refused("'utt2'", "'no' is not among", words={"YES", "NO"})


def test_another_sample_rate_is_refused_or_resampled(corpus: Corpus) -> None:
    corpus.refused("expected 16000 Hz", "found 8000 Hz", "corpus.resample", sample_rate=16000)
    cut = corpus.check(sample_rate=16000, resample=True).cuts[0]
    assert (cut.sampling_rate, cut.num_samples, cut.load_audio().shape) == (16000, 8002, (1, 8002))
    assert cut.duration == pytest.approx(4001 / RATE)


@pytest.mark.parametrize(
    ("seconds", "subsampling", "expected"), [(1.0, 1, 100), (1.0, 3, 34), (0.99, 3, 33), (0.0149, 1, 1), (0.015, 3, 1)]
)
def test_frames_of_the_model(seconds: float, subsampling: int, expected: int) -> None:
    assert model_frames(seconds, 0.01, subsampling) == expected


def test_utterances_too_short_for_their_transcripts(corpus: Corpus) -> None:
    cuts = corpus.check().cuts
    triples = list(with_frames(cuts, 0.1))
    assert triples == [("utt1", ["YES", "NO"], 5), ("utt2", ["NO"], 5), ("utt3", ["NO", "YES", "YES"], 5)]

    def config(**options: object) -> CorpusConfig:
        return CorpusConfig(name="tiny", prepare="lhotse:yesno", **options)

    def needed(words: list[str]) -> int:
        return 2 * len(words)

    assert too_short("train", triples, len, config()) == []
    dropped = too_short("train", iter(triples), needed, config(max_dropped=0.4))
    assert dropped == [{"id": "utt3", "reason": "5 model frames for a transcript that needs 6"}]
    with pytest.raises(DataError, match=r"train: 1 of 3 utterances .33.3 %.*corpus.max_dropped.*'utt3'.*frame subsampling"):
        too_short("train", triples, needed, config())
    with pytest.raises(DataError, match=r"dev: utterance 'utt3': 5 model frames .* needs 6.*corpus.too_short: drop"):
        too_short("dev", triples, needed, config(too_short="error"))
    with pytest.raises(DataError, match="all 3 utterances are too short"):
        too_short("train", triples, lambda words: 9, config(max_dropped=1.0))


def test_missing_speaker_and_the_exemption(corpus: Corpus) -> None:
    for supervision in corpus.supervisions:
        supervision.speaker = None
    corpus.refused("'utt1'", "expected a speaker, found none", "corpus.one_speaker")
    assert corpus.check(one_speaker=True).report()["speakers"] == 1


def test_speaker_in_two_splits(corpus: Corpus) -> None:
    train, test = corpus.check(), corpus.check()
    train.name, test.name = "train", "test"
    train.cuts, test.cuts = train.cuts[:1], test.cuts[2:]
    with pytest.raises(DataError, match="speaker 'ann' stands in train .utterance 'utt1'. and in test .utterance 'utt3'."):
        check_splits([train, test], one_speaker=False)
    check_splits([train, test], one_speaker=True)
    test.name = "far"
    with pytest.raises(DataError, match="'ann' stands in train .* and in far"):
        check_splits([train, test], one_speaker=False)
    train.name = "test"  # two tests may share speakers
    check_splits([train, test], one_speaker=False)
    train.name, test.name = "train", "test"
    test.cuts = corpus.check().cuts[1:2]
    check_splits([train, test], one_speaker=False)
    with pytest.raises(DataError, match="corpus.one_speaker is true, but 2 speakers"):
        check_splits([train, test], one_speaker=True)
    with pytest.raises(DataError, match="utterance id 'utt1' stands in train and in test"):
        check_splits([train, Split("test", 1, train.cuts)], one_speaker=True)


@pytest.mark.parametrize(("subtype", "channels"), [("PCM_16", 1), ("PCM_16", 2), ("PCM_24", 1), ("FLOAT", 1), ("PCM_U8", 1), ("ULAW", 1)])
def test_declared_length_is_that_of_soundfile_and_stays_when_bytes_are_lost(tmp_path: Path, subtype: str, channels: int) -> None:
    path = write_wav(tmp_path / "x.wav", 1234, subtype=subtype, channels=channels)
    assert declared_wav_samples(path) == soundfile.info(path).frames == 1234
    path.write_bytes(path.read_bytes()[:-50])
    assert declared_wav_samples(path) == 1234


def test_streamed_header_and_other_formats_declare_nothing(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "x.wav", 100)
    data = bytearray(path.read_bytes())
    for size in (0, 0xFFFFFFFF, 0x7FFFFFFF):
        data[data.index(b"data") + 4 : data.index(b"data") + 8] = struct.pack("<I", size)
        path.write_bytes(data)
        assert declared_wav_samples(path) is None
    soundfile.write(tmp_path / "x.flac", np.zeros(100), RATE)
    assert declared_wav_samples(tmp_path / "x.flac") is None


def test_words_of_a_lexicon(tmp_path: Path) -> None:
    (tmp_path / "lexicon.txt").write_text("A AX\nA EY\n\nB B IY\n", encoding="utf-8")
    assert read_words(tmp_path / "lexicon.txt") == {"A", "B"} == read_words({"A": "AX", "B": "B IY"})
    with pytest.raises(DataError, match="no such file"):
        read_words(tmp_path / "other.txt")
    (tmp_path / "latin1.txt").write_text("É EY\n", encoding="latin-1")
    with pytest.raises(DataError, match="latin1.txt: expected UTF-8 text"):
        read_words(tmp_path / "latin1.txt")
