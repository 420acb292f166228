from __future__ import annotations

import numpy as np
import pytest
from exported_case import card

from dropasr.errors import ExportError
from dropasr.runtime.exported import STREAM
from dropasr.runtime.stream_scores import StreamScores

FEATURES = 2


class Recurrent:
    """A net whose score of a step is a weighted sum of its window, plus half of the score before; of further frames, the sum so often."""

    def __init__(self, stride: int, left: int, right: int, scored: int = 1) -> None:
        self._stride, self._width, self._scored = stride, left + 1 + right, scored
        self._weights = np.arange(1.0, self._width + 1)[:, None]

    def part(self, window, mean, std, states):
        normalised, before, found = (window - mean) / std, states["h"], []
        for begin in range(0, len(window) - self._width + 1, self._stride):
            before = (normalised[begin : begin + self._width] * self._weights).sum(axis=0) + 0.5 * before
            found.append(np.concatenate([before * (1 + place) for place in range(self._scored)]))
        return np.array(found), {"h": before}


@pytest.mark.parametrize(
    ("stride", "left", "right", "delay", "shared", "scored"),
    [
        *((1, 0, 0, 0, 1, 1), (1, 3, 2, 0, 1, 1), (3, 4, 1, 0, 1, 1), (3, 0, 2, 2, 1, 1), (1, 8, 8, 5, 1, 1)),
        *((3, 2, 0, 0, 3, 1), (6, 4, 7, 0, 2, 1), (2, 1, 3, 2, 2, 1), (3, 2, 0, 2, 1, 3), (3, 2, 0, 0, 1, 3), (2, 4, 3, 1, 1, 2)),
    ],
)
@pytest.mark.parametrize("frames", [1, 2, 7, 50])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_parts_give_the_scores_of_the_whole(stride, left, right, delay, shared, scored, frames, size):
    features = np.random.default_rng(frames).standard_normal((frames, FEATURES)).astype(np.float32)
    mean, std = np.array([0.5, -1.0]), np.array([2.0, 0.25])
    exported = card(
        stride=stride, left_context=left, right_context=right, output_delay=delay, recurrent=True, units=FEATURES,
        states=[{"name": "h", "shape": [FEATURES]}], files={STREAM: "0"}, shared=shared, frames_scored=scored,
    )  # fmt: skip
    net = Recurrent(stride, left, right, scored)
    steps = -(-frames // stride) + delay
    numbers = np.arange(-left, (steps - 1) * stride + right + 1).clip(0, frames - 1)
    expected = net.part(features[numbers], mean, std, {"h": np.zeros(FEATURES)})[0][delay:]
    # The score of frame t of the search is that of the last one before it that was computed, or the one of its own beside it.
    places = [(t // stride, t % stride if scored > 1 else 0) for t in range(0, frames, stride // (shared * scored))]
    expected = np.array([expected[row][place * FEATURES :][:FEATURES] for row, place in places])
    stream, found = StreamScores(net, exported), []
    for begin in range(0, frames, size):
        stream.feed(features[begin : begin + size])
        ready = stream.ready
        found.append(stream.advance(mean, std))
        assert len(found[-1]) <= ready and stream.ready == 0
        assert len(stream._frames) <= left + max(right, stride) + stride + size
    found.append(stream.advance(mean, std, last=True))
    assert np.allclose(np.concatenate(found), expected)


def test_nets_and_engines_that_cannot_follow_a_stream():
    with pytest.raises(ExportError, match="from their end"):
        StreamScores(Recurrent(1, 0, 0), card())
    with pytest.raises(ExportError, match="with the engine onnx"):
        StreamScores(object(), card(files={STREAM: "0"}))
