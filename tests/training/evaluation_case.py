"""An experiment whose nets pass their input on, for tests of stage 7."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from dropasr.config import Config, load_config, rows
from dropasr.data.store import FrameStore, FrameStoreWriter
from dropasr.decoding.likelihoods import log_likelihoods
from dropasr.decoding.search import PLAIN, Weights, load_search
from dropasr.files import read_json, write_json
from dropasr.lang.ngram import estimate
from dropasr.lang.units import OutputUnits
from dropasr.models.checkpoint import load_net, save_net
from dropasr.models.feedforward import FeedForward
from dropasr.paths import Paths
from dropasr.scoring.wer import score
from dropasr.training import evaluate
from dropasr.training.rows import row_identity

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "decoding"))
from search_case import SMALL, TEXT, make_lang  # noqa: E402 (the folder above is on the path only now)

SETTINGS = ("experiment.budgets=[]", "experiment.small=[]", "experiment.compact=[]", "corpus.extra_tests=[noisy]")
UNITS = OutputUnits(tuple(SMALL.phones), 2, 1)


def write_split(folder: Path, sentences: list[list[str]], noise: float, seed: int) -> None:
    """Frames that are one-hot units of the sentence with noise, three frames a unit."""
    rng = np.random.default_rng(seed)
    with FrameStoreWriter(folder, UNITS.num_units, "float32") as writer:
        for number, words in enumerate(sentences):
            pdfs = [pdf for word in words for phone in SMALL.entries[word][0] for pdf in UNITS.pdfs(phone)]
            frames = np.eye(UNITS.num_units, dtype=np.float32)[np.repeat(pdfs, 3)]
            frames += noise * rng.standard_normal(frames.shape).astype(np.float32)
            writer.add(f"{folder.name}-{number}", f"s{number % 3}", words, len(frames) / 100, frames)


def through(scale: float) -> FeedForward:
    """A net whose logits are `scale` times its input, as far as that is positive."""
    net = FeedForward(UNITS.num_units, (0, 0), [UNITS.num_units], UNITS.num_units)
    with torch.no_grad():
        for layer, factor in ((net.hidden[0], 1.0), (net.output, scale)):
            layer.weight.copy_(factor * torch.eye(UNITS.num_units))
            layer.bias.zero_()
    return net


class Experiment:
    """Two large nets, three splits with transcripts, graphs."""

    def __init__(self, folder: Path, yaml: Path) -> None:
        self.yaml, self.paths = yaml, Paths(folder / "data", folder / "exp", "feedforward", 1)
        for part in (self.paths.lang, self.paths.align):
            part.mkdir(parents=True)
        make_lang(self.paths.align, SMALL, UNITS, estimate(TEXT, 3, "witten_bell", SMALL.entries))
        for name in ("words.txt", "lm.arpa"):
            (self.paths.align / name).rename(self.paths.lang / name)
        np.save(self.paths.align / "log_prior.npy", np.full(UNITS.num_units, -np.log(UNITS.num_units), np.float32))
        for number, (split, noise) in enumerate({"train": 0.3, "dev": 0.7, "test": 0.7, "noisy": 1.2}.items()):
            write_split(self.paths.features(split), TEXT * 2, noise, number)
        np.save(self.paths.align / "train.npy", np.zeros(FrameStore.open(self.paths.features("train")).num_frames, np.int32))
        config = self.config()
        for row, scale in zip(rows(config), (3.0, 1.0)):
            net = through(scale)
            save_net(self.paths.net(row.name), net, {})
            write_json(self.paths.net(row.name) / "summary.json", {"config_hash": row_identity(config, self.paths, row)})

    def config(self, *settings: str) -> Config:
        return load_config(self.yaml, settings=[*SETTINGS, "decode.acoustic_scales=[0.5,1.0]", "decode.beam=30", *settings])

    def decode(self, *settings: str, nj: int = 1) -> dict[str, dict]:
        config = self.config(*settings)
        evaluate.decode(config, self.paths, nj)
        return {row.name: read_json(self.paths.scores(row.name)) for row in rows(config)}

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.paths.test_log.read_text().splitlines()]

    def words(self, row: str, split: str, scale: float, weights: Weights = PLAIN) -> list[list[str]]:
        """What a search of all utterances together gives."""
        search = load_search(self.paths.align, self.config().decode, self.paths.lang / "words.txt").weighted(weights)
        store, net = FrameStore.open(self.paths.features(split)), load_net(self.paths.net(row))
        prior = torch.from_numpy(np.load(self.paths.align / "log_prior.npy"))
        scores = [scale * log_likelihoods(net, store.utterance(i), prior) for i in range(len(store))]
        return [hypothesis.words for hypothesis in search.decode(scores)]

    def errors(self, split: str, words: list[list[str]]) -> int:
        store = FrameStore.open(self.paths.features(split))
        return score(dict(zip(store.ids, store.texts)), dict(zip(store.ids, words))).errors
