"""The decoding graph with k2: H∘C∘det(L∘G), epsilon-free, because k2's dense intersection takes label 0 for a unit.

During composition label 0 is epsilon and labels are units + 1; the finished graph has units as labels. Arcs that lost their
epsilons may carry several words: an arc's output label is the number of a word sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dropasr.errors import DataError
from dropasr.files import atomic_path
from dropasr.lang.fst import Arcs
from dropasr.lang.graph import Transducers

FILE_NAME = "graph-k2.npz"


@dataclass(frozen=True)
class K2Graph:
    """`arcs.olabel` is an index into `sequences`, tuples of word numbers; sequence 0 is empty."""

    arcs: Arcs
    sequences: list[tuple[int, ...]]

    def save(self, path: Path) -> None:
        """Write arrays only (no pickle)."""
        lengths = [len(sequence) for sequence in self.sequences]
        flat = [word for sequence in self.sequences for word in sequence]
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                src=self.arcs.src,
                dst=self.arcs.dst,
                ilabel=self.arcs.ilabel,
                olabel=self.arcs.olabel,
                score=self.arcs.score,
                sequence_lengths=np.array(lengths, dtype=np.int32),
                sequence_words=np.array(flat, dtype=np.int32),
            )

    @classmethod
    def load(cls, path: Path) -> K2Graph:
        """Read what `save` wrote. Raises DataError that names the file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arcs = Arcs(*(file[name] for name in ("src", "dst", "ilabel", "olabel", "score")))
                words, ends = file["sequence_words"].tolist(), np.cumsum(file["sequence_lengths"]).tolist()
            sequences = [tuple(words[begin:end]) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
        except FileNotFoundError:
            raise DataError(f"{path}: the k2 decoding graph is missing. Run stage 4 (align) where k2 is installed.") from None
        except Exception as error:
            raise DataError(f"{path}: expected the arrays of a k2 graph ({error}). Run stage 4 (align) again.") from None
        return cls(arcs, sequences)


def _transducer(arcs: Arcs) -> Any:
    import k2

    fsa = arcs.to_k2()
    fsa.aux_labels = fsa.olabel
    del fsa.olabel
    return k2.arc_sort(fsa)


def _without_epsilons(fsa: Any) -> Any:
    import k2

    return k2.arc_sort(k2.connect(k2.remove_epsilon(k2.connect(fsa))))


def _number_sequences(words: np.ndarray, splits: np.ndarray) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """The number of each row's word sequence, and the sequences; row i is `words[splits[i]:splits[i+1]]`, numbers below 1 left out."""
    kept = words > 0
    begins = np.concatenate([[0], np.cumsum(kept)])[splits]
    words, lengths = words[kept].astype(np.int64), np.diff(begins)
    numbers, sequences = np.zeros(len(lengths), dtype=np.int32), [()]
    for length in np.unique(lengths[lengths > 0]).tolist():
        rows = np.flatnonzero(lengths == length)
        table = words[begins[rows][:, None] + np.arange(length)]
        key = table[:, 0]
        for column in range(1, length):
            key = np.unique(key, return_inverse=True)[1] * (words.max() + 1) + table[:, column]
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        numbers[rows] = len(sequences) + inverse
        sequences += [tuple(row) for row in table[first].tolist()]
    return numbers, sequences


def _olabels(fsa: Any) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Numbers of the word sequences of the arcs, and the sequences."""
    import k2

    labels = fsa.aux_labels
    if isinstance(labels, k2.RaggedTensor):
        return _number_sequences(labels.values.numpy(), labels.shape.row_splits(1).numpy())
    return _number_sequences(labels.numpy(), np.arange(len(labels) + 1))


def build_k2_graph(transducers: Transducers) -> K2Graph:
    """Compose, determinise, remove epsilons, sort.

    Without weight pushing k2's determinisation delays scores until a word is known, and the search prunes by what it has seen so far.
    """
    import k2

    pushing = k2.DeterminizeWeightPushingType.kLogWeightPushing
    grammar = k2.arc_sort(k2.Fsa.from_openfst(transducers.grammar, acceptor=False))
    graph = k2.compose(_transducer(transducers.lexicon), grammar)
    graph = k2.arc_sort(k2.connect(k2.determinize(_without_epsilons(graph), pushing)))
    graph = _without_epsilons(k2.compose(_transducer(transducers.context), graph))
    graph = _without_epsilons(k2.compose(_transducer(transducers.hmm), graph))
    olabel, sequences = _olabels(graph)
    table = graph.arcs.values()[:, :3].numpy()
    ilabel = np.where(table[:, 2] > 0, table[:, 2] - 1, table[:, 2]).astype(np.int32)
    arcs = Arcs(table[:, 0].copy(), table[:, 1].copy(), ilabel, olabel, graph.scores.numpy().astype(np.float32))
    return K2Graph(arcs, sequences)
