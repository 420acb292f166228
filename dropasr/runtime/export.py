"""From a trained and decoded row to a folder that engines run: graphs, weights, card; checked on real features of dev."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dropasr.config import Config
from dropasr.data.features import FRAME_LENGTH
from dropasr.data.normalisation import Moments
from dropasr.data.store import FrameStore
from dropasr.decoding.likelihoods import load_log_prior, prior_text
from dropasr.errors import ExportError, StageError
from dropasr.files import read_json, write_bytes
from dropasr.log import get_logger
from dropasr.models.base import AcousticModel, check_skip
from dropasr.models.checkpoint import git_revision, load_net, write_tensors
from dropasr.paths import Paths
from dropasr.runtime.engines import CHOICE, load_engine
from dropasr.runtime.exported import CARD, DYNAMIC_INT8, STATIC_INT8, STREAM, TORCHSCRIPT, WEIGHTS, WHOLE, Exported
from dropasr.runtime.graphs import layout_of, write_graph
from dropasr.runtime.quantise import dynamic_int8, static_int8
from dropasr.runtime.scorer import torchscript
from dropasr.runtime.whole_folder import made_here, whole_or_nothing

logger = get_logger(__name__)
TOLERANCE = 1e-4
"""Largest difference from the net in torch, relative to the largest logit."""
CHECKED_FRAMES = 5000
CALIBRATION_FRAMES = 20_000
"""Dev frames that the ranges of int8 activations are taken from, and their utterances chosen at random with a fixed seed."""
STREAM_PARTS = (1, 7, 30)
"""Scores of the parts that a stream is checked with, by turns."""
Utterance = tuple[np.ndarray, np.ndarray, np.ndarray]


def raw_utterances(store: FrameStore, frames: int) -> Iterator[Utterance]:
    """Features `(T, F)` as they were before normalisation, mean and std, of a fixed random choice with about so many frames."""
    for position in np.random.default_rng(0).permutation(len(store)).tolist():
        mean, std = store.statistics(position)
        features = store.utterance(position).astype(np.float32) * std + mean
        yield features, mean, std
        frames -= len(features)
        if frames <= 0:
            return


def training_moments(store: FrameStore) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, float32 `(F,)`, of the training set; put together from its groups in stores that do not state them."""
    found = store.global_statistics()
    if found is not None:
        return found
    total: Moments | None = None
    for position, frames in enumerate(np.diff(store.offsets)):
        mean, std = (values.astype(np.float64) for values in store.statistics(position))
        moments = Moments(float(frames), mean, np.square(std))
        total = moments if total is None else total.joined(moments)
    assert total is not None  # a store has at least one utterance
    return total.mean_and_std()


def _card(config: Config, paths: Paths, row: str, net: AcousticModel, licence: str) -> Exported:
    if not paths.scores(row).exists():
        raise StageError(
            f"{paths.scores(row)}: the row '{row}' was not decoded, so its acoustic scale is not known. Run: bash run.sh --stage 7."
        )
    scores = read_json(paths.scores(row))
    stride = config.train.frame_subsampling * config.decode.frame_skip
    layout = layout_of(net, stride)
    mean, std = training_moments(FrameStore.open(paths.features("train")))
    features = config.features
    rtf = read_json(paths.rtf)["rows"].get(row) if paths.rtf.exists() else None
    return Exported(
        corpus=config.corpus.name,
        licence=licence,
        model=paths.model,
        row=row,
        dims=net.dims,
        widths=net.widths,
        git_revision=git_revision(),
        sample_rate=config.corpus.sample_rate,
        features={
            "num_mel_bins": features.num_mel_bins,
            "frame_shift": features.frame_shift,
            "frame_length": FRAME_LENGTH,
            "low_freq": features.low_freq,
            "high_freq": features.high_freq,
        },
        normalisation={
            "kind": features.normalise,
            "prior_frames": features.prior_frames,
            "mean": mean.tolist(),
            "std": std.tolist(),
        },
        stride=layout.stride,
        left_context=layout.left_context,
        right_context=layout.right_context,
        output_delay=layout.output_delay,
        recurrent=net.reads_chunks,
        states=[],
        acoustic_scale=scores["acoustic_scale"],
        prior=prior_text(config),
        units=net.dims["num_outputs"],
        wer={split: figures["wer"] for split, figures in _by_split(scores).items()},
        shared=config.decode.frame_skip,
        frames_scored=net.frames_scored,
        rtf=None if rtf is None else {part: rtf[part] for part in ("features", "model", "search", "total")},
    )


def _by_split(scores: dict[str, Any]) -> dict[str, Any]:
    return {"dev": scores["dev"], "test": scores["test"], **scores.get("extra", {})}


def export(config: Config, paths: Paths, row: str, folder: Path, licence: str = "unknown") -> Exported:
    """Write the exported folder of a row and check it; a folder that was there before is replaced only by a whole one.

    Raises StageError for a row that was not trained and decoded, DataError where `folder` holds something else than an exported net,
    ExportError where the graphs do not give what the net gives.
    """
    net = load_net(paths.net(row))
    check_skip(net, config.decode.frame_skip)
    prior = load_log_prior(config, paths, row)
    card = _card(config, paths, row, net, licence)
    store = FrameStore.open(paths.features("dev"))
    with whole_or_nothing(folder, made_here(folder, CARD, [CHOICE])) as made:
        made.mkdir()
        exported = write_files(net, prior, card, made, list(raw_utterances(store, CALIBRATION_FRAMES)))
        check(net, prior, exported, made, list(raw_utterances(store, CHECKED_FRAMES)))
    return exported


def write_files(net: AcousticModel, prior: torch.Tensor, card: Exported, folder: Path, calibration: list[Utterance]) -> Exported:
    """Write graphs, weights and card of a net. Static int8 is for nets without recurrence: in others little of it would be static."""
    log_prior, scale = prior.numpy().astype(np.float64), card.acoustic_scale
    whole, _ = write_graph(net, card.stride, log_prior, scale, stream=False)
    small, _ = write_graph(net, card.stride, log_prior, scale, stream=False, for_int8=True)
    files = {WHOLE: whole, TORCHSCRIPT: torchscript(net, card.stride, prior, scale), DYNAMIC_INT8: dynamic_int8(small)}
    states: list[dict[str, Any]] = []
    if not layout_of(net, card.stride).both_ends:
        files[STREAM], found = write_graph(net, card.stride, log_prior, scale, stream=True)
        states = [state.about() for state in found]
    if not net.reads_chunks:
        files[STATIC_INT8] = static_int8(whole, [dict(zip(("features", "mean", "std"), item)) for item in calibration])
    for name, content in files.items():
        write_bytes(folder / name, content)
    write_tensors(folder / WEIGHTS, {**net.state_dict(), "log_prior": prior.float()})
    return Exported(**{**vars(card), "states": states}).write(folder, [*files, WEIGHTS])


@torch.no_grad()
def check(net: AcousticModel, prior: torch.Tensor, exported: Exported, folder: Path, utterances: list[Utterance]) -> dict[str, float]:
    """Compare ONNX (whole utterances and stream) and TorchScript with the net in torch; returns the largest difference of each.

    Differences of scores are those of log posteriors times the acoustic scale, which is divided out; they are relative to the largest
    logit. Raises ExportError over TOLERANCE. The int8 graphs are compared, too, but are not expected to agree.
    """
    scale = exported.acoustic_scale
    references, largest = [], 0.0
    for features, mean, std in utterances:
        logits = net.logits(torch.from_numpy((features - mean) / std), exported.stride // exported.frames_scored)
        largest = max(largest, float(logits.abs().max()))
        references.append((torch.log_softmax(logits, dim=1) - prior).numpy())
    found: dict[str, float] = {}
    for name, engine in _checked_engines(folder, exported):
        pairs = zip(utterances, references)
        found[name] = max(_difference(engine(*item) / scale, reference) for item, reference in pairs) / largest
    told = ", ".join(f"{name} {value:.1e}" for name, value in found.items())
    frames = sum(len(features) for features, _, _ in utterances)
    logger.info(f"largest differences from the net in torch, relative to the largest logit, on {frames} frames of dev: {told}")
    for name in (WHOLE, STREAM, TORCHSCRIPT):
        if not found.get(name, 0.0) <= TOLERANCE:
            raise ExportError(
                f"{exported.row}: {name} differs by {found[name]:.1e} from the net in torch; at most {TOLERANCE:.0e} was expected."
            )
    return found


def _difference(scores: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference of rows of scores from `reference` `(T', K)`, the scores of frames that never come aside."""
    return float(np.abs(scores.reshape(-1, reference.shape[1])[: len(reference)] - reference).max())


def _checked_engines(folder: Path, exported: Exported) -> Iterator[tuple[str, Any]]:
    scripted = torch.jit.load(str(folder / TORCHSCRIPT))
    yield TORCHSCRIPT, lambda *item: scripted(*map(torch.from_numpy, item)).numpy()
    for name, engine in ((WHOLE, "onnx"), (DYNAMIC_INT8, "onnx_int8"), (STATIC_INT8, "onnx_int8_static")):
        if name in exported.files:
            yield name, load_engine(folder, engine, threads=1).scores
    if exported.streams:
        stream = load_engine(folder, "onnx", threads=1).stream
        yield STREAM, lambda *item: stream(*item, parts=STREAM_PARTS)
