"""Transcription of a recording while it is being made: partial results, and final ones at each pause.

Frames are normalised with running statistics (`frontend.stream_statistics`), for what will be said later is not known; so words may
differ from those of the whole recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dropasr.decoding.faster import best_path, decodable
from dropasr.runtime.frontend import log_mels, stream_statistics
from dropasr.runtime.recogniser import Recogniser, Transcript, Word
from dropasr.runtime.stream_scores import StreamScores
from dropasr.runtime.word_times import is_silent

CHUNK_SECONDS = 0.3
"""Speech that is scored and searched at once."""
PAUSE_SECONDS = 0.6
"""Silence at the end of the best path that makes what was said before it final."""
LONGEST_SECONDS = 30.0
"""Speech without such a pause after which a result is made final all the same."""


@dataclass(frozen=True)
class Result:
    """What was said since the last final result. A partial one may still change, and has no words with times."""

    final: bool
    transcript: Transcript


class Stream:
    """One recording, fed with log-mels in order."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser, exported = recogniser, recogniser.package.exported
        self._shift = exported.features["frame_shift"]
        self._scorer = StreamScores(recogniser.engine, exported)
        self._statistics = stream_statistics(exported)
        self._chunk = max(1, round(CHUNK_SECONDS / recogniser.seconds_per_score))
        self._decoded = 0  # scores of earlier segments
        self._said = ""
        self._start()

    def _start(self) -> None:
        self._decoder = self._recogniser.search.decoder()
        self._scores: list[np.ndarray] = []
        self._said = ""

    @property
    def seconds(self) -> float:
        """Length of the recording so far."""
        return self._scorer.received * self._shift

    def feed(self, frames: np.ndarray) -> Iterator[Result]:
        """Take in log-mels `(T, F)` and give the results that they bring."""
        self._statistics.add(frames)
        self._scorer.feed(frames)
        if self._scorer.ready >= self._chunk:
            self._search(self._scorer.advance(*self._statistics.mean_and_std()))
            yield from self._look()

    def finish(self) -> Iterator[Result]:
        """The last result, if anything was said since the one before."""
        self._search(self._scorer.advance(*self._statistics.mean_and_std(), last=True))
        yield from self._end()

    @property
    def _length(self) -> int:
        return sum(map(len, self._scores))

    def _search(self, scores: np.ndarray) -> None:
        if len(scores):
            self._decoder.advance_decoding(decodable(scores, self._length))
            self._scores.append(scores)

    def _look(self) -> Iterator[Result]:
        """A final result after a pause, or a partial one if it says something new."""
        if not self._scores:
            return
        path, seconds = best_path(self._decoder, to_final=False), self._recogniser.seconds_per_score
        silent = is_silent(path.units, self._recogniser.package.units)
        spoken = np.flatnonzero(~silent)
        pause = (len(silent) - 1 - spoken[-1] if len(spoken) else len(silent)) * seconds
        if pause >= PAUSE_SECONDS or self._length * seconds >= LONGEST_SECONDS:
            yield from self._end()
            return
        text = " ".join(self._recogniser.text(path))
        if text != self._said:
            self._said = text
            yield Result(False, Transcript(text, [], round(self.seconds, 3)))

    def _end(self) -> Iterator[Result]:
        if not self._scores:
            return
        offset = self._decoded * self._recogniser.seconds_per_score
        words: list[Word] = self._recogniser.words(best_path(self._decoder), np.concatenate(self._scores), offset)
        self._decoded += self._length
        self._start()
        if words:
            yield Result(True, Transcript(" ".join(word.text for word in words), words, round(self.seconds, 3)))


def stream(recogniser: Recogniser, blocks: Iterable[np.ndarray]) -> Iterator[Result]:
    """Results for samples, float32 `(S,)` at the net's rate, that come in blocks. Raises DataError for less than one frame of audio."""
    state = Stream(recogniser)
    part = max(1, round(CHUNK_SECONDS / recogniser.package.exported.features["frame_shift"]))
    for frames in log_mels(blocks, recogniser.package.exported):
        for begin in range(0, len(frames), part):  # files come in long blocks
            yield from state.feed(frames[begin : begin + part])
    yield from state.finish()
