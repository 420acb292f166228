"""Labels for the frames of a store by aligning its transcripts, in batches of bounded memory and in several processes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Union

import numpy as np
import torch

from dropasr import workers
from dropasr.config import Config
from dropasr.data.store import FrameStore
from dropasr.decoding.alignment import align
from dropasr.decoding.search import batches_by_frames
from dropasr.errors import DataError
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.linear import linear_graph, minimal_frames, uniform_alignment
from dropasr.lang.units import OutputUnits
from dropasr.log import get_logger, progress
from dropasr.models.base import AcousticModel
from dropasr.models.checkpoint import rebuild

logger = get_logger(__name__)
BATCH_FRAMES = 20_000
"""Frames whose scores are in memory together: with 1500 units, 120 MB, of which the search makes copies."""


class Scorer(Protocol):
    """An acoustic model as alignment needs it; it is sent to worker processes."""

    def __call__(self, store: FrameStore, utterance: int) -> torch.Tensor:
        """Log likelihoods float32 `(T, K)` of one utterance."""


@dataclass(frozen=True)
class NetScorer:
    """Log posteriors of a net minus a log prior `(K,)`."""

    net: AcousticModel
    log_prior: torch.Tensor

    @torch.no_grad()
    def __call__(self, store: FrameStore, utterance: int) -> torch.Tensor:
        """Pseudo log likelihoods `(T, K)` of one utterance."""
        frames = torch.from_numpy(np.array(store.utterance(utterance), dtype=np.float32))
        return torch.log_softmax(self.net.logits(frames), dim=1) - self.log_prior

    def __reduce__(self) -> tuple[Any, ...]:
        # Torch would send tensors to other processes through shared memory, of which small machines have little.
        tensors = {name: tensor.numpy() for name, tensor in self.net.state_dict().items()}
        return _net_scorer, (self.net.dims, tensors, self.log_prior.numpy())


def _net_scorer(dims: dict[str, Any], tensors: dict[str, np.ndarray], log_prior: np.ndarray) -> NetScorer:
    net = rebuild(Path("alignment"), dims, {name: torch.from_numpy(values) for name, values in tensors.items()})
    return NetScorer(net.eval(), torch.from_numpy(log_prior))


@dataclass(frozen=True)
class Split:
    """The utterances of a store that can be aligned, and those of them that are no copies of others (`originals`), as positions."""

    store: FrameStore
    usable: list[int]
    originals: list[int]

    @classmethod
    def of(cls, store: FrameStore, lexicon: Lexicon, units: OutputUnits, max_dropped: float) -> Split:
        """Leaves out utterances with words outside the lexicon (of dev; stage 3 refuses them in train), and those that are too short for
        their transcript: DataError where these are more than a share of `max_dropped`.
        """
        frames = np.diff(store.offsets)
        known = [i for i, words in enumerate(store.texts) if not lexicon.missing(words)]
        if len(known) < len(store):
            logger.warning(f"{store.folder.name}: {len(store) - len(known)} of {len(store)} utterances have words without pronunciation")
        usable = [i for i in known if frames[i] >= minimal_frames(store.texts[i], lexicon, units)]
        short, limit = sorted(set(known) - set(usable)), max_dropped * len(store)
        if len(short) > limit or not usable:
            first = store.ids[(short or [0])[0]]
            raise DataError(
                f"{len(short)} of {len(store)} utterances have fewer frames than their transcript needs ({first}, …); "
                f"at most {limit:.0f} may be dropped (corpus.max_dropped). Check audio against transcripts, or lower lang.states_per_phone."
            )
        return cls(store, usable, [i for i in usable if store.originals[i] == store.ids[i]])

    @property
    def failed(self) -> list[str]:
        """Ids of the utterances that cannot be aligned."""
        return [self.store.ids[i] for i in sorted(set(range(len(self.store))) - set(self.usable))]

    def span(self, utterance: int) -> slice:
        """The frames of one utterance."""
        return slice(int(self.store.offsets[utterance]), int(self.store.offsets[utterance + 1]))

    def labelled(self, labels: np.ndarray) -> list[int]:
        """The usable utterances that have labels."""
        return [i for i in self.usable if labels[self.store.offsets[i]] >= 0]

    def uniform(self, lexicon: Lexicon, units: OutputUnits) -> np.ndarray:
        """Labels `(N,)` of the originals by uniform alignment, -1 elsewhere."""
        labels = np.full(self.store.num_frames, -1, dtype=np.int32)
        for i in self.originals:
            span = self.span(i)
            labels[span] = uniform_alignment(self.store.texts[i], lexicon, units, span.stop - span.start)
        return labels


@dataclass(frozen=True)
class _Language:
    lexicon: Lexicon
    silence_probability: float
    beam: float
    backend: str


@dataclass(frozen=True)
class _Batch:
    folder: Path
    units: OutputUnits
    utterances: list[int]
    scorer: Scorer


@functools.lru_cache(maxsize=4)
def _open(folder: Path) -> FrameStore:
    return FrameStore.open(folder)


def _label(language: _Language, batch: _Batch) -> list[np.ndarray]:
    store = _open(batch.folder)
    scores = [batch.scorer(store, i) for i in batch.utterances]
    graphs = [linear_graph(store.texts[i], language.lexicon, batch.units, language.silence_probability) for i in batch.utterances]
    return align(scores, graphs, language.beam, language.backend, [store.ids[i] for i in batch.utterances])


_language: Union[_Language, None] = None


def _start_worker(language: _Language) -> None:
    global _language
    _language = language
    torch.set_num_threads(1)


def _label_in_worker(batch: _Batch) -> list[np.ndarray]:
    assert _language is not None
    return _label(_language, batch)


class Labeller:
    """Aligns utterances in `nj` processes. Use as a context manager: it ends them."""

    def __init__(self, config: Config, lexicon: Lexicon, backend: str, nj: int) -> None:
        self._language = _Language(lexicon, config.lang.silence_probability, config.align.beam, backend)
        self._pool: Union[ProcessPoolExecutor, None] = None
        if nj > 1:
            self._pool = workers.pool(nj, "spawn", _start_worker, (self._language,))

    def __enter__(self) -> Labeller:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _run(self, batches: list[_Batch]) -> Iterator[list[np.ndarray]]:
        if self._pool is None:
            return (_label(self._language, batch) for batch in batches)
        return self._pool.map(_label_in_worker, batches)

    def labels(self, split: Split, units: OutputUnits, utterances: Sequence[int], scorer: Scorer, name: str) -> np.ndarray:
        """Labels `(N,)`, int32, of all frames of a split: -1 outside `utterances` (positions). `name` is shown with the progress.

        Raises DataError naming an utterance that has no alignment.
        """
        frames = np.diff(split.store.offsets)[list(utterances)].tolist()
        chosen = [[utterances[k] for k in batch] for batch in batches_by_frames(frames, BATCH_FRAMES)]
        batches = [_Batch(split.store.folder, units, batch, scorer) for batch in chosen]
        labels = np.full(split.store.num_frames, -1, dtype=np.int32)
        for batch, paths in zip(chosen, progress(self._run(batches), name, len(batches))):
            for i, path in zip(batch, paths, strict=True):
                labels[split.span(i)] = path
        return labels
