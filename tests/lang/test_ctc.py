"""CTC against a sum over all paths, and its topology in both backends against what CTC is defined to accept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dropasr.data.sequences import SequenceTargets
from dropasr.lang.ctc import best_path, minimal_frames, sequence_losses, spread_labels
from dropasr.lang.ctc_topology import ctc_topology
from dropasr.lang.fst import FINAL


def collapse(path):
    """The definition: join repetitions, then remove blanks (0)."""
    joined = [unit for unit, _ in itertools.groupby(path)]
    return tuple(unit for unit in joined if unit != 0)


def by_enumeration(log_posteriors, tokens):
    """-log of the summed probability of every path (K ** T of them) that collapses to the tokens."""
    frames, units = log_posteriors.shape
    paths = [path for path in itertools.product(range(units), repeat=frames) if collapse(path) == tuple(tokens)]
    scores = torch.stack([log_posteriors[torch.arange(frames), list(path)].sum() for path in paths])
    return -torch.logsumexp(scores, dim=0)


def random_batch(cases, units, seed):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.tensor([length for length, _ in cases])
    tokens = [tokens for _, tokens in cases]
    logits = torch.randn(int(frames.sum()), units, generator=generator, dtype=torch.float64)
    flat = torch.tensor([token for sequence in tokens for token in sequence])
    return logits, SequenceTargets(frames, flat, torch.tensor([len(sequence) for sequence in tokens]))


CASES = [(4, [1]), (5, [1, 2]), (5, [2, 2]), (6, [1, 1, 2]), (3, [1, 2, 1]), (5, [1, 1, 1])]


def test_loss_and_gradient_against_the_sum_over_all_paths():
    logits, targets = random_batch(CASES, 3, seed=0)
    logits.requires_grad_(True)
    found = sequence_losses(torch.log_softmax(logits, dim=1), targets)
    expected = torch.stack(
        [by_enumeration(torch.log_softmax(part, dim=1), tokens) for part, (_, tokens) in zip(logits.split(targets.frames.tolist()), CASES)]
    )
    assert torch.allclose(found, expected, atol=1e-10)
    gradients = [torch.autograd.grad(losses.sum(), logits)[0] for losses in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-10)


def test_an_utterance_that_is_too_short_has_an_infinite_loss_exactly_where_the_minimum_says():
    for tokens in ([1], [1, 1], [1, 2, 1], [2, 2, 2, 1, 1]):
        needed = minimal_frames(tokens)
        logits, targets = random_batch([(needed, tokens), (max(needed - 1, 1), tokens)], 3, seed=1)
        losses = sequence_losses(torch.log_softmax(logits, dim=1), targets)
        assert bool(torch.isfinite(losses[0])) and (needed == 1 or bool(torch.isinf(losses[1])))


def test_spread_labels_spell_the_tokens_evenly():
    cases = [(16, [1, 2]), (12, [3, 3, 1]), (3, [1, 2, 3]), (5, [2]), (7, [1, 2, 3, 1, 2])]
    _, targets = random_batch(cases, 4, seed=0)
    labels = [part.tolist() for part in spread_labels(targets).split(targets.frames.tolist())]
    assert labels[0] == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0]
    assert labels[1] == [0, 3, 3, 0, 0, 3, 3, 0, 0, 1, 1, 0]
    assert labels[2] == [1, 2, 3] and labels[3] == [0, 0, 2, 0, 0]
    assert [best for best, _ in itertools.groupby(labels[4]) if best] == [1, 2, 3, 1, 2]


def test_best_path_is_collapsed():
    path = [0, 3, 3, 0, 3, 1, 1, 2, 0]
    assert best_path(torch.nn.functional.one_hot(torch.tensor(path), 4).float()) == [3, 3, 1, 2]


def outputs(arcs, path):
    """Output sequences of all ways to read a path of units with the topology."""
    found = {(0, ())}
    for unit in path:
        table = zip(arcs.src.tolist(), arcs.dst.tolist(), arcs.ilabel.tolist(), arcs.olabel.tolist())
        rows = [row for row in table if row[2] == unit + 1]
        found = {(dst, said + ((olabel,) if olabel else ())) for state, said in found for src, dst, _, olabel in rows if src == state}
    final = set(arcs.src[arcs.ilabel == FINAL].tolist())
    return [said for state, said in found if state in final]


@pytest.mark.parametrize("units,frames", [(3, 5), (4, 4)])
def test_the_topology_maps_every_path_to_its_collapsed_form_and_to_nothing_else(units, frames):
    arcs = ctc_topology(units)
    for path in itertools.product(range(units), repeat=frames):
        assert outputs(arcs, path) == [collapse(path)]


def test_the_topology_is_that_of_k2():
    k2 = pytest.importorskip("k2")
    arcs, theirs = ctc_topology(6), k2.ctc_topo(5)
    mine = sorted(zip(arcs.src.tolist(), arcs.dst.tolist(), (arcs.ilabel - 1).tolist(), np.maximum(arcs.olabel, 0).tolist()))
    table = theirs.arcs.values()[:, :3].tolist()
    labels = [(src, dst, label if label >= 0 else -2, max(aux, 0)) for (src, dst, label), aux in zip(table, theirs.aux_labels.tolist())]
    assert mine == sorted(labels)
