"""Stage 8: the real-time factor of every net, split into features, acoustic model and search.

One thread pinned to one core, batch 1, warmed up, nets interleaved over the same test utterances in an order that changes from
pass to pass; the factor is the sum of times over the sum of durations.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import torch

from dropasr.config import Config, rows
from dropasr.data.features import log_mel, make_extractor
from dropasr.data.normalisation import normalise
from dropasr.data.store import FrameStore
from dropasr.decoding.likelihoods import load_log_prior, shared
from dropasr.decoding.rescore import load_decoder
from dropasr.decoding.search import PLAIN, Search, Weights
from dropasr.errors import StageError
from dropasr.files import read_json, write_json
from dropasr.log import get_logger
from dropasr.models.base import AcousticModel, check_skip
from dropasr.models.checkpoint import load_net
from dropasr.paths import Paths
from dropasr.runtime.busy import BUSY_SHARE, busy_share
from dropasr.runtime.machine import hardware, pinned, versions
from dropasr.runtime.timing import Audio, Decode, interleaved, load_audio

logger = get_logger(__name__)
Features = Callable[[Audio], np.ndarray]


class _Timed:
    """One net with its prior, its scales and the search that its weights need."""

    def __init__(self, config: Config, paths: Paths, name: str, searches: Searches) -> None:
        if not paths.scores(name).exists():
            raise StageError(f"{paths.scores(name)}: no WER for '{name}', so its time must not be reported. Run: bash run.sh --stage 7.")
        self.net = load_net(paths.net(name))
        self.scores = read_json(paths.scores(name))
        self.scale, self.prior = self.scores["acoustic_scale"], load_log_prior(config, paths, name)
        self.config = config
        check_skip(self.net, config.decode.frame_skip)
        self.search = searches.get(Weights(self.scores["lm_scale"], self.scores["insertion_penalty"]))

    def seconds(self, features: Features, audio: Audio) -> tuple[float, float, float]:
        """Decode one utterance: seconds of features, acoustic model and search."""
        begin = time.perf_counter()
        frames = features(audio)
        after_features = time.perf_counter()
        scores, model = model_scores(self.config, self.net, torch.from_numpy(frames), self.prior, self.scale)
        before_search = time.perf_counter()
        self.search.decode([scores])
        return after_features - begin, model, time.perf_counter() - before_search


def model_scores(config: Config, net: AcousticModel, frames: torch.Tensor, prior: torch.Tensor, scale: float) -> tuple[torch.Tensor, float]:
    """Scores `(⌈T/stride⌉, K)` of normalised frames `(T, F)` as the search reads them, and the seconds that they took."""
    stride, skip, begin = config.train.frame_subsampling, config.decode.frame_skip, time.perf_counter()
    logits = net.logits(frames, stride * skip)
    scores = shared((torch.log_softmax(logits, dim=1) - prior) * scale, skip, len(frames), stride)
    return scores, time.perf_counter() - begin


class Searches:
    """The searches of all nets; those with equal weights share one, since graphs are large."""

    def __init__(self, config: Config, paths: Paths, plain: Search | None = None) -> None:
        self._plain = load_decoder(config, paths) if plain is None else plain
        self._found: dict[Weights, Search] = {PLAIN: self._plain}

    def get(self, weights: Weights) -> Search:
        """The search with these weights."""
        if weights not in self._found:
            self._found[weights] = self._plain.weighted(weights)
        return self._found[weights]


def measure(config: Config, paths: Paths, nj: int) -> None:
    """Stage 8: time all rows of the experiment and write rtf.json."""
    searches = Searches(config, paths)
    timed = {row.name: _Timed(config, paths, row.name, searches) for row in rows(config)}
    audio = load_audio(config, paths)
    store = FrameStore.open(paths.features("test"))
    busy = busy_share()
    if busy > BUSY_SHARE:
        logger.warning(
            f"the machine is busy (other processes use {100 * busy:.0f} % of one core): times will be too long; "
            "the interleaving keeps ratios comparable"
        )
    rate = config.corpus.sample_rate
    extractor = make_extractor(config.features, rate)

    def features(utterance: Audio) -> np.ndarray:
        return normalise(log_mel(extractor, utterance.samples, rate), *store.statistics(utterance.id))

    decoders: dict[str, Decode] = {name: functools.partial(item.seconds, features) for name, item in timed.items()}
    with pinned(), torch.no_grad():
        times = interleaved(decoders, audio, config.rtf.repeats)
    durations = np.array([utterance.duration for utterance in audio])
    result = {
        "hardware": hardware(),
        "versions": versions(),
        "threads": 1,
        "busy_share": round(busy, 3),
        "repeats": config.rtf.repeats,
        "utterances": len(audio),
        "audio_seconds": float(durations.sum()),
        "order": "interleaved",
        "backend": searches.get(PLAIN).backend,
        "rows": {name: item.figures(durations, config.rtf.repeats) for name, item in times.items()},
    }
    for name, figures in result["rows"].items():
        logger.info(
            f"{name}: RTF features {figures['features']:.4f} + model {figures['model']:.4f} + search {figures['search']:.4f} = "
            f"{figures['total']:.4f} at {timed[name].scores['test']['wer']:.2f} % WER"
        )
    write_json(paths.rtf, result)
