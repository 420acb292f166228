"""`dropasr bench retime`: the acoustic models of all rows of a recipe timed in one run per seed, as nets of their sizes, weights by lot.

What a net takes depends on its sizes, not on its weights, so that rows are timed whose nets are not there any more: rows that were made
on several machines, or with several versions of the kernels, and those of a table that somebody else made. Features and search, which do
depend on the weights, keep the times that were taken beside the reference when the rows were made. The protocol is that of stage 8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dropasr.bench.candidates import feature_extractor
from dropasr.bench.rtf import check_load
from dropasr.compaction.low_rank import factored, fixed_macs, matrices_of, ranks_for_budget
from dropasr.config import Config, system_name
from dropasr.data.normalisation import normalise
from dropasr.data.store import FrameStore
from dropasr.decoding.search import PLAIN, Search
from dropasr.errors import MeasurementError, StageError
from dropasr.files import hash_of
from dropasr.models import build_model
from dropasr.models.feedforward import FeedForward, from_dims
from dropasr.paths import Paths
from dropasr.report.pool import reference_name
from dropasr.report.recipe import load_rows, rewrite, rounded
from dropasr.report.recipe_schema import Retimed, StoredRow, Timing
from dropasr.report.results import evaluations_per_second
from dropasr.report.schema import ModelTotalRtf, ResultRow, Rtf, Speedup
from dropasr.runtime.machine import hardware, pinned, versions
from dropasr.runtime.rtf import Searches, model_scores
from dropasr.runtime.timing import Audio, Decode, interleaved, load_audio
from dropasr.scoring.bootstrap import ratio_interval

LOW_RANK_TOLERANCE = 0.02
"""Ranks of a net with weights by lot are others than the row's; their multiply-adds are the same within this share."""


def retime(config: Config, paths: Paths, folder: Path, under_load: bool = False) -> str:
    """Time the rows of this corpus, model and system in a recipe, seed by seed, and write their files anew; what the table then says.

    Raises StageError where there are none or features are missing, MeasurementError where a row's net cannot be built from its sizes,
    where other utterances or passes were timed than the configuration names, and on a busy machine.
    """
    system, corpus = system_name(config), config.corpus.name
    rows = [row for row in load_rows(folder) if (row.corpus, row.figures.model, row.system) == (corpus, paths.model, system)]
    if not rows:
        of = ", ".join(part for part in (corpus, paths.model, system) if part)
        raise StageError(f"{folder / 'rows'}: no rows of {of}. Give their --conf and --model.")
    if paths.model != "feedforward":
        raise MeasurementError(f"--model {paths.model}: only feed-forward nets can be built from the sizes that their rows name.")
    if not paths.features("test").exists():
        raise StageError(f"{paths.features('test')}: no features of test. Run: bash run.sh --conf … --stop-stage 4, with the same options.")
    name_of_reference = reference_name(rows)
    references = {row.figures.seed: row for row in rows if row.figures.name == name_of_reference}
    for row in rows:
        reference = references.get(row.figures.seed)
        if reference is None or reference.timing(row.timing_id) is None:
            raise MeasurementError(
                f"row {row.figures.name}, seed {row.figures.seed}: was not timed beside the large net that rows are measured against, "
                f"{name_of_reference or 'of which there is none'}. Run the recipe again."
            )
    nets = {(row.figures.name, row.figures.seed): net_of(row.figures, references[row.figures.seed].figures, config) for row in rows}
    busy = check_load(under_load)
    audio, search = load_audio(config, paths), Searches(config, paths).get(PLAIN)
    durations = np.array([utterance.duration for utterance in audio])
    for row in rows:
        _check_shape(row, config.rtf.repeats, len(audio))
    again: list[StoredRow] = []
    for seed in sorted(references):
        of_seed = {row.figures.name: row for row in rows if row.figures.seed == seed}
        timed = {name: (nets[name, seed], row.figures.acoustic_scale) for name, row in of_seed.items()}
        seconds = _seconds(config, paths, timed, audio, search)
        timing_id = hash_of({net: taken.tolist() for net, taken in seconds.items()})[:16]
        stamp = Retimed(timing_id=timing_id, hardware=hardware(), versions=versions(), busy_share=round(busy, 3))
        changed = {name: with_model_seconds(row, seconds[name], durations, stamp) for name, row in of_seed.items()}
        reference = changed[references[seed].figures.name]
        again += [row.model_copy(update={"figures": _with_speedup(row, reference)}) for row in changed.values()]
    # References come last: should this end before, the table refuses the rows, whose timing their reference has not.
    for row in sorted(again, key=lambda row: row.figures.name == name_of_reference):
        rewrite(folder, row)
    told = ", ".join(f"{sum(row.figures.seed == seed for row in again)} of seed {seed}" for seed in sorted(references))
    return f"{corpus}, {paths.model}: nets of the rows' sizes timed in one run per seed: {told}\nnow: python -m dropasr table {folder}\n"


def _check_shape(row: StoredRow, passes: int, utterances: int) -> None:
    for taken in (row.model_seconds, *(timing.model_seconds for timing in row.further_timings)):
        found = len(taken), len(taken[0])
        if found != (passes, utterances):
            raise MeasurementError(
                f"row {row.figures.name}, seed {row.figures.seed}: {found[0]} passes of {found[1]} utterances were timed, the "
                f"configuration names {passes} of {utterances}. Give that of the row, with its rtf.repeats and rtf.utterances."
            )


def net_of(figures: ResultRow, reference: ResultRow, config: Config) -> FeedForward:
    """A net of the sizes of a row, weights by lot. `reference`: the row of the large net, all of whose units and inputs are there.

    Raises MeasurementError where its multiply-adds per second are not the row's.
    """
    num_features = config.features.num_mel_bins
    one, two = (build_model(config.model, num_features, outputs).num_parameters() for outputs in (1, 2))
    net = build_model(config.model, num_features, 1 + max(0, reference.parameters - one) // (two - one))
    if figures.inputs is not None or figures.units != net.widths:
        dims = {**net.dims, "widths": list(figures.units)}
        if figures.inputs is not None and figures.inputs < net.num_inputs:
            dims["inputs"] = np.linspace(0, net.num_inputs - 1, figures.inputs).round().astype(int).tolist()
        net = from_dims(dims)
    target, tolerance = figures.macs_per_second / evaluations_per_second(config), 1e-6
    if figures.units == reference.units and net.inputs is None and target < net.macs_per_frame():  # all units, fewer products
        matrices = matrices_of(net)
        net = factored(net, matrices, ranks_for_budget(matrices, fixed_macs(net, matrices), target)[0])
        tolerance = LOW_RANK_TOLERANCE
    if abs(net.macs_per_frame() - target) > tolerance * target:
        raise MeasurementError(
            f"row {figures.name}, seed {figures.seed}: expected a net of {target:.0f} multiply-adds per frame, its sizes make one of "
            f"{net.macs_per_frame()}. Give the configuration that the rows were made with."
        )
    return net.eval()


def _seconds(
    config: Config, paths: Paths, nets: dict[str, tuple[FeedForward, float]], audio: list[Audio], search: Search
) -> dict[str, np.ndarray]:
    """Seconds of the models of one seed, passes by utterances; `nets` come with their acoustic scales. Each is timed between features and a
    search, as in stage 8: with warm caches small nets would seem a fourth faster than they are in a recogniser."""
    store, extract = FrameStore.open(paths.features("test")), feature_extractor(config)

    def decoder(net: FeedForward, scale: float) -> Decode:
        prior = torch.zeros(net.num_outputs)

        def decode(utterance: Audio) -> tuple[float, float, float]:
            frames = torch.from_numpy(normalise(extract(utterance), *store.statistics(utterance.id)))
            scores, seconds = model_scores(config, net, frames, prior, scale)
            search.decode([scores])
            return 0.0, seconds, 0.0

        return decode

    decoders = {name: decoder(net, scale) for name, (net, scale) in nets.items()}
    with pinned(), torch.no_grad():
        times = interleaved(decoders, audio, config.rtf.repeats)
    return {name: np.array(taken.model_seconds) for name, taken in times.items()}


def with_model_seconds(row: StoredRow, seconds: np.ndarray, durations: np.ndarray, stamp: Retimed) -> StoredRow:
    """The row with these seconds `(P, U)` of its acoustic model in place of its own, in all its timings; totals follow."""
    own, *further = [_changed(timing, seconds, durations) for timing in (row.timing(row.timing_id), *row.further_timings)]
    model, total = (np.mean(values, axis=0) / durations for values in (own.model_seconds, own.total_seconds))
    figures = row.figures.model_copy(
        update={
            "rtf": own.rtf,
            "rtf_median": ModelTotalRtf(model=float(np.median(model)), total=float(np.median(total))),
            "rtf_p95": ModelTotalRtf(model=float(np.percentile(model, 95)), total=float(np.percentile(total, 95))),
        }
    )
    taken: dict[str, Any] = {"model_seconds": own.model_seconds, "total_seconds": own.total_seconds, "further_timings": further}
    return row.model_copy(update={**taken, "figures": figures, "retimed": stamp})


def _changed(timing: Timing, seconds: np.ndarray, durations: np.ndarray) -> Timing:
    before, total = np.array(timing.model_seconds), np.array(timing.total_seconds)
    model = float(seconds.sum() / (len(seconds) * durations.sum()))
    rtf = Rtf(features=timing.rtf.features, model=model, search=timing.rtf.search, total=timing.rtf.features + model + timing.rtf.search)
    return timing.model_copy(update={"rtf": rtf, "model_seconds": rounded(seconds), "total_seconds": rounded(total - before + seconds)})


def _with_speedup(row: StoredRow, reference: StoredRow) -> ResultRow:
    beside = reference.timing(row.timing_id)
    model, total = (
        ratio_interval(np.array(getattr(beside, part)), np.array(getattr(row, part))) for part in ("model_seconds", "total_seconds")
    )
    speedup = Speedup(model=model.estimate, total=total.estimate, interval=model.bounds, total_interval=total.bounds)
    return row.figures.model_copy(update={"speedup": speedup})
