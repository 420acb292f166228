"""Recordings of any length in pieces of bounded length, cut where it is quietest, each with the frames around it that the net reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

QUIET_FRAMES = 30
"""Frames whose mean level decides where to cut: a pause between words, not a closure within one."""


@dataclass(frozen=True)
class Piece:
    """Frames `(T, F)` of a piece and around it; of the scores of these frames, those from `skip` on, `count` of them, are the piece's."""

    first: int
    """Number of its first frame in the recording."""
    frames: np.ndarray
    skip: int
    count: int


def quietest(frames: np.ndarray) -> int:
    """The middle of the frames in a row with the least energy, in logs that are averaged over them. Input: log-mels `(T, F)`."""
    level = np.log(np.exp(frames.astype(np.float64)).sum(axis=1))
    width = min(QUIET_FRAMES, len(level))
    sums = np.convolve(level, np.ones(width), mode="valid")
    return int(sums.argmin()) + width // 2


def pieces(parts: Iterable[np.ndarray], stride: int, left: int, right: int, limit: int) -> Iterator[Piece]:
    """Cut frames that come in parts `(T, F)`: a recording of at most `limit` frames is one piece, a longer one is cut in the second half of
    every `limit` frames. `left` and `right`: frames to have around a piece. A net with `stride` is asked for the scores that it would give
    for the whole; all frames but those of one piece and around it are forgotten."""
    left, limit = -(-left // stride) * stride, limit // stride * stride
    frames: np.ndarray | None = None
    base = begin = 0  # number of the first frame in memory, and of the first frame of the next piece

    def piece(end: int, until: int) -> Piece:
        start = max(begin - left, 0)
        assert frames is not None
        return Piece(begin, frames[start - base : until - base], (begin - start) // stride, -(-(end - begin) // stride))

    for part in parts:
        frames = part if frames is None else np.concatenate([frames, part])
        while base + len(frames) - begin > limit + right:
            half = begin + limit // 2
            end = half + quietest(frames[half - base : begin + limit - base])
            end -= (end - begin) % stride
            yield piece(end, end + right)
            begin = end
            drop = max(begin - left, 0) - base
            frames, base = frames[drop:].copy(), base + drop
    if frames is not None and base + len(frames) > begin:
        yield piece(base + len(frames), base + len(frames))
