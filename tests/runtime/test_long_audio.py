from __future__ import annotations

import numpy as np
import pytest

from dropasr.runtime.long_audio import pieces, quietest

FEATURES = 3


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, FEATURES)).astype(np.float32)


def scores(features: np.ndarray, stride: int, left: int, right: int) -> np.ndarray:
    """A net that adds up every frame of its window with another weight; edges are repeated."""
    numbers = np.arange(0, len(features), stride)[:, None] + np.arange(-left, right + 1)
    weights = np.arange(1.0, left + right + 2)
    return (features[numbers.clip(0, len(features) - 1)] * weights[:, None]).sum(axis=1)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("total", [1, 99, 100, 101, 250, 1234])
@pytest.mark.parametrize("part", [1, 37, 5000])
def test_pieces_give_the_scores_of_the_whole(stride, total, part):
    left, right, limit = 7, 5, 100
    features = frames(total)
    parts = (features[begin : begin + part] for begin in range(0, total, part))
    found, first = [], 0
    for piece in pieces(parts, stride, left, right, limit):
        assert piece.first == first and len(piece.frames) <= limit + 2 * (left + right) + stride
        found.append(scores(piece.frames, stride, left, right)[piece.skip : piece.skip + piece.count])
        first += piece.count * stride
    expected = scores(features, stride, left, right)
    assert (len(found) == 1) == (total <= limit // stride * stride + right)
    assert np.allclose(np.concatenate(found), expected, atol=1e-4)


def test_cuts_are_where_it_is_quiet():
    level = np.zeros(1000)
    pauses = [70, 160, 220, 300, 390, 480, 570, 640, 730, 800, 890, 960]
    for middle in pauses:
        level[middle - 16 : middle + 16] = -5
    features = np.repeat(level[:, None], FEATURES, axis=1).astype(np.float32)
    cuts = [piece.first for piece in pieces([features], 1, 0, 0, 100)][1:]
    assert cuts and all(min(abs(cut - middle) for middle in pauses) <= 16 for cut in cuts)
    assert quietest(features[200:300]) == pytest.approx(20, abs=2)


def test_nothing_gives_no_piece():
    assert list(pieces([], 1, 2, 2, 100)) == [] and list(pieces([np.zeros((0, FEATURES), np.float32)], 1, 2, 2, 100)) == []
