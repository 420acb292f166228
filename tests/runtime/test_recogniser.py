"""Words, times and confidences of tones that were put together in known places."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import soundfile
from package_case import RATE, TONES, silence, speech, tone, write_package, write_speech

import dropasr
from dropasr.errors import DataError, DropasrError
from dropasr.runtime import recogniser as recogniser_module
from dropasr.runtime.audio import AudioFile
from dropasr.runtime.package import Package
from dropasr.runtime.streaming import stream

SAID = ["LOW", "HIGH", "HIGH", "LOW", "LOW"]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return write_package(tmp_path_factory.mktemp("package") / "tones")


@pytest.fixture(scope="module")
def recogniser(package):
    return dropasr.load(package)


def check_times(words, times, tolerance=0.03):
    for word, (start, end) in zip(words, times, strict=True):
        assert abs(word.start - start) <= tolerance and abs(word.end - end) <= tolerance, word


def test_words_times_and_confidences(recogniser, tmp_path):
    times = write_speech(tmp_path / "a.wav", SAID)
    found = recogniser.transcribe(tmp_path / "a.wav")
    assert [word.text for word in found.words] == SAID and found.text == " ".join(SAID)
    check_times(found.words, times)
    assert all(0.8 < word.confidence <= 1 for word in found.words), found.words
    assert found.seconds == pytest.approx(times[-1][1] + 0.3) and found.notes == []


def test_words_without_pauses_between_them(recogniser, tmp_path):
    times = write_speech(tmp_path / "a.wav", SAID, pause=0.0)
    found = recogniser.transcribe(tmp_path / "a.wav")
    assert [word.text for word in found.words] == SAID
    check_times(found.words, times)


def test_a_word_that_the_net_is_not_sure_of_has_less_confidence(recogniser, tmp_path):
    """Halfway in frequency between two phones, in a word that is forced by the other phone."""
    first, second = TONES["LOW"]
    clear, doubtful = [tone(first, 0.2), tone(second, 0.2)], [tone(first, 0.2), tone(second, 0.1), tone(950.0, 0.1)]
    soundfile.write(tmp_path / "a.wav", np.concatenate([silence(0.3), *clear, silence(0.3), *doubtful, silence(0.3)]), RATE)
    found = recogniser.transcribe(tmp_path / "a.wav")
    assert [word.text for word in found.words] == ["LOW", "LOW"]
    assert found.words[0].confidence > found.words[1].confidence + 0.01


def test_other_rates_and_channels(recogniser, tmp_path):
    samples, times = speech(SAID, rate=44100)
    other, _ = speech(["HIGH"] * 5, rate=44100)
    soundfile.write(tmp_path / "two.flac", np.stack([samples, 0.5 * other], axis=1), 44100)
    found = recogniser.transcribe(tmp_path / "two.flac", channel=0)
    assert found.text == " ".join(SAID)
    check_times(found.words, times)
    assert [note.split(" ")[0] for note in found.notes] == ["resampled", "channel"] and "44100 to 8000" in found.notes[0]
    assert recogniser.transcribe(tmp_path / "two.flac", channel=1).text == " ".join(["HIGH"] * 5)
    assert "mean of 2 channels" in recogniser.transcribe(tmp_path / "two.flac").notes[1]
    with pytest.raises(DataError, match=r"two\.flac: channel 2 was asked for, but it has 2"):
        recogniser.transcribe(tmp_path / "two.flac", channel=2)


def test_a_long_file_is_cut_into_pieces_at_pauses(recogniser, tmp_path, monkeypatch):
    said = [str(word) for word in np.random.default_rng(0).choice(["LOW", "HIGH"], 60)]
    times = write_speech(tmp_path / "a.wav", said)
    whole = recogniser.transcribe(tmp_path / "a.wav")
    monkeypatch.setattr(recogniser_module, "PIECE_SECONDS", 5.0)
    sizes = []
    decode = recogniser.search.decode
    monkeypatch.setattr(recogniser.search, "decode", lambda scores: sizes.append(len(scores)) or decode(scores))
    found = recogniser.transcribe(tmp_path / "a.wav")
    assert [word.text for word in found.words] == said
    check_times(found.words, times)
    assert found.words == whole.words
    assert max(sizes) <= 500 and len(sizes) > 8


class EverySecond:
    """An engine that computes the scores of every second frame."""

    def __init__(self, engine) -> None:
        self._engine = engine

    def scores(self, features, mean, std):
        return self._engine.scores(features, mean, std)[::2]

    def part(self, window, mean, std, states):
        scores, states = self._engine.part(window, mean, std, states)
        return scores[::2], states


def test_scores_that_frames_share(package, tmp_path, monkeypatch):
    whole = Package.read(package)
    shared = dataclasses.replace(whole, exported=dataclasses.replace(whole.exported, stride=2, shared=2))
    recogniser = recogniser_module.Recogniser(shared)
    recogniser.engine = EverySecond(recogniser.engine)
    times = write_speech(tmp_path / "a.wav", SAID * 3)
    for seconds in (40.0, 5.0):
        monkeypatch.setattr(recogniser_module, "PIECE_SECONDS", seconds)
        found = recogniser.transcribe(tmp_path / "a.wav")
        assert [word.text for word in found.words] == SAID * 3
        check_times(found.words, times, 0.04)
    samples, times = speech(SAID)
    (final,) = [result.transcript for result in stream(recogniser, iter([samples])) if result.final]
    assert final.text == " ".join(SAID)
    check_times(final.words, times, 0.04)


def test_speakers_are_normalised_together(package, tmp_path):
    """Without a prior, a file of silence and one word alone has other statistics than the speaker."""
    recogniser = dropasr.load(write_package(tmp_path / "own", prior_frames=0.0))
    names = [tmp_path / f"{number}.wav" for number in range(3)]
    for name, words in zip(names, (SAID, ["LOW"], ["HIGH"])):
        write_speech(name, words)
    together = recogniser.speaker_statistics([*names, tmp_path / "missing.wav"])
    frames = np.concatenate([np.concatenate(list(recogniser._log_mels(AudioFile(name, RATE)))) for name in names])
    mean, std = together.mean_and_std()
    assert np.allclose(mean, frames.mean(axis=0), atol=1e-4) and np.allclose(std, frames.std(axis=0), atol=1e-4)
    assert recogniser.transcribe(names[1], statistics=together).text == "LOW"


def test_streams_give_partial_and_final_results(recogniser):
    first, _ = speech(["LOW", "HIGH"])
    second, _ = speech(["HIGH", "LOW", "LOW"])
    samples = np.concatenate([first, silence(0.8), second])
    for size in (400, 1234, len(samples)):
        results = list(stream(recogniser, (samples[begin : begin + size] for begin in range(0, len(samples), size))))
        final = [result.transcript for result in results if result.final]
        assert [transcript.text for transcript in final] == ["LOW HIGH", "HIGH LOW LOW"]
        assert {result.transcript.text for result in results if not result.final} >= {"LOW", "HIGH"}
        words = [word for transcript in final for word in transcript.words]
        starts = [0.3, 1.0, *(len(first) / RATE + 0.8 + start for start in (0.3, 1.0, 1.7))]
        check_times(words, [(start, start + 0.4) for start in starts])


def test_a_stream_without_pauses_ends_segments_by_itself(recogniser, monkeypatch):
    monkeypatch.setattr("dropasr.runtime.streaming.LONGEST_SECONDS", 2.0)
    samples, _ = speech(SAID * 4)
    final = [result.transcript.text for result in stream(recogniser, iter([samples])) if result.final]
    assert len(final) > 4 and " ".join(final).split().count("LOW") >= 10


def test_audio_shorter_than_a_frame_is_refused_by_name(recogniser, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(150, np.float32), RATE)
    with pytest.raises(DataError, match=r"a\.wav: expected at least 200 samples"):
        recogniser.transcribe(tmp_path / "a.wav")


def test_silence_has_no_words(recogniser, tmp_path):
    soundfile.write(tmp_path / "noise.wav", silence(2.0), RATE)
    soundfile.write(tmp_path / "zeros.wav", np.zeros(16000, np.float32), RATE)
    assert recogniser.transcribe(tmp_path / "noise.wav").words == []
    recogniser.transcribe(tmp_path / "zeros.wav")  # digital silence is no error


def test_an_engine_that_the_package_lacks(package):
    with pytest.raises(DropasrError, match="onnx_int8"):
        dropasr.load(package, engine="onnx_int8")
    with pytest.raises(DropasrError, match="did you mean 'onnx'"):
        dropasr.load(package, engine="onx")
