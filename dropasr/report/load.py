"""One finished run, read and cross-checked: every figure beside its counterpart, or an error that says which stage to run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dropasr.config import Config, Row, rows
from dropasr.errors import MeasurementError
from dropasr.files import read_json
from dropasr.paths import Paths
from dropasr.report.inputs import AlignReport, CorpusReport, Epoch, RowTiming, Scores, SplitScore, Summary, Timing, read_input

_ROUNDING = 0.01  # percent; a WER may be stored with two decimals


@dataclass(frozen=True)
class Net:
    """One row of the table: the net, its errors and its times."""

    row: Row
    summary: Summary
    scores: Scores
    timing: RowTiming

    @property
    def name(self) -> str:
        """Name of the row."""
        return self.row.name

    @property
    def last(self) -> Epoch:
        """The last epoch of training."""
        return self.summary.history[-1]

    @property
    def errors(self) -> np.ndarray:
        """Errors `(U,)` of the test utterances."""
        return np.array([item.errors for item in self.scores.test.utterances], np.float64)


@dataclass(frozen=True)
class Run:
    """One finished run; the nets are in the order of the table and were scored on the same utterances."""

    nets: list[Net]
    timing: Timing
    align: AlignReport
    corpus: CorpusReport
    lang: dict[str, Any]
    test_evaluations: int

    @property
    def reference(self) -> Net:
        """The large net with the fewest errors on dev; equal ones are told apart by their cross-entropy on dev."""
        large = [net for net in self.nets if net.row.kind == "large"]
        return min(large, key=lambda net: (net.scores.dev.errors / net.scores.dev.words, net.last.dev_ce))

    @property
    def words(self) -> np.ndarray:
        """Reference words `(U,)` of the test utterances."""
        return np.array([item.words for item in self.nets[0].scores.test.utterances], np.float64)

    @property
    def speakers(self) -> list[str]:
        """Speakers of the test utterances."""
        return [item.speaker for item in self.nets[0].scores.test.utterances]


def _check_counts(path: Path, split: str, score: SplitScore) -> None:
    words = sum(item.words for item in score.utterances)
    errors = sum(item.errors for item in score.utterances)
    if (words, errors) != (score.words, score.errors) or words < 1 or abs(100 * errors / max(words, 1) - score.wer) > _ROUNDING:
        raise MeasurementError(
            f"{path}: {split}: the utterances sum to {errors} errors in {words} words, but the file says {score.errors} in {score.words} "
            f"and WER {score.wer}. Decode again: bash run.sh --stage 7."
        )


def _check_same_utterances(paths: Paths, nets: list[Net]) -> None:
    first = nets[0]
    wanted = [(item.id, item.speaker, item.words) for item in first.scores.test.utterances]
    for net in nets[1:]:
        found = [(item.id, item.speaker, item.words) for item in net.scores.test.utterances]
        if found != wanted:
            at = next((a[0] for a, b in zip(wanted, found) if a != b), f"{len(found)} utterances instead of {len(wanted)}")
            raise MeasurementError(
                f"{paths.scores(net.name)}: expected the same test utterances, speakers and words as in {paths.scores(first.name)}, "
                f"first difference: {at}. Decode all rows again: bash run.sh --stage 7."
            )


def _check_same_decoding(paths: Paths, nets: list[Net]) -> None:
    first = nets[0].scores
    for net in nets[1:]:
        for option in ("backend", "beam", "max_active"):
            expected, found = getattr(first, option), getattr(net.scores, option)
            if expected != found:
                raise MeasurementError(
                    f"{paths.scores(net.name)}: expected {option} {expected} as for {nets[0].name}, found {found}; rows that are compared "
                    "share their decoding. Decode all rows again: bash run.sh --stage 7."
                )


def evaluations_on_test(path: Path, **wanted: str | int) -> int:
    """How many lines of the log of evaluations on test have these values (`model`, `seed`, `row`); an absent log has none."""
    if not path.exists():
        return 0
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return sum(all(line.get(key) == value for key, value in wanted.items()) for line in lines)


def _load_net(paths: Paths, row: Row, timing: Timing) -> Net:
    stage = 6 if row.kind == "compact" else 5
    summary = read_input(paths.net(row.name) / "summary.json", Summary, stage)
    scores = read_input(paths.scores(row.name), Scores, 7, MeasurementError, f"so '{row.name}' has no WER to stand beside its RTF")
    _check_counts(paths.scores(row.name), "dev", scores.dev)
    _check_counts(paths.scores(row.name), "test", scores.test)
    if row.name not in timing.rows:
        raise MeasurementError(f"{paths.rtf}: no times of '{row.name}', so its WER has no RTF beside it. Measure: bash run.sh --stage 8.")
    return Net(row, summary, scores, timing.rows[row.name])


def load_run(config: Config, paths: Paths) -> Run:
    """Read everything that one finished run left behind.

    Raises StageError for a missing or damaged file, MeasurementError where a WER has no RTF (or the reverse), where counts
    contradict each other, or where rows were not scored alike. Each names the file and the stage to run.
    """
    timing = read_input(paths.rtf, Timing, 8, MeasurementError, "so no WER has its RTF beside it")
    nets = [_load_net(paths, row, timing) for row in rows(config)]
    _check_same_utterances(paths, nets)
    _check_same_decoding(paths, nets)
    lang_report = paths.lang / "report.json"
    return Run(
        nets=nets,
        timing=timing,
        align=read_input(paths.align / "report.json", AlignReport, 4),
        corpus=read_input(paths.manifests / "report.json", CorpusReport, 1),
        lang=read_json(lang_report) if lang_report.exists() else {},
        test_evaluations=evaluations_on_test(paths.test_log),
    )
