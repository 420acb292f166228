from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio

from dropasr.runtime.resample import Resampler

PAIRS = [(44100, 16000), (48000, 8000), (8000, 16000), (11025, 8000), (22050, 16000), (16000, 8000), (12345, 8000)]


def resampled(samples: np.ndarray, source: int, target: int, sizes: list[int]) -> np.ndarray:
    resampler, parts, begin = Resampler(source, target), [], 0
    for size in sizes:
        parts.append(resampler.feed(samples[begin : begin + size]))
        begin += size
    return np.concatenate([*parts, resampler.feed(samples[begin:]), resampler.finish()])


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("length", [1, 100, 20_017])
def test_equals_torchaudio(source, target, length):
    samples = (0.2 * np.random.default_rng(length).standard_normal(length)).astype(np.float32)
    expected = torchaudio.functional.resample(torch.from_numpy(samples)[None], source, target)[0].numpy()
    found = resampled(samples, source, target, [])
    assert found.dtype == np.float32 and found.shape == expected.shape
    # torchaudio computes its kernel in float32, which shows where the rates have a small common divisor.
    assert np.abs(found - expected).max() < 1e-4


def test_parts_of_any_size_give_the_same():
    random = np.random.default_rng(0)
    samples = random.standard_normal(30_000).astype(np.float32)
    whole = resampled(samples, 44100, 16000, [])
    for _ in range(5):
        sizes = random.integers(0, 700, 30).tolist()
        assert np.array_equal(resampled(samples, 44100, 16000, sizes), whole)


def test_tones_below_the_cut_off_pass_and_those_above_do_not():
    seconds = np.arange(48000) / 48000
    kept, removed = (np.sin(2 * np.pi * frequency * seconds).astype(np.float32) for frequency in (1000, 6000))
    low, high = (resampled(tone, 48000, 8000, [])[100:-100] for tone in (kept, removed))
    expected = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)[100:-100]
    assert np.abs(low - expected).max() < 0.01 and np.abs(high).max() < 0.01
