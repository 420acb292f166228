"""The files that the report reads, as types; a missing or damaged one is an error that says which stage to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dropasr.errors import DropasrError, StageError
from dropasr.files import read_json

_MODEL = TypeVar("_MODEL", bound="Input")


class Input(BaseModel):
    """Base of what is read: keys that the report does not use are ignored, keys that it uses must be there and finite."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, populate_by_name=True)


class Epoch(Input):
    """One epoch of training; `dev_frame_error` in percent, `seconds` of wall time."""

    epoch: int
    learning_rate: float
    train_ce: float
    dev_ce: float
    dev_frame_error: float
    frames_per_second: float
    seconds: float
    units: list[int]
    keep: Union[float, None] = None


class LayerRetention(Input):
    """Retention probabilities of one layer: counts in equal bins of [0, 1], and how many units are left of how many."""

    counts: list[int]
    kept: int
    total: int


class EpochRetention(Input):
    """Retention probabilities of all layers after one pass of retention learning, `epoch` epochs after the start of training."""

    epoch: float
    layers: list[LayerRetention]


class Estimator(Input):
    """Split-half correlation of a gradient estimator per layer, on `frames` real frames."""

    split_half: list[Union[float, None]]
    frames: int


class Compaction(Input):
    """One removal of units; `max_difference` of the outputs of the masked and the compacted net."""

    epoch: int
    units_before: list[int]
    units_after: list[int]
    max_difference: float
    largest_logit: float


class SignalUpdate(Input):
    """Split-half correlation of every gradient estimator per layer at one update of retention learning."""

    epoch: float
    update: int
    split_half: dict[str, list[Union[float, None]]]


class InputsLeft(Input):
    """What a net reads of its spliced frames: entries `frame * num_features + feature`."""

    num_features: int
    context: tuple[int, int]
    inputs: list[int]


class Summary(Input):
    """`nets/<row>/summary.json`."""

    row: str
    method: str
    learns_units: Union[bool, None] = None
    model: str
    kind: str
    budget: float
    seed: int
    units: list[int]
    inputs_left: Union[InputsLeft, None] = None
    parameters: int
    nonzeros: Union[int, None] = None
    macs_per_frame: int
    train_seconds: float
    train_cpu_seconds: Union[float, None] = None
    epochs: int
    criterion: Literal["frames", "ctc"] = "frames"
    teacher: Union[str, None]
    config_hash: str
    git_revision: Union[str, None]
    history: list[Epoch] = Field(min_length=1)
    retention: list[EpochRetention]
    estimators: dict[str, Estimator]
    signals: list[SignalUpdate] = []
    compactions: list[Compaction]

    @property
    def inputs(self) -> Union[int, None]:
        """Inputs that are left, where they left as units do: they stand before the layers in what is told of removals."""
        left = self.compactions[-1].units_after if self.compactions else []
        return left[0] if len(left) == len(self.units) + 1 else None

    def group_names(self, groups: int) -> list[str]:
        """What figures of so many groups of units are of: the hidden layers, and before them the inputs where these may leave."""
        layers = [f"layer {number}" for number in range(1, groups + 1)]
        return ["inputs", *layers[:-1]] if groups == len(self.units) + 1 else layers


class UtteranceScore(Input):
    """Errors of one utterance."""

    id: str
    speaker: str
    words: int
    substitutions: int = Field(alias="sub")
    deletions: int = Field(alias="del")
    insertions: int = Field(alias="ins")
    characters: int
    character_errors: int

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions


class SplitScore(Input):
    """WER and CER (percent) of one split."""

    wer: float
    cer: float
    characters: int
    character_errors: int
    words: int
    errors: int
    substitutions: int = Field(alias="sub")
    deletions: int = Field(alias="del")
    insertions: int = Field(alias="ins")
    utterances: list[UtteranceScore] = Field(min_length=1)


class Scores(Input):
    """`scores/<row>.json`."""

    row: str
    net: str
    acoustic_scale: float
    lm_scale: float
    insertion_penalty: float
    prior: str
    scales: dict[str, float]
    tuning: list[tuple[float, float, float, float]]
    dev: SplitScore
    test: SplitScore
    extra: dict[str, SplitScore]
    backend: str
    beam: float
    max_active: int
    rescore: str
    frame_subsampling: int
    frame_skip: int = 1

    @property
    def tests(self) -> dict[str, SplitScore]:
        """All test sets, `test` first; the others in an order that all files share."""
        return {"test": self.test, **dict(sorted(self.extra.items()))}


class ModelTotal(Input):
    """A figure of the acoustic model and of the whole decode."""

    model: float = Field(gt=0)
    total: float = Field(gt=0)


class Pass(Input):
    """Seconds of one pass over all timed utterances."""

    features: float = Field(ge=0)
    model: float = Field(gt=0)
    search: float = Field(ge=0)

    @property
    def total(self) -> float:
        """Seconds of the whole decode."""
        return self.features + self.model + self.search


class RowTiming(Input):
    """Real-time factors of one net, and the seconds they come from."""

    features: float = Field(ge=0)
    model: float = Field(gt=0)
    search: float = Field(ge=0)
    total: float = Field(gt=0)
    median: ModelTotal
    p95: ModelTotal
    passes: list[Pass] = Field(min_length=1)
    per_utterance_model_seconds: list[list[float]] = Field(min_length=1)
    per_utterance_total_seconds: list[list[float]] = Field(min_length=1)

    @property
    def model_seconds(self) -> np.ndarray:
        """Seconds of the acoustic model, `(P, U)`."""
        return np.asarray(self.per_utterance_model_seconds, np.float64)

    @property
    def total_seconds(self) -> np.ndarray:
        """Seconds of the whole decode, `(P, U)`."""
        return np.asarray(self.per_utterance_total_seconds, np.float64)


class Timing(Input):
    """`rtf.json`."""

    hardware: dict[str, Any]
    versions: dict[str, Any]
    threads: int
    repeats: int
    utterances: int
    audio_seconds: float = Field(gt=0)
    order: str
    busy_share: float = 0.0
    rows: dict[str, RowTiming]


class AlignRound(Input):
    """One round of the flat start: labels changed (percent) and mean shift of the boundaries (frames)."""

    name: str
    changed_percent: Union[float, None] = None
    boundary_shift_frames: Union[float, None] = None


class AlignReport(Input):
    """`align/report.json`."""

    rounds: list[AlignRound]
    frames: int
    utterances: int
    failed: Union[int, list[Any]]
    mean_boundary_shift_frames: Union[float, None]
    units: Union[int, None] = None
    tying: Union[str, None] = None
    graphs: dict[str, dict[str, Any]] = {}


class Dropped(Input):
    """An utterance that was left out."""

    id: str
    reason: str


class SplitCounts(Input):
    """What one split holds."""

    utterances: int
    hours: float
    words: int
    speakers: int
    seen: Union[int, None] = None
    dropped: list[Dropped]
    mapped_words: dict[str, int] = {}


class CorpusReport(Input):
    """`manifests/report.json`."""

    corpus: str
    note: str
    one_speaker: bool
    vocabulary: Union[int, None] = None
    test_sentences_seen: dict[str, float] = {}
    splits: dict[str, SplitCounts]


def read_input(path: Path, kind: type[_MODEL], stage: int, error: type[DropasrError] = StageError, missing: str = "") -> _MODEL:
    """Read and check one file; `error` names the file, the key, and the stage that makes it. `missing` explains an absent file."""
    again = f"Run it again: bash run.sh --stage {stage}"
    if not path.exists():
        raise error(f"{path}: the file is missing{', ' + missing if missing else ''}. Stage {stage} makes it: bash run.sh --stage {stage}.")
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        found = "" if isinstance(first["input"], (dict, list)) else f", found {first['input']!r}"
        what = "is missing" if first["type"] == "missing" else f"is not as expected: {first['msg']}{found}"
        raise error(f"{path}: '{key}' {what}. {again}.") from None
