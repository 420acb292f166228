from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from dropasr.errors import DataError
from dropasr.runtime.audio import AudioFile, audio_suffixes, raw_blocks

RATE = 8000


@pytest.fixture
def samples():
    return (0.1 * np.random.default_rng(0).standard_normal(RATE * 25)).astype(np.float32)


def read(audio: AudioFile) -> np.ndarray:
    return np.concatenate(list(audio.blocks()))


def test_samples_come_as_they_are_and_as_often_as_wanted(tmp_path, samples):
    soundfile.write(tmp_path / "a.flac", samples, RATE, subtype="PCM_24")
    audio = AudioFile(tmp_path / "a.flac", RATE)
    assert len(list(audio.blocks())) > 1 and audio.seconds == 25 and audio.notes == []
    assert np.abs(read(audio) - samples).max() < 1e-6 and np.array_equal(read(audio), read(audio))


def test_channels(tmp_path, samples):
    soundfile.write(tmp_path / "a.wav", np.stack([samples, -0.5 * samples, 0 * samples], axis=1), RATE, subtype="FLOAT")
    assert np.allclose(read(AudioFile(tmp_path / "a.wav", RATE)), samples / 6, atol=1e-7)
    chosen = AudioFile(tmp_path / "a.wav", RATE, channel=1)
    assert np.array_equal(read(chosen), -0.5 * samples) and chosen.notes == ["channel 1 of 3 is transcribed"]


def test_resampling_is_said(tmp_path, samples):
    soundfile.write(tmp_path / "a.wav", samples, 22050)
    audio = AudioFile(tmp_path / "a.wav", RATE)
    assert audio.notes == ["resampled from 22050 to 8000 Hz"]
    assert len(read(audio)) == -(-len(samples) * 8000 // 22050)
    soundfile.write(tmp_path / "b.wav", samples, 4000)
    assert "trained on audio that holds higher frequencies" in AudioFile(tmp_path / "b.wav", RATE).notes[0]


def test_damaged_files_are_refused_by_name(tmp_path, samples):
    soundfile.write(tmp_path / "whole.wav", samples, RATE)
    soundfile.write(tmp_path / "whole.flac", samples, RATE)
    wav, flac = (tmp_path / "whole.wav").read_bytes(), (tmp_path / "whole.flac").read_bytes()
    soundfile.write(tmp_path / "whole.ogg", samples, RATE)
    assert len(read(AudioFile(tmp_path / "whole.ogg", RATE))) == len(samples)
    ogg = (tmp_path / "whole.ogg").read_bytes()
    damaged = {
        "empty.wav": (b"", "the file is empty"),
        "notes.wav": (b"these are the notes of a meeting\n", r"something else \(text\)"),
        "noise.wav": (bytes(range(256)) * 4, "something else"),
        "header.wav": (wav[:44], "truncated|no samples"),
        "cut.wav": (wav[: len(wav) // 2], f"expected {len(samples)} samples .* truncated"),
        "head.wav": (wav[:20], "damaged or truncated"),
        "cut.ogg": (ogg[: len(ogg) // 2], "truncated"),
        "cut.flac": (flac[: len(flac) // 2], "truncated"),
        "none.wav": (wav[:40] + bytes(4), "no samples"),
    }
    for name, (data, message) in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=message) as caught:
            read(AudioFile(tmp_path / name, RATE))
        assert str(tmp_path / name) in str(caught.value)
    for name, message in (("missing.wav", "no such file"), (".", "a folder")):
        with pytest.raises(DataError, match=message):
            AudioFile(tmp_path / name, RATE)


def test_values_that_are_not_finite(tmp_path, samples):
    samples[1000] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a\.wav: .*not finite"):
        read(AudioFile(tmp_path / "a.wav", RATE))


class Trickle(io.BytesIO):
    """Gives an odd number of bytes at a time."""

    def read1(self, size: int = -1) -> bytes:
        return super().read1(min(size, 1001))


def test_raw_samples_of_standard_input(samples):
    data = (samples * 32768).astype("<i2").tobytes()
    found = np.concatenate(list(raw_blocks(Trickle(data), RATE, RATE, 0.3)))
    assert np.abs(found - samples).max() < 1e-4
    other = np.concatenate(list(raw_blocks(Trickle(data), 16000, RATE, 0.3)))
    assert len(other) == len(samples) // 2
    with pytest.raises(DataError, match="an odd number"):
        list(raw_blocks(io.BytesIO(data + b"x"), RATE, RATE, 0.3))
    with pytest.raises(DataError, match="found none"):
        list(raw_blocks(io.BytesIO(b""), RATE, RATE, 0.3))
    for head in (b"RIFF", b"fLaC", b"OggS", b"ID3\x04"):
        with pytest.raises(DataError, match="an audio file with a header"):
            list(raw_blocks(io.BytesIO(head + data), RATE, RATE, 0.3))


def test_suffixes_of_audio():
    assert audio_suffixes() >= {".wav", ".flac", ".ogg", ".mp3", ".sph"} and not audio_suffixes() & {".txt", ".json", ".raw"}
