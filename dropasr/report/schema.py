"""The form of `results.json`. docs/results.schema.json is made from these classes.

`python -m dropasr.report.schema > docs/results.schema.json` writes it again after a change here. What has a default is missing in
files of older versions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union

from pydantic import Field, ValidationError

from dropasr.errors import MeasurementError
from dropasr.report.records import Counts, Difference, ModelTotalRtf, Rate, Record, Rtf, Speedup
from dropasr.report.test_sets import SplitSize, headline_test, ordered
from dropasr.scoring.bootstrap import Bounds, IntervalKind, Outcome

SCHEMA_VERSION = 2
ErrorRate = Literal["word", "character"]
Criterion = Literal["frames", "ctc"]


class SplitFigures(Record):
    """Error rates of one net on one test set, percent."""

    wer: float
    """Word error rate."""
    wer_interval: Bounds
    """95 % interval of `wer` over speakers."""
    wer_difference: Difference
    """Difference to the reference row."""
    cer: Union[float, None] = None
    """Character error rate; spaces do not count."""
    cer_interval: Union[Bounds, None] = None
    """95 % interval of `cer`."""
    cer_difference: Union[Difference, None] = None
    """Difference of `cer` to the reference row."""

    def rate(self, kind: ErrorRate) -> Rate:
        """The word or the character error rate; MeasurementError where a file of an older version has no characters."""
        if kind == "character":
            if self.cer is None or self.cer_interval is None or self.cer_difference is None:
                raise MeasurementError("no character error rates in these rows, which an older version wrote. Run stage 7 and later again.")
            return Rate(self.cer, self.cer_interval, self.cer_difference)
        return Rate(self.wer, self.wer_interval, self.wer_difference)


class Signal(Record):
    """Split-half correlation of a gradient estimator over the updates of retention learning, means over layers."""

    first: Union[float, None]
    """At the first update; null where it could not be measured."""
    median: Union[float, None]
    """Median over updates."""
    last: Union[float, None]
    """At the last update."""


class Row(SplitFigures):
    """What the table of a run and that of a recipe say of a net; in a recipe, figures without another word are means over seeds."""

    name: str
    """Name of the row, and of its folder."""
    label: str
    """The same for people."""
    kind: Literal["large", "small", "compact"]
    """Trained at full size, from scratch at the size of a budget, or made smaller to it."""
    method: str
    """Training method."""
    learns_units: Union[bool, None] = None
    """Of compacted nets, whether the method learns which units leave; those of the others are controls. Missing in older files."""
    model: str
    """Model."""
    teacher: Union[str, None]
    """Row whose posteriors it learnt from."""
    budget: float
    """Wanted share of the large net's multiply-adds per frame; 0: none, the size is as learned."""
    reference: bool
    """Whether the other rows are compared with this one."""
    units: list[int]
    """Units per hidden layer; in a recipe, mean over seeds, rounded."""
    inputs: Union[int, None] = None
    """Inputs, single features of the spliced frames, that are left where some were removed; in a recipe, mean over seeds, rounded."""
    parameters: int
    """Parameters."""
    nonzeros: Union[int, None] = None
    """Parameters that are not 0; missing in older files."""
    macs_per_second: float
    """Multiply-adds per second of audio."""
    criterion: Criterion = "frames"
    """What training minimised: cross-entropy of frames, or CTC, whose figures are per token."""
    extra: dict[str, SplitFigures] = {}
    """The further test sets, by name; `all` is their union with `test`."""
    dev_wer: float
    """WER on dev, percent."""
    dev_wer_interval: Union[Bounds, None] = None
    """95 % interval of `dev_wer` over speakers."""
    dev_cer: Union[float, None] = None
    """CER on dev, percent."""
    dev_ce: float
    """Cross-entropy on dev after the last epoch, nats per frame (with CTC, per token)."""
    estimators: dict[str, list[Union[float, None]]] = {}
    """Split-half correlation of each gradient estimator, per layer."""
    signals: dict[str, Signal] = {}
    """The same over the updates of retention learning, where `signal_updates` recorded it."""
    rtf: Rtf
    """Real-time factors."""
    speedup: Speedup
    """Speed against the reference row; in a recipe, seeds are further passes."""
    train_seconds: float
    """Seconds of training by the clock, without those of its teacher; in a recipe, the median over seeds."""
    train_cpu_seconds: Union[float, None] = None
    """The same of the processor: waiting for other work does not count. Null for nets trained before it was measured."""
    epochs: int
    """Epochs of training, a shared start included."""
    config_hash: str
    """What the net was trained from; in a recipe, the configuration behind the row."""

    def dev_rate(self, kind: ErrorRate) -> float:
        """The word or the character error rate on dev."""
        return self.dev_cer if kind == "character" and self.dev_cer is not None else self.dev_wer

    def has(self, test: str) -> bool:
        """Whether the net was evaluated on a test set; systems of one recipe may have different ones."""
        return test == "test" or test in self.extra

    def on(self, test: str) -> SplitFigures:
        """The figures of `test` or of a further test set."""
        return self if test == "test" else self.extra[test]


class ResultRow(Row):
    """One net."""

    seed: int
    """Seed of training."""
    wer_counts: Counts
    """Errors behind `wer`."""
    dev_frame_error: float
    """Frames of dev classified wrongly after the last epoch, percent (with CTC, errors per token)."""
    acoustic_scale: float
    """Acoustic scale, tuned on dev."""
    lm_scale: float = 1.0
    """Scale of the graph's scores or of the rescoring model, tuned on dev."""
    insertion_penalty: float = 0.0
    """Cost of a word, natural log, tuned on dev."""
    prior: str
    """Which prior was subtracted."""
    rtf_median: ModelTotalRtf
    """Median over utterances."""
    rtf_p95: ModelTotalRtf
    """95th percentile over utterances."""
    git_revision: Union[str, None]
    """Revision of the code."""


class Comparison(Record):
    """A net against another of the same budget: a compacted one against one from scratch or a control, or any against dropout compaction
    (a large one against plain dropout) where many methods are compared."""

    row: str
    """The net."""
    test: str = "test"
    """The test set."""
    budget: float
    """Share of the large net's multiply-adds."""
    difference: Difference
    """Error rate of `row` minus that of the rival."""
    rates: Union[tuple[float, float], None] = None
    """Both error rates; in a recipe, over the seeds that both rows have."""
    dev_ce_difference: Union[float, None] = None
    """Cross-entropy on dev of `row` minus that of the rival, as `rates`."""
    outcome: Outcome
    """`better` or `worse` where the interval excludes 0, else `tie`."""


class Stack(Record):
    """Software that made the figures."""

    search: str
    """Search backend."""
    beam: float
    """Search beam."""
    max_active: int
    """Largest number of active states."""
    frame_subsampling: int = 1
    """The net and the search see every frame (1) or every third (3)."""
    frame_skip: int = 1
    """Scores in a row that the net computes once."""
    rescore: str = "none"
    """Rescoring of the search's hypotheses: `none` or `nbest`."""
    versions: dict[str, str]
    """Versions of Python and of packages."""


class Described(Record):
    """What a run and a recipe say of themselves and of their test sets."""

    schema_version: int = SCHEMA_VERSION
    """Version of this schema."""
    corpus: str
    """Name of the corpus."""
    note: str
    """What a reader must know of the corpus."""
    experiment_note: str = ""
    """What a reader must know of the experiment, such as that it is reduced."""
    one_speaker: bool
    """Train and test share their only speaker."""
    error_rate: ErrorRate = "word"
    """The error rate that differences to rivals, verdicts and the first columns are of."""
    command: str
    """Command that made everything here."""
    busy_share: float
    """CPU time that other processes used just before times were taken, as a share of one core; in a recipe, the largest of its runs."""
    test_words: int
    """Words of the test references."""
    test_speakers: int
    """Speakers of test."""
    bootstrap_unit: str
    """What the intervals of error rates on test are over: `speaker` or `utterance`."""
    interval: IntervalKind = "bootstrap"
    """How they are made: `t` (Student's t) for fewer than thirty speakers, else `bootstrap`."""
    extra_tests: dict[str, SplitSize] = {}
    """Sizes of the further test sets; `all` is their union with test."""
    test_evaluations: int
    """Evaluations on test: of a run, those logged in its experiment folder, all rows and seeds; of a recipe, those of its rows."""

    @property
    def tests(self) -> dict[str, SplitSize]:
        """All test sets, `test` first."""
        about = {"bootstrap_unit": self.bootstrap_unit, "interval": self.interval}
        return {"test": SplitSize(words=self.test_words, speakers=self.test_speakers, **about), **self.extra_tests}

    @property
    def headline(self) -> str:
        """The test set of the verdicts."""
        return headline_test(self.tests)

    def order(self, rows: Sequence[Row]) -> list[str]:
        """The test sets of the rows of a table, that of their verdicts first."""
        return of_row(rows[0], self.tests)

    @property
    def rate_name(self) -> str:
        """`WER` or `CER`: the error rate of the headline."""
        return "WER" if self.error_rate == "word" else "CER"


def of_row(row: Row, sizes: Mapping[str, SplitSize]) -> list[str]:
    """The test sets of a row, that of its verdicts first: `test` where it was not evaluated on all."""
    return [test for test in ordered(sizes) if row.has(test)]


class Results(Described):
    """The table of one run."""

    system: str = ""
    """What tells apart systems on the same corpus: criterion and units, frame subsampling; empty for the usual one."""
    hardware: dict[str, Any]
    """Processor, cores, threads, memory, system."""
    stack: Stack
    """Software."""
    config_hash: str
    """What the run was made from: corpus, model, methods, decoding; not the seed."""
    reference: str
    """Name of the reference row: the large net that is better on dev."""
    rows: list[ResultRow] = Field(min_length=1)
    """The nets."""
    comparisons: list[Comparison]
    """Nets against others of the same budget (`dropasr/report/rivals.py` says which)."""


def check_results(value: Any, where: str) -> Results:
    """Check that `value` (a `results.json`) has the documented form; MeasurementError naming `where` and the key."""
    try:
        return Results.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise MeasurementError(f"{where}: {key}: {first['msg']}. Make it again: bash run.sh --stage 9.") from None


if __name__ == "__main__":
    print(json.dumps(Results.model_json_schema(), indent=1, ensure_ascii=False))
