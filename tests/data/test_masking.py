"""Masks of spliced windows: their shape row by row, their reproducibility, and how often torchaudio's masking masks as much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio.functional as F

from dropasr.data.masking import MaskOptions, mask_spliced

FRAMES, FILTERS = 9, 12


def masked(rows: int, seed: int = 0, **options: float) -> np.ndarray:
    """Bool `(rows, FRAMES, FILTERS)`: what is masked."""
    inputs = torch.ones(rows, FRAMES * FILTERS)
    found = mask_spliced(inputs, FILTERS, torch.Generator().manual_seed(seed), MaskOptions(**options))
    assert inputs.min() == 1 and set(found.unique().tolist()) <= {0.0, 1.0}
    return (found == 0).view(rows, FRAMES, FILTERS).numpy()


def is_one_span(row: np.ndarray) -> bool:
    places = np.flatnonzero(row)
    return not len(places) or places[-1] - places[0] + 1 == len(places)


def test_one_band_and_one_span_make_a_cross() -> None:
    for window in masked(200, frequency_width=5, time_width=3):
        span, band = window.all(axis=1), window.all(axis=0)
        np.testing.assert_array_equal(window, span[:, None] | band[None, :])
        assert is_one_span(span) and is_one_span(band) and span.sum() <= 3 and band.sum() <= 5


def test_widths_and_positions_are_even() -> None:
    bands = masked(20000, frequency_width=4, time_masks=0).all(axis=1)
    widths = np.bincount(bands.sum(axis=1), minlength=5) / len(bands)
    np.testing.assert_allclose(widths, 0.2, atol=0.015)
    widest = bands[bands.sum(axis=1) == 4]
    starts = np.bincount(widest.argmax(axis=1), minlength=9) / len(widest)
    np.testing.assert_allclose(starts, 1 / 9, atol=0.02)


def test_as_much_is_masked_as_by_torchaudio() -> None:
    torch.manual_seed(1)
    spectrograms = torch.ones(20000, 1, FILTERS, FRAMES)
    expected = F.mask_along_axis_iid(F.mask_along_axis_iid(spectrograms, 7, 0.0, 2), 5, 0.0, 3).eq(0).float().mean()
    # torchaudio draws a real width below 7 and cuts it down: 0 to 6 positions, or one more by the rounding of its ends.
    found = masked(20000, frequency_width=6, time_width=4).mean()
    assert found == pytest.approx(float(expected), abs=0.03)


def test_the_generator_decides() -> None:
    np.testing.assert_array_equal(masked(50, seed=3), masked(50, seed=3))
    assert (masked(50, seed=3) != masked(50, seed=4)).any()
    options = {"frequency_masks": 2, "time_masks": 2}
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(0)
    mask_spliced(torch.ones(5, FRAMES * FILTERS), FILTERS, generator, MaskOptions(**options))
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(0)))


def test_nothing_or_a_share_of_the_rows() -> None:
    assert not masked(20, frequency_masks=0, time_masks=0).any()
    assert not masked(20, share=0.0).any()
    rows = masked(4000, share=0.25, frequency_width=12, time_masks=0).any(axis=(1, 2)).mean()
    assert rows == pytest.approx(0.25 * 12 / 13, abs=0.03)
    assert masked(50, frequency_width=99, time_width=99).shape == (50, FRAMES, FILTERS)
