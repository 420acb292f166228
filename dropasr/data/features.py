"""Log-mel filterbanks: extraction through lhotse, and stage 2 that normalises and stores them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Fbank, FbankConfig
from lhotse.audio import set_audio_duration_mismatch_tolerance

import dropasr
from dropasr import workers
from dropasr.config import Config, FeaturesConfig
from dropasr.data.audio import read_sphere_by_libsndfile
from dropasr.data.finished import NAME as FINISHED
from dropasr.data.finished import read_finished, write_finished
from dropasr.data.normalisation import Moments, moments, normalise
from dropasr.data.perturb import perturbed
from dropasr.data.store import FrameStoreWriter
from dropasr.errors import ConfigError, DataError, StageError
from dropasr.files import hash_of, sha256_file
from dropasr.log import get_logger, progress
from dropasr.paths import Paths

FRAME_LENGTH = 0.025  # seconds, as in Kaldi
CHUNK_SECONDS = 60.0  # audio per task of a worker: small against a split, large against the cost of passing it on
DURATION_TOLERANCE = 0.01  # seconds of audio that may be missing; lhotse would fill up to 0.5 s of a truncated file by reflection

logger = get_logger(__name__)
read_sphere_by_libsndfile()  # here, so that whoever extracts features, of stored cuts or while timing, reads audio alike


def make_extractor(config: FeaturesConfig, sample_rate: int) -> Fbank:
    """A deterministic (no dither) log-mel extractor for audio at `sample_rate` Hz, frames of 25 ms, edges reflected.

    Raises ConfigError if the filters do not lie below half the sample rate, or a frame shift is shorter than a sample.
    """
    half = sample_rate / 2
    high = config.high_freq if config.high_freq > 0 else half + config.high_freq
    if not 0 <= config.low_freq < high <= half:
        found = f"features.low_freq {config.low_freq:g} and features.high_freq {config.high_freq:g}"
        raise ConfigError(f"{found} give filters from {config.low_freq:g} to {high:g} Hz; expected 0 ≤ low < high ≤ {half:g} Hz.")
    if not 1 <= config.frame_shift * sample_rate <= FRAME_LENGTH * sample_rate:
        raise ConfigError(f"features.frame_shift: expected seconds, at most the frame length {FRAME_LENGTH}, found {config.frame_shift:g}.")
    return Fbank(
        FbankConfig(
            sampling_rate=sample_rate,
            frame_length=FRAME_LENGTH,
            frame_shift=config.frame_shift,
            dither=0.0,
            snip_edges=False,
            low_freq=config.low_freq,
            high_freq=config.high_freq,
            num_filters=config.num_mel_bins,
        )
    )


def log_mel(extractor: Fbank, samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Log-mel energies, float32 `(T, F)`, of `samples`, float32 `(S,)` in [-1, 1]; T is S over the frame shift, rounded.

    Raises DataError for a wrong sample rate or for audio shorter than one frame.
    """
    wanted = extractor.config.sampling_rate
    if sample_rate != wanted:
        raise DataError(f"expected audio at {wanted} Hz, found {sample_rate} Hz. Resample it, or set corpus.sample_rate.")
    shortest = int(FRAME_LENGTH * sample_rate)
    if samples.ndim != 1 or len(samples) < shortest:
        raise DataError(
            f"expected one channel of at least {shortest} samples (one frame), found shape {samples.shape}. Drop the utterance."
        )
    with torch.no_grad():
        frames = extractor.extract(torch.from_numpy(np.ascontiguousarray(samples, np.float32)), sample_rate)
    return frames.numpy()


@functools.lru_cache(maxsize=4)
def _cached_extractor(config: FeaturesConfig, sample_rate: int) -> Fbank:
    return make_extractor(config, sample_rate)


def _source(cut: Any) -> str:
    recording = getattr(cut, "recording", None)
    return ", ".join(str(source.source) for source in recording.sources) if recording is not None else "no recording"


def _extract_cut(cut: Any, config: FeaturesConfig, sample_rate: int) -> np.ndarray:
    if len(cut.supervisions) != 1:
        raise DataError(f"cut '{cut.id}': expected one supervision, found {len(cut.supervisions)}. Run stage 1 (data) again.")
    try:
        samples = cut.load_audio()
    except Exception as error:  # lhotse and its audio backends raise many kinds; all mean that this audio cannot be read
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise DataError(
            f"cut '{cut.id}', {_source(cut)}: expected {cut.duration:.3f} s of readable audio; the file is missing, damaged or truncated "
            f"({reason}). Replace it, or drop the utterance."
        ) from None
    if samples.shape[0] != 1:
        raise DataError(f"cut '{cut.id}': expected one channel, found {samples.shape[0]}. Select a channel in the prepare script.")
    if not np.isfinite(samples).all():
        raise DataError(f"cut '{cut.id}': its audio holds values that are not finite numbers. Replace the file, or drop the utterance.")
    try:
        return log_mel(_cached_extractor(config, sample_rate), samples[0], cut.sampling_rate)
    except DataError as error:
        raise DataError(f"cut '{cut.id}': {error}") from None


def _start_worker() -> None:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning speaks of augmentation; here it shifts lengths by single samples
        set_audio_duration_mismatch_tolerance(DURATION_TOLERANCE)


def _extract_chunk(task: tuple[list[Any], FeaturesConfig, int]) -> list[np.ndarray]:
    """The work of a process: log-mel energies of a few cuts."""
    cuts, config, sample_rate = task
    return [_extract_cut(cut, config, sample_rate) for cut in cuts]


def _group(cut: Any, kind: str) -> tuple[str, str]:
    """What a cut is normalised with: its speaker, or itself where the speaker is unknown or `kind` is `utterance`."""
    speaker = cut.supervisions[0].speaker if cut.supervisions else None
    return ("speaker", speaker) if kind == "speaker" and speaker else ("utterance", cut.id)


def _chunks(cuts: Sequence[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    seconds = 0.0
    for cut in cuts:
        chunk.append(cut)
        seconds += cut.duration
        if seconds >= CHUNK_SECONDS:
            yield chunk
            chunk, seconds = [], 0.0
    if chunk:
        yield chunk


def _log_mels(cuts: Sequence[Any], config: FeaturesConfig, sample_rate: int, pool: Executor) -> Iterator[tuple[Any, np.ndarray]]:
    tasks = ((chunk, config, sample_rate) for chunk in _chunks(cuts))
    results = pool.map(_extract_chunk, tasks)
    yield from zip(cuts, itertools.chain.from_iterable(results), strict=True)


Group = list[tuple[Any, np.ndarray]]
"""Cuts that are normalised together, each with its log-mel energies `(T, F)`."""


def _groups(log_mels: Iterator[tuple[Any, np.ndarray]], kind: str) -> Iterator[Group]:
    for _, members in itertools.groupby(log_mels, key=lambda item: _group(item[0], kind)):
        yield list(members)


@contextlib.contextmanager
def _read_twice(groups: Iterator[Group], folder: Path) -> Iterator[tuple[Moments, Iterator[Group]]]:
    """The moments of all groups together, and the groups again: between the two they lie in a temporary file of 4 bytes per value."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        everything: Moments | None = None
        seen = []
        for group in groups:
            found = moments([frames for _, frames in group])
            everything = found if everything is None else everything.joined(found)
            for _, frames in group:
                np.ascontiguousarray(frames, np.float32).tofile(file)
            seen.append([(cut, frames.shape) for cut, frames in group])
        file.seek(0)

        def again() -> Iterator[Group]:
            for group in seen:
                yield [(cut, np.fromfile(file, np.float32, int(np.prod(shape))).reshape(shape)) for cut, shape in group]

        yield everything, again()  # type: ignore[misc]


def _store(
    writer: FrameStoreWriter, groups: Iterator[Group], prior: Moments | None, prior_frames: float, originals: dict[str, str]
) -> Moments:
    """Normalise and write all groups; returns their moments together."""
    everything: Moments | None = None
    for group in groups:
        found = moments([frames for _, frames in group])
        everything = found if everything is None else everything.joined(found)
        mean, std = found.smoothed(prior, prior_frames).mean_and_std()
        writer.start_group(mean, std)
        for cut, frames in group:
            supervision = cut.supervisions[0]
            # As in Kaldi, an utterance whose speaker is unknown is its own speaker.
            speaker = supervision.speaker or cut.id
            words = (supervision.text or "").split()
            writer.add(cut.id, speaker, words, cut.duration, normalise(frames, mean, std), originals[cut.id])
    return everything  # type: ignore[return-value]


def _made_from(manifest: Path, config: Config, is_train: bool, prior: Moments | None) -> str:
    """Hash of all that decides the features of a split; recordings count by the manifest, which stage 1 writes anew when they change."""
    moments = None if is_train or prior is None else [prior.frames, prior.mean.tolist(), prior.variance.tolist()]
    about = [
        dropasr.__version__,
        sha256_file(manifest),
        manifest.stat().st_mtime_ns,
        config.features.model_dump(mode="json"),
        config.corpus.sample_rate,
    ]
    return hash_of([*about, is_train, moments])


def _extract_split(split: str, config: Config, paths: Paths, pool: Executor, prior: Moments | None) -> Moments | None:
    """Extract and store one split; returns the moments of train, which every later split is given as `prior`."""
    manifest = paths.cuts(split)
    if not manifest.exists():
        raise StageError(f"{manifest}: the cuts of '{split}' are missing. Stage 1 (data) makes them.")
    began = time.perf_counter()
    features, sample_rate, is_train = config.features, config.corpus.sample_rate, split == "train"
    made_from = _made_from(manifest, config, is_train, prior)
    kept = read_finished(paths.features(split), made_from)
    if kept is not None:
        logger.info("%s: its features are there already", split)
        return kept if is_train else prior
    (paths.features(split) / FINISHED).unlink(missing_ok=True)
    kind = features.normalise
    pairs = perturbed(CutSet.from_file(manifest), features.speed_perturb if is_train else (), features.volume_perturb if is_train else None)
    cuts, originals = [cut for cut, _ in pairs], {cut.id: original for cut, original in pairs}
    # Utterances of one group lie together, in the order in which the groups first appear: one group at a time is in memory.
    order = {group: position for position, group in enumerate(dict.fromkeys(_group(cut, kind) for cut in cuts))}
    cuts.sort(key=lambda cut: order[_group(cut, kind)])
    log_mels = progress(_log_mels(cuts, features, sample_rate, pool), f"features {split}", total=len(cuts))
    with (
        FrameStoreWriter(
            paths.features(split), features.num_mel_bins, features.dtype, sample_rate, features.frame_shift, features.normalise
        ) as writer,
        contextlib.ExitStack() as stack,
    ):
        groups = _groups(log_mels, kind)
        if is_train and features.prior_frames:
            prior, groups = stack.enter_context(_read_twice(groups, paths.features(split)))
        found = _store(writer, groups, prior, features.prior_frames, originals)
        prior = found if is_train else prior
        writer.set_global(*prior.mean_and_std())
    write_finished(paths.features(split), made_from, found)
    hours = sum(cut.duration for cut in cuts) / 3600
    message = "%s: %d utterances, %.2f hours, %d normalisation groups (%s), %.1f s"
    logger.info(message, split, len(cuts), hours, len(order), kind, time.perf_counter() - began)
    return prior


def extract(config: Config, paths: Paths, nj: int) -> None:
    """Stage 2: normalised log-mel features of every split, with `nj` processes, into the frame stores `paths.features(split)`.

    A split whose features are there, made from the same cuts with the same options, is left alone: a run that was killed goes on.
    Reads `paths.cuts(split)`; train gets its copies at other speeds and volumes here. Utterances of one speaker lie together in the store.
    Raises StageError if a manifest is missing, DataError naming the cut whose audio cannot be used.
    """
    make_extractor(config.features, config.corpus.sample_rate)  # a wrong configuration is refused before any process starts
    # Forked workers inherit the imported torch and lhotse, which take seconds to import.
    with workers.pool(nj, "fork", _start_worker) as pool:
        try:
            prior: Moments | None = None
            for split in config.corpus.splits:
                prior = _extract_split(split, config, paths, pool, prior)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # an error is told at once, not after the rest of the split
            raise
