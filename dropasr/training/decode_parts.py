"""What one process of stage 7 does: decode some utterances of one split with one net, under several scales."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dropasr.config import Config
from dropasr.data.store import FrameStore
from dropasr.decoding.likelihoods import load_log_prior, log_likelihoods, write_own_prior
from dropasr.decoding.rescore import load_decoder
from dropasr.decoding.search import Search, Weights, batches_by_frames
from dropasr.models.base import AcousticModel
from dropasr.models.checkpoint import load_net
from dropasr.paths import Paths

BATCH_FRAMES = 20_000
"""Frames whose scores are in memory at once."""
PART_FRAMES = 60_000
"""Frames of one part of a split, ten minutes of speech: the unit of work."""
Transcripts = dict[str, list[str]]


@dataclass(frozen=True)
class Setting:
    """What one hypothesis is found with."""

    acoustic_scale: float
    weights: Weights


@dataclass(frozen=True)
class Part:
    """Some utterances of a split, and what to decode them with.

    `tune`: the settings of one acoustic scale come from one search; else every setting has a search of its own.
    """

    row: str
    split: str
    positions: tuple[int, ...]
    settings: tuple[Setting, ...]
    tune: bool


def divide(store: FrameStore, least: int = 1) -> list[tuple[int, ...]]:
    """The utterances of a split in parts of about equal length, at least `least` where there are so many utterances."""
    count = min(len(store), max(least, -(-store.num_frames // PART_FRAMES)))
    order = sorted(range(len(store)), key=lambda position: -int(store.offsets[position + 1] - store.offsets[position]))
    return [tuple(order[number::count]) for number in range(count)]


class _Worker:
    """What a process keeps from one part to the next, for one configuration."""

    def __init__(self, config: Config, paths: Paths) -> None:
        torch.set_num_threads(1)
        self.config, self.paths = config, paths
        self.search = load_decoder(config, paths)
        # The last net and the last weights alone: graphs are large, and parts of one row come together.
        self.net = functools.lru_cache(maxsize=1)(self._net)
        self.weighted = functools.lru_cache(maxsize=1)(self._weighted)

    def _net(self, row: str) -> tuple[AcousticModel, torch.Tensor]:
        return load_net(self.paths.net(row)), load_log_prior(self.config, self.paths, row)

    def _weighted(self, weights: Weights) -> Search:
        return self.search.weighted(weights)

    def decode(self, part: Part) -> dict[Setting, Transcripts]:
        """Words by utterance id, for each setting."""
        net, prior = self.net(part.row)
        store = FrameStore.open(self.paths.features(part.split))
        stride, skip = self.config.train.frame_subsampling, self.config.decode.frame_skip
        lengths = np.diff(store.offsets)[list(part.positions)].tolist()
        found: dict[Setting, Transcripts] = {setting: {} for setting in part.settings}
        for batch in batches_by_frames(lengths, BATCH_FRAMES):
            positions = [part.positions[index] for index in batch]
            scores = [log_likelihoods(net, store.utterance(position), prior, stride, skip) for position in positions]
            for settings in _searches(part):
                scaled = [settings[0].acoustic_scale * values for values in scores]
                for setting, words in zip(settings, self._words(scaled, settings, part.tune), strict=True):
                    found[setting].update(zip((store.ids[position] for position in positions), words, strict=True))
        return found

    def _words(self, scores: list[torch.Tensor], settings: Sequence[Setting], tune: bool) -> list[list[list[str]]]:
        if tune:
            return self.search.variants(scores, [setting.weights for setting in settings])
        return [[hypothesis.words for hypothesis in self.weighted(settings[0].weights).decode(scores)]]


def _searches(part: Part) -> list[tuple[Setting, ...]]:
    """The settings that share a search."""
    if not part.tune:
        return [(setting,) for setting in part.settings]
    scales = dict.fromkeys(setting.acoustic_scale for setting in part.settings)
    return [tuple(setting for setting in part.settings if setting.acoustic_scale == scale) for scale in scales]


_worker: _Worker | None = None


def decode_part(config: Config, paths: Paths, part: Part) -> dict[Setting, Transcripts]:
    """Decode one part; the graph stays in memory for the next."""
    global _worker
    if _worker is None or _worker.config is not config and (_worker.config, _worker.paths) != (config, paths):
        _worker = _Worker(config, paths)
    return _worker.decode(part)


def make_prior(config: Config, paths: Paths, row: str) -> None:
    """Write the prior of one net, where it has one of its own."""
    torch.set_num_threads(1)
    write_own_prior(config, paths, row, load_net(paths.net(row)))
