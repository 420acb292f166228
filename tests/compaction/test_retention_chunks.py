"""Retention gradients of nets that read sequences, a mask per piece, against enumeration of all masks and finite differences."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_models import ToyRecurrent

from dropasr.compaction.proof import compact
from dropasr.compaction.retention import ESTIMATORS, mean_field, score, split_half
from dropasr.data.chunks import Chunks
from dropasr.data.sequences import SequenceTargets
from dropasr.lang.ctc import sequence_losses
from dropasr.models.gates import Gate, sampled

sys.path.insert(0, str(Path(__file__).parent))
from retention_case import all_masks, central_differences, direction  # noqa: E402 (the folder above is on the path only now)

WIDTH, LENGTHS = 3, [5, 7, 6]
SCORED = [[1, 2, 4], [0, 3, 5, 6], [2]]
"""Columns of each piece that are scored: contexts and unlabelled frames lie between them."""


@pytest.fixture()
def problem():
    torch.manual_seed(3)
    net = ToyRecurrent(2, WIDTH, 3).double().eval()
    with torch.no_grad():
        net.output.weight.mul_(4)
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.standard_normal((3, max(LENGTHS), 2)))
    rows = [max(LENGTHS) * piece + column for piece, columns in enumerate(SCORED) for column in columns]
    chunks = Chunks(frames, torch.tensor(LENGTHS), torch.tensor(rows))
    with torch.no_grad():
        labels = net(chunks).argmax(dim=1)
    labels[[0, 4]] = (labels[[0, 4]] + 1) % 3
    return net, chunks, labels, [torch.from_numpy(rng.uniform(0.3, 0.9, WIDTH))]


@torch.no_grad()
def log_correct(net, chunks, labels, multipliers):
    """log p(label) per scored frame, (N,), written as a loop over pieces, frames and units."""
    (multiplier,) = multipliers
    found = []
    for piece, columns in enumerate(SCORED):
        units = torch.zeros(WIDTH, dtype=torch.float64)
        by_column = {}
        for column in range(LENGTHS[piece]):
            total = net.input.weight @ chunks.frames[piece, column] + net.input.bias + net.recurrent.weight @ units
            units = torch.tanh(total) * multiplier
            by_column[column] = torch.log_softmax(net.output.weight @ units + net.output.bias, dim=0)
        found += [by_column[column] for column in columns]
    return torch.stack(found)[torch.arange(len(labels)), labels]


def marginals(net, chunks, labels, retention):
    """p(label of t | x_1..t, Pi) of every scored frame, (N,), by summing over all masks."""
    return sum(probability * log_correct(net, chunks, labels, mask).exp() for mask, probability in all_masks(retention))


def exact_gradient(net, chunks, labels, retention):
    """d/dpi of the frame-level objective, the mean over frames of the log marginal."""
    return central_differences(lambda moved: marginals(net, chunks, labels, moved).log().mean(), retention, step=1e-5)


def repeated(chunks, labels, times):
    """The same pieces many times, so that many masks are drawn."""
    size = chunks.frames.shape[1] * chunks.num_pieces
    rows = (chunks.rows[None] + size * torch.arange(times)[:, None]).reshape(-1)
    return Chunks(chunks.frames.repeat(times, 1, 1), chunks.lengths.repeat(times), rows), labels.repeat(times)


def test_the_score_gradient_is_that_of_the_frame_level_objective_up_to_a_factor_per_frame(problem):
    """E[(w_t - 1) s_u(M)] is d log E p(k_t | x, M) / d pi_u times pbar_t / p~_t, frame by frame, though frames of a piece share M."""
    net, chunks, labels, retention = problem
    reference = log_correct(net, chunks, labels, retention)
    factor = marginals(net, chunks, labels, retention) / reference.exp()
    count = len(labels)
    each = [
        central_differences(lambda moved, t=t: marginals(net, chunks, labels, moved).log()[t], retention, step=1e-5) for t in range(count)
    ]
    expected = (torch.stack(each) * factor[:, None]).mean(dim=0)
    x, y = repeated(chunks, labels, 4000)
    rng = np.random.default_rng(1)
    runs = torch.stack([torch.cat([gradient.double() for gradient in score(net, x, y, retention, rng)]) for _ in range(10)])
    error = runs.std(dim=0) / 10**0.5
    assert bool(((runs.mean(dim=0) - expected).abs() <= 5 * error + 1e-5).all())
    assert float(expected.abs().max()) > 10 * float(error.max())


def test_the_mean_field_gradient_against_finite_differences(problem):
    net, chunks, labels, retention = problem
    found = torch.cat(mean_field(net, chunks, labels, retention, np.random.default_rng(0)))
    expected = central_differences(lambda moved: log_correct(net, chunks, labels, moved).mean(), retention, step=1e-6)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name,least", [("score", 0.95), ("mean_field", 0.8), ("gumbel_st", 0.8)])
def test_every_estimator_points_along_the_exact_gradient(problem, name, least):
    net, chunks, labels, retention = problem
    exact = exact_gradient(net, chunks, labels, retention)
    x, y = repeated(chunks, labels, 10_000)
    found = torch.cat([gradient.double() for gradient in ESTIMATORS[name](net, x, y, retention, np.random.default_rng(5))])
    assert float(found @ exact / (found.norm() * exact.norm())) >= least


def test_a_mask_holds_for_a_whole_piece(problem):
    net, chunks, labels, retention = problem
    seen = []
    net.output.register_forward_pre_hook(lambda module, given: seen.append(given[0] != 0))
    for name in ("score", "gumbel_st"):
        ESTIMATORS[name](net, *repeated(chunks, labels, 5), retention, np.random.default_rng(0))
        assert seen[-1].shape[:2] == (15, 7)
        assert bool((seen[-1] == seen[-1][:, :1]).all()) and len({str(piece.tolist()) for piece in seen[-1]}) > 2


def test_utterances_under_ctc_that_are_pieces(problem):
    """The expected log probability per token, with a mask per utterance; and its gradient by finite differences, expectation-scaled."""
    net, chunks, _, retention = problem
    whole = Chunks(chunks.frames, chunks.lengths, torch.cat([7 * piece + torch.arange(length) for piece, length in enumerate(LENGTHS)]))

    def targets(times=1):
        tokens, lengths = torch.tensor([1, 2, 2, 1, 1]), torch.tensor([2, 2, 1])
        return SequenceTargets(torch.tensor(LENGTHS).repeat(times), tokens.repeat(times), lengths.repeat(times))

    @torch.no_grad()
    def per_token(multipliers):
        (net.gate.multiplier,) = multipliers
        return -sequence_losses(torch.log_softmax(net(whole), dim=1), targets()) / targets().lengths

    found = torch.cat(mean_field(net, whole, targets(), retention, np.random.default_rng(0)))
    assert torch.allclose(found, central_differences(lambda moved: per_token(moved).mean(), retention, step=1e-6), atol=1e-5)
    exact = sum(probability * per_token(mask).mean() * direction(mask, retention) for mask, probability in all_masks(retention))
    many = repeated(whole, torch.empty(0), 4000)[0]
    rng = np.random.default_rng(1)
    runs = torch.stack([score(net, many, targets(4000), retention, rng)[0].double() for _ in range(8)])
    error = runs.std(dim=0) / 8**0.5
    assert bool(((runs.mean(dim=0) - exact).abs() <= 5 * error + 1e-4).all())


def test_split_half_of_pieces(problem):
    net, chunks, labels, retention = problem
    x, y = repeated(chunks, labels, 40)
    strong = split_half("mean_field", net, x, y, retention, np.random.default_rng(0), batch=16)
    assert min(strong) > 0.99  # the halves hold the same pieces equally often
    one, kept = chunks.select(slice(0, 1))
    assert len(one) == 3 and split_half("score", net, one, labels[kept], retention, np.random.default_rng(0)) == [None]


def test_compaction_of_a_net_that_reads_sequences_is_proven_on_pieces(problem):
    net, chunks, _, _ = problem
    scales = torch.tensor([0.5, 0.0, 0.8], dtype=torch.float64)
    proof = compact(net, [scales], chunks, fold=True)
    assert proof.max_difference < 1e-12 < proof.largest_logit and net.widths == [2] and net.gate.multiplier is None


def test_what_a_gate_multiplies_sequences_by():
    gate, like = Gate(4), torch.zeros(5, 7, dtype=torch.float64)
    assert gate.factor(5, like) is None
    gate.multiplier = torch.tensor([0.5, 1.0, 0.0, 1.0])
    assert torch.equal(gate.factor(5, like), gate.multiplier.double())
    retention = torch.tensor([0.0, 0.5, 0.8, 1.0])
    gate.multiplier = sampled(np.random.default_rng(0), retention, inverse_scale=False)
    masks = gate.factor(4000, like)
    assert masks.shape == (4000, 4) and masks.dtype == torch.float64 and masks.unique().tolist() == [0, 1]
    assert torch.allclose(masks.mean(dim=0), retention.double(), atol=0.03)
    assert not torch.equal(masks, gate.factor(4000, like)), "every call draws anew"
