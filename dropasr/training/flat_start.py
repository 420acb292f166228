"""Stage 4: label every frame with an output unit, from nothing but transcripts; then the decoding graph of these units.

Uniform alignment, then single Gaussians, then rounds of a small net and realignment; with `lang.tying` then left biphone units and
rounds with them. Alignment is the decoder's search on a linear graph. The rounds before tying use utterances that are no copies of
others; those after it (without tying, the last one) label all, and dev.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dropasr.config import Config, TrainConfig
from dropasr.data.batches import FrameSampler
from dropasr.data.store import FrameStore
from dropasr.decoding.graphs import make_graphs
from dropasr.decoding.search import choose_backend
from dropasr.files import atomic_path, hash_of, sha256_bytes, sha256_file, write_json
from dropasr.lang.graph import installed_backends
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.lexicon_build import alignment_lexicon
from dropasr.lang.tying import check_num_units, left_context, tie, with_context
from dropasr.lang.units import OutputUnits
from dropasr.log import get_logger
from dropasr.methods.base import BaseMethod, CommonOptions, Schedule
from dropasr.models.base import AcousticModel
from dropasr.models.feedforward import FeedForward
from dropasr.paths import Paths
from dropasr.training.checkpoints import remove_training
from dropasr.training.ctc_targets import prepare_targets
from dropasr.training.gaussians import Gaussians, biphone_statistics
from dropasr.training.labelling import Labeller, NetScorer, Scorer, Split
from dropasr.training.loop import Samplers, Trainer
from dropasr.training.rounds import Labelling, Round, Rounds, plan
from dropasr.training.rows import MAX_COPY_BYTES

logger = get_logger(__name__)
SEED = 1


def log_prior(labels: np.ndarray, num_units: int) -> np.ndarray:
    """Log relative frequency `(K,)` of the units among `labels`, with one added to each count."""
    counts = np.bincount(labels[labels >= 0], minlength=num_units) + 1.0
    return np.log(counts / counts.sum()).astype(np.float32)


def _convert(split: Split, labels: np.ndarray, units: OutputUnits, tied: OutputUnits) -> np.ndarray:
    """Labels `(N,)` of phones as labels of tied biphones; -1 stays."""
    known = np.maximum(labels, 0)
    converted = with_context(known, left_context(known, split.store.offsets[:-1], units), units, tied)
    return np.where(labels >= 0, converted, labels).astype(np.int32)


@dataclass
class FlatStart:
    """The rounds of one alignment."""

    config: Config
    paths: Paths
    lexicon: Lexicon
    labeller: Labeller
    train: Split
    dev: Split

    def train_net(self, state: Labelling, folder: Path, number: int, name: str) -> AcousticModel:
        """A small net trained on the labels so far; a killed training goes on, but not with another configuration or other labels.

        Where copies at other speeds have labels, an epoch has as many frames as the originals, drawn from all copies: a net that sees a
        frame twice learns its label by heart, and then aligns as before.
        """
        torch.manual_seed(SEED)
        config, store = self.config.align, self.train.store
        net = FeedForward(self.config.features.num_mel_bins, (5, 5), [config.width] * config.layers, state.units.num_units)
        options = TrainConfig(epochs=config.epochs, batch_size=256, learning_rate=0.05, final_learning_rate=0.1, constant_share=0.4)
        copied, chosen = store.frames.nbytes <= MAX_COPY_BYTES, np.array(self.train.labelled(state.train))
        parts = round(len(chosen) / len(self.train.originals))
        sampler = FrameSampler(store, state.train, net.context, options.batch_size, chosen, SEED + number, copied, parts)
        method = BaseMethod(CommonOptions(method="dense"), Schedule(options.epochs, sampler.steps_per_epoch, SEED))

        def say(text: str) -> None:
            logger.info(f"{name}: {text.replace('dev CE', 'then CE').replace('dev frame', 'frame')}")

        labels_hash, store_hash = sha256_bytes(state.train.tobytes()), sha256_file(store.folder / "index.json")
        identity = hash_of([config.model_dump(), net.dims, labels_hash, store_hash])
        samplers = Samplers(sampler, sampler, sampler, sampler.subset(np.array(self.train.originals)))
        return Trainer(net, method, samplers, options, folder, SEED, say=say, identity=identity).run()

    def tie(self, state: Labelling) -> Labelling:
        """The labels renamed to left biphone units, which they also decide."""
        lang, units = self.config.lang, state.units
        statistics = biphone_statistics(self.train.store, state.train, self.train.originals, units)
        tied = tie(units, statistics, lang.tying, lang.num_units, lang.min_count)
        seen = int((statistics.counts > 0).sum())
        logger.info(f"tying ({lang.tying}): {seen} of {statistics.counts.size} left biphone states seen, {tied.num_units} output units")
        dev = _convert(self.dev, state.dev, units, tied) if len(state.dev) else state.dev
        return Labelling(tied, _convert(self.train, state.train, units, tied), dev, state.report)

    def run(self, step: Round, state: Labelling) -> Labelling:
        """Labels after one more round."""
        if step.kind == "tying":
            return self.tie(state)
        scorer: Scorer
        chosen = self.train.originals
        if step.kind == "gaussian":
            scorer = Gaussians.of_store(self.train.store, state.train, chosen, state.units.num_units)
            # The Gaussians have few parameters: a part of the utterances is enough for them until the last round labels all.
            chosen = chosen if step.all_originals else chosen[:: max(1, len(chosen) // self.config.align.gaussian_utterances)]
        else:
            net = self.train_net(state, self.paths.align / step.folder, step.number, step.name)
            scorer = NetScorer(net, torch.from_numpy(log_prior(state.train, state.units.num_units)))
        dev = state.dev
        if step.everything:
            chosen = self.train.usable
            dev = self.labeller.labels(self.dev, state.units, self.dev.usable, scorer, f"{step.name}, dev")
        labels = self.labeller.labels(self.train, state.units, chosen, scorer, step.name)
        moved = compare(step.name, self.train, state.train, labels, state.units)
        return Labelling(state.units, labels, dev, [*state.report, moved])


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


def compare(name: str, split: Split, old: np.ndarray, new: np.ndarray, units: OutputUnits) -> dict[str, Any]:
    """Share of changed labels and mean shift of phone starts between two rounds, logged."""
    used = (new >= 0) & (old >= 0)
    changed = 100 * float((old[used] != new[used]).mean())
    shifts = [boundary_shift(old[split.span(i)], new[split.span(i)], units) for i in split.originals]
    shift = float(np.nanmean(shifts)) if not np.all(np.isnan(shifts)) else None
    moved = "" if shift is None else f", phone starts moved by {shift:.2f} frames on average"
    logger.info(f"{name}: {changed:.1f} % of the labels changed{moved}")
    return {"name": name, "changed_percent": changed, "boundary_shift_frames": shift}


def _identity(config: Config, paths: Paths, backend: str) -> dict[str, Any]:
    """What the labels of all rounds depend on, beside the rounds themselves."""
    rounds = {"gaussian_rounds", "net_rounds", "biphone_rounds"}
    files = [paths.features("train") / "index.json", paths.features("dev") / "index.json", alignment_lexicon(paths)]
    lang, mel = config.lang, config.features.num_mel_bins
    states = [lang.states_per_phone, lang.silence_states, lang.silence_probability]
    hashes = [sha256_file(file) for file in files]
    return {"align": config.align.model_dump(exclude=rounds), "files": hashes, "lang": states, "backend": backend, "mel": mel}


def label(config: Config, paths: Paths, lexicon: Lexicon, backend: str, nj: int) -> tuple[Labelling, Split, Split]:
    """All rounds, from the last one that an earlier run of the same configuration finished."""
    units = OutputUnits(tuple(lexicon.phones), config.lang.states_per_phone, config.lang.silence_states)
    if config.lang.tying == "likelihood":
        check_num_units(units, config.lang.num_units)
    split = {name: FrameStore.open(paths.features(name)) for name in ("train", "dev")}
    train, dev = (Split.of(store, lexicon, units, config.corpus.max_dropped) for store in split.values())
    steps = plan(config)
    rounds = Rounds(paths.align / "rounds", steps, _identity(config, paths, backend))
    done, state = rounds.latest()
    if state is None:
        state = Labelling(units, train.uniform(lexicon, units), np.empty(0, np.int32), [])
    elif done < len(steps):
        logger.info(f"going on after {steps[done - 1].name} of an earlier run")
    else:
        logger.info("the labels of an earlier run are those of this configuration")
    with Labeller(config, lexicon, backend, nj if done < len(steps) else 1) as labeller:
        flat_start = FlatStart(config, paths, lexicon, labeller, train, dev)
        for step in steps[done:]:
            state = flat_start.run(step, state)
            rounds.save(step, state)
            remove_training(paths.align / step.folder)
    return state, train, dev


def align(config: Config, paths: Paths, nj: int) -> None:
    """Stage 4: labels of train and dev, priors, output units, decoding graphs, and a report of how much the last rounds still moved."""
    if config.train.criterion == "ctc":
        prepare_targets(config, paths)
        return
    # A small net gains little from a second thread, loses much on a busy machine, and its weights would depend on their number.
    torch.set_num_threads(1)
    lexicon = Lexicon.load(paths.lang / "lexicon.txt")
    backend = choose_backend(config.decode.backend)
    state, train, dev = label(config, paths, Lexicon.load(alignment_lexicon(paths)), backend, nj)
    units, labels = state.units, state.train
    prior = log_prior(labels, units.num_units)
    for name, values in (("train", labels), ("dev", state.dev), ("log_prior", prior)):
        with atomic_path(paths.align / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, values)
    units.save(paths.align / "units.json")
    silence = float(units.is_silence(labels[labels >= 0]).mean())
    failed = train.failed + dev.failed
    logger.info(f"aligned {len(train.usable)} utterances, {len(labels)} frames, {100 * silence:.0f} % silence, {len(failed)} left out")
    report = {
        "rounds": state.report,
        "frames": len(labels),
        "utterances": len(train.usable),
        "silence_share": silence,
        "failed": failed,
        "mean_boundary_shift_frames": state.report[-1]["boundary_shift_frames"],
        "backend": backend,
        "units": units.num_units,
        "tying": config.lang.tying,
        "graphs": make_graphs(config, paths, lexicon, units, paths.align, installed_backends()),
    }
    write_json(paths.align / "report.json", report)
