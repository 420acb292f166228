"""A finished run made by hand: figures small enough to be checked by head.

Four speakers say one utterance of 50 words each, so test has 200 words. Every speaker has the same errors, so that intervals over
speakers have no width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dropasr.config import Config, CorpusConfig, ExperimentConfig, rows
from dropasr.paths import Paths
from dropasr.report.load import load_run
from dropasr.report.results import make_results
from dropasr.report.schema import Results

SPEAKERS, UTTERANCES, WORDS = 4, 1, 50
ERRORS = {  # per speaker; one error is 2 % WER
    "dense": 2,
    "annealed_dropout": 3,
    "small_dense@0.25": 3,
    "dropout_compaction@0.25": 2,
    "small_dense@0.125": 5,
    "dropout_compaction@0.125": 4,
}
DEV_ERRORS = {**ERRORS, "dense": 3, "annealed_dropout": 4}
MODEL_SECONDS = {"large": 0.08, "small": 0.02, "compact": 0.02}
UNITS = {1.0: [64, 64], 0.25: [30, 28], 0.125: [16, 17], 0.0625: [9, 9], 0.0: [25, 20]}
LEARNED_SHARE = 0.2  # of the multiply-adds, where there is no budget


def make_config(corpus_options: dict[str, Any] | None = None, **experiment: Any) -> Config:
    """Two large rows, and at two budgets one small and one compacted."""
    methods = {"dense": {"method": "dense"}, "annealed_dropout": {"method": "annealed_dropout"}}
    methods["dropout_compaction"] = {"method": "dropout_compaction", "estimator": "mean_field"}
    corpus = CorpusConfig(name="hand", prepare="local/prepare_hand.py", note="Figures made by hand.", **(corpus_options or {}))
    return Config(corpus=corpus, model={"name": "feedforward"}, methods=methods, experiment=ExperimentConfig(**experiment))


def _split(errors_per_speaker: int, speakers: int = SPEAKERS, words: int = WORDS, first: int = 0) -> dict[str, Any]:
    utterances = []
    for speaker in range(first, first + speakers):
        for number in range(UTTERANCES):
            wrong = errors_per_speaker // UTTERANCES + (number < errors_per_speaker % UTTERANCES)
            utterances.append({"id": f"s{speaker}-{number}", "speaker": f"s{speaker}", "words": words, "sub": wrong, "del": 0, "ins": 0})
            utterances[-1] |= {"characters": 4 * words, "character_errors": 2 * wrong}
    errors, total = errors_per_speaker * speakers, speakers * UTTERANCES * words
    characters = {"cer": 50 * errors / total, "characters": 4 * total, "character_errors": 2 * errors}
    counts = {"words": total, "errors": errors, "sub": errors, "del": 0, "ins": 0}
    return {"wer": 100 * errors / total, **counts, **characters, "utterances": utterances}


def _summary(row: Any, seed: int) -> dict[str, Any]:
    share = row.budget or LEARNED_SHARE
    epochs = [
        {
            "epoch": epoch,
            "learning_rate": 0.05,
            "train_ce": 2.0 / epoch,
            "dev_ce": 2.2 / epoch + (row.kind != "large"),
            "dev_frame_error": 60.0 / epoch,
            "frames_per_second": 1000.0,
            "seconds": 10.0 * (share if epoch > 2 else 1),
            "units": [64, 64] if epoch < 3 else UNITS[row.budget],
            "keep": None,
        }
        for epoch in range(1, 5)
    ]
    compact = row.kind == "compact"
    bins = [[32, *[0] * 18, 32], [34, *[0] * 18, 30]]
    retention = [{"epoch": e, "layers": [{"counts": c, "kept": k, "total": 64} for c, k in zip(bins, UNITS[row.budget])]} for e in (2, 3)]
    signal = {"score": {"split_half": [0.01, 0.02], "frames": 4096}, "mean_field": {"split_half": [0.91, 0.85], "frames": 4096}}
    removed = {"units_before": [64, 64], "units_after": UNITS[row.budget], "max_difference": 1e-6, "largest_logit": 10.0}
    return {
        "row": row.name,
        "method": row.method,
        "model": "feedforward",
        "kind": row.kind,
        "budget": row.budget,
        "seed": seed,
        "units": UNITS[row.budget],
        "parameters": round(800_000 * share),
        "macs_per_frame": round(780_000 * share),
        "macs_per_second": 78e6 * share,
        "train_seconds": 40.0,
        "epochs": 4,
        "teacher": None,
        "config_hash": "0" * 64,
        "git_revision": "abc1234",
        "history": epochs,
        "retention": retention if compact else [],
        "estimators": signal if compact else {},
        "compactions": [{"epoch": 3, **removed}] if compact else [],
    }


def _timing(config: Config) -> dict[str, Any]:
    found = {}
    for row in rows(config):
        model = MODEL_SECONDS[row.kind] if row.budget > 0.2 else MODEL_SECONDS[row.kind] / 2
        total = 0.01 + model + 0.05  # features and search take 0.01 and 0.05 s per utterance of 10 s
        found[row.name] = {
            "features": 0.001,
            "model": model / 10,
            "search": 0.005,
            "total": total / 10,
            "median": {"model": model / 10, "total": total / 10},
            "p95": {"model": model / 10, "total": total / 10},
            "passes": [{"features": 0.03, "model": 3 * model, "search": 0.15}] * 2,
            "per_utterance_model_seconds": [[model] * 3] * 2,
            "per_utterance_total_seconds": [[total] * 3] * 2,
        }
    hardware = {"cpu": "a processor", "cores": 2, "threads": 1, "memory_gib": 8.0, "os": "Linux x86_64"}
    about = {"hardware": hardware, "versions": {"python": "3.10.1", "torch": "1.13.1"}, "threads": 1, "repeats": 2}
    return {**about, "utterances": 3, "audio_seconds": 30.0, "order": "interleaved", "rows": found}


def dump(path: Path, value: Any) -> None:
    """Write JSON, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def edit(path: Path, change: Any) -> None:
    """Read JSON, let `change` work on it, write it back."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    dump(path, value)


def config_extra(config: Config) -> dict[str, int]:
    """Further test sets, and how many more errors per speaker they have than `test`."""
    return {name: number for number, name in enumerate(config.corpus.extra_tests, start=1)}


def make_run(
    root: Path, config: Config, seed: int = 1, errors: dict[str, int] | None = None, extra: dict[str, int] | None = None, **split: int
) -> Paths:
    """Write everything that stage 9 reads; `split` and `extra` say how many speakers and words test and the further test sets have."""
    paths = Paths(root / "data", root / "exp", "feedforward", seed)
    for row in rows(config):
        dump(paths.net(row.name) / "summary.json", _summary(row, seed))
        dev = _split(DEV_ERRORS.get(row.name, 4))
        score = {"row": row.name, "net": "0" * 64, "acoustic_scale": 0.2, "lm_scale": 1.0, "insertion_penalty": 0.0}
        score |= {"prior": "label frequencies", "scales": {"0.1": dev["wer"] + 1, "0.2": dev["wer"]}}
        score |= {"tuning": [[0.1, 1.0, 0.0, dev["wer"] + 1], [0.2, 1.0, 0.0, dev["wer"]]], "rescore": "none", "frame_subsampling": 1}
        score["extra"] = {name: _split(ERRORS.get(row.name, 4) + more, **(extra or split)) for name, more in config_extra(config).items()}
        test = _split({**ERRORS, **(errors or {})}.get(row.name, 4), **split)
        dump(paths.scores(row.name), {**score, "dev": dev, "test": test, "backend": "k2", "beam": 14.0, "max_active": 2000})
    dump(paths.rtf, _timing(config))
    rounds = [{"name": "net round 1", "changed_percent": 5.5, "boundary_shift_frames": 0.75}]
    align = {"rounds": rounds, "frames": 1000, "utterances": 40, "failed": [], "mean_boundary_shift_frames": 0.75}
    align |= {"units": 126, "tying": "likelihood"}
    dump(paths.align / "report.json", align)
    dropped = [{"id": "bad-1", "reason": "empty transcript"}]
    counts = {"utterances": 4, "hours": 0.1, "words": 200, "speakers": 4, "dropped": dropped, "mapped_words": {}}
    report = {"corpus": config.corpus.name, "note": config.corpus.note, "one_speaker": config.corpus.one_speaker}
    dump(paths.manifests / "report.json", {**report, "splits": {"train": counts, "dev": counts, "test": counts}})
    with open(paths.test_log, "a", encoding="utf-8") as file:
        for row in rows(config):
            file.write(json.dumps({"model": "feedforward", "seed": seed, "row": row.name}) + "\n")
    return paths


def results_of(run: tuple[Config, Paths]) -> Results:
    return make_results(run[0], load_run(*run))


def at_every_third_frame(config: Config) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"frame_subsampling": 3})})
