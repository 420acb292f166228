"""The decoding graph with kaldifst: H∘C∘det(L∘G). Input labels are units + 1, 0 is epsilon; epsilons may stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dropasr.errors import DataError
from dropasr.files import atomic_path
from dropasr.lang.graph import Transducers

FILE_NAME = "graph-kaldi.fst"


def build_kaldi_graph(transducers: Transducers) -> Any:
    """Compose, determinise, sort by input label; a `kaldifst.StdVectorFst`."""
    import kaldifst

    lexicon, context, hmm = (arcs.to_kaldifst(shift=0) for arcs in (transducers.lexicon, transducers.context, transducers.hmm))
    grammar = kaldifst.compile(transducers.grammar, acceptor=False)
    kaldifst.arcsort(grammar, "ilabel")
    for fst in (lexicon, context, hmm):
        kaldifst.arcsort(fst, "olabel")
    graph = kaldifst.StdVectorFst(kaldifst.compose(lexicon, grammar))
    kaldifst.determinize_star(graph)
    kaldifst.arcsort(graph, "ilabel")
    for fst in (context, hmm):
        graph = kaldifst.StdVectorFst(kaldifst.compose(fst, graph))
        kaldifst.arcsort(graph, "ilabel")
    return graph


def graph_size(fst: Any) -> tuple[int, int]:
    """States and arcs."""
    states = fst.num_states
    return states, sum(fst.num_arcs(state) for state in range(states))


def weighted(fst: Any, scale: float, insertion_penalty: float) -> Any:
    """The graph with all its costs times `scale`, and `insertion_penalty` (natural log) more for each word."""
    import kaldifst

    result = kaldifst.StdVectorFst()
    for _ in range(fst.num_states):
        result.add_state()
    result.start = fst.start
    for state in range(fst.num_states):
        final = fst.final(state).value
        if final != float("inf"):
            result.set_final(state, scale * final)
        for arc in kaldifst.ArcIterator(fst, state):
            cost = scale * arc.weight.value + (insertion_penalty if arc.olabel else 0.0)
            result.add_arc(state, kaldifst.StdArc(arc.ilabel, arc.olabel, cost, arc.nextstate))
    return result


def save_graph(path: Path, fst: Any) -> None:
    """Write OpenFst's binary form."""
    with atomic_path(path) as temporary:
        fst.write(str(temporary))


def load_graph(path: Path) -> Any:
    """Read what `save_graph` wrote. Raises DataError that names the file."""
    import kaldifst

    if not path.exists():
        raise DataError(f"{path}: the Kaldi decoding graph is missing. Run stage 4 (align).")
    fst = kaldifst.StdVectorFst.read(str(path))
    if fst is None or fst.num_states == 0:
        raise DataError(f"{path}: expected an OpenFst graph with states, found none. Run stage 4 (align) again.")
    return fst
