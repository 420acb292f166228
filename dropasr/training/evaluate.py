"""Stage 7: decode dev with every net to tune its scales, then the test sets once, and score them all.

Rows whose scores are there for the same net and the same decoding are left alone. The parts of all splits and rows are spread over
processes, so that one net keeps all of them busy too.
"""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

import dropasr
from dropasr import workers
from dropasr.config import Config, Row, TextConfig, rows
from dropasr.data.store import FrameStore
from dropasr.decoding.graphs import provide_own_graph
from dropasr.decoding.likelihoods import prior_path
from dropasr.decoding.rescore import graph_folder, rescoring_models
from dropasr.decoding.search import choose_backend
from dropasr.errors import StageError
from dropasr.files import hash_of, read_json, sha256_file
from dropasr.lang.graph_build import FILE_NAMES
from dropasr.log import get_logger, progress
from dropasr.paths import Paths
from dropasr.training.decode_parts import Part, decode_part, make_prior
from dropasr.training.row_evaluation import RowEvaluation, evaluation_sets, net_identity
from dropasr.training.rows import is_trained, row_by_name

logger = get_logger(__name__)
NAMED = 8
"""Rows that a message names at most."""


def decoding_identity(config: Config, paths: Paths) -> str:
    """Hash of everything beside the net that decides what decoding gives: options, graph, models, prior, features, transcripts."""
    backend = choose_backend(config.decode.backend)
    folder = graph_folder(config, paths)
    files = [paths.lang / "words.txt", folder / "units.json", folder / FILE_NAMES[backend]]
    files += [paths.align / "log_prior.npy"] if config.decode.prior == "alignment" else []
    files += rescoring_models(paths) if config.decode.rescore != "none" else []
    files += [paths.features(split) / "index.json" for split in ("dev", *evaluation_sets(config))]
    return hash_of(
        {
            "options": {**config.decode.counting_values(), "backend": backend},
            "training": [config.train.criterion, config.train.frame_subsampling],
            "files": {f"{path.parent.name}/{path.name}": sha256_file(path) for path in files if path.exists()},
            "dropasr": dropasr.__version__,
            # What errors are counted in, and by which rules; left out where it is the usual.
            **({"error_rate": config.corpus.error_rate} if config.corpus.error_rate != "word" else {}),
            **({"text": config.corpus.text.model_dump(mode="json")} if config.corpus.text != TextConfig() else {}),
        }
    )


def is_scored(paths: Paths, row: Row, identity: str) -> bool:
    """Whether the scores of the row are there for its present net and this decoding."""
    if not paths.scores(row.name).exists():
        return False
    figures = read_json(paths.scores(row.name))
    return (figures.get("net"), figures.get("decoding")) == (net_identity(paths, row.name), identity)


def check_trained(config: Config, paths: Paths, name: str) -> None:
    """Raise ConfigError where there is no row `name`, StageError where its net is not there or was trained with other options.

    For what describes a finished row by a configuration, which must then be the one that the row was made with.
    """
    row = row_by_name(config, name)
    if not is_trained(config, paths, row):
        raise StageError(
            f"{paths.net(name)}: no finished net '{name}' of this configuration. Give the options that it was trained with (--conf, --set,"
            f" --seed, --exp-dir …), or train it: bash run.sh --stop-stage {_training_stage(row)}."
        )


def check_scored(config: Config, paths: Paths, name: str) -> None:
    """Raise StageError where the scores of a trained row are not there, or not of this configuration of decoding."""
    if not is_scored(paths, row_by_name(config, name), decoding_identity(config, paths)):
        raise StageError(
            f"{paths.scores(name)}: no scores of the row '{name}' for its present net and this configuration of decoding, so its"
            " acoustic scale is not known. Run: bash run.sh --stage 7 --stop-stage 7 with the options of this command."
        )


def _training_stage(row: Row) -> int:
    return 6 if row.kind == "compact" else 5


def decode(config: Config, paths: Paths, nj: int) -> None:
    """Stage 7: evaluate the rows that have no scores for this configuration, in `nj` processes."""
    wanted = rows(config)
    for row in wanted:
        if not is_trained(config, paths, row):
            raise StageError(
                f"{paths.net(row.name)}: no finished net '{row.name}' of this configuration. Run:"
                f" bash run.sh --stage {_training_stage(row)}."
            )
    provide_own_graph(config, paths)
    identity = decoding_identity(config, paths)
    scored = [row for row in wanted if is_scored(paths, row, identity)]
    if scored:
        more = f" and {len(scored) - NAMED} more" if len(scored) > NAMED else ""
        logger.info(f"already scored for these nets and this decoding: {', '.join(row.name for row in scored[:NAMED])}{more}")
    missing = [row for row in wanted if row not in scored]
    if not missing:
        return
    for row in missing:
        paths.scores(row.name).unlink(missing_ok=True)
    for row in scored:
        shutil.rmtree(paths.score_parts(row.name), ignore_errors=True)  # killed between the scores and this
    stores = {split: FrameStore.open(paths.features(split)) for split in ("dev", *evaluation_sets(config))}
    evaluations = [RowEvaluation(config, paths, row, identity, stores, nj) for row in missing]
    with workers.pool(nj) as pool:
        for _ in progress(_drive(config, paths, evaluations, pool, nj), "decoding", sum(item.total for item in evaluations)):
            pass


def _drive(config: Config, paths: Paths, evaluations: list[RowEvaluation], pool: ProcessPoolExecutor, nj: int) -> Iterator[None]:
    """Keep `nj` processes busy, parts of earlier rows first, so that rows are finished one after the other; yield once per part.

    Parts that were decoded before the stage was killed are read.
    """
    own_prior = config.decode.prior == "posterior" and config.train.criterion == "frames"
    waiting: list[tuple[int, int, Part | None]] = []
    running: dict[Future, tuple[int, Part | None]] = {}
    count = 0

    def add(number: int, parts: list[Part] | list[None]) -> None:
        nonlocal count
        for part in parts:
            count += 1
            heapq.heappush(waiting, (number, count, part))

    for number, evaluation in enumerate(evaluations):
        if own_prior:
            prior_path(config, paths, evaluation.row.name).unlink(missing_ok=True)
        add(number, [None] if own_prior else evaluation.start())
    while waiting or running:
        while waiting and len(running) < nj:
            number, _, part = heapq.heappop(waiting)
            row, kept = evaluations[number].row.name, evaluations[number].kept
            found = None if part is None else kept.read(part)
            if part is not None and found is not None:
                add(number, evaluations[number].done(part, found))
                yield
                continue
            future = pool.submit(make_prior, config, paths, row) if part is None else pool.submit(decode_part, config, paths, part)
            running[future] = number, part
        for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
            number, part = running.pop(future)
            result = future.result()
            if part is None:
                add(number, evaluations[number].start())
            else:
                evaluations[number].kept.write(part, result)
                add(number, evaluations[number].done(part, result))
                yield
