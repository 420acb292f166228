"""The form of `results.json`. docs/results.schema.json is made from these classes.

`python -m dropasr.report.schema > docs/results.schema.json` writes it again after a change here.
"""

from __future__ import annotations

import json
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dropasr.errors import MeasurementError
from dropasr.scoring.bootstrap import Bounds, Outcome

SCHEMA_VERSION = 1


class Record(BaseModel):
    """Base of what is written: no other keys, no NaN."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Difference(Record):
    """Difference of two WERs on the same test utterances, percent absolute."""

    to: str
    """Name of the row that is subtracted."""
    mean: float
    """The difference; below 0, this row has fewer errors."""
    interval: Bounds
    """95 % interval, paired bootstrap over speakers (over utterances where there is one speaker)."""


class Rtf(Record):
    """Real-time factors: sum of times over sum of durations; one thread, batch 1, warmed up, nets interleaved."""

    features: float
    """Feature extraction."""
    model: float
    """Acoustic model."""
    search: float
    """Search."""
    total: float
    """The three together."""


class ModelTotalRtf(Record):
    """A statistic of the real-time factors of single utterances."""

    model: float
    """Acoustic model."""
    total: float
    """Whole decode."""


class Speedup(Record):
    """How many times faster than the reference row, same utterances, interleaved."""

    model: float
    """Acoustic model."""
    total: float
    """Whole decode."""
    interval: Bounds
    """95 % interval of `model`, paired bootstrap over utterances."""
    total_interval: Bounds
    """95 % interval of `total`."""


class Counts(Record):
    """Words and errors of the test set."""

    words: int
    """Words of the references."""
    substitutions: int
    """Words recognised as others."""
    deletions: int
    """Words missed."""
    insertions: int
    """Words too many."""


class ResultRow(Record):
    """One net."""

    name: str
    """Name of the row, and of its folder."""
    label: str
    """The same for people."""
    kind: Literal["large", "small", "compact"]
    """Trained at full size, from scratch at the size of a budget, or made smaller to it."""
    method: str
    """Training method."""
    model: str
    """Model."""
    teacher: Union[str, None]
    """Row whose posteriors it learnt from."""
    seed: int
    """Seed of training."""
    budget: float
    """Wanted share of the large net's multiply-adds per frame; 0: none, the size is as learned."""
    reference: bool
    """Whether the other rows are compared with this one."""
    units: list[int]
    """Units per hidden layer."""
    parameters: int
    """Parameters."""
    macs_per_second: float
    """Multiply-adds per second of audio."""
    wer: float
    """WER on test, percent."""
    wer_interval: Bounds
    """95 % interval of `wer`, bootstrap over speakers."""
    wer_counts: Counts
    """Errors behind `wer`."""
    wer_difference: Difference
    """Difference to the reference row."""
    dev_wer: float
    """WER on dev, percent."""
    dev_ce: float
    """Cross-entropy per frame on dev after the last epoch, nats."""
    dev_frame_error: float
    """Frames of dev classified wrongly after the last epoch, percent."""
    acoustic_scale: float
    """Acoustic scale, tuned on dev."""
    prior: str
    """Which prior was subtracted."""
    rtf: Rtf
    """Real-time factors."""
    rtf_median: ModelTotalRtf
    """Median over utterances."""
    rtf_p95: ModelTotalRtf
    """95th percentile over utterances."""
    speedup: Speedup
    """Speed against the reference row."""
    train_seconds: float
    """Seconds of training."""
    epochs: int
    """Epochs of training, a shared start included."""
    config_hash: str
    """What the net was trained from."""
    git_revision: Union[str, None]
    """Revision of the code."""


class Comparison(Record):
    """A compacted net against one from scratch of the same budget."""

    row: str
    """The compacted net."""
    budget: float
    """Share of the large net's multiply-adds."""
    difference: Difference
    """WER of `row` minus WER of the net from scratch."""
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
    versions: dict[str, str]
    """Versions of Python and of packages."""


class Results(Record):
    """The table of one run."""

    schema_version: int = SCHEMA_VERSION
    """Version of this schema."""
    corpus: str
    """Name of the corpus."""
    note: str
    """What a reader must know of the corpus."""
    one_speaker: bool
    """Train and test share their only speaker."""
    command: str
    """Command that made the run."""
    hardware: dict[str, Any]
    """Processor, cores, threads, memory, system."""
    busy_share: float
    """CPU time that other processes used just before the times were taken, as a share of one core."""
    stack: Stack
    """Software."""
    config_hash: str
    """What the run was made from: corpus, model, methods, decoding; not the seed."""
    reference: str
    """Name of the reference row: the large net that is better on dev."""
    test_words: int
    """Words of the test references."""
    test_speakers: int
    """Speakers of test."""
    bootstrap_unit: str
    """What the bootstrap of WER drew: `speaker` or `utterance`."""
    test_evaluations: int
    """Evaluations on test logged so far in this experiment folder, all rows and seeds."""
    rows: list[ResultRow] = Field(min_length=1)
    """The nets."""
    comparisons: list[Comparison]
    """Compacted nets against nets from scratch of the same budget."""


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
