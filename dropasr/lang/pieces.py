"""Units of connectionist temporal classification: characters or the word pieces of sentencepiece, unit 0 being the blank.

A word is its boundary mark followed by its characters, or the pieces that they are joined to (byte-pair encoding, Sennrich et al. 2016);
pieces never cross words, so that the encoding of a sentence is that of its words in a row. In a language without spaces, where every
character is a word (`corpus.text.split: characters`), a character is one unit, and there is no mark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from dropasr.errors import ConfigError, DataError
from dropasr.files import read_json, write_bytes, write_json, write_text
from dropasr.lang.units import OutputUnits
from dropasr.log import get_logger

if TYPE_CHECKING:
    from dropasr.config import Config


logger = get_logger(__name__)
BLANK = 0
BLANK_PIECE = "<blk>"
BOUNDARY = "\u2581"
"""Begins every word (sentencepiece's mark)."""
MODEL_FILE, PIECES_FILE = "pieces.model", "pieces.txt"
DEFAULT_SIZE = 128


@dataclass(frozen=True)
class PieceUnits:
    """Output units of a net that was trained with CTC: the blank, then the pieces; `kind` is `chars` or `bpe`."""

    kind: str
    pieces: tuple[str, ...]

    @property
    def num_units(self) -> int:
        """Number of outputs of the acoustic model."""
        return len(self.pieces)

    @cached_property
    def are_words(self) -> bool:
        """Every piece is a word: characters without a boundary mark."""
        return self.kind == "chars" and BOUNDARY not in self.pieces

    def words(self, tokens: Iterable[int]) -> list[str]:
        """The words that a sequence of units without blanks spells."""
        if self.are_words:
            return [self.pieces[token] for token in tokens]
        return "".join(self.pieces[token] for token in tokens).replace(BOUNDARY, " ").split()

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, {"kind": self.kind, "pieces": list(self.pieces), "blank": BLANK})


def load_units(path: str | Path) -> Union[OutputUnits, PieceUnits]:
    """The output units of `units.json`: HMM states of phones, or pieces. Raises DataError that names the file."""
    value = read_json(path)
    if not isinstance(value, dict) or value.get("kind") not in ("chars", "bpe"):
        return OutputUnits.load(path)
    pieces = value.get("pieces")
    if not isinstance(pieces, list) or len(pieces) < 2 or value.get("blank") != BLANK:
        raise DataError(f"{path}: expected the pieces, at least one beside the blank, which is unit {BLANK}. Run stage 4 again.")
    return PieceUnits(value["kind"], tuple(pieces))


@dataclass
class PieceEncoder:
    """Words to units. `model` is sentencepiece's model file, empty for characters."""

    units: PieceUnits
    model: bytes = b""
    _known: dict[str, Union[list[int], None]] = field(default_factory=dict)
    _processor: Any = None

    def __post_init__(self) -> None:
        self._numbers = {piece: number for number, piece in enumerate(self.units.pieces)}
        if self.model:
            from sentencepiece import SentencePieceProcessor

            self._processor = SentencePieceProcessor(model_proto=self.model)

    def word(self, word: str) -> Union[list[int], None]:
        """The units of a word, or None where it has a character that was not seen in training."""
        if word not in self._known:
            self._known[word] = self._encode(word)
        return self._known[word]

    def _encode(self, word: str) -> Union[list[int], None]:
        if self._processor is not None:
            numbers = self._processor.encode(word)
        else:
            spelling = (word,) if self.units.are_words else (BOUNDARY, *word)
            numbers = [self._numbers.get(character, BLANK) for character in spelling]
        return None if BLANK in numbers else numbers

    def sentence(self, words: Sequence[str]) -> Union[list[int], None]:
        """The units of a sentence, or None where a word has none."""
        found = [self.word(word) for word in words]
        return None if None in found else [number for numbers in found for number in numbers]

    def save(self, folder: Path) -> None:
        """Write `pieces.txt` (lines `PIECE NUMBER`) and, for word pieces, `pieces.model`."""
        if self.model:
            write_bytes(folder / MODEL_FILE, self.model)
        else:
            (folder / MODEL_FILE).unlink(missing_ok=True)
        write_text(folder / PIECES_FILE, "".join(f"{piece} {number}\n" for number, piece in enumerate(self.units.pieces)))

    @classmethod
    def load(cls, folder: Path) -> PieceEncoder:
        """Read what `save` wrote. Raises DataError that names the file."""
        path = folder / PIECES_FILE
        try:
            lines = [line.split(" ") for line in path.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            raise DataError(f"{path}: the pieces are missing. Run stage 3 (lang) with lang.units chars or bpe.") from None
        if not lines or any(len(line) != 2 or line[1] != str(number) for number, line in enumerate(lines)):
            raise DataError(f"{path}: expected lines 'PIECE NUMBER', numbered from 0. Run stage 3 (lang) again.")
        pieces = tuple(line[0] for line in lines)
        model = folder / MODEL_FILE
        data = model.read_bytes() if model.exists() else b""
        return cls(PieceUnits("bpe" if data else "chars", pieces), data)


def train_pieces(
    sentences: Sequence[Sequence[str]], kind: str, size: Union[int, None] = None, character_words: bool = False
) -> PieceEncoder:
    """Characters or word pieces of `sentences`; the same sentences give the same pieces. `character_words`: every word is a character,
    with its combining marks, and with the kind `chars` a unit.

    `size`: units of `bpe`, the blank included; without it, 128 or the most that the text allows. Raises ConfigError naming the largest
    size that fits the text (or the smallest), DataError for an empty text or one that holds the boundary mark.
    """
    characters = sorted({character for words in sentences for word in words for character in word})
    if not characters or BOUNDARY in characters:
        found = f"the mark of word boundaries, '{BOUNDARY}'" if characters else "no words"
        raise DataError(f"pieces: expected transcripts of words without it, found {found}. Correct the transcripts.")
    if kind == "chars" and character_words:
        return PieceEncoder(PieceUnits(kind, (BLANK_PIECE, *sorted({word for words in sentences for word in words}))))
    if kind == "chars":
        return PieceEncoder(PieceUnits(kind, (BLANK_PIECE, BOUNDARY, *characters)))
    smallest = len(characters) + 2
    if size is not None and size < smallest:
        raise ConfigError(
            f"lang.vocabulary_size: the transcripts have {len(characters)} characters; with word boundary and blank, bpe needs at least "
            f"{smallest} units, found {size}."
        )
    lines = [" ".join(words) for words in sentences]
    model = _sentencepiece(lines, size or max(smallest, DEFAULT_SIZE))
    if isinstance(model, int):
        if size is not None:
            raise ConfigError(f"lang.vocabulary_size: the training transcripts give at most {model} word pieces, found {size}.")
        model = _sentencepiece(lines, model)
    assert isinstance(model, bytes)
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(number) for number in range(1, processor.get_piece_size())]
    return PieceEncoder(PieceUnits(kind, (BLANK_PIECE, *pieces)), model)


def write_pieces(config: Config, sentences: Sequence[Sequence[str]], folder: Path) -> None:
    """Make and save what `lang.units` asks for, of the training transcripts; nothing for phones."""
    lang = config.lang
    if lang.units == "phones":
        return
    encoder = train_pieces(sentences, lang.units, lang.vocabulary_size, config.corpus.text.split == "characters")
    encoder.save(folder)
    logger.info(f"{lang.units}: {encoder.units.num_units} units, the blank included")


def _sentencepiece(lines: list[str], size: int) -> Union[bytes, int]:
    """A model of `size` pieces, its unknown piece where the blank is; or the largest size that the text allows."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            unk_id=BLANK,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,
            max_sentence_length=1 << 24,
            minloglevel=2,
        )
    except RuntimeError as error:
        too_high = re.search(r"too high.*<= (\d+)", " ".join(str(error).split()))
        if too_high is None:
            raise DataError(f"pieces: sentencepiece cannot be trained on the transcripts ({' '.join(str(error).split())}).") from None
        return int(too_high[1])
    return model.getvalue()
