"""One row of the table: build its net and method from the configuration, train it, write its folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dropasr.config import Config, Row, rows
from dropasr.data.batches import FrameSampler, utterance_subsets
from dropasr.data.chunks import ChunkSampler
from dropasr.data.sequences import SequenceSampler, TokenSequences
from dropasr.data.store import FrameStore
from dropasr.errors import CompactionError, ConfigError, StageError
from dropasr.files import hash_of, read_json, sha256_file, write_json
from dropasr.lang.pieces import load_units
from dropasr.methods import build_method, learns_units, method_options
from dropasr.methods.base import CommonOptions, Schedule
from dropasr.models import build_model
from dropasr.models.base import AcousticModel, widths_for_budget
from dropasr.models.checkpoint import git_revision, load_net, save_net
from dropasr.paths import Paths
from dropasr.training.checkpoints import remove_training
from dropasr.training.criteria import Sampler, make_criterion
from dropasr.training.ctc_targets import tokens_file
from dropasr.training.loop import Samplers, Trainer
from dropasr.training.teacher import MAX_FILE_BYTES, FileTeacher, NetTeacher, Teacher, write_posteriors

MAX_COPY_BYTES = 1 << 30
"""Frames of more than this are read through the memory map, which processes share, instead of copied into each."""


def row_by_name(config: Config, name: str) -> Row:
    """The row of that name; ConfigError if the experiment has none."""
    for row in rows(config):
        if row.name == name:
            return row
    raise ConfigError(f"no row '{name}' in this experiment; it has {', '.join(row.name for row in rows(config))}.")


def row_parts(config: Config, paths: Paths, row: Row) -> dict[str, Any]:
    """Everything that decides how a row comes out: options, seed, labels, and the teacher's identity."""
    teacher = method_options(row.method, config.methods[row.method]).teacher
    return {
        "row": [row.name, row.kind, row.budget],
        "model": config.model,
        "method": config.methods[row.method],
        "train": config.train.training_values(),
        "tolerance": config.experiment.budget_tolerance if row.kind != "large" and row.budget else None,
        "seed": paths.seed,
        "labels": sha256_file(_labels(config, paths, "train")),
        "features": sha256_file(paths.features("train") / "index.json"),
        "teacher": row_identity(config, paths, row_by_name(config, teacher)) if teacher else None,
    }


def row_identity(config: Config, paths: Paths, row: Row) -> str:
    """Hash of `row_parts`."""
    return hash_of(row_parts(config, paths, row))


def is_trained(config: Config, paths: Paths, row: Row) -> bool:
    """Whether the folder of the row holds a finished net of exactly this configuration."""
    folder = paths.net(row.name)
    if not (folder / "summary.json").exists() or not (folder / "model.json").exists():
        return False
    return read_json(folder / "summary.json")["config_hash"] == row_identity(config, paths, row)


def _labels(config: Config, paths: Paths, split: str) -> Path:
    return tokens_file(paths, split) if config.train.criterion == "ctc" else paths.align / f"{split}.npy"


def _dev_identity(config: Config, paths: Paths) -> str:
    """Hash of what figures on dev are measured on; it decides nothing about the net."""
    return hash_of([sha256_file(paths.features("dev") / "index.json"), sha256_file(_labels(config, paths, "dev"))])


def update_dev_figures(config: Config, paths: Paths, row: Row) -> bool:
    """Measure the last figures on dev of a trained row again where dev is not what it was then; whether that was so."""
    path, identity = paths.net(row.name) / "summary.json", _dev_identity(config, paths)
    summary = read_json(path)
    if summary.get("dev", identity) == identity:
        return False
    net = load_net(path.parent)
    sampler = _sampler(config, paths, "dev", net)
    loss, error = make_criterion(config.train).figures(net, sampler, config.train, everything=True)
    summary["history"][-1].update(dev_ce=loss, dev_frame_error=error)
    write_json(path, {**summary, "dev": identity})
    return True


def _sampler(config: Config, paths: Paths, split: str, net: AcousticModel) -> Sampler:
    train, seed = config.train, paths.seed
    parts = train.epochs_per_pass if split == "train" else 1
    if train.criterion == "ctc":
        store = FrameStore.open(paths.features(split))
        copied, tokens = store.frames.nbytes <= MAX_COPY_BYTES, TokenSequences.load(tokens_file(paths, split))
        step = train.frame_subsampling
        return SequenceSampler(store, tokens, net.context, train.batch_frames, seed, copied, step, parts, chunks=net.reads_chunks)
    store = FrameStore.open(paths.features(split), labels=paths.align / f"{split}.npy")
    copied = store.frames.nbytes <= MAX_COPY_BYTES
    if net.reads_chunks:
        sizes = train.chunk_frames, train.chunk_batch_frames
        return ChunkSampler(store, None, net.context, *sizes, None, seed, copied, parts, net.stride, net.step)
    return FrameSampler(store, None, net.context, train.batch_size, None, seed, copied, parts)


def _samplers(config: Config, paths: Paths, net: AcousticModel) -> Samplers:
    kept, held_out = utterance_subsets(FrameStore.open(paths.features("train")), config.train.held_out, seed=paths.seed)
    everything = _sampler(config, paths, "train", net)
    return Samplers(everything, everything.subset(kept), everything.subset(held_out), _sampler(config, paths, "dev", net))


def _teacher(config: Config, paths: Paths, name: str, masked: bool) -> Teacher:
    """The trained row of that name; `masked`: its posteriors differ from batch to batch and cannot be kept.

    StageError where the net of that row is another configuration's, or missing.
    """
    if not is_trained(config, paths, row_by_name(config, name)):
        raise StageError(f"{paths.net(name)}: no net '{name}' of this configuration to learn from. Run: bash run.sh … --row {name}.")
    net = load_net(paths.net(name))
    store = FrameStore.open(paths.features("train"))
    large = 2 * store.num_frames * net.dims["num_outputs"] > MAX_FILE_BYTES
    # A net that steps over frames says other things on the other grids that pieces come on.
    if masked or config.train.criterion == "ctc" or net.step > 1 or large:
        return NetTeacher(net, config.train.precision)
    path = paths.net(name) / "posteriors-train.npy"
    if not path.exists():
        write_posteriors(net, store, path, config.train.precision)
    return FileTeacher(path)


def initial_net(config: Config, paths: Paths, row: Row) -> tuple[AcousticModel, int]:
    """A fresh net for the row (full size unless it is trained small from scratch), and the large net's multiply-adds per frame."""
    torch.manual_seed(paths.seed)
    units = load_units(paths.align / "units.json")
    large = build_model(config.model, config.features.num_mel_bins, units.num_units)
    macs = large.macs_per_frame()
    if row.kind != "small":
        return large, macs
    return large.with_widths(widths_for_budget(large, row.budget * macs)), macs


def _check_widths(row: Row, net: AcousticModel, options: CommonOptions, target: float, tolerance: float) -> None:
    """Raise CompactionError before anything is trained where no whole numbers of units come close enough to the budget."""
    multiple = getattr(options, "width_multiple", None)
    if multiple is None:  # not a method that removes units
        return
    widths = widths_for_budget(net, target, None, options.min_units, multiple)
    deviation = net.macs_per_frame(widths) / target - 1
    if abs(deviation) > tolerance:
        raise CompactionError(
            f"{row.name}: widths in multiples of {multiple}, of at least {options.min_units} ({'/'.join(map(str, widths))}), are "
            f"{100 * deviation:+.1f} % off the budget, expected {100 * tolerance:g} % at most. Set methods.{row.method}.width_multiple or "
            "min_units to less, start from a wider net, or allow more (experiment.budget_tolerance)."
        )


def train_row(config: Config, paths: Paths, row: Row, say: Callable[[str], None], on_epoch: Callable[[dict[str, Any]], None]) -> None:
    """Train one row to the end, resuming where an earlier run stopped, and write checkpoint, summary and TensorBoard events."""
    torch.set_num_threads(1)
    folder = paths.net(row.name)
    _discard(folder)
    net, large_macs = initial_net(config, paths, row)
    target = row.budget * large_macs if row.kind == "compact" and row.budget else None
    samplers = _samplers(config, paths, net)
    optimiser = config.train.optimiser
    schedule = Schedule(config.train.epochs, samplers.all.steps_per_epoch, paths.seed, target, optimiser=optimiser)
    method = build_method(row.method, config.methods[row.method], schedule)
    if target:
        _check_widths(row, net, method.options, target, config.experiment.budget_tolerance)
    teacher = _teacher(config, paths, method.options.teacher, method.masks_teacher) if method.options.teacher else None
    rate = method.options.rate_of(row.kind)
    options = config.train if rate is None else config.train.model_copy(update={"learning_rate": rate})
    trainer = Trainer(net, method, samplers, options, folder, paths.seed, teacher, say, row_identity(config, paths, row))
    net = trainer.run(on_epoch)
    macs = net.macs_per_frame()
    share = macs / large_macs
    if row.kind != "large" and row.budget and abs(share / row.budget - 1) > config.experiment.budget_tolerance:
        raise CompactionError(
            f"{row.name}: the net has {share:.4f} of the large net's multiply-adds, expected {row.budget:g} within "
            f"{100 * config.experiment.budget_tolerance:g} %. Widths: {net.widths}."
        )
    figures = {
        "learns_units": learns_units(row.method, config.methods[row.method]) if row.kind == "compact" else None,
        "macs_share": share,
        "units": net.widths,
        "inputs_left": _inputs_left(net),
        "parameters": net.num_parameters(),
        "nonzeros": sum(int(parameter.count_nonzero()) for parameter in net.parameters()),
        "macs_per_frame": round(macs / net.frames_scored),
        "train_seconds": sum(figures["seconds"] for figures in trainer.history),
        "train_cpu_seconds": _cpu_seconds(trainer.history),
        "git_revision": git_revision(),
        "threads": 1,
        "precision": trainer.precision,
        "history": trainer.history,
        "retention": trainer.retention,
        "estimators": trainer.estimators,
        "signals": trainer.signals,
        "compactions": trainer.compactions,
    }
    write_row(config, paths, row, net, figures)


def _inputs_left(net: AcousticModel) -> dict[str, Any] | None:
    """Which inputs a net reads that has lost some: entries `frame * num_features + feature` of the spliced frames."""
    dims = net.dims
    return {key: dims[key] for key in ("num_features", "context", "inputs")} if "inputs" in dims else None


def _cpu_seconds(history: list[dict[str, Any]]) -> float | None:
    """Seconds of the processor over all epochs; None where some were trained before they were counted."""
    found = [figures.get("cpu_seconds") for figures in history]
    return None if None in found else sum(found)


def _discard(folder: Path) -> None:
    """Let an older net, of another configuration, count as absent while one is being made, with what students read of it."""
    for name in ("summary.json", "posteriors-train.npy"):
        (folder / name).unlink(missing_ok=True)


def write_row(config: Config, paths: Paths, row: Row, net: AcousticModel, figures: dict[str, Any]) -> None:
    """The folder of a trained row: checkpoint, TensorBoard events, and last the summary, `figures` with what the configuration says."""
    folder, identity = paths.net(row.name), row_identity(config, paths, row)
    _discard(folder)
    summary = {
        **figures,
        "row": row.name,
        "method": row.method,
        "model": config.model["name"],
        "kind": row.kind,
        "budget": row.budget,
        "seed": paths.seed,
        "epochs": config.train.epochs,
        "criterion": config.train.criterion,
        "teacher": method_options(row.method, config.methods[row.method]).teacher,
        "config_hash": identity,
        "dev": _dev_identity(config, paths),
    }
    about = {"row": row.name, "config_hash": identity, "seed": paths.seed, "model": config.model, "method": config.methods[row.method]}
    save_net(folder, net, {**about, "git_revision": figures["git_revision"]})
    _write_events(folder, summary)
    write_json(folder / "summary.json", summary)
    remove_training(folder)


def _write_events(folder: Path, summary: dict[str, Any]) -> None:
    """TensorBoard events of a finished net, rewritten whole so that a resumed run leaves no double points."""
    from torch.utils.tensorboard import SummaryWriter

    target = folder / "tensorboard"
    if target.exists():
        for path in target.glob("events.*"):
            path.unlink()
    os.makedirs(target, exist_ok=True)
    with SummaryWriter(str(target)) as writer:
        for figures in summary["history"]:
            for name in ("learning_rate", "train_ce", "dev_ce", "dev_frame_error", "frames_per_second"):
                writer.add_scalar(name, figures[name], figures["epoch"])
            for layer, units in enumerate(figures["units"]):
                writer.add_scalar(f"units/layer{layer}", units, figures["epoch"])
