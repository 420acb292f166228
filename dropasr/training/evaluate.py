"""Stage 7: decode dev with every net to tune its acoustic scale, then test once, and score both."""

from __future__ import annotations

import datetime
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from dropasr.config import Config, Row, rows
from dropasr.data.store import FrameStore
from dropasr.decoding.likelihoods import load_log_prior, log_likelihoods
from dropasr.decoding.search import Search, load_search
from dropasr.errors import StageError
from dropasr.files import write_json, write_text
from dropasr.log import get_logger, progress
from dropasr.models.checkpoint import load_net
from dropasr.paths import Paths
from dropasr.scoring.wer import WerResult, alignment_text, score
from dropasr.training.rows import is_trained

logger = get_logger(__name__)


def decode_split(search: Search, scores: list[torch.Tensor], store: FrameStore, scale: float) -> WerResult:
    """WER of one split: `scores` are unscaled log likelihoods `(T, K)` per utterance."""
    hypotheses = search.decode([scale * values for values in scores])
    found = {id_: hypothesis.words for id_, hypothesis in zip(store.ids, hypotheses)}
    return score(dict(zip(store.ids, store.texts)), found)


def _figures(result: WerResult, store: FrameStore) -> dict[str, Any]:
    speakers = dict(zip(store.ids, store.speakers))
    utterances = [
        {
            "id": item.id,
            "speaker": speakers[item.id],
            "words": item.words,
            "sub": item.substitutions,
            "del": item.deletions,
            "ins": item.insertions,
        }
        for item in result.utterances
    ]
    return {
        "wer": result.wer,
        "words": result.words,
        "errors": result.errors,
        "sub": result.substitutions,
        "del": result.deletions,
        "ins": result.insertions,
        "utterances": utterances,
    }


def evaluate_row(config: Config, paths: Paths, row: Row) -> dict[str, Any]:
    """Tune the acoustic scale of one net on dev, decode test with it, write `scores/<row>.json` and the alignments."""
    torch.set_num_threads(1)
    net = load_net(paths.net(row.name))
    prior = load_log_prior(config, paths)
    search = load_search(paths.lang, config.decode)
    dev, test = FrameStore.open(paths.features("dev")), FrameStore.open(paths.features("test"))
    scores = [log_likelihoods(net, dev.utterance(i), prior) for i in range(len(dev.ids))]
    results = {scale: decode_split(search, scores, dev, scale) for scale in sorted(config.decode.acoustic_scales)}
    least = min(result.errors for result in results.values())
    level = [scale for scale, result in results.items() if result.errors == least]
    # Of scales that dev cannot tell apart, the middle one is the safest.
    best = level[len(level) // 2]
    scores = [log_likelihoods(net, test.utterance(i), prior) for i in range(len(test.ids))]
    on_test = decode_split(search, scores, test, best)
    figures = {
        "row": row.name,
        "acoustic_scale": best,
        "prior": f"label frequencies of the training alignment, scaled by {config.decode.prior_scale:g}",
        "scales": {f"{scale:g}": result.wer for scale, result in results.items()},
        "dev": _figures(results[best], dev),
        "test": _figures(on_test, test),
        "backend": search.backend,
        "beam": config.decode.beam,
        "max_active": config.decode.max_active,
    }
    write_text(paths.scores(row.name).with_suffix(".alignments.txt"), alignment_text(on_test))
    write_json(paths.scores(row.name), figures)
    return figures


def _log_test_evaluation(paths: Paths, figures: dict[str, Any], summary_hash: str) -> None:
    """Append one line: how often test was looked at must be countable."""
    line = {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": paths.model,
        "seed": paths.seed,
        "row": figures["row"],
        "wer": figures["test"]["wer"],
        "words": figures["test"]["words"],
        "acoustic_scale": figures["acoustic_scale"],
        "config_hash": summary_hash,
    }
    paths.test_log.parent.mkdir(parents=True, exist_ok=True)
    with open(paths.test_log, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def decode(config: Config, paths: Paths, nj: int) -> None:
    """Stage 7: evaluate every row, `nj` nets at a time."""
    wanted = rows(config)
    for row in wanted:
        if not is_trained(config, paths, row):
            stage = 6 if row.kind == "compact" else 5
            raise StageError(
                f"{paths.net(row.name)}: no finished net '{row.name}' of this configuration. Run: bash run.sh --stage {stage}."
            )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(nj, len(wanted)), context) as pool:
        futures = {pool.submit(evaluate_row, config, paths, row): row for row in wanted}
        for future in progress(as_completed(futures), "decoding", len(futures)):
            figures = future.result()
            _log_test_evaluation(paths, figures, json.loads((paths.net(figures["row"]) / "summary.json").read_text())["config_hash"])
            dev, test = figures["dev"], figures["test"]
            tuned = " ".join(f"{scale}: {wer:.2f}" for scale, wer in figures["scales"].items())
            logger.info(
                f"{figures['row']}: dev WER by acoustic scale {tuned}; test WER {test['wer']:.2f} % "
                f"({test['errors']} of {test['words']} words: {test['sub']} substituted, {test['del']} deleted, "
                f"{test['ins']} inserted); dev {dev['wer']:.2f} %"
            )
