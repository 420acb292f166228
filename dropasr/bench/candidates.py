"""What is measured: exported nets in engines, each with the search that its row was decoded with, and the words that it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dropasr.config import Config, TextConfig
from dropasr.data.features import log_mel, make_extractor
from dropasr.data.store import FrameStore
from dropasr.data.text import Normaliser
from dropasr.decoding.search import Weights
from dropasr.errors import MeasurementError, UsageError
from dropasr.files import hash_of, read_json
from dropasr.log import get_logger, progress
from dropasr.models import model_from_dims
from dropasr.paths import Paths
from dropasr.runtime.engines import engine_module, engine_names, load_engine, why_not
from dropasr.runtime.exported import Exported
from dropasr.runtime.graphs import layout_of
from dropasr.runtime.machine import versions
from dropasr.runtime.rtf import Searches
from dropasr.runtime.timing import Audio
from dropasr.scoring.wer import WerResult, score
from dropasr.training.evaluate import decoding_identity

logger = get_logger(__name__)


class Candidate:
    """One exported net in one engine."""

    def __init__(
        self,
        folder: Path,
        exported: Exported,
        engine: str,
        paths: Paths,
        searches: Searches,
        decoding: str,
        rules: TextConfig,
        threads: int = 1,
    ) -> None:
        """`decoding`: a hash of what the words depend on beside the net and its engine; `rules` for transcripts, which words follow."""
        self.folder, self.exported, self.engine = folder, exported, engine
        self.name = f"{folder.name} · {engine}"
        self.net = load_engine(folder, engine, threads, exported)
        self._normalise = Normaliser(rules)
        self._scores = read_json(paths.scores(exported.row)) if paths.scores(exported.row).exists() else {}
        weights = Weights(self._scores.get("lm_scale", 1.0), self._scores.get("insertion_penalty", 0.0))
        self.search = searches.get(weights)
        self.identity = hash_of([exported.files, engine, threads, decoding, weights.lm_scale, weights.insertion_penalty, versions()])
        """Of the words that it finds in an utterance."""
        self.file = engine_module(engine).FILE

    def decoder(self, features: Callable[[Audio], np.ndarray], store: FrameStore) -> Callable[[Audio], tuple[float, float, float]]:
        """Decodes audio; returns the seconds of features, net and search."""

        def decode(utterance: Audio) -> tuple[float, float, float]:
            mean, std = store.statistics(utterance.id)
            begin = time.perf_counter()
            frames = features(utterance)
            after_features = time.perf_counter()
            scores = self.net.scores(frames, mean, std)
            after_model = time.perf_counter()
            self.search.decode([torch.from_numpy(self.exported.spread(scores, len(frames)))])
            return after_features - begin, after_model - after_features, time.perf_counter() - after_model

        return decode

    def words(self, store: FrameStore, positions: Sequence[int]) -> dict[str, list[str]]:
        """Words by id of utterances of a store."""
        found = {}
        for position in progress(positions, self.name):
            mean, std = store.statistics(position)
            frames = store.utterance(position).astype(np.float32) * std + mean
            scores = self.exported.spread(self.net.scores(frames, mean, std), len(frames))
            (hypothesis,) = self.search.decode([torch.from_numpy(scores)])
            found[store.ids[position]] = self._normalise.words(hypothesis.words)
        return found

    def result(self, store: FrameStore, positions: Sequence[int]) -> WerResult:
        """Errors in utterances of a store."""
        references = {store.ids[position]: store.texts[position] for position in positions}
        return score(references, self.words(store, positions))

    def about(self) -> dict[str, Any]:
        """What the tables say of it beside figures."""
        return {
            "folder": self.folder.name,
            "row": self.exported.row,
            "engine": self.engine,
            "widths": self.exported.widths,
            "shared": self.exported.shared,
            "macs_per_second": multiply_adds_per_second(self.exported),
            "bytes": (self.folder / self.file).stat().st_size,
        }


def multiply_adds_per_second(exported: Exported) -> float:
    """Multiply-adds of the net for one second of speech."""
    net = model_from_dims(exported.dims)
    return net.macs_per_frame() / (layout_of(net, exported.stride).step * exported.features["frame_shift"])


def read_folder(folder: Path, config: Config) -> Exported:
    """The card of a folder to be measured. Raises UsageError for a net of another corpus or rate, which this experiment cannot search, or
    of features that are not those of its store."""
    exported = Exported.read(folder)
    if exported.corpus != config.corpus.name:
        raise UsageError(f"{folder}: expected a net of the corpus '{config.corpus.name}', found '{exported.corpus}'. Pass its --conf.")
    stride = config.train.frame_subsampling
    if exported.search_stride != stride:
        raise UsageError(
            f"{folder}: expected scores of every {stride}. frame (train.frame_subsampling), found every {exported.search_stride}. "
            f"Pass --set train.frame_subsampling={exported.search_stride}."
        )
    features = config.features
    wanted = {"normalise": features.normalise, "prior_frames": features.prior_frames}
    wanted |= {key: getattr(features, key) for key in ("num_mel_bins", "frame_shift", "low_freq", "high_freq")}
    found = {**exported.features, **exported.normalisation, "normalise": exported.normalisation["kind"]}
    for key, value in wanted.items():
        if found[key] != value:
            raise UsageError(
                f"{folder}: expected a net for features.{key} {value}, as this experiment has it, found {found[key]}. "
                "Pass the options of the run that the net comes from."
            )
    return exported


def candidates(
    folders: Sequence[Path], engines: Sequence[str], config: Config, paths: Paths, searches: Searches, threads: int = 1
) -> Iterator[Candidate]:
    """All folders in all engines; those that cannot run are named in the log and left out, if no engine was asked for by name."""
    if len({folder.name for folder in folders}) != len(folders):
        raise UsageError("two of the folders have the same name, which their lines in the table go by. Rename one of them.")
    decoding = decoding_identity(config, paths)
    for folder in folders:
        exported = read_folder(folder, config)
        for engine in engines or engine_names():
            reason = why_not(engine, exported)
            if reason is None or engines:
                yield Candidate(folder, exported, engine, paths, searches, decoding, config.corpus.text, threads)
            else:
                logger.info(f"{folder.name}: without engine {engine}: {reason}")


def positions_of(store: FrameStore, limit: int | None, needed: Sequence[str]) -> list[int]:
    """The utterances whose words are compared with what was said: all, or a fixed random choice with those that are `needed`.

    Raises MeasurementError where a needed one has no transcript.
    """
    for id in needed:
        if not store.texts[store.position(id)]:
            raise MeasurementError(f"utterance '{id}' has no transcript, so its time must not be reported. Drop it in stage 1 (data).")
    if limit is None or limit >= len(store):
        return list(range(len(store)))
    first = [store.position(id) for id in needed]
    rest = [position for position in np.random.default_rng(0).permutation(len(store)).tolist() if position not in set(first)]
    return sorted([*first, *rest[: max(0, limit - len(first))]])


def feature_extractor(config: Config) -> Callable[[Audio], np.ndarray]:
    """Log-mels of audio, not normalised."""
    rate = config.corpus.sample_rate
    extractor = make_extractor(config.features, rate)
    return lambda utterance: log_mel(extractor, utterance.samples, rate)
