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
from dropasr.report.inputs import (
    AlignReport,
    CorpusReport,
    Epoch,
    RowTiming,
    Scores,
    SplitScore,
    Summary,
    Timing,
    UtteranceScore,
    read_input,
)
from dropasr.report.schema import Criterion, ErrorRate
from dropasr.report.test_sets import parts, with_union

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

    def utterances(self, test: str) -> list[UtteranceScore]:
        """The utterances of a test set; of the union, those of all in turn."""
        tests = self.scores.tests
        return [item for part in parts(test, tests) for item in tests[part].utterances]

    def errors(self, test: str = "test", kind: ErrorRate = "word") -> np.ndarray:
        """Errors `(U,)` of the utterances of a test set, of words or of characters."""
        return np.array([item.errors if kind == "word" else item.character_errors for item in self.utterances(test)], np.float64)


@dataclass(frozen=True)
class Run:
    """One finished run; the nets are in the order of the table and were scored on the same utterances."""

    nets: list[Net]
    timing: Timing
    align: AlignReport
    corpus: CorpusReport
    lang: dict[str, Any]
    test_evaluations: int
    error_rate: ErrorRate = "word"

    @property
    def reference(self) -> Net:
        """The large net with the lowest error rate on dev; equal ones are told apart by their cross-entropy on dev."""
        large = [net for net in self.nets if net.row.kind == "large"]
        return min(large, key=lambda net: (net.scores.dev.wer if self.error_rate == "word" else net.scores.dev.cer, net.last.dev_ce))

    @property
    def tests(self) -> list[str]:
        """All test sets, `test` first, their union last."""
        return with_union(self.nets[0].scores.tests)

    @property
    def criterion(self) -> Criterion:
        """What training minimised, the same for all rows."""
        return self.nets[0].summary.criterion

    def counts(self, test: str = "test", kind: ErrorRate = "word") -> np.ndarray:
        """Reference words or characters `(U,)` of the utterances of a test set."""
        return np.array([item.words if kind == "word" else item.characters for item in self.nets[0].utterances(test)], np.float64)

    def speakers(self, test: str = "test") -> list[str]:
        """Speakers of the utterances of a test set."""
        return [item.speaker for item in self.nets[0].utterances(test)]

    def sets(self, test: str = "test") -> list[str]:
        """Test sets of the utterances of a test set: of the union, those that it is made of."""
        return [part for part in parts(test, self.nets[0].scores.tests) for _ in self.nets[0].utterances(part)]


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
    for net in nets[1:]:
        if set(net.scores.tests) != set(first.scores.tests):
            raise MeasurementError(
                f"{paths.scores(net.name)}: expected the test sets {', '.join(first.scores.tests)} as of {first.name}, found "
                f"{', '.join(net.scores.tests)}. Decode all rows again: bash run.sh --stage 7."
            )
        for test, score in first.scores.tests.items():
            wanted, found = ([(i.id, i.speaker, i.words) for i in part.utterances] for part in (score, net.scores.tests[test]))
            if found != wanted:
                at = next((a[0] for a, b in zip(wanted, found) if a != b), f"{len(found)} utterances instead of {len(wanted)}")
                raise MeasurementError(
                    f"{paths.scores(net.name)}: expected the same {test} utterances, speakers and words as in {paths.scores(first.name)}, "
                    f"first difference: {at}. Decode all rows again: bash run.sh --stage 7."
                )


def _check_same_decoding(paths: Paths, nets: list[Net]) -> None:
    first = nets[0].scores
    for net in nets[1:]:
        for option in ("backend", "beam", "max_active", "rescore", "frame_subsampling", "frame_skip"):
            expected, found = getattr(first, option), getattr(net.scores, option)
            if expected != found:
                raise MeasurementError(
                    f"{paths.scores(net.name)}: expected {option} {expected} as for {nets[0].name}, found {found}; rows that are compared "
                    "share their decoding. Decode all rows again: bash run.sh --stage 7."
                )


def evaluations_on_test(path: Path, **wanted: str | int) -> int:
    """How many evaluations of the log have these values (`model`, `seed`, `row`, `system`); an absent log has none.

    An evaluation has a line `begin`, even where it crashed, and one `end`; logs of older versions have one line without `event`,
    and none names a `system`.
    """
    if not path.exists():
        return 0
    lines = [{"system": "", **json.loads(line)} for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    begun = [line for line in lines if line.get("event") != "end"]
    return sum(all(line.get(key) == value for key, value in wanted.items()) for line in begun)


def _load_net(paths: Paths, row: Row, timing: Timing) -> Net:
    stage = 6 if row.kind == "compact" else 5
    summary = read_input(paths.net(row.name) / "summary.json", Summary, stage)
    scores = read_input(paths.scores(row.name), Scores, 7, MeasurementError, f"so '{row.name}' has no WER to stand beside its RTF")
    for split, score in {"dev": scores.dev, **scores.tests}.items():
        _check_counts(paths.scores(row.name), split, score)
    if scores.net != summary.config_hash:
        raise MeasurementError(
            f"{paths.scores(row.name)}: scores of another net than the present '{row.name}'. Run: bash run.sh --stage 7."
        )
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
    lang_report, own_graphs = paths.lang / "report.json", paths.own_graph / "graphs.json"
    align = read_input(paths.align / "report.json", AlignReport, 4)
    if own_graphs.exists():
        align = align.model_copy(update={"graphs": read_json(own_graphs)})
    return Run(
        nets=nets,
        timing=timing,
        align=align,
        corpus=read_input(paths.manifests / "report.json", CorpusReport, 1),
        lang=read_json(lang_report) if lang_report.exists() else {},
        test_evaluations=evaluations_on_test(paths.test_log),
        error_rate=config.corpus.error_rate,
    )
