"""Pieces of utterances for nets that read sequences, and the sampler that cuts and batches them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np
import torch

from dropasr.data.batches import SplicedFrames, checked_labels, frames_of_utterances
from dropasr.data.packing import PackedSampler, every
from dropasr.data.store import FrameStore
from dropasr.errors import ConfigError


@dataclass(frozen=True)
class Chunks:
    """Pieces of utterances for nets that read sequences.

    frames: float32 `(B, S, F)`, every piece starts at column 0, right-padded (the padding repeats the last frame); lengths: int64 `(B,)`,
    frames of each piece, contexts included; rows: int64 `(N,)`, flat positions `b * S + t` of the frames that are scored, in the order of
    labels and logits.
    """

    frames: torch.Tensor
    lengths: torch.Tensor
    rows: torch.Tensor

    def __len__(self) -> int:
        """Scored frames N, the rows of the logits, as of spliced inputs `(N, D)`."""
        return len(self.rows)

    @property
    def num_pieces(self) -> int:
        """Pieces B."""
        return len(self.lengths)

    @property
    def piece_of_row(self) -> torch.Tensor:
        """The piece that each scored frame belongs to, int64 `(N,)`."""
        return torch.div(self.rows, self.frames.shape[1], rounding_mode="floor")

    def select(self, chosen: slice) -> tuple[Chunks, torch.Tensor]:
        """Some of the pieces; and which scored frames stayed, int64 positions in rows, labels and logits."""
        pieces = torch.arange(self.num_pieces)[chosen]
        number = torch.full((self.num_pieces,), -1)
        number[pieces] = torch.arange(len(pieces))
        number_of_row = number[self.piece_of_row]
        kept = torch.nonzero(number_of_row >= 0).flatten()
        size = self.frames.shape[1]
        return Chunks(self.frames[pieces], self.lengths[pieces], number_of_row[kept] * size + self.rows[kept] % size), kept


Inputs = Union[torch.Tensor, Chunks]
"""What nets are given: spliced frames `(N, D)`, or pieces of utterances with N scored frames."""


def gather_chunks(frames: SplicedFrames, begin: np.ndarray, end: np.ndarray, scored: np.ndarray, piece: np.ndarray) -> Chunks:
    """Pieces from frame `begin` to before frame `end`, int64 `(B,)`, of which the frames `scored` `(N,)`, of piece `piece` `(N,)`, count.

    `begin`, `end` and `scored` are positions in the store.
    """
    lengths = end - begin
    size = int(lengths.max())
    positions = np.minimum(begin[:, None] + np.arange(size), end[:, None] - 1)
    rows = piece * size + scored - begin[piece]
    return Chunks(frames.at(positions), torch.from_numpy(lengths), torch.from_numpy(rows))


ChunkBatch = tuple[Chunks, torch.Tensor, torch.Tensor]


class ChunkSampler(PackedSampler):
    """Mini-batches `(chunks, labels, frame_indices)` of pieces of utterances, for frame-wise training of nets that read sequences.

    labels: int64 `(N,)`; frame_indices: int64 `(N,)`, positions in the store. Utterances are cut into pieces of equal length, the last one
    shorter; a piece also holds `context` frames before and after, where the utterance has them, that are not scored. Of the frames of
    every utterance, from the first on, each `frame_subsampling`-th is scored, where it is labelled (0 or above); pieces begin on the grid
    of every `step`-th, contexts included, so that a net that steps over frames does so as in whole utterances. In training the grid of each
    piece moves on by a frame with every pass of `epochs_per_pass` epochs: as many passes as there are grids show every frame at every
    place.
    """

    def __init__(
        self,
        store: FrameStore,
        labels: np.ndarray | str | Path | None,
        context: tuple[int, int],
        chunk_frames: int,
        batch_frames: int,
        utterances: np.ndarray | None = None,
        seed: int = 0,
        in_memory: bool = True,
        epochs_per_pass: int = 1,
        frame_subsampling: int = 1,
        step: int | None = None,
    ) -> None:
        """Sample from `utterances` (positions; None is all) of `store` with `labels` `(N,)` (None: those the store was opened with).

        A piece has at most `chunk_frames` frames without its contexts (rounded up to the grid), a batch `batch_frames` with them, padding
        aside. `step`: frames per step of the net, default `frame_subsampling`, of which it is a multiple. Raises DataError if labels and
        frames do not match, ConfigError for a negative context or sizes below 1.
        """
        if min(chunk_frames, batch_frames) < 1 or min(context) < 0:
            raise ConfigError(
                "expected pieces and batches of 1 frame or more and a context of 0 or more, "
                f"found {chunk_frames}, {batch_frames}, {context}."
            )
        self._labels = checked_labels(store, labels)
        self.batch_frames, self.seed = batch_frames, seed
        self.epochs_per_pass, self.frame_subsampling = epochs_per_pass, frame_subsampling
        self._step = frame_subsampling if step is None else step
        self._spliced = SplicedFrames(store, (0, 0), in_memory)
        self._folder, self._offsets = store.folder, store.offsets
        self._cut(context, chunk_frames)
        self.items = self._items_of(np.arange(len(store)) if utterances is None else utterances)

    def _cut(self, context: tuple[int, int], chunk_frames: int) -> None:
        """All pieces of all utterances: scored from `first` to before `last`, read from `begin` to before `end`."""
        step, (left, right) = self._step, context
        lengths = np.diff(self._offsets)
        size = step * -(-lengths // (step * -(-lengths // chunk_frames)))
        counts = -(-lengths // size)
        self._piece_offsets = np.concatenate([[0], np.cumsum(counts)])
        utterance = np.repeat(np.arange(len(lengths)), counts)
        start, stop = self._offsets[utterance], self._offsets[utterance + 1]
        self._first = start + (np.arange(len(utterance)) - self._piece_offsets[utterance]) * size[utterance]
        self._last = np.minimum(self._first + size[utterance], stop)
        self._begin = np.maximum(self._first - step * -(-left // step), start)
        self._end = np.minimum(self._last + right, stop)
        # Labelled frames of each piece, on the grid that begins with its first frame, its second, …
        self._labelled = np.stack([self._count_labelled(shift) for shift in range(step)])
        self._rows = self._labelled[0]

    def _count_labelled(self, shift: int) -> np.ndarray:
        """Labelled frames of each piece on the grid that begins `shift` frames behind its first."""
        scored = np.zeros(len(self._labels), bool)
        everything = slice(None)
        grid = every(self._first + self._skipped(everything, shift), self._grid(everything, shift), self.frame_subsampling)
        scored[grid] = self._labels[grid] >= 0
        # The pieces lie one behind the other: the frames of a piece end where the next begins.
        return np.add.reduceat(scored, self._first, dtype=np.int64)

    def _skipped(self, pieces: np.ndarray | slice, shift: np.ndarray | int) -> np.ndarray:
        """Frames of each piece before the first that may be scored, where it is read from `shift` frames later on."""
        return np.maximum(shift - (self._first[pieces] - self._begin[pieces]), shift % self.frame_subsampling)

    def _grid(self, pieces: np.ndarray | slice, shift: np.ndarray | int = 0) -> np.ndarray:
        """Frames of each piece that would be scored if all were labelled, on the grid that begins `shift` frames behind its first."""
        frames = self._last[pieces] - self._first[pieces] - self._skipped(pieces, shift)
        return np.maximum(-(-frames // self.frame_subsampling), 0)

    def _shift(self, items: np.ndarray, epoch: int) -> np.ndarray:
        """Frames by which the grid of each piece moves in an epoch; 0 where no labelled frame would be left."""
        shift = (items + self.seed + epoch // self.epochs_per_pass) % self._step
        return np.where(self._labelled[shift, items] > 0, shift, 0)

    def _items_of(self, utterances: np.ndarray) -> np.ndarray:
        pieces = frames_of_utterances(self._piece_offsets, self._checked(utterances))
        pieces = pieces[self._rows[pieces] > 0]
        if not len(pieces):
            raise self._without_labels(utterances)
        return pieces

    def lengths(self, items: np.ndarray) -> np.ndarray:
        """Frames of each piece, contexts included."""
        return self._end[items] - self._begin[items]

    def rows(self, items: np.ndarray) -> np.ndarray:
        """Scored frames of each piece."""
        return self._rows[items]

    def gather(self, items: np.ndarray, shift: np.ndarray | int = 0) -> ChunkBatch:
        """The batch of the given pieces, `(B,)` positions among all pieces of the store, on grids that begin `shift` frames later."""
        counts = self._grid(items, shift)
        indices = every(self._first[items] + self._skipped(items, shift), counts, self.frame_subsampling)
        labels = self._labels[indices].astype(np.int64)
        scored, piece = labels >= 0, np.repeat(np.arange(len(items)), counts)
        indices = indices[scored]
        chunks = gather_chunks(self._spliced, self._begin[items] + shift, self._end[items], indices, piece[scored])
        return chunks, torch.from_numpy(labels[scored]), torch.from_numpy(indices)

    def epoch(self, epoch: int) -> Iterator[ChunkBatch]:
        for items in self.batches(epoch):
            yield self.gather(items, self._shift(items, epoch))
