"""The form of a recipe's row files and of its `results.json`. docs/recipe-results.schema.json is made from these classes.

`python -m dropasr.report.recipe_schema > docs/recipe-results.schema.json` writes it again after a change here. What has a default is
missing in files of older versions.
"""

from __future__ import annotations

import json
from typing import Any, Literal, Union

from dropasr.report.records import Record
from dropasr.report.schema import Comparison, Described, ErrorRate, ResultRow, Row, Rtf, SplitFigures, Stack
from dropasr.scoring.bootstrap import Bounds

Verdict = Literal["holds", "tie", "does not hold"]
Utterance = tuple[str, str, int, int]
"""Id, speaker, reference words and errors."""


class Timing(Record):
    """What a net took beside others."""

    timing_id: str
    """Hash of the timing: nets that share it were interleaved."""
    rtf: Rtf
    """Its real-time factors there."""
    model_seconds: list[list[float]]
    """Seconds of the acoustic model, passes by utterances."""
    total_seconds: list[list[float]]
    """Seconds of the whole decode, passes by utterances."""


class Retimed(Record):
    """A run of `bench retime`, which timed the acoustic model again, as a net of the row's sizes with weights by lot."""

    timing_id: str
    """Hash of the timing: nets that share it were interleaved."""
    hardware: dict[str, Union[str, int, float]]
    """Processor, cores, threads, memory, system."""
    versions: dict[str, str]
    """Software."""
    busy_share: float = 0.0
    """CPU time that other processes used just before, as a share of one core."""


class StoredRow(Record):
    """One net of one seed, with what pooling needs."""

    corpus: str
    """Name of the corpus."""
    note: str
    """What a reader must know of the corpus."""
    experiment_note: str = ""
    """What a reader must know of the experiment, such as that it is reduced."""
    one_speaker: bool
    """Train and test share their only speaker."""
    error_rate: ErrorRate = "word"
    """The error rate of the headline."""
    system: str = ""
    """What tells apart systems on the same corpus; empty for the usual one."""
    command: str
    """Command that made the run."""
    config_hash: str
    """Hash of the configuration that the figures depend on, without the seed."""
    timing_id: str
    """Hash of the timing: a row must share one with the large net that it is compared with, else their times were not interleaved."""
    busy_share: float = 0.0
    """CPU time that other processes used just before times were taken, as a share of one core."""
    test_evaluations: int
    """How often this net's folder was evaluated on test."""
    hardware: dict[str, Union[str, int, float]]
    """Processor, cores, threads, memory, system."""
    stack: Stack
    """Software."""
    figures: ResultRow
    """The row of results.json."""
    utterances: list[Utterance]
    """Id, speaker, reference words and errors of the test utterances."""
    dev_utterances: list[Utterance] = []
    """The same of dev."""
    extra_utterances: dict[str, list[Utterance]] = {}
    """The same of the further test sets, by name."""
    characters: dict[str, list[tuple[int, int]]] = {}
    """Reference characters and character errors of the utterances of every test set, by name."""
    model_seconds: list[list[float]]
    """Seconds of the acoustic model, passes by utterances."""
    total_seconds: list[list[float]]
    """Seconds of the whole decode, passes by utterances."""
    further_timings: list[Timing] = []
    """Of a large net: its times beside rows that were added later."""
    retimed: Union[Retimed, None] = None
    """The run that the times of the acoustic model are from, if it is not the one that made the row."""

    @property
    def model_timing_id(self) -> str:
        """The run that the times of the acoustic model are from."""
        return self.timing_id if self.retimed is None else self.retimed.timing_id

    def timing(self, timing_id: str) -> Union[Timing, None]:
        """The times taken beside others; None where this net was not among them."""
        own = Timing(timing_id=self.timing_id, rtf=self.figures.rtf, model_seconds=self.model_seconds, total_seconds=self.total_seconds)
        return next((found for found in (own, *self.further_timings) if found.timing_id == timing_id), None)


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
    """Model, and system where there are several."""
    row: str
    """The row that it is about."""
    to: str
    """The row that it is compared with."""
    test: str = "test"
    """The test set that it is about."""
    verdict: Verdict
    """How it fell out."""
    seeds: int
    """Seeds behind it: the fewest of the two rows."""
    evidence: str
    """The figures."""


class Smallest(Record):
    """The smallest compacted net that loses nothing against the reference, on one test set."""

    model: str
    """Model, and system where there are several."""
    test: str
    """The test set."""
    row: Union[str, None]
    """Name of the row; null where no compacted net is non-inferior."""
    model_time: Union[float, None]
    """Its acoustic-model time as a share of the reference's."""
    model_time_interval: Union[Bounds, None]
    """95 % interval of `model_time`."""
    seeds: int
    """Seeds behind it."""
    sentence: str
    """The same in words."""


class PooledFigures(SplitFigures):
    """Error rates of one net on one test set, means over seeds."""

    wer_spread: Spread
    """WER over seeds."""


class PooledRow(Row, PooledFigures):
    """One net over all seeds; figures without another word are means over seeds."""

    extra: dict[str, PooledFigures] = {}
    """The further test sets, by name; `all` is their union with `test`."""
    corpus: str
    """Name of the corpus."""
    system: str = ""
    """What tells apart systems on the same corpus; empty for the usual one."""
    seeds: list[int]
    """Seeds of training."""
    units_per_seed: list[list[int]]
    """Units per hidden layer, one list per seed."""
    dev_ce_spread: Spread
    """Cross-entropy over seeds."""
    dev_difference: Union[float, None] = None
    """Error rate on dev (word or character, as verdicts are) minus that of the reference, over the seeds of this row."""
    speedup_spread: Spread
    """Speed-up of the acoustic model over seeds."""
    test_evaluations: int
    """Evaluations on test, all seeds."""


class PooledComparison(Comparison):
    """A net against another of the same budget, over the seeds that both have."""

    model: str
    """Model."""
    system: str = ""
    """System."""
    seeds: list[int]
    """These seeds."""


class RecipeResults(Described):
    """The tables of a recipe; a recipe has one corpus and one or more models and systems."""

    run_commands: list[str]
    """Commands of the runs."""
    hardware: list[dict[str, Any]]
    """Machines that the runs were made on."""
    stack: list[Stack]
    """Software that the runs were made with."""
    git_revisions: list[str]
    """Revisions of the code."""
    timings: int = 1
    """Runs in which the nets of a seed were timed, each with the reference, at most."""
    retimed: int = 0
    """Files whose acoustic models were timed again as nets of their sizes with weights by lot, all of a seed in one run."""
    rows: list[PooledRow]
    """The nets."""
    comparisons: list[PooledComparison]
    """Nets against others of the same budget (`dropasr/report/rivals.py` says which)."""
    to_chosen: list[PooledComparison] = []
    """Where many methods are compared: nets against the variant of dropout compaction of their budget with the fewest errors on dev."""
    claims: list[Claim]
    """What was to be shown, and how it fell out; empty where the test sets have too few words."""
    smallest: list[Smallest]
    """Per model, system and test set with enough words, the smallest compacted net that loses nothing."""


if __name__ == "__main__":
    print(json.dumps(RecipeResults.model_json_schema(), indent=1, ensure_ascii=False))
