"""The nine stages: what each does, reads, writes and depends on. `dropasr/stamps.py` decides from this table what has to run.

Importing this module needs the standard library only (Python 3.8), because `run.sh --list` must answer before anything is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from pathlib import Path

    from dropasr.config import Config
    from dropasr.paths import Paths


@dataclass(frozen=True)
class Stage:
    """One stage of run.sh."""

    number: int
    verb: str
    purpose: str
    reads: str
    writes: str
    function: str
    """`module:function`, called with (config, paths, nj)."""
    home: str
    """Attribute of Paths under which its stamp lies; stages with the same home exclude each other."""
    upstream: tuple[str, ...]
    """Verbs of the stages whose outputs it reads."""
    depends: tuple[str, ...]
    """Sections and keys of the configuration that it depends on, `-key` for a key of a section that does not count. `training` is `train`
    as far as the criterion uses it; `seed`, `rows`, `backend` (the search) `backends` (those installed, each of which gets its graph) and
    `construction` (the way in which graphs are made) stand for derived values."""
    outputs: Callable[[Config, Paths], list[Path]]
    """Files and folders that must exist when it has finished."""
    ahead: str = ""
    """`module:function` that is called instead where the next stage is to run, too: it does that one's work along with its own."""


def _nets(config: Config, paths: Paths, kinds: tuple[str, ...]) -> list[Path]:
    from dropasr.config import rows

    names = ("model.json", "model.safetensors", "summary.json")
    return [paths.net(row.name) / name for row in rows(config) if row.kind in kinds for name in names]


def _scores(config: Config, paths: Paths) -> list[Path]:
    from dropasr.config import has_own_graph, rows

    own_graph = [paths.own_graph] if has_own_graph(config) else []
    return [*(paths.scores(row.name) for row in rows(config)), *own_graph]


def _prepared(config: Config, paths: Paths) -> list[Path]:
    made = [paths.corpus] if paths.corpus.is_dir() else []
    return [*(paths.cuts(split) for split in config.corpus.splits), paths.manifests / "report.json", paths.manifests, *made]


_TRAINING = ("model", "methods", "experiment", "-experiment.note", "training", "rows", "seed")
_CORPUS = (
    *("corpus.prepare", "corpus.corpus_dir", "corpus.options", "corpus.extra_tests", "corpus.sample_rate", "corpus.resample"),
    *("corpus.one_speaker", "corpus.text", "corpus.unknown_words", "corpus.empty_transcripts", "corpus.max_dropped"),
)
_DECODING = ("decode", "-decode.backend", "corpus.error_rate", "train.frame_subsampling", "backend", "construction", "rows", "seed")
_UNITS = (
    *("lang.states_per_phone", "lang.silence_states", "lang.silence_probability"),
    *("lang.tying", "lang.num_units", "lang.min_count"),
)
_TARGETS = ("train.criterion", "training.frame_subsampling", "corpus.too_short", "corpus.max_dropped")

STAGES = (
    Stage(
        1,
        "data",
        "get or make the corpus; write and check its manifests",
        "conf/*.yaml, --corpus-dir",
        "DATA/corpus, DATA/manifests",
        "dropasr.data.corpora:prepare",
        "data_dir",
        (),
        (*_CORPUS, "lang.lexicon", "lang.dictionary", "lang.unknown_word"),
        _prepared,
    ),
    Stage(
        2,
        "features",
        "extract and normalise log-mel frames",
        "DATA/manifests",
        "DATA/features",
        "dropasr.data.features:extract",
        "data_dir",
        ("data",),
        ("features", "corpus.sample_rate"),
        lambda config, paths: [paths.features(split) for split in config.corpus.splits],
    ),
    Stage(
        3,
        "lang",
        "lexicon, word list, n-gram",
        "DATA/manifests",
        "DATA/lang",
        "dropasr.lang.build:build",
        "data_dir",
        ("data",),
        ("lang", *(f"-{key}" for key in _UNITS)),
        lambda config, paths: [paths.lang],
    ),
    Stage(
        4,
        "align",
        "flat start: label every frame; output units, decoding graph",
        "DATA/features, DATA/lang",
        "EXP/align, DATA/graphs",
        "dropasr.training.flat_start:align",
        "exp_dir",
        ("features", "lang"),
        ("align", *_UNITS, *_TARGETS, "backend", "backends", "construction"),
        lambda config, paths: [paths.align],
    ),
    Stage(
        5,
        "train",
        "train the large nets, and the small ones from scratch",
        "DATA/features, EXP/align",
        "RUN/nets",
        "dropasr.training.jobs:train_large_and_small",
        "run",
        ("align",),
        _TRAINING,
        lambda config, paths: _nets(config, paths, ("large", "small")),
        "dropasr.training.jobs:train_all",
    ),
    Stage(
        6,
        "compact",
        "train nets that grow smaller, to each budget",
        "DATA/features, EXP/align, RUN/nets",
        "RUN/nets",
        "dropasr.training.jobs:compact",
        "run",
        ("train",),
        _TRAINING,
        lambda config, paths: _nets(config, paths, ("compact",)),
    ),
    Stage(
        7,
        "decode",
        "decode dev and the test sets, score WER",
        "DATA/features, DATA/lang, EXP/align, RUN/nets",
        "SYSTEM/scores, SYSTEM/graph",
        "dropasr.training.evaluate:decode",
        "system_home",
        ("train", "compact"),
        _DECODING,
        _scores,
    ),
    Stage(
        8,
        "rtf",
        "measure the real-time factor of all nets, interleaved",
        "DATA/manifests, DATA/lang, EXP/align, RUN/nets, SYSTEM/scores, SYSTEM/graph",
        "SYSTEM/rtf.json",
        "dropasr.runtime.rtf:measure",
        "system_home",
        ("decode",),
        ("rtf", *_DECODING),
        lambda config, paths: [paths.rtf],
    ),
    Stage(
        9,
        "report",
        "tables, plots, results.json",
        "RUN/nets, SYSTEM/scores, SYSTEM/rtf.json",
        "SYSTEM/results.json, SYSTEM/report",
        "dropasr.report.build:build",
        "system_home",
        ("decode", "rtf"),
        ("corpus.name", "corpus.note", "corpus.one_speaker", "experiment.note", "rows", "seed"),
        lambda config, paths: [paths.results, paths.report],
    ),
)
BY_VERB = {stage.verb: stage for stage in STAGES}


def list_text() -> str:
    """The answer to `--list`."""
    table = [("stage", "what it does", "reads", "writes")]
    table += [(f"{stage.number} {stage.verb}", stage.purpose, stage.reads, stage.writes) for stage in STAGES]
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table]
    lines.append("DATA: --data-dir (default data/NAME of conf/NAME.yaml); EXP: --exp-dir (default exp/NAME); RUN: EXP/MODEL/seedS")
    lines.append("SYSTEM: RUN, or RUN/systems/NAME where its nets are decoded at another frame rate, by another CTC search, or rescored")
    lines.append("SYSTEM/graph: where the frame rate is another than that of training")
    return "\n".join(lines)


def ancestors(stage: Stage) -> list[Stage]:
    """All stages whose outputs a stage needs, directly or not, in order."""
    verbs = set(stage.upstream)
    for verb in stage.upstream:
        verbs |= {earlier.verb for earlier in ancestors(BY_VERB[verb])}
    return [earlier for earlier in STAGES if earlier.verb in verbs]
