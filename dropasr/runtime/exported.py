"""The folder of an exported net: graphs that take raw log-mels and give what the search adds up, and `model.json` that says what they are.

`model.onnx` takes whole utterances: `features` float32 `(T, F)` as they were extracted, `mean` and `std` `(F,)` of the speaker or the
utterance; it gives `scores` float32 `(⌈T/stride⌉, K)`, the acoustic scale times log posterior minus log prior.

`stream.onnx` takes an utterance in parts. Part by part it computes the next m scores, from `window` `(n, F)`: the
`left_context + 1 + (m - 1) * stride + right_context` frames that `Exported.window` names (the first and last frame of the utterance stand
for those beyond its ends), `mean`, `std`, and for a recurrent net one `state_in_NAME` for each of `states`; it gives `scores` `(m, K)`
and `state_out_NAME`. What the states are at the start, `Exported.first_states` says. The first `output_delay` scores of an utterance belong
to no frame and are left out; so `⌈T/stride⌉ + output_delay` are computed in all.

A net with `shared` above 1 computes the scores of one of so many frames of the search: each is used as often (`Exported.spread`). One with
`frames_scored` P above 1 computes those of P frames at once: its scores are `(⌈T/stride⌉, P * K)`, those of a row for the `stride` frames
from the first on; the last row may hold some of frames that never come.

`model.int8.onnx` and `model.int8s.onnx` are `model.onnx` with matrices of 8-bit integers; `model.pt` is the same as TorchScript;
`model.safetensors` holds the weights (and `log_prior`) of the net that `dims` describes, for engines in torch.

This module needs the standard library and numpy alone, because those who run a net have neither torch nor the rest of the toolkit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from dropasr.errors import DataError, ExportError
from dropasr.files import hash_of, read_json, sha256_file, write_json

FORMAT_VERSION = 1
CARD = "model.json"
WHOLE, STREAM, TORCHSCRIPT = "model.onnx", "stream.onnx", "model.pt"
WEIGHTS = "model.safetensors"
LATER = {"shared", "frames_scored"}
"""Keys that may be missing in a card of an earlier version, and have their default then."""
DYNAMIC_INT8, STATIC_INT8 = "model.int8.onnx", "model.int8s.onnx"
_REMEDY = "Export the net again: python -m dropasr export ROW DIR."


@dataclass(frozen=True)
class Exported:
    """What `model.json` says: the card of the net, and all that is needed to run its graphs."""

    corpus: str
    licence: str
    """Licence of the corpus, as far as it is known."""
    model: str
    row: str
    dims: dict[str, Any]
    widths: list[int]
    git_revision: str
    sample_rate: int
    """Hz."""
    features: dict[str, float]
    """`num_mel_bins`, `frame_shift` and `frame_length` (seconds), `low_freq` and `high_freq` (Hz; 0 and below: from half the rate)."""
    normalisation: dict[str, Any]
    """`kind` (speaker or utterance), `prior_frames`, and `mean` and `std` of the training set, F numbers each."""
    stride: int
    """Frames per row of scores that the net computes."""
    left_context: int
    right_context: int
    output_delay: int
    """Scores of a stream that come before that of the first frame."""
    recurrent: bool
    states: list[dict[str, Any]]
    """`name` and `shape` of each state of the stream, and its `initial` values where they are learned, and not 0."""
    acoustic_scale: float
    prior: str
    """Which prior is subtracted, in words."""
    units: int
    """Scores K of a frame."""
    wer: dict[str, float] = field(default_factory=dict)
    """Word error rate in percent by split, decoded in torch."""
    rtf: dict[str, float] | None = None
    """Real-time factors in torch: `features`, `model`, `search`, `total`; None where they were not measured."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file beside model.json."""
    shared: int = 1
    """How often the search takes each score (`decode.frame_skip`)."""
    frames_scored: int = 1
    """Frames P whose scores stand side by side in a row."""
    format_version: int = FORMAT_VERSION

    @property
    def streams(self) -> bool:
        """Whether the net can read an utterance in parts (one that reads it from its end, too, cannot)."""
        return STREAM in self.files

    def num_scores(self, frames: int) -> int:
        """Rows of scores of an utterance of so many frames."""
        return -(-frames // self.stride)

    @property
    def search_stride(self) -> int:
        """Frames per score that the search takes."""
        return self.stride // (self.shared * self.frames_scored)

    def by_step(self, scores: np.ndarray) -> np.ndarray:
        """Rows `(⌈T/stride⌉, P * K)` of scores `(T', K)` that were computed frame by frame; frames that never come have 0."""
        if self.frames_scored == 1:
            return scores
        missing = -len(scores) % self.frames_scored
        return np.concatenate([scores, np.zeros((missing, self.units), scores.dtype)]).reshape(-1, self.frames_scored * self.units)

    def spread(self, scores: np.ndarray, frames: int) -> np.ndarray:
        """What the search takes, `(⌈T/search_stride⌉, K)`, of the scores `(⌈T/stride⌉, P * K)` of an utterance of so many frames."""
        if self.shared == self.frames_scored == 1:
            return scores
        scores = scores.reshape(-1, self.units)
        return (scores if self.shared == 1 else np.repeat(scores, self.shared, axis=0))[: -(-frames // self.search_stride)]

    def window(self, first: int, count: int, frames: int | None = None) -> np.ndarray:
        """Numbers `(n,)` of the frames that the scores `first` to `first + count - 1` of a stream are computed from.

        Frames before the utterance are its first; where its length in `frames` is known, frames after it are its last.
        """
        last = (first + count - 1) * self.stride + self.right_context
        numbers = np.arange(first * self.stride - self.left_context, last + 1)
        return np.clip(numbers, 0, None if frames is None else frames - 1)

    def first_states(self) -> dict[str, np.ndarray]:
        """The states of a stream before the first frame, float32, by name."""
        return {
            state["name"]: np.array(state.get("initial", np.zeros(state["shape"])), np.float32).reshape(state["shape"])
            for state in self.states
        }

    def training_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, float32 `(F,)` each, of the training set."""
        return np.array(self.normalisation["mean"], np.float32), np.array(self.normalisation["std"], np.float32)

    def write(self, folder: str | Path, files: Sequence[str]) -> Exported:
        """Write `model.json` for `files`, which are in the folder already; returns what was written, with their hashes."""
        folder = Path(folder)
        hashes = {name: sha256_file(folder / name) for name in sorted(files)}
        card = {**asdict(self), "files": hashes}
        write_json(folder / CARD, {**card, "about_sha256": hash_of(card)})
        return Exported(**card)

    @classmethod
    def read(cls, folder: str | Path, verify: bool = True) -> Exported:
        """Read `model.json`; with `verify`, compare the hash of every file. Raises ExportError that names the file."""
        folder = Path(folder)
        path = folder / CARD
        if not folder.is_dir():
            raise ExportError(f"{folder}: expected the folder of an exported net, found none. {_REMEDY}")
        if not path.exists():
            raise ExportError(f"{folder}: expected the folder of an exported net, but it has no {CARD}. {_REMEDY}")
        try:
            card = read_json(path)
        except DataError as error:
            raise ExportError(f"{str(error).partition(' Remove')[0]} {_REMEDY}") from None
        exported = cls._from_card(path, card)
        if verify:
            exported.verify(folder)
        return exported

    @classmethod
    def _from_card(cls, path: Path, card: Any) -> Exported:
        if not isinstance(card, dict) or "format_version" not in card:
            raise ExportError(f"{path}: expected the card of an exported net (format_version), found something else. {_REMEDY}")
        if card["format_version"] != FORMAT_VERSION:
            raise ExportError(f"{path}: expected format {FORMAT_VERSION}, found {card['format_version']}. {_REMEDY}")
        expected = card.pop("about_sha256", None)
        if hash_of(card) != expected:
            raise ExportError(f"{path}: the file is damaged or was changed: its content does not have the hash it states. {_REMEDY}")
        different = sorted(set(card) ^ {item.name for item in fields(cls)} - (LATER - set(card)))
        if different:
            raise ExportError(
                f"{path}: expected the keys of format {FORMAT_VERSION}, found a difference in {', '.join(different)}. {_REMEDY}"
            )
        return cls(**card)

    def verify(self, folder: str | Path) -> None:
        """Compare the SHA-256 of every file with the card's. Raises ExportError that names the file."""
        for name, expected in self.files.items():
            path = Path(folder) / name
            if not path.exists():
                raise ExportError(f"{path}: the file is missing, though {CARD} lists it. {_REMEDY}")
            found = sha256_file(path)
            if found != expected:
                raise ExportError(f"{path}: the file is damaged: expected SHA-256 {expected[:16]}…, found {found[:16]}…. {_REMEDY}")
