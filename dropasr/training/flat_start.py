"""Stage 4: label every frame with an output unit, from nothing but transcripts.

Uniform alignment, then single Gaussians, then rounds of a small net and realignment. Alignment is the decoder's search on a linear graph.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.fft
import torch

from dropasr.config import Config, TrainConfig
from dropasr.data.batches import FrameSampler
from dropasr.data.store import FrameStore
from dropasr.decoding.alignment import align as search_alignment
from dropasr.decoding.search import choose_backend
from dropasr.errors import DataError
from dropasr.files import atomic_path, hash_of, sha256_bytes, sha256_file, write_json
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.linear import linear_graph, minimal_frames, uniform_alignment
from dropasr.lang.units import OutputUnits
from dropasr.log import get_logger
from dropasr.methods.base import BaseMethod, CommonOptions, Schedule
from dropasr.models.feedforward import FeedForward
from dropasr.paths import Paths
from dropasr.training.checkpoints import remove_training
from dropasr.training.loop import Samplers, Trainer

logger = get_logger(__name__)
CEPSTRA = 16
SEED = 1


def cepstra(frames: np.ndarray) -> np.ndarray:
    """Cepstra and their slopes `(N, 32)` of log-mel frames `(N, F)`: nearly uncorrelated, as diagonal Gaussians need."""
    values = scipy.fft.dct(np.asarray(frames, dtype=np.float32), type=2, norm="ortho", axis=1)[:, :CEPSTRA]
    slope = np.zeros_like(values)
    slope[2:-2] = values[4:] - values[:-4]
    return np.concatenate([values, slope], axis=1)


def gaussian_log_likelihoods(features: np.ndarray, labels: np.ndarray, num_units: int) -> np.ndarray:
    """Log likelihoods `(N, K)` of frames `(N, D)` under one diagonal Gaussian per unit, estimated from `labels` (-1: unlabelled)."""
    used = labels >= 0
    x, y = features[used], labels[used]
    order = np.argsort(y, kind="stable")
    starts = np.searchsorted(y[order], np.arange(num_units))
    counts = np.diff(np.append(starts, len(y)))
    present = counts > 0
    total, square = np.zeros((num_units, x.shape[1])), np.zeros((num_units, x.shape[1]))
    total[present] = np.add.reduceat(x[order].astype(np.float64), starts[present], axis=0)
    square[present] = np.add.reduceat(x[order].astype(np.float64) ** 2, starts[present], axis=0)
    mean = np.where(present[:, None], total / np.maximum(counts, 1)[:, None], x.mean(axis=0))
    floor = 0.05 * x.var(axis=0)
    variance = np.where(present[:, None], square / np.maximum(counts, 1)[:, None] - mean**2, x.var(axis=0))
    variance = np.maximum(variance, floor)
    precision = 1 / variance
    constant = -0.5 * (np.log(2 * np.pi * variance).sum(axis=1) + (mean**2 * precision).sum(axis=1))
    return ((features**2) @ (-0.5 * precision).T + features @ (mean * precision).T + constant).astype(np.float32)


def boundary_shift(old: np.ndarray, new: np.ndarray, units: OutputUnits) -> float:
    """Mean shift in frames of the phone starts of two alignments `(T,)` of one utterance; NaN where their phones differ."""

    def starts(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        phones, states = units.phone_index(labels), units.state_index(labels)
        begin = np.ones(len(labels), dtype=bool)
        begin[1:] = (phones[1:] != phones[:-1]) | (states[1:] < states[:-1])
        begin &= ~units.is_silence(labels)
        return phones[begin], np.flatnonzero(begin)

    if old.min() < 0 or new.min() < 0:
        return float("nan")
    (old_phones, old_starts), (new_phones, new_starts) = starts(old), starts(new)
    if len(old_phones) == 0 or not np.array_equal(old_phones, new_phones):
        return float("nan")
    return float(np.abs(old_starts - new_starts).mean())


class Aligner:
    """Graphs of one split, and the search over them."""

    def __init__(self, store: FrameStore, lexicon: Lexicon, units: OutputUnits, config: Config, backend: str) -> None:
        self.store, self.units, self.config, self.backend = store, units, config, backend
        frames = np.diff(store.offsets)
        self.usable = [i for i, words in enumerate(store.texts) if frames[i] >= minimal_frames(words, lexicon, units)]
        self.failed = [store.ids[i] for i in sorted(set(range(len(store.ids))) - set(self.usable))]
        limit = config.corpus.max_dropped * len(store.ids)
        if len(self.failed) > limit:
            raise DataError(
                f"{len(self.failed)} of {len(store.ids)} utterances have fewer frames than their transcript needs ({self.failed[0]}, …); "
                f"at most {limit:.0f} may be dropped (corpus.max_dropped). Check audio against transcripts, or lower lang.states_per_phone."
            )
        self.graphs = [linear_graph(store.texts[i], lexicon, units, config.lang.silence_probability) for i in self.usable]
        self.uniform = np.full(len(store.frames), -1, dtype=np.int32)
        for i in self.usable:
            span = slice(store.offsets[i], store.offsets[i + 1])
            self.uniform[span] = uniform_alignment(store.texts[i], lexicon, units, int(frames[i]))

    def align(self, log_likelihoods: Callable[[int], torch.Tensor], limit: int | None = None) -> np.ndarray:
        """Labels `(N,)` of all frames, -1 in utterances that cannot be aligned and beyond `limit` evenly spaced utterances.

        `log_likelihoods(i)` gives the scores `(T, K)` of utterance i.
        """
        chosen = range(0, len(self.usable), max(1, len(self.usable) // limit) if limit else 1)
        scores = [log_likelihoods(self.usable[k]) for k in chosen]
        ids = [self.store.ids[self.usable[k]] for k in chosen]
        paths = search_alignment(scores, [self.graphs[k] for k in chosen], self.config.align.beam, self.backend, ids)
        labels = np.full(len(self.store.frames), -1, dtype=np.int32)
        for i, path in zip([self.usable[k] for k in chosen], paths):
            labels[self.store.offsets[i] : self.store.offsets[i + 1]] = path
        return labels

    def compare(self, name: str, old: np.ndarray, new: np.ndarray) -> dict[str, float | str | None]:
        """Share of changed labels and mean shift of phone starts between two rounds, logged."""
        used = (new >= 0) & (old >= 0)
        changed = 100 * float((old[used] != new[used]).mean())
        offsets = self.store.offsets
        shifts = [boundary_shift(old[offsets[i] : offsets[i + 1]], new[offsets[i] : offsets[i + 1]], self.units) for i in self.usable]
        shift = float(np.nanmean(shifts)) if not np.all(np.isnan(shifts)) else None
        moved = "" if shift is None else f", phone starts moved by {shift:.2f} frames on average"
        logger.info(f"{name}: {changed:.1f} % of the labels changed{moved}")
        return {"name": name, "changed_percent": changed, "boundary_shift_frames": shift}


def _small_net(config: Config, units: OutputUnits, train: Aligner, labels: np.ndarray, round_: int, paths: Paths) -> FeedForward:
    torch.manual_seed(SEED)
    net = FeedForward(range(config.features.num_mel_bins), (5, 5), [config.align.width] * config.align.layers, units.num_units)
    options = TrainConfig(epochs=config.align.epochs, batch_size=256, learning_rate=0.05, final_learning_rate=0.1, constant_share=0.4)
    sampler = FrameSampler(train.store, labels, net.context, options.batch_size, np.array(train.usable), seed=SEED + round_)
    samplers = Samplers(sampler, sampler, sampler, sampler)
    method = BaseMethod(CommonOptions(method="dense"), Schedule(options.epochs, sampler.steps_per_epoch, SEED))

    def say(text: str) -> None:
        logger.info(f"net {round_}: {text.replace('dev CE', 'then CE').replace('dev frame', 'frame')}")

    folder = paths.align / f"net{round_}"
    # A killed stage may go on with this net; another configuration or other labels may not.
    store_hash = sha256_file(train.store.folder / "index.json")
    identity = hash_of([config.align.model_dump(), net.dims, sha256_bytes(labels.tobytes()), store_hash])
    net = Trainer(net, method, samplers, options, folder, SEED, say=say, identity=identity).run()
    remove_training(folder)
    return net


def _net_scores(net: FeedForward, store: FrameStore, log_prior: torch.Tensor) -> Callable[[int], torch.Tensor]:
    def scores(i: int) -> torch.Tensor:
        with torch.no_grad():
            return torch.log_softmax(net.logits(torch.from_numpy(np.array(store.utterance(i), dtype=np.float32))), dim=1) - log_prior

    return scores


def log_prior(labels: np.ndarray, num_units: int) -> np.ndarray:
    """Log relative frequency `(K,)` of the units among `labels`, with one added to each count."""
    counts = np.bincount(labels[labels >= 0], minlength=num_units) + 1.0
    return np.log(counts / counts.sum()).astype(np.float32)


def align(config: Config, paths: Paths, nj: int) -> None:
    """Flat start on train, then labels of train and dev, priors, and a report of how much the last rounds still moved."""
    torch.set_num_threads(nj)
    lexicon = Lexicon.load(paths.lang / "lexicon.txt")
    units = OutputUnits.load(paths.lang / "units.json")
    backend = choose_backend(config.decode.backend)
    train = Aligner(FrameStore.open(paths.features("train")), lexicon, units, config, backend)
    dev = Aligner(FrameStore.open(paths.features("dev")), lexicon, units, config, backend)
    features = cepstra(train.store.frames)
    labels, rounds = train.uniform, []
    offsets = train.store.offsets
    for round_ in range(1, config.align.gaussian_rounds + 1):
        likelihoods = gaussian_log_likelihoods(features, labels, units.num_units)
        last = round_ == config.align.gaussian_rounds
        # The Gaussians have few parameters: a part of the utterances is enough for them until the last round labels all.
        limit = None if last else config.align.gaussian_utterances
        new = train.align(lambda i: torch.from_numpy(likelihoods[offsets[i] : offsets[i + 1]]), limit)  # noqa: B023 (called at once)
        rounds.append(train.compare(f"Gaussian round {round_}", labels, new))
        labels = new
    for round_ in range(1, config.align.net_rounds + 1):
        net = _small_net(config, units, train, labels, round_, paths)
        prior = torch.from_numpy(log_prior(labels, units.num_units))
        new = train.align(_net_scores(net, train.store, prior))
        rounds.append(train.compare(f"net round {round_}", labels, new))
        labels = new
    dev_labels = dev.align(_net_scores(net, dev.store, prior))
    for name, values in (("train", labels), ("dev", dev_labels), ("log_prior", log_prior(labels, units.num_units))):
        with atomic_path(paths.align / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, values)
    silence = float(units.is_silence(labels[labels >= 0]).mean())
    failed = train.failed + dev.failed
    logger.info(f"aligned {len(train.usable)} utterances, {len(labels)} frames, {100 * silence:.0f} % silence, {len(failed)} left out")
    report = {
        "rounds": rounds,
        "frames": len(labels),
        "utterances": len(train.usable),
        "silence_share": silence,
        "failed": failed,
        "mean_boundary_shift_frames": rounds[-1]["boundary_shift_frames"],
        "backend": backend,
    }
    write_json(paths.align / "report.json", report)
