"""Pieces of utterances for nets that read sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

import torch


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
