"""Group lasso of DropNeuron and of intrinsic sparse structures: penalty, shrinkage, budget, constants."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from removal_case import RECURRENT, held_out, make_net, run
from scipy import optimize
from torch.nn import functional

from dropasr.errors import CompactionError, ConfigError
from dropasr.methods import build_method, has_own_schedule, learns_units, makes_smaller, method_options
from dropasr.methods.base import Schedule

SCHEDULE = Schedule(10, 6, 0, 1000.0)


def norm(*weights: torch.Tensor) -> float:
    return math.sqrt(sum(float(weight.double().square().sum()) for weight in weights))


def feedforward_norms(net, joint: bool) -> list[float]:
    layers, found = [*net.hidden, net.output], []
    for below, above in zip(layers, layers[1:]):
        for unit in range(below.out_features):
            row, column = below.weight[unit], above.weight[:, unit]
            found += [norm(row, column)] if joint else [norm(row), norm(column)]
    return found


def cell_norms(net, layer: int, readers) -> list[float]:
    """Groups of the cells of a layer: gate rows, recurrent column, columns of the `readers` `(weight, offset)`."""
    half, found = net.layers[layer][0], []
    H = half.cells
    for unit in range(H):
        rows = [matrix[gate * H + unit] for matrix in (half.weight_ih, half.weight_hh) for gate in range(4)]
        found.append(norm(*rows, half.weight_hh[:, unit], *(weight[:, offset + unit] for weight, offset in readers)))
    return found


@pytest.mark.parametrize("groups", ["separate", "joint"])
def test_penalty_of_feed_forward_nets(groups):
    net = make_net()
    values = {"method": "dropneuron", "groups": groups, "strength": 0.02, "l1": 0.003}
    found = float(build_method("d", values, SCHEDULE).penalty(net).detach())
    magnitudes = sum(float(layer.weight.abs().sum()) for layer in [*net.hidden, net.output])
    assert found == pytest.approx(0.02 * sum(feedforward_norms(net, groups == "joint")) + 0.003 * magnitudes, rel=1e-5)


@pytest.mark.parametrize("values", [{"method": "iss_group_lasso"}, {"method": "dropneuron", "l1": 0.0}])
def test_penalty_of_lstm_cells(values):
    net = make_net("lstm")
    wanted = cell_norms(net, 0, [(net.layers[1][0].weight_ih, 0)]) + cell_norms(net, 1, [(net.output.weight, 0)])
    found = build_method("i", {**values, "strength": 0.01}, SCHEDULE).penalty(net)
    assert float(found.detach()) == pytest.approx(0.01 * sum(wanted), rel=1e-5)


def test_gradient_of_the_penalty():
    net = make_net("lstm").double()
    method = build_method("i", {"method": "iss_group_lasso", "strength": 0.5, "l1": 0.01}, SCHEDULE)
    method.penalty(net).backward()
    for name, parameter in net.named_parameters():
        if parameter.dim() < 2:
            assert parameter.grad is None, name
            continue
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter[3, 2] += step
                values.append(float(method.penalty(net).detach()))
                parameter[3, 2] -= step
        assert float(parameter.grad[3, 2]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4), name


@pytest.mark.parametrize("size_scaled", [False, True])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_proximal_shrinkage(size_scaled, optimiser):
    """One layer of units, so that no two groups share a weight: `w (1 - rate lambda / ||w||)`, and exactly 0 below. With Adam always."""
    net = make_net(widths=(30,))
    net.hidden[0].weight.data[:10] *= 0.01
    net.output.weight.data[:, :10] *= 0.01
    rows, columns = net.hidden[0].weight.detach().clone(), net.output.weight.detach().clone()
    strength = 0.3 if size_scaled else 1.0
    values = {"proximal": optimiser == "sgd", "size_scaled": size_scaled, "strength": strength, "groups": "joint", "l1": 0.0}
    method = build_method("d", {"method": "dropneuron", **values}, replace(SCHEDULE, optimiser=optimiser))
    assert method.penalty(net) is None
    method.after_step(net, 0, 0, torch.optim.SGD(net.parameters(), lr=0.1), None)
    sizes = np.array([norm(rows[unit], columns[:, unit]) for unit in range(30)])
    factors = np.maximum(0, 1 - 0.1 * strength * (math.sqrt(12 + 5) if size_scaled else 1) / sizes)
    assert (factors[:10] == 0).all() and (factors[10:] > 0).all()
    torch.testing.assert_close(net.hidden[0].weight.detach(), rows * torch.from_numpy(factors).float()[:, None])
    torch.testing.assert_close(net.output.weight.detach(), columns * torch.from_numpy(factors).float())
    assert bool((net.hidden[0].weight[:10] == 0).all())


def sparse_group_minimum(weights: np.ndarray, group: float, single: float) -> np.ndarray:
    """What minimises `||x - weights||^2 / 2 + group ||x|| + single |x|`, by scipy, x split into its positive and its negative part."""
    count = len(weights)

    def objective(parts: np.ndarray) -> float:
        x = parts[:count] - parts[count:]
        return 0.5 * ((x - weights) ** 2).sum() + group * np.sqrt((x**2).sum() + 1e-14) + single * parts.sum()

    first = np.concatenate([weights.clip(min=0), (-weights).clip(min=0)])
    options = {"maxiter": 5000, "maxfun": 10**6, "ftol": 1e-16, "gtol": 1e-10}
    found = optimize.minimize(objective, first, bounds=[(0, None)] * (2 * count), options=options).x
    return found[:count] - found[count:]


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_the_proximal_step_with_l1_minimises_the_sparse_group_lasso(optimiser):
    net = make_net(widths=(8,))
    rows, columns = net.hidden[0].weight.detach().clone(), net.output.weight.detach().clone()
    values = {"proximal": optimiser == "sgd", "strength": 1.0, "l1": 1.5, "groups": "joint"}
    method = build_method("d", {"method": "dropneuron", **values}, replace(SCHEDULE, optimiser=optimiser))
    assert method.penalty(net) is None
    method.after_step(net, 0, 0, torch.optim.SGD(net.parameters(), lr=0.1), None)
    for unit in range(8):
        before = torch.cat([rows[unit], columns[:, unit]]).double().numpy()
        after = torch.cat([net.hidden[0].weight[unit], net.output.weight[:, unit]]).detach().double().numpy()
        np.testing.assert_allclose(after, sparse_group_minimum(before, 0.1, 0.15), atol=2e-4)
    assert 0 < int((net.hidden[0].weight == 0).sum()) < net.hidden[0].weight.numel()


def test_single_weights_near_zero_become_zero():
    net = make_net("lstm")
    net.layers[0][0].weight_ih.data[0, 0], net.layers[0][0].bias_ih.data[0] = 5e-5, 5e-5
    method = build_method("i", {"method": "iss_group_lasso"}, SCHEDULE)
    method.after_step(net, 0, 0, torch.optim.SGD(net.parameters(), lr=0.1), None)
    assert net.layers[0][0].weight_ih[0, 0] == 0 and net.layers[0][0].bias_ih[0] != 0


@pytest.mark.parametrize("kind", ["relu", "sigmoid", "norm_relu", *RECURRENT])
@pytest.mark.parametrize("values", [{"method": "dropneuron"}, {"method": "iss_group_lasso", "proximal": True}], ids=["dropneuron", "iss"])
def test_every_net_meets_its_budget_with_proofs(values, kind):
    net = make_net(kind, widths=(120, 100))
    full = net.macs_per_frame()
    method, history = run(net, 0.3, **values)
    assert makes_smaller("m", values) and learns_units("m", values) and has_own_schedule("m", values)
    assert net.macs_per_frame() / full == pytest.approx(0.3, rel=0.02 if kind in ("relu", "sigmoid", "norm_relu") else 0.06)
    assert history[-1] == net.widths and method.penalty(net) is None


@pytest.mark.parametrize("kind", ["relu", "sigmoid", "norm_relu"])
def test_units_without_fan_in_or_fan_out_leave_and_the_logits_stay(kind):
    net = make_net(kind)
    net.eval()
    for layer, above in zip(net.hidden, [net.hidden[1], net.output]):
        layer.bias.data.uniform_(0.2, 1.0)
        layer.weight.data[:12] = 0
        above.weight.data[:, 12:20] = 0
    spliced = torch.randn(50, 12)
    with torch.no_grad():
        expected = net(spliced)
    values = {"controller": "none", "strength": 1e-12, "threshold": 1e-6, "passes": 2}
    method, history = run(net, 0.3, method="dropneuron", **values)
    assert net.widths == [40, 20] and history[0] == [60, 40]
    with torch.no_grad():
        assert torch.allclose(net(spliced), expected, atol=1e-5 * float(expected.abs().max()))


def test_without_a_controller_the_size_is_what_is_below_the_threshold():
    net = make_net("lstm")
    for slice_ in net.unit_groups()[0].slices:
        tensor = getattr(slice_.module, slice_.name)
        if tensor.dim() == 2:
            tensor.data.movedim(slice_.dim, 0).unflatten(0, (slice_.blocks, 40))[:, 5:40] *= 1e-4
    run(net, 0.3, method="iss_group_lasso", controller="none", min_units=8, threshold=0.005)
    assert net.widths == [8, 30], "35 of the cells of the first layer are dead, but 8 stay"


@pytest.mark.parametrize("proximal", [False, True])
def test_the_controller_aims_the_strongest_unit_that_must_leave_at_zero(proximal):
    net = make_net()
    values = {"method": "dropneuron", "groups": "joint", "proximal": proximal, "strength": 1e-9, "l1": 0.0, "passes": 10, "min_units": 2}
    method = build_method("d", {**values, "start": 0.1, "end": 0.6}, Schedule(10, 6, 0, 0.3 * net.macs_per_frame()))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    method.begin_epoch(net, 0, np.random.default_rng(0))
    method.training_mode(net, 0)
    for step in range(9):
        method.after_step(net, step // 6, step % 6, optimiser, held_out(net))
    norms = np.sort(feedforward_norms(net, joint=True)[:60])
    leaving = 60 - method.targets[0]
    # The first pass, half an epoch behind `start`: 27 of the 30 steps are left, and momentum makes one gradient ten.
    wanted = norms[leaving - 1] / ((0.1 if proximal else 1.0) * 27)
    assert float(method.strengths[0]) == pytest.approx(wanted, rel=1e-4)
    again = build_method("d", values, method.schedule)
    again.load_tensors(method.tensors())
    assert torch.equal(again.strengths, method.strengths)


@pytest.mark.parametrize("values", [{"method": "dropneuron"}, {"method": "dropneuron", "proximal": True, "groups": "joint"}])
def test_the_penalty_finds_the_units_that_the_task_does_not_need(values):
    """Labels name the largest of three inputs: with the penalty three of forty units carry nearly all of what the net says."""
    torch.manual_seed(0)
    net = make_net(widths=(40,))
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    method = build_method("d", {**values, "min_units": 2}, Schedule(10, 60, 0, float(net.macs_per_frame([6]))))
    for epoch in range(10):
        method.begin_epoch(net, epoch, np.random.default_rng(epoch))
        method.training_mode(net, epoch)
        for step in range(60):
            inputs = torch.randn(128, 12, generator=generator)
            net.train()
            loss, penalty = functional.cross_entropy(net(inputs), inputs[:, :3].argmax(dim=1)), method.penalty(net)
            optimiser.zero_grad()
            (loss if penalty is None else loss + penalty).backward()
            optimiser.step()
            net.eval()
            method.after_step(net, epoch, step, optimiser, held_out(net))
    inputs = torch.randn(2000, 12, generator=generator)
    error = float((net(inputs).argmax(dim=1) != inputs[:, :3].argmax(dim=1)).float().mean())
    assert net.widths == [6] and error < 0.1


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match="groups"):
        method_options("d", {"method": "dropneuron", "groups": "both"})
    with pytest.raises(ConfigError, match="threshold"):
        method_options("i", {"method": "iss_group_lasso", "threshold": 0})
    with pytest.raises(CompactionError, match="needs a budget"):
        build_method("i", {"method": "iss_group_lasso"}, Schedule(10, 1, 0))
