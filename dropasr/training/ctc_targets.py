"""Stage 4 with CTC: the output units, and the token sequence of every utterance. No alignment is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dropasr.config import Config, CorpusConfig
from dropasr.data.sequences import TokenSequences
from dropasr.data.store import FrameStore
from dropasr.data.validate import too_short
from dropasr.files import atomic_path, sha256_bytes, sha256_file, write_json
from dropasr.lang.ctc import minimal_frames
from dropasr.lang.ctc_topology import ctc_transducers
from dropasr.lang.graph import installed_backends
from dropasr.lang.graph_build import provide_graphs
from dropasr.lang.pieces import PieceEncoder
from dropasr.log import get_logger
from dropasr.paths import Paths

logger = get_logger(__name__)


def tokens_file(paths: Paths, split: str) -> Path:
    """Where the token sequences of a split lie."""
    return paths.align / f"tokens-{split}.npz"


def tokens_of(
    split: str, store: FrameStore, encoder: PieceEncoder, subsampling: int, corpus: CorpusConfig
) -> tuple[TokenSequences, list[dict[str, str]]]:
    """Tokens of every utterance of a store, and `{"id", "reason"}` of those that have none.

    Left out are utterances with fewer frames, one in `subsampling` counted, than their tokens need, and those spelt with a character
    that no training transcript has. Raises DataError as `corpus.too_short` and `corpus.max_dropped` ask.
    """
    encoded = [encoder.sentence(words) for words in store.texts]
    frames = (-(-np.diff(store.offsets) // subsampling)).tolist()
    known = [i for i, tokens in enumerate(encoded) if tokens is not None]
    utterances = [(store.ids[i], store.texts[i], frames[i]) for i in known]
    left_out = too_short(split, utterances, lambda words: minimal_frames(encoder.sentence(words) or []), corpus)
    for id_, words, tokens in zip(store.ids, store.texts, encoded):
        if tokens is None:
            unknown = next(word for word in words if encoder.word(word) is None)
            left_out.append({"id": id_, "reason": f"no training transcript has all characters of '{unknown}'"})
    for item in left_out:
        logger.warning(f"{split}: {item['id']} has no tokens: {item['reason']}")
    absent = {item["id"] for item in left_out}
    return TokenSequences.from_lists([[] if id_ in absent else tokens for id_, tokens in zip(store.ids, encoded)]), left_out


def _graphs(encoder: PieceEncoder, paths: Paths) -> dict[str, dict[str, Any]]:
    """The graphs with lexicon and language model, for every backend that is installed."""
    arpa, words = paths.lang / "lm.arpa", paths.lang / "words.txt"
    inputs = {"topology": "ctc", "arpa": sha256_file(arpa), "words": sha256_file(words), "pieces": list(encoder.units.pieces)}
    inputs["model"] = sha256_bytes(encoder.model)
    return provide_graphs(paths.align, paths.graphs, inputs, lambda: ctc_transducers(encoder, arpa, words), installed_backends())


def prepare_targets(config: Config, paths: Paths) -> None:
    """Write units, tokens of train and dev, a prior of zeros, decoding graphs, and the report of stage 4."""
    encoder = PieceEncoder.load(paths.lang)
    paths.align.mkdir(parents=True, exist_ok=True)
    encoder.units.save(paths.align / "units.json")
    report = {"rounds": [], "failed": [], "mean_boundary_shift_frames": None, "criterion": "ctc"}
    for split in ("train", "dev"):
        store = FrameStore.open(paths.features(split))
        # What dev has too little of is missing from its figures in training; it is decoded all the same.
        policy = config.corpus if split == "train" else config.corpus.model_copy(update={"max_dropped": 1.0, "too_short": "drop"})
        tokens, left_out = tokens_of(split, store, encoder, config.train.frame_subsampling, policy)
        tokens.save(tokens_file(paths, split))
        report["failed"] += left_out
        if split == "train":
            used = tokens.lengths > 0
            frames = np.diff(store.offsets)[used]
            report |= {"frames": int(frames.sum()), "utterances": int(used.sum()), "tokens": len(tokens.tokens)}
            report["frames_per_token"] = round(float(frames.sum() / len(tokens.tokens)), 3)
            logger.info(
                f"{used.sum()} utterances, {len(tokens.tokens)} tokens of {encoder.units.num_units - 1} {encoder.units.kind}, "
                f"{report['frames_per_token']:.1f} frames per token, {len(left_out)} left out"
            )
    report["graphs"] = _graphs(encoder, paths)
    with atomic_path(paths.align / "log_prior.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, np.zeros(encoder.units.num_units, dtype=np.float32))
    write_json(paths.align / "report.json", report)
