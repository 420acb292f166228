"""What units are ranked by, against sums and models written out, and constants that move into biases."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "models"))
from lstm_case import make_net  # noqa: E402 (the folder above is on the path only now)

from dropasr.compaction import unit_statistics as statistics
from dropasr.compaction.partial_least_squares import vip
from dropasr.compaction.proof import compact
from dropasr.compaction.surgery import fold_constants
from dropasr.errors import CompactionError
from dropasr.models.feedforward import FeedForward
from dropasr.models.stack import Stack


def feedforward(activation="relu", batch_norm=False, widths=(7, 6)) -> FeedForward:
    torch.manual_seed(0)
    net = FeedForward(4, (1, 1), list(widths), 5, activation, batch_norm).double()
    for _ in range(20):  # running statistics of batch norm that are not those of a fresh net
        net(torch.randn(64, 12, dtype=torch.float64))
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net.eval()


def test_mean_magnitudes_of_weights_in_and_out():
    net = feedforward()
    groups = net.unit_groups()
    incoming, outgoing = (statistics.mean_magnitude(groups[0], outgoing) for outgoing in (False, True))
    assert torch.allclose(incoming.double(), net.hidden[0].weight.abs().mean(dim=1))
    assert torch.allclose(outgoing.double(), net.hidden[1].weight.abs().mean(dim=0))


@pytest.mark.parametrize("direction", [0, 1])
def test_weights_of_cells_are_four_gate_rows_and_the_columns_that_read_them(direction):
    net = make_net("blstm")
    group, half = net.unit_groups()[direction], net.layers[0][direction]
    H, offset = half.cells, direction * net.layers[0][0].cells
    for unit in range(H):
        rows = [half.weight_ih[gate * H + unit] for gate in range(4)] + [half.weight_hh[gate * H + unit] for gate in range(4)]
        columns = [half.weight_hh[:, unit], *(above.weight_ih[:, offset + unit] for above in net.layers[1])]
        for outgoing, wanted in ((False, torch.cat(rows)), (True, torch.cat(columns))):
            found = [block[:, unit].flatten() for block in statistics.weight_blocks(group, outgoing)]
            assert torch.equal(torch.cat(found).sort().values, wanted.sort().values)


def test_recurrent_units_are_told_from_others():
    assert not any(statistics.feeds_itself(group) for group in feedforward(batch_norm=True).unit_groups())
    assert all(statistics.feeds_itself(group) for variant in ("blstm", "blstmp") for group in make_net(variant).unit_groups())


def test_statistics_of_activations():
    values = np.random.default_rng(0).standard_normal((1000, 3)) * [1.0, 2.0, 0.1] + [0.0, 5.0, -1.0]
    units = torch.from_numpy(values)
    np.testing.assert_allclose(statistics.magnitude(units), np.abs(values).mean(0))
    np.testing.assert_allclose(statistics.variance(units), values.var(0))
    np.testing.assert_allclose(statistics.deviation(units), np.abs(values - values.mean(0)).mean(0))
    assert statistics.entropy(torch.tensor([[0.0, 1, 1], [0, 1, 0]]), 0.5).tolist() == pytest.approx([0, 0, 1])
    quarter = statistics.entropy(torch.tensor([[0.6], [0.4], [0.5], [0.1]]), 0.5)
    assert float(quarter) == pytest.approx(-0.25 * math.log2(0.25) - 0.75 * math.log2(0.75))


@pytest.mark.parametrize("activation,level", [("sigmoid", 0.5), ("relu", 0.0)])
def test_a_unit_is_on_before_batch_norm_moves_it(activation, level):
    net = feedforward(activation, batch_norm=True)
    net.norms[0].weight.data[2] *= -1
    spliced = torch.randn(200, 12, dtype=torch.float64)
    raw = torch.sigmoid(net.hidden[0](spliced)) if activation == "sigmoid" else torch.relu(net.hidden[0](spliced))
    units, group = statistics.observe(net, spliced)[0], net.unit_groups()[0]
    # A unit whose sign batch norm turns is on where it counts as off, except that a ReLU is never below 0.
    wanted = statistics.entropy(raw.detach(), level)
    found = statistics.entropy(units, statistics.on_threshold(net, group))
    same = torch.arange(7) != 2 if activation == "relu" else torch.ones(7, dtype=torch.bool)
    assert torch.allclose(found[same], wanted[same]) and bool((wanted > 0.1).any())


def nipals_vip(x, y, components):
    """Textbook NIPALS: inner loop over scores, both blocks deflated."""
    x = (x - x.mean(0)) / x.std(0)
    y = (y - y.mean(0)) / y.std(0)
    weights, explained = [], []
    for _ in range(components):
        u = y[:, y.var(0).argmax()]
        for _ in range(20_000):
            w = x.T @ u
            w /= np.linalg.norm(w)
            t = x @ w
            q = y.T @ t / (t @ t)
            new = y @ q / (q @ q)
            if np.linalg.norm(new - u) < 1e-13 * np.linalg.norm(new):
                break
            u = new
        p = x.T @ t / (t @ t)
        before = (y**2).sum()
        x, y = x - np.outer(t, p), y - np.outer(t, q)
        weights.append(w)
        explained.append(before - (y**2).sum())
    weights, explained = np.array(weights), np.array(explained)
    return np.sqrt(x.shape[1] * (explained[:, None] * weights**2).sum(0) / explained.sum())


@pytest.mark.parametrize("components", [1, 2, 4])
def test_vip_is_that_of_nipals(components):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    x = rng.standard_normal((300, 9))
    x[:, :3] += np.eye(4)[labels][:, :3] * [3.0, 2.0, 1.0]
    x[:, 4] += 0.7 * x[:, 0]
    y = np.eye(4)[labels]
    found = vip(torch.from_numpy(x), torch.from_numpy(y), components)
    np.testing.assert_allclose(found, nipals_vip(x, y, components), atol=1e-5)
    assert float(found.square().mean()) == pytest.approx(1) and found[:3].min() > found[5:].max()


def test_vip_of_constant_units_and_absent_classes():
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.standard_normal((50, 4))), torch.eye(3)[torch.from_numpy(rng.integers(0, 2, 50))]
    x[:, 1] = 2.5
    found = vip(x, y, 10)
    assert float(found[1]) == 0 and bool(torch.isfinite(found).all()) and float(found.square().mean()) == pytest.approx(1)
    assert vip(torch.ones(5, 2), torch.ones(5, 1), 2).tolist() == [0, 0]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_units_without_fan_in_leave_and_the_logits_stay(activation, batch_norm):
    net = feedforward(activation, batch_norm)
    constants = [torch.zeros(width, dtype=torch.bool) for width in net.widths]
    for layer, constant, units in zip(net.hidden, constants, ([1, 4], [0])):
        constant[units] = True
        layer.weight.data[units] = 0
        layer.bias.data[units] = torch.tensor([0.7, -1.3])[: len(units)].double()
    scales = [(~constant).double() for constant in constants]
    scales[1][3] = 0  # leaves as 0 beside the constant one
    spliced = torch.randn(40, 12, dtype=torch.float64)
    with torch.no_grad():
        net.gates[1].multiplier = torch.ones(6).index_fill(0, torch.tensor([3]), 0)
        expected = net(spliced)
        proof = compact(net, scales, spliced, fold=True, constants=constants)
        assert torch.allclose(net(spliced), expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
    assert net.widths == proof.units_after == [5, 4] and proof.largest_logit == pytest.approx(float(expected.abs().max()))


def test_units_that_do_change_are_no_constants():
    net = feedforward()
    leaves = [torch.arange(7) == 1, torch.zeros(6, dtype=torch.bool)]
    with pytest.raises(CompactionError, match="differs"):
        compact(net, [(~leaf).double() for leaf in leaves], torch.randn(40, 12, dtype=torch.float64), constants=leaves)


def test_nothing_is_folded_where_there_is_no_bias():
    net = make_net("lstmp")
    with pytest.raises(CompactionError, match="without biases"):
        fold_constants(net.unit_groups()[0], torch.ones(11))


@pytest.mark.parametrize(("steps", "level"), [(["batch_norm", "sigmoid"], 0.5), (["batch_norm", "tanh"], 0.0), (["relu"], 0.0)])
def test_a_batch_norm_before_the_activation_moves_no_threshold(steps, level):
    norms = [(1e-5, 0.1)] if "batch_norm" in steps else [None]
    net = Stack(3, [4], 2, [steps], norms, [True, True])
    for parameter in net.parameters():
        parameter.data += 1.0
    assert statistics.on_threshold(net, net.unit_groups()[0]) == level
