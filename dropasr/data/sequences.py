"""Mini-batches of whole utterances with their token sequences, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dropasr.data.batches import SplicedFrames
from dropasr.data.chunks import Chunks, Inputs, gather_chunks
from dropasr.data.packing import PackedSampler, every
from dropasr.data.store import FrameStore
from dropasr.errors import DataError
from dropasr.files import atomic_path


@dataclass(frozen=True)
class TokenSequences:
    """Tokens of every utterance of a split in one array: utterance i has `tokens[offsets[i]:offsets[i + 1]]`, none if it is left out.

    tokens: int32 `(S,)`; offsets: int64 `(U+1,)`.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lists(cls, sequences: Sequence[Sequence[int]]) -> TokenSequences:
        """Join one list of tokens per utterance."""
        flat = [token for sequence in sequences for token in sequence]
        offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
        return cls(np.array(flat, dtype=np.int32), offsets)

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.offsets) - 1

    def __getitem__(self, utterance: int) -> np.ndarray:
        """Tokens of one utterance."""
        return self.tokens[self.offsets[utterance] : self.offsets[utterance + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per utterance, int64 `(U,)`."""
        return np.diff(self.offsets)

    def save(self, path: Path) -> None:
        """Write as .npz, atomically."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, tokens=self.tokens, offsets=self.offsets)

    @classmethod
    def load(cls, path: Path) -> TokenSequences:
        """Read what `save` wrote. Raises DataError that names the file."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["tokens"], arrays["offsets"])
        except FileNotFoundError:
            raise DataError(f"{path}: the token sequences are missing. Run stage 4 (align) with train.criterion ctc.") from None
        except Exception as error:
            raise DataError(f"{path}: expected the arrays tokens and offsets ({error}). Run stage 4 (align) again.") from None


@dataclass(frozen=True)
class SequenceTargets:
    """What a batch of whole utterances is to be recognised as.

    frames: int64 `(B,)`, rows of the inputs that belong to each utterance, one utterance after the other; tokens: int64 `(S,)`, all in a
    row; lengths: int64 `(B,)`, tokens of each; subsampling: frames of the store per row.
    """

    frames: torch.Tensor
    tokens: torch.Tensor
    lengths: torch.Tensor
    subsampling: int = 1

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.frames)

    @property
    def utterance_of_row(self) -> torch.Tensor:
        """Position in the batch of the utterance that each input row belongs to, int64 `(N,)`."""
        return torch.repeat_interleave(torch.arange(len(self)), self.frames)

    def select(self, inputs: Inputs, chosen: slice) -> tuple[Inputs, SequenceTargets]:
        """Inputs and targets of some utterances of the batch."""
        utterances = torch.arange(len(self))[chosen]
        if isinstance(inputs, Chunks):
            inputs, _ = inputs.select(chosen)
        else:
            rows = inputs.split(self.frames.tolist())
            inputs = torch.cat([rows[i] for i in utterances])
        tokens = self.tokens.split(self.lengths.tolist())
        tokens = torch.cat([tokens[i] for i in utterances])
        return inputs, SequenceTargets(self.frames[utterances], tokens, self.lengths[utterances], self.subsampling)


SequenceBatch = tuple[Inputs, SequenceTargets, torch.Tensor]


class SequenceSampler(PackedSampler):
    """Mini-batches `(inputs, targets, frame_indices)` of whole utterances, packed up to `batch_frames` frames of the store.

    inputs: float32 `(N, (left+1+right)*F)`, the spliced frames of all utterances in a row, every `frame_subsampling`-th of each, or, with
    `chunks`, `Chunks` of which each is a whole utterance; targets: `SequenceTargets`; frame_indices: int64 `(N,)`, positions in the store.
    Every utterance that has tokens comes once per pass of `epochs_per_pass` epochs.
    """

    def __init__(
        self,
        store: FrameStore,
        tokens: TokenSequences,
        context: tuple[int, int],
        batch_frames: int,
        seed: int = 0,
        in_memory: bool = True,
        frame_subsampling: int = 1,
        epochs_per_pass: int = 1,
        chunks: bool = False,
    ) -> None:
        """Sample from all utterances of `store`; `subset` chooses some. Raises DataError if tokens and store do not match."""
        if len(tokens) != len(store):
            raise DataError(f"{store.folder}: expected tokens of {len(store)} utterances, found {len(tokens)}. Run stage 4 (align) again.")
        self.batch_frames, self.seed = batch_frames, seed
        self.frame_subsampling, self.epochs_per_pass = frame_subsampling, epochs_per_pass
        self._spliced, self._chunks = SplicedFrames(store, context, in_memory), chunks
        self._folder, self._offsets, self._lengths = store.folder, store.offsets, np.diff(store.offsets)
        self._tokens = tokens
        self.items = self._items_of(np.arange(len(store)))

    def _items_of(self, utterances: np.ndarray) -> np.ndarray:
        chosen = np.asarray(utterances)[self._tokens.lengths[utterances] > 0]
        if not len(chosen):
            raise DataError(f"{self._folder}: none of the {len(utterances)} utterances has tokens. Run stage 4 (align) again.")
        return chosen

    @property
    def utterances(self) -> np.ndarray:
        """The utterances, positions in the store."""
        return self.items

    @property
    def num_frames(self) -> int:
        """Frames of the store per pass."""
        return int(self._lengths[self.utterances].sum())

    def lengths(self, utterances: np.ndarray) -> np.ndarray:
        """Frames of the store per utterance."""
        return self._lengths[utterances]

    def rows(self, utterances: np.ndarray) -> np.ndarray:
        """Input rows per utterance."""
        return -(-self._lengths[utterances] // self.frame_subsampling)

    def gather(self, utterances: np.ndarray) -> SequenceBatch:
        """The batch of the given utterances, `(B,)` positions in the store."""
        frames = self.rows(utterances)
        indices = every(self._offsets[utterances], frames, self.frame_subsampling)
        tokens = np.concatenate([self._tokens[i] for i in utterances]).astype(np.int64)
        lengths, step = self._tokens.lengths[utterances], self.frame_subsampling
        targets = SequenceTargets(torch.from_numpy(frames), torch.from_numpy(tokens), torch.from_numpy(lengths), step)
        if self._chunks:
            utterance = np.repeat(np.arange(len(utterances)), frames)
            begin, end = self._offsets[utterances], self._offsets[utterances + 1]
            return gather_chunks(self._spliced, begin, end, indices, utterance), targets, torch.from_numpy(indices)
        return self._spliced.gather(indices), targets, torch.from_numpy(indices)
