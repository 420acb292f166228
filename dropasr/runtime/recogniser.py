"""From a recording to words with times and confidences, with a package and without torch: `dropasr.load(folder).transcribe(path)`.

The confidence of a word is the mean, over its frames, of the net's posterior of the phone (or piece) that the best path goes through:
what the net believed of what the search chose. It knows nothing of the language model, or of words that sound alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dropasr.decoding.faster import FasterSearch
from dropasr.decoding.faster import Path as BestPath
from dropasr.errors import DataError
from dropasr.lang.pieces import PieceUnits
from dropasr.runtime.audio import AudioFile
from dropasr.runtime.engines import load_engine
from dropasr.runtime.frontend import Statistics, log_mels
from dropasr.runtime.long_audio import Piece, pieces
from dropasr.runtime.package import Package
from dropasr.runtime.word_times import even_spans, group_of_unit, path_posteriors, phone_spans, piece_spans

PIECE_SECONDS = 40.0
"""Longest recording that is searched in one go; longer ones are cut at pauses."""
WARM_UP_SECONDS = 1.0
"""Speech before and after a piece that a recurrent net reads, whose state would have come from the whole recording."""


@dataclass(frozen=True)
class Word:
    """A word, when it was said (seconds from the start of the recording), and how sure the net is, 0 to 1."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording of so many `seconds`. `notes`: what was done to its audio (resampling, channels)."""

    text: str
    words: list[Word]
    seconds: float
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Recogniser:
    """A package that is ready to transcribe."""

    def __init__(self, package: Package, engine: str = "onnx", threads: int = 1) -> None:
        self.package, self.engine = package, load_engine(package.folder, engine, threads, package.exported)
        settings, exported = package.search, package.exported
        self.search = FasterSearch(package.graph, settings.beam, settings.max_active, settings.min_active)
        self.seconds_per_score = exported.search_stride * exported.features["frame_shift"]
        self._groups = group_of_unit(package.units)

    def transcribe(self, path: str | Path, channel: int | None = None, statistics: Statistics | None = None) -> Transcript:
        """Transcribe one audio file; memory does not grow with its length.

        `statistics`: of the speaker, as `speaker_statistics` gives them; without, those of this file. Raises DataError naming the file.
        """
        audio = AudioFile(Path(path), self.package.exported.sample_rate, channel)
        words: list[Word] = []
        for piece, mean, std in self._pieces(audio, statistics):
            scores = self.engine.scores(piece.frames, mean, std)[piece.skip : piece.skip + piece.count]
            scores = self.package.exported.spread(scores, len(piece.frames) - piece.skip * self.package.exported.stride)
            path_ = self.search.decode(scores)
            words += self.words(path_, scores, piece.first * self.package.exported.features["frame_shift"])
        return Transcript(" ".join(word.text for word in words), words, round(audio.seconds, 3), audio.notes)

    def speaker_statistics(self, paths: Iterable[str | Path], channel: int | None = None) -> Statistics:
        """The statistics of several recordings of one speaker. Those that cannot be read are passed over."""
        found = Statistics(self.package.exported)
        for path in paths:
            own = Statistics(self.package.exported)
            try:
                for part in self._log_mels(AudioFile(Path(path), self.package.exported.sample_rate, channel)):
                    own.add(part)
            except DataError:
                continue  # it is reported when it is to be transcribed
            found.join(own)
        return found

    def _log_mels(self, audio: AudioFile) -> Iterator[np.ndarray]:
        try:
            yield from log_mels(audio.blocks(), self.package.exported)
        except DataError as error:
            raise error if str(audio.path) in str(error) else DataError(f"{audio.path}: {error}. Leave the file out.") from None

    def _pieces(self, audio: AudioFile, statistics: Statistics | None) -> Iterator[tuple[Piece, np.ndarray, np.ndarray]]:
        exported = self.package.exported
        limit = int(PIECE_SECONDS / exported.features["frame_shift"])
        parts: Iterable[np.ndarray] | None = None
        if statistics is None:
            # Statistics need the whole file; a short one is not read again after that.
            statistics, held, frames = Statistics(exported), [], 0
            for part in self._log_mels(audio):
                statistics.add(part)
                frames += len(part)
                held = [*held, part] if frames <= limit else []
            parts = held if frames <= limit else None
        around = int(WARM_UP_SECONDS / exported.features["frame_shift"]) if exported.recurrent else 0
        left = max(exported.left_context, around)
        right = max(exported.right_context + exported.output_delay * exported.stride, around)
        mean_and_std = statistics.mean_and_std()
        for piece in pieces(self._log_mels(audio) if parts is None else parts, exported.stride, left, right, limit):
            yield (piece, *mean_and_std)

    def words(self, path: BestPath, scores: np.ndarray, offset: float) -> list[Word]:
        """Words of a best path through `scores` `(T, K)`, whose first is at `offset` seconds."""
        if not len(path.units):
            return []
        texts, spans = self._spelt(path)
        package = self.package
        sure = path_posteriors(scores, path.units, package.log_prior, package.exported.acoustic_scale, self._groups)
        seconds = self.seconds_per_score
        return [
            Word(text, round(offset + begin * seconds, 3), round(offset + end * seconds, 3), round(float(sure[begin:end].mean()), 3))
            for text, (begin, end) in zip(texts, spans)
        ]

    def _spelt(self, path: BestPath) -> tuple[list[str], Sequence[tuple[int, int]]]:
        package = self.package
        if isinstance(package.units, PieceUnits):
            texts, spans = piece_spans(path.units, package.units)
            if package.words is None:
                return texts, spans
            words = [package.words[label] for label in path.labels]
            return words, spans if len(words) == len(spans) else even_spans(len(path.units), len(words))
        assert package.words is not None and package.lexicon is not None
        words = [package.words[label] for label in path.labels]
        found = phone_spans(path.units, words, package.units, package.lexicon)
        return words, even_spans(len(path.units), len(words)) if found is None else found

    def text(self, path: BestPath) -> list[str]:
        """The words of a path, without times."""
        package = self.package
        if package.words is None:
            assert isinstance(package.units, PieceUnits)
            return piece_spans(path.units, package.units)[0]
        return [package.words[label] for label in path.labels]


def load(folder: str | Path, engine: str = "onnx", threads: int = 1) -> Recogniser:
    """A recogniser for the package in `folder`. `engine`: a file of `dropasr/runtime/engines/`. Raises DataError or ExportError."""
    return Recogniser(Package.read(folder), engine, threads)
