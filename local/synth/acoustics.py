"""Rooms and noises: what lies between a clean voice and a microphone. All levels in dB, all randomness from the caller's generator."""

from __future__ import annotations

import numpy as np

_SPEED = 13.8155
"""ln(10^6): energy falls by 60 dB over the reverberation time."""


def _fast_length(length: int) -> int:
    """The next length that is a product of a power of two and 1, 3, 5 or 9, where the FFT is quick."""
    power = 1 << max(length - 1, 1).bit_length()
    return min(size for size in (power, power * 3 // 4, power * 5 // 8, power * 9 // 16) if size >= length)


def trim(samples: np.ndarray, padding: int, threshold: float = 0.01) -> np.ndarray:
    """Cut leading and trailing samples below `threshold` of the peak, but for `padding` samples; `(S,)` float32."""
    loud = np.flatnonzero(np.abs(samples) > threshold * np.abs(samples).max(initial=0.0))
    if len(loud) == 0:
        return samples
    inside = samples[max(0, loud[0] - padding) : loud[-1] + 1 + padding]
    before, after = max(0, padding - loud[0]), max(0, padding - (len(samples) - 1 - loud[-1]))
    return np.pad(inside, (before, after))


def power(samples: np.ndarray) -> float:
    """Mean square."""
    return float(np.mean(np.square(samples, dtype=np.float64)))


def room(generator: np.random.Generator, sample_rate: int, reverberation: float, direct_to_reverberant: float) -> np.ndarray:
    """Impulse response `(S,)` of a room: the direct path, then noise that falls by 60 dB within `reverberation` seconds.

    The energy of the direct path is `direct_to_reverberant` dB above that of the rest (Polack's model of late reverberation, 1988).
    """
    length = int(reverberation * sample_rate)
    time = np.arange(length) / sample_rate
    tail = generator.standard_normal(length) * np.exp(-0.5 * _SPEED * time / reverberation)
    tail[: int(0.002 * sample_rate)] = 0
    tail *= np.sqrt(10 ** (-direct_to_reverberant / 10) / np.sum(tail**2))
    tail[0] = 1.0
    return tail


def convolve(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """`samples` `(S,)` heard through `response`, cut to S samples."""
    size = _fast_length(len(samples) + len(response) - 1)
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]


def coloured_noise(generator: np.random.Generator, length: int, slope: float) -> np.ndarray:
    """Noise `(length,)` whose power falls as `frequency^-slope`: 0 white, 1 pink, 2 brown."""
    size = _fast_length(length)
    spectrum = np.fft.rfft(generator.standard_normal(size))
    # Flat below 1/500 of the sampling rate, so that brown noise does not spend its power on what no filterbank hears.
    frequency = np.maximum(np.arange(len(spectrum)), size / 500)
    return np.fft.irfft(spectrum * frequency ** (-0.5 * slope), size)[:length]


def babble(generator: np.random.Generator, length: int, clips: list[np.ndarray], talkers: int) -> np.ndarray:
    """Several talkers at once `(length,)`: clips of equal power, each started anywhere and repeated."""
    total = np.zeros(length)
    for _ in range(talkers):
        clip = clips[generator.integers(len(clips))]
        total += np.take(clip, np.arange(length) + generator.integers(len(clip)), mode="wrap") / np.sqrt(power(clip))
    return total


def mix(speech: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """`speech` plus `noise`, scaled so that the mean powers of the two are `snr` dB apart."""
    return speech + noise * np.sqrt(power(speech) / power(noise) * 10 ** (-snr / 10))


def to_int16(samples: np.ndarray, peak: float) -> np.ndarray:
    """16-bit samples whose largest magnitude is `peak` (dB relative to full scale)."""
    return np.round(samples * (32767 * 10 ** (peak / 20) / np.abs(samples).max())).astype(np.int16)
