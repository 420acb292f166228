"""A weighted automaton as arrays, and its conversion to k2 and to kaldifst."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

FINAL = -1
"""Input label of the arcs into the final state (k2's convention)."""


@dataclass(frozen=True)
class Arcs:
    """Arcs sorted by source state; state 0 is the start and the last state the final one, reached by arcs labelled -1.

    `src`, `dst`, `ilabel`, `olabel`: int32 `(A,)`; `score`: float32 `(A,)`, natural log, higher is better.
    """

    src: np.ndarray
    dst: np.ndarray
    ilabel: np.ndarray
    olabel: np.ndarray
    score: np.ndarray

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[int, int, int, int, float]]) -> Arcs:
        """From tuples (src, dst, ilabel, olabel, score), in any order."""
        table = np.array(sorted(rows, key=lambda row: row[0]), dtype=np.float64).reshape(-1, 5)
        src, dst, ilabel, olabel = (np.ascontiguousarray(table[:, column].astype(np.int32)) for column in range(4))
        return cls(src, dst, ilabel, olabel, np.ascontiguousarray(table[:, 4].astype(np.float32)))

    @property
    def num_states(self) -> int:
        """States, the final one included."""
        return int(self.dst.max()) + 1 if len(self.dst) else 0

    @property
    def num_arcs(self) -> int:
        """Arcs, those into the final state included."""
        return len(self.src)

    def shortest(self) -> int:
        """Fewest labelled arcs from start to final state: the frames that an epsilon-free graph needs at least."""
        seen = np.zeros(self.num_states, dtype=bool)
        front = np.zeros(self.num_states, dtype=bool)
        front[0] = True
        frames = 0
        while front.any():
            seen |= front
            chosen = front[self.src]
            if (self.ilabel[chosen] == FINAL).any():
                return frames
            front = np.zeros_like(front)
            front[self.dst[chosen]] = True
            front &= ~seen
            frames += 1
        raise ValueError("the graph has no path from its start to its final state")

    def to_k2(self) -> Any:
        """A `k2.Fsa` with the same labels; output labels in the int32 tensor attribute `olabel` (not `aux_labels`)."""
        import k2
        import torch

        table = np.stack([self.src, self.dst, self.ilabel, self.score.view(np.int32)], axis=1)
        fsa = k2.Fsa(torch.from_numpy(np.ascontiguousarray(table)))
        fsa.olabel = torch.from_numpy(self.olabel.copy())
        return fsa

    def to_kaldifst(self, shift: int = 1) -> Any:
        """A `kaldifst.StdVectorFst`; `shift` is added to input labels (1 where 0 is a unit, 0 where 0 is already epsilon)."""
        import kaldifst

        fst = kaldifst.StdVectorFst()
        final = self.num_states - 1
        for _ in range(final):
            fst.add_state()
        fst.start = 0
        costs = (-self.score).tolist()
        labels = (self.ilabel + shift).tolist()
        for src, dst, ilabel, olabel, cost in zip(self.src.tolist(), self.dst.tolist(), labels, self.olabel.tolist(), costs, strict=True):
            if dst == final:
                fst.set_final(src, cost)
            else:
                fst.add_arc(src, kaldifst.StdArc(ilabel, olabel, cost, dst))
        return fst
