"""A tiny training that tests run in this process and in ones that they kill: `python training_case.py FOLDER METHOD [CRITERION [SLOW]]`."""

from __future__ import annotations

import sys
import time
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from dropasr.config import TrainConfig
from dropasr.data.batches import FrameSampler, utterance_subsets
from dropasr.data.chunks import ChunkSampler
from dropasr.data.sequences import SequenceSampler, TokenSequences
from dropasr.data.store import FrameStore, FrameStoreWriter
from dropasr.methods import build_method
from dropasr.methods.base import Schedule
from dropasr.models.feedforward import FeedForward
from dropasr.models.lstm import Lstm
from dropasr.training.loop import Samplers, Trainer
from dropasr.training.teacher import NetTeacher

sys.path.insert(0, str(Path(__file__).parents[1]))
from toy_models import ToyRecurrent  # noqa: E402 (the folder above is on the path only now)

METHODS = {
    "dense": {"method": "dense"},
    "annealed_dropout": {"method": "annealed_dropout"},
    "dropout_compaction": {
        "method": "dropout_compaction",
        "start": 0.2,
        "end": 0.7,
        "frames_per_update": 128,
        "signal_frames": 256,
        "min_units": 3,
    },
    "dropout": {"method": "dropout", "rate": 0.1},
    "approximate_random_dropout": {"method": "approximate_random_dropout"},
    "dropout_distillation": {"method": "dropout_distillation", "initial": "random", "teacher_weight": 0.1},
    "svd": {"method": "svd"},
    "random_removal": {"method": "random_removal", "start": 0.2, "end": 0.7, "min_units": 3},
    "node_pruning": {"method": "node_pruning", "importance": "entropy", "passes": 2, "frames": 128, "min_units": 3},
    "criterion_removal": {"method": "criterion_removal", "start": 0.2, "end": 0.7, "frames": 128, "min_units": 3},
    "dropnet": {"method": "dropnet", "end": 0.4, "frames": 128, "min_units": 3},
    "dropneuron": {"method": "dropneuron", "passes": 6, "min_units": 3},
    "iss_group_lasso": {"method": "iss_group_lasso", "proximal": True, "passes": 6, "min_units": 3},
    "adaptive_dropout": {"method": "adaptive_dropout", "start": 0.2, "end": 0.7, "passes": 2, "min_units": 3},
    "l0_hard_concrete": {"method": "l0_hard_concrete", "end": 0.7, "passes": 4, "min_units": 3},
    "generalised_dropout": {"method": "generalised_dropout", "end": 0.7, "passes": 4, "min_units": 3},
    "beta_bernoulli": {"method": "beta_bernoulli", "end": 0.7, "passes": 4, "min_units": 3},
    "online_compaction": {"method": "online_compaction", "end": 0.7, "passes": 4, "min_units": 3},
    "input_compaction": {"method": "online_compaction", "end": 0.7, "passes": 4, "min_units": 3, "input_power": 0.5},
    "targeted_dropout": {"method": "targeted_dropout", "start": 0.2, "end": 0.7, "passes": 2, "min_units": 3},
    "targeted_weight_dropout": {"method": "targeted_weight_dropout", "share": 0.7, "rank_every": 3},
}

NOT_FOR_TOYS = ("approximate_random_dropout", "svd")
"""Methods that need more of a recurrent net than gates: they are tried on an LSTM."""


FOR_FEED_FORWARD_NETS = ("input_compaction",)
"""Methods that recurrent nets refuse."""


def make_store(folder: Path, utterances: int = 24, frames: int = 60, features: int = 8, classes: int = 6) -> tuple[FrameStore, np.ndarray]:
    """Frames around one random centre per class, so that a net can learn them; labels `(N,)`."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, features))
    labels = []
    with FrameStoreWriter(folder, features, "float32") as writer:
        for index in range(utterances):
            own = np.repeat(rng.integers(0, classes, frames // 5), 5)
            values = centres[own] + 0.5 * rng.standard_normal((frames, features))
            writer.add(f"u{index:02d}", f"s{index % 4}", ["A"], frames / 100, values.astype(np.float32))
            labels.append(own)
    return FrameStore.open(folder), np.concatenate(labels).astype(np.int32)


def make_trainer(
    folder: Path, method: str, criterion: str = "frames", epochs: int = 5, width: int = 32, seed: int = 1, say=lambda text: None, **options
) -> Trainer:
    """`criterion`: frames, ctc, or `chunks` and `ctc_chunks`, the same with a recurrent net.

    With CTC the tokens of an utterance are the classes of its runs of frames; unit 0 is the blank.
    """
    torch.set_num_threads(1)
    criterion, chunks = criterion.replace("_chunks", "").replace("chunks", "frames"), "chunks" in criterion
    store, labels = make_store(folder / "store")
    batches = {"batch_size": 64} if criterion == "frames" else {"batch_frames": 128}
    config = TrainConfig(epochs=epochs, criterion=criterion, learning_rate=0.05, precision="float32", **batches, **options)
    torch.manual_seed(seed)
    outputs = 6 + (criterion == "ctc")
    if chunks:
        net = Lstm(8, [width], outputs) if method in NOT_FOR_TOYS else ToyRecurrent(8, width, outputs)
    else:
        net = FeedForward(8, (2, 2), [width, width], outputs)
    kept, held_out = utterance_subsets(store, 0.2, seed)
    if criterion == "frames" and chunks:
        everything = ChunkSampler(store, labels, net.context, 12, 150, seed=seed, epochs_per_pass=config.epochs_per_pass)
    elif criterion == "frames":
        everything = FrameSampler(store, labels, net.context, 64, seed=seed, epochs_per_pass=config.epochs_per_pass)
    else:
        runs = [[int(unit) + 1 for unit, _ in groupby(labels[start:end])] for start, end in zip(store.offsets, store.offsets[1:])]
        tokens = TokenSequences.from_lists(runs)
        everything = SequenceSampler(store, tokens, net.context, 128, seed, epochs_per_pass=config.epochs_per_pass, chunks=chunks)
    samplers = Samplers(everything, everything.subset(kept), everything.subset(held_out), everything)
    schedule = Schedule(epochs, everything.steps_per_epoch, seed, 0.3 * net.macs_per_frame())
    built = build_method(method, METHODS[method], schedule)
    teacher = NetTeacher(net.with_widths(net.widths), "float32") if built.masks_teacher else None
    return Trainer(net, built, samplers, config, folder / "net", seed, teacher, say, "case")


if __name__ == "__main__":
    slow = len(sys.argv) > 4

    def report(text: str) -> None:
        print(text, flush=True)
        if slow and text.startswith("epoch"):
            time.sleep(1.0)

    make_trainer(Path(sys.argv[1]), *sys.argv[2:4], say=report).run()
    print("finished", flush=True)
