"""Options of the experiment: alignment, rows of the table, training, search, timing."""

from __future__ import annotations

from typing import Any, Literal, Union

from pydantic import Field, model_validator

from dropasr.config.base import Options


class AlignConfig(Options):
    """Flat start: uniform alignment, single Gaussians, then rounds of a small net and realignment."""

    gaussian_rounds: int = Field(default=10, ge=0)
    """Rounds of single diagonal Gaussians after the uniform alignment."""
    gaussian_utterances: int = Field(default=300, ge=1)
    """Utterances that the Gaussians are estimated on; the last round labels all."""
    net_rounds: int = Field(default=3, ge=1)
    """Rounds of training a small net and realigning."""
    layers: int = Field(default=2, ge=1)
    """Hidden layers of the small net."""
    width: int = Field(default=256, ge=8)
    """Units per layer of the small net."""
    epochs: int = Field(default=2, ge=1)
    """Epochs of the small net per round."""
    beam: float = Field(default=200.0, gt=0)
    """Search beam on the linear graph."""
    biphone_rounds: int = Field(default=1, ge=0)
    """Further rounds with the tied units of `lang.tying`; with 0, the last labels are only renamed."""


class ExperimentConfig(Options):
    """Which rows the table has. A name is a file of `conf/method/`."""

    large: list[str] = ["dense", "annealed_dropout"]
    """Methods trained at full size; the better of them on dev is the reference of every table."""
    small: list[str] = ["dense"]
    """Methods trained from scratch at the size of each budget."""
    compact: list[str] = ["dropout_compaction"]
    """Methods that start large and make the net smaller, at each budget."""
    budgets: list[float] = [0.25, 0.125]
    """Shares of the large net's multiply-adds per frame."""
    budget_tolerance: float = Field(default=0.02, gt=0, lt=0.2)
    """Largest relative deviation from a budget."""
    note: str = ""
    """A sentence that the report and the tables of this experiment begin with, such as that it is reduced."""

    @model_validator(mode="after")
    def _check(self) -> ExperimentConfig:
        if not self.large:
            raise ValueError("experiment.large is empty: a table needs a large net as its reference")
        bad = [budget for budget in self.budgets if not 0 < budget < 1]
        if bad:
            raise ValueError(f"experiment.budgets: expected shares between 0 and 1, found {bad}")
        for key in ("large", "small", "compact", "budgets"):
            names = [f"{value:g}" if key == "budgets" else value for value in getattr(self, key)]
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"experiment.{key}: {twice[0]} stands {names.count(twice[0])} times; rows need names of their own")
        return self


CTC_OPTIONS = ("batch_frames", "flat_start")
"""Options of `train` that play no part where the criterion is `frames`."""
CHUNK_OPTIONS = ("chunk_frames", "chunk_batch_frames")
"""Options of `train` that play a part where the criterion is `frames` and nets read sequences."""
LATER_DECODING = ("frame_skip",)
"""Options of `decode` that count only where they are not at their default, because nets were decoded before there were any."""
LATER_OPTIONS = ("optimiser",)
"""Options of `train` that count only where they are not at their default, because nets were trained before there were any."""


class TrainConfig(Options):
    """Training, the same for every row of a table."""

    epochs: int = Field(default=10, ge=1)
    """Total epochs of every row, retention learning and fine-tuning included."""
    batch_size: int = Field(default=512, ge=1)
    """Frames per step; nets that read sequences have chunk_batch_frames instead."""
    chunk_frames: int = Field(default=100, ge=1)
    """With frames and nets that read sequences, frames of the pieces that utterances are cut into, at most, contexts aside."""
    chunk_batch_frames: int = Field(default=2000, ge=1)
    """Frames of the pieces that make a step, contexts included."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Learning rate at the start."""
    final_learning_rate: float = Field(default=0.01, gt=0, le=1)
    """Learning rate at the end, as a share of the one at the start."""
    constant_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the epochs at the first learning rate; then it falls exponentially."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD; of Adam, decay of the mean of gradients."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    """`sgd` with momentum, or `adam`, whose learning rates are some hundred times smaller."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty on weights; with adam they shrink by learning rate times this per step (AdamW)."""
    max_grad_norm: float = Field(default=5.0, gt=0)
    """Largest norm of the gradient of a step."""
    held_out: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the training utterances held out for retention learning; rows without it train on all."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast where the processor has it, else float32."""
    criterion: Literal["frames", "ctc"] = "frames"
    """`frames`: cross-entropy on aligned frames; `ctc`: connectionist temporal classification, with lang.units chars or bpe."""
    batch_frames: int = Field(default=3000, ge=1)
    """With ctc, frames of the whole utterances that make a step (an utterance that is longer makes one alone)."""
    flat_start: float = Field(default=0.1, ge=0, lt=1)
    """With ctc, share of the steps that learn tokens spread evenly over each utterance: from random weights CTC may learn blanks only."""
    frame_subsampling: Literal[1, 3] = 1
    """The net is evaluated at every frame or every third: with ctc in training and decoding, with frames in decoding alone (nets that read
    sequences: in both, at the rate that they are built for)."""
    epoch_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the frames in an epoch, 1/n with a whole n; n epochs see every frame once."""
    masking: Union[dict[str, Any], None] = None
    """Masking of the input frames, typed by `MaskOptions` of dropasr/data/masking.py; null is none."""

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        parts = round(1 / self.epoch_share)
        if abs(parts * self.epoch_share - 1) > 0.01:
            raise ValueError(f"train.epoch_share: expected 1/n with a whole number n, such as {1 / parts:.4g}, found {self.epoch_share}")
        return self

    @property
    def epochs_per_pass(self) -> int:
        """Epochs in which every frame comes once."""
        return round(1 / self.epoch_share)

    def training_values(self) -> dict[str, Any]:
        """The options as far as training depends on them; what the criterion does not use stands at its default.

        With `frames` nets see every frame, and `frame_subsampling` is the rate of decoding alone.
        """
        values = self.model_dump(mode="json")
        if self.criterion == "frames":
            values |= {key: type(self).model_fields[key].default for key in (*CTC_OPTIONS, "frame_subsampling")}
        # Left out where they are the usual ones: older nets were trained without them.
        usual = [key for key in (*CHUNK_OPTIONS, *LATER_OPTIONS) if values[key] == type(self).model_fields[key].default]
        unused = [*usual, *(CHUNK_OPTIONS if self.criterion == "ctc" else ())]
        return {key: value for key, value in values.items() if key not in unused}


class DecodeConfig(Options):
    """The search, the same for every row of a table."""

    backend: Literal["auto", "k2", "kaldi"] = "auto"
    """`auto`: k2 where it is installed, else kaldi-decoder."""
    beam: float = Field(default=12.0, gt=0)
    """Search beam."""
    max_active: int = Field(default=1000, ge=10)
    """Largest number of active states per frame."""
    acoustic_scales: list[float] = Field(default=[0.05, 0.08, 0.12], min_length=1)
    """Acoustic scales tried on dev, per net, from the middle towards the best, for a search at every frame (multiplied by
    train.frame_subsampling); each that is tried costs a search."""
    prior: Literal["alignment", "posterior"] = "alignment"
    """Prior of the units: label frequencies of the training alignment, or the mean posterior of the net itself on training frames."""
    ctc: Literal["greedy", "h", "hlg"] = "hlg"
    """With train.criterion ctc: the best unit per frame, the CTC topology alone, or with lexicon and language model."""
    ctc_scales: list[float] = Field(default=[0.5, 1.0, 2.0], min_length=1)
    """What acoustic_scales are with train.criterion ctc; without a language model they change nothing."""
    prior_scale: float = Field(default=1.0, ge=0)
    """Share of the log prior that is subtracted from the log posterior."""
    lm_scales: list[float] = Field(default=[1.0], min_length=1)
    """Scales of the graph's scores tried on dev with each acoustic scale, on the lattice of one search (k2)."""
    insertion_penalties: list[float] = Field(default=[0.0], min_length=1)
    """Costs of a word, natural log, tried on dev in the same way; negative ones favour more words."""
    lattice_beam: float = Field(default=6.0, gt=0)
    """Beam of the lattices that scales, penalties and n-best lists come from."""
    nbest: int = Field(default=100, ge=1)
    """Different word sequences per utterance in n-best lists."""
    rescore: Literal["none", "nbest"] = "none"
    """`nbest`: the model of the graph gives way to lm-rescore.arpa (lang.rescore) on n-best lists; lm_scales then weight that model."""
    frame_skip: int = Field(default=1, ge=1, le=10)
    """The net computes every so manieth of the scores that the search reads, and the ones between are the same again. For nets that
    classify single frames (feed-forward, train.criterion frames)."""

    def counting_values(self) -> dict[str, Any]:
        """The options as far as they count; those of LATER_DECODING are left out where they are at their default."""
        values, fields = self.model_dump(mode="json"), type(self).model_fields
        return {key: value for key, value in values.items() if key not in LATER_DECODING or value != fields[key].default}

    @model_validator(mode="after")
    def _check_scales(self) -> DecodeConfig:
        for name in ("acoustic_scales", "ctc_scales", "lm_scales"):
            if min(getattr(self, name)) <= 0:
                raise ValueError(f"decode.{name}: expected numbers above 0, found {getattr(self, name)}")
        return self


class RtfConfig(Options):
    """The timing protocol."""

    utterances: int = Field(default=40, ge=1)
    """Test utterances timed (all, if fewer)."""
    repeats: int = Field(default=3, ge=2)
    """Interleaved passes over them."""
