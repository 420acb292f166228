"""The front-end without torch against the one that training uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from exported_case import card

from dropasr.config import FeaturesConfig
from dropasr.data.features import FRAME_LENGTH, log_mel, make_extractor
from dropasr.data.normalisation import Moments, moments
from dropasr.errors import DataError
from dropasr.runtime.frontend import STREAM_MEMORY_FRAMES, STREAM_PRIOR_FRAMES, LogMel, Statistics, stream_statistics

TOLERANCE = 1e-3


def options(**changes: float) -> tuple[FeaturesConfig, dict[str, float]]:
    config = FeaturesConfig(**changes)
    names = ("num_mel_bins", "frame_shift", "low_freq", "high_freq")
    return config, {**{name: getattr(config, name) for name in names}, "frame_length": FRAME_LENGTH}


def both(samples: np.ndarray, rate: int, sizes: list[int] | None = None, **changes: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-mels as training extracts them, and without torch, fed in parts of `sizes`."""
    config, features = options(**changes)
    extractor, parts, begin = LogMel(features, rate), [], 0
    for size in sizes or []:
        parts.append(extractor.feed(samples[begin : begin + size]))
        begin += size
    parts += [extractor.feed(samples[begin:]), extractor.finish()]
    return log_mel(make_extractor(config, rate), samples, rate), np.concatenate(parts)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("length", [0.025, 0.0257, 0.05, 1.0, 1.2345])
def test_log_mels_equal_those_of_training_on_noise(rate, length):
    samples = (0.1 * np.random.default_rng(1).standard_normal(int(length * rate))).astype(np.float32)
    expected, found = both(samples, rate)
    assert found.shape == expected.shape and np.abs(found - expected).max() < TOLERANCE


def test_log_mels_equal_those_of_training_with_other_options():
    samples = (0.1 * np.random.default_rng(2).standard_normal(16000)).astype(np.float32)
    expected, found = both(samples, 16000, num_mel_bins=80, low_freq=60.0, high_freq=7000.0, frame_shift=0.0125)
    assert found.shape == expected.shape and np.abs(found - expected).max() < TOLERANCE


def test_log_mels_equal_those_of_training_on_digital_silence_and_full_scale():
    samples = np.concatenate([np.zeros(4000, np.float32), np.sign(np.random.default_rng(5).standard_normal(4000)).astype(np.float32)])
    expected, found = both(samples, 8000)
    assert np.abs(found - expected).max() < TOLERANCE
    assert found[:40].min() == pytest.approx(float(np.log(np.finfo(np.float32).eps)), abs=1e-5)


def test_log_mels_equal_those_of_training_on_real_speech(corpora: Path):
    names = sorted(corpora.glob("free-spoken-digit-dataset/recordings/*.wav"))[::150]
    assert len(names) >= 10
    for name in [*names, next(iter(sorted(corpora.glob("LibriSpeech/*/*/*/*.flac"))))]:
        samples, rate = soundfile.read(name, dtype="float32")
        expected, found = both(samples, rate)
        assert found.shape == expected.shape and np.abs(found - expected).max() < TOLERANCE, name


def test_parts_of_any_size_give_the_same_frames():
    random = np.random.default_rng(3)
    samples = random.standard_normal(9000).astype(np.float32)
    _, whole = both(samples, 8000)
    for size in (1, 79, 2000):
        assert np.array_equal(both(samples[:9000], 8000, [size] * (9000 // size))[1], whole)


def test_audio_shorter_than_a_frame():
    extractor = LogMel(options()[1], 8000)
    extractor.feed(np.zeros(199, np.float32))
    with pytest.raises(DataError, match="at least 200 samples"):
        extractor.finish()


def exported(prior_frames: float):
    return card(normalisation={"kind": "speaker", "prior_frames": prior_frames, "mean": [1.5, 0.25], "std": [2.0, 0.5]})


@pytest.mark.parametrize("prior_frames", [0.0, 50.0])
def test_statistics_are_those_of_training(prior_frames):
    frames = np.random.default_rng(4).normal([3.0, -1.0], [1.0, 4.0], (200, 2)).astype(np.float32)
    prior = Moments(1.0, np.array([1.5, 0.25]), np.array([4.0, 0.25]))
    mean, std = moments([frames]).smoothed(prior, prior_frames).mean_and_std()
    found, other = Statistics(exported(prior_frames)), Statistics(exported(prior_frames))
    for part in np.split(frames[:120], [0, 1, 50]):
        found.add(part)
    other.add(frames[120:])
    found.join(other)
    assert np.allclose(found.mean_and_std(), (mean, std), atol=1e-6)


def test_statistics_before_anything_was_heard_are_those_of_the_training_set():
    assert np.allclose(Statistics(exported(0.0)).mean_and_std(), ([1.5, 0.25], [2.0, 0.5]))


def test_streams_begin_with_the_prior_and_forget():
    found = stream_statistics(exported(0.0))
    found.add(np.full((100, 2), 9.0, np.float32))
    expected = (100 * 9.0 + STREAM_PRIOR_FRAMES * np.array([1.5, 0.25])) / (100 + STREAM_PRIOR_FRAMES)
    assert np.allclose(found.mean_and_std()[0], expected)
    for _ in range(20):
        found.add(np.full((1000, 2), 9.0, np.float32))
    for _ in range(60):
        found.add(np.full((100, 2), -9.0, np.float32))
    # After as many frames as it remembers, less than half of the mean is what was heard before.
    assert STREAM_MEMORY_FRAMES == 6000 and (found.mean_and_std()[0] < 0).all()
