"""The form of a recipe's row files and of its `results.json`. docs/recipe-results.schema.json is made from these classes.

`python -m dropasr.report.recipe_schema > docs/recipe-results.schema.json` writes it again after a change here.
"""

from __future__ import annotations

import json
from typing import Any, Literal, Union

from dropasr.report.schema import Difference, Record, ResultRow, Rtf, Speedup, Stack
from dropasr.scoring.bootstrap import Bounds, Outcome

Verdict = Literal["holds", "tie", "does not hold", "cannot be claimed"]


class StoredRow(Record):
    """One net of one seed, with what pooling needs."""

    corpus: str
    """Name of the corpus."""
    note: str
    """What a reader must know of the corpus."""
    one_speaker: bool
    """Train and test share their only speaker."""
    command: str
    """Command that made the run."""
    config_hash: str
    """Hash of the configuration that the figures depend on, without the seed."""
    timing_id: str
    """Hash of the timing: rows of one seed must share it, else their times were not interleaved."""
    test_evaluations: int
    """How often this net's folder was evaluated on test."""
    hardware: dict[str, Union[str, int, float]]
    """Processor, cores, threads, memory, system."""
    stack: Stack
    """Software."""
    figures: ResultRow
    """The row of results.json."""
    utterances: list[tuple[str, str, int, int]]
    """Id, speaker, reference words and errors of the test utterances."""
    model_seconds: list[list[float]]
    """Seconds of the acoustic model, passes by utterances."""
    total_seconds: list[list[float]]
    """Seconds of the whole decode, passes by utterances."""


class Spread(Record):
    """A figure over seeds."""

    std: float
    """Standard deviation (n - 1); 0 for one seed."""
    min: float
    """Smallest."""
    max: float
    """Largest."""
    per_seed: list[float]
    """In the order of `seeds`."""


class Claim(Record):
    """What was to be shown of one row, and how it fell out."""

    claim: str
    """The claim in words."""
    model: str
    """Model."""
    row: str
    """The row that it is about."""
    to: str
    """The row that it is compared with."""
    verdict: Verdict
    """How it fell out."""
    evidence: str
    """The figures."""


class PooledRow(Record):
    """One net over all seeds; figures without another word are means over seeds."""

    corpus: str
    """Name of the corpus."""
    name: str
    """Name of the row."""
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
    budget: float
    """Wanted share of the large net's multiply-adds per frame; 0: none, the size is as learned."""
    reference: bool
    """Whether the other rows are compared with this one."""
    seeds: list[int]
    """Seeds of training."""
    units: list[int]
    """Units per hidden layer, mean over seeds, rounded."""
    units_per_seed: list[list[int]]
    """Units per hidden layer, one list per seed."""
    parameters: int
    """Parameters."""
    macs_per_second: float
    """Multiply-adds per second of audio."""
    wer: float
    """WER on test, percent."""
    wer_spread: Spread
    """WER over seeds."""
    wer_interval: Bounds
    """95 % interval of `wer`, bootstrap over speakers, seeds averaged."""
    wer_difference: Difference
    """Difference to the reference row, paired, seeds pooled."""
    dev_wer: float
    """WER on dev, percent."""
    dev_ce: float
    """Cross-entropy per frame on dev, nats."""
    dev_ce_spread: Spread
    """Cross-entropy over seeds."""
    rtf: Rtf
    """Real-time factors."""
    speedup: Speedup
    """Speed against the reference row; seeds are further passes."""
    speedup_spread: Spread
    """Speed-up of the acoustic model over seeds."""
    train_seconds: float
    """Seconds of training."""
    epochs: int
    """Epochs of training."""
    test_evaluations: int
    """Evaluations on test, all seeds."""
    config_hash: str
    """Hash of the configuration behind the row."""


class PooledComparison(Record):
    """A compacted net against one from scratch of the same budget."""

    model: str
    """Model."""
    row: str
    """The compacted net."""
    budget: float
    """Share of the large net's multiply-adds."""
    difference: Difference
    """WER of `row` minus WER of the net from scratch, seeds pooled."""
    dev_ce_difference: float
    """The same of the mean cross-entropy on dev, nats per frame."""
    outcome: Outcome
    """`better` or `worse` where the interval excludes 0, else `tie`."""


class RecipeResults(Record):
    """The tables of a recipe; a recipe has one corpus and one or more models."""

    schema_version: int = 1
    """Version of this schema."""
    corpus: str
    """Name of the corpus."""
    note: str
    """What a reader must know of the corpus."""
    one_speaker: bool
    """Train and test share their only speaker."""
    command: str
    """Command that makes everything here."""
    run_commands: list[str]
    """Commands of the runs."""
    hardware: list[dict[str, Any]]
    """Machines that the runs were made on."""
    stack: list[Stack]
    """Software that the runs were made with."""
    git_revisions: list[str]
    """Revisions of the code."""
    test_words: int
    """Words of the test references."""
    test_speakers: int
    """Speakers of test."""
    bootstrap_unit: str
    """What the bootstrap of WER drew: `speaker` or `utterance`."""
    test_evaluations: int
    """Evaluations on test, all rows and seeds."""
    rows: list[PooledRow]
    """The nets."""
    comparisons: list[PooledComparison]
    """Compacted nets against nets from scratch of the same budget."""
    claims: list[Claim]
    """What was to be shown, and how it fell out; empty where the test set has too few words."""


if __name__ == "__main__":
    print(json.dumps(RecipeResults.model_json_schema(), indent=1, ensure_ascii=False))
