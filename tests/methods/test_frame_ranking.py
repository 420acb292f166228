"""Node pruning, DropNet and removal by a criterion: the units that leave, when they do, and that budgets are met."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from removal_case import RECURRENT, held_out, make_net, run
from torch.nn import functional

from dropasr.compaction import unit_statistics as statistics
from dropasr.errors import CompactionError, ConfigError
from dropasr.methods import build_method, learns_units, makes_smaller, method_options
from dropasr.methods.base import Schedule

FAMILY = [
    {"method": "node_pruning", "importance": "output_norm"},
    {"method": "node_pruning", "importance": "input_norm", "passes": 3},
    {"method": "node_pruning", "importance": "entropy", "passes": 2},
    {"method": "node_pruning", "importance": "variance"},
    {"method": "criterion_removal", "criterion": "l1"},
    {"method": "criterion_removal", "criterion": "taylor"},
    {"method": "criterion_removal", "criterion": "vip"},
    {"method": "dropnet"},
    {"method": "dropnet", "scope": "global", "rewind": False},
    {"method": "dropnet", "score": "variance", "rewind": False, "passes": 3},
]


def label(values) -> str:
    return "-".join(str(value) for value in values.values())


def survivors(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """Rows of `before` that are in `after`."""
    return [index for index, row in enumerate(before) if bool((row == after).flatten(1).all(dim=1).any())]


@pytest.mark.parametrize("kind", ["relu", "sigmoid", "norm_relu", *RECURRENT])
@pytest.mark.parametrize("values", FAMILY, ids=label)
def test_every_net_meets_its_budget_with_proofs(values, kind):
    net = make_net(kind, widths=(120, 100))
    full, widths = net.macs_per_frame(), net.widths
    method, history = run(net, 0.3, epochs=6, steps=4, frames=100, **values)
    assert makes_smaller("m", values) and not learns_units("m", values)
    assert net.macs_per_frame() / full == pytest.approx(0.3, rel=0.02 if kind in ("relu", "sigmoid", "norm_relu") else 0.06)
    assert history[-1] == net.widths and sum(net.widths) < sum(widths)


def test_one_shot_pruning_waits_for_the_end_and_iterative_pruning_does_not():
    for passes, changes in ((1, 1), (4, 4)):
        net = make_net()
        method, history = run(net, 0.3, epochs=20, method="node_pruning", start=0.3, end=0.5, passes=passes)
        assert history[5] == [60, 40] and history[9] == net.widths
        assert len({tuple(widths) for widths in history}) == 1 + changes


@pytest.mark.parametrize("importance", ["output_norm", "input_norm"])
def test_nodes_with_small_weights_leave(importance):
    net = make_net()
    before = net.hidden[0].weight.detach().clone()
    values = net.hidden[1].weight.detach().abs().sum(0) if importance == "output_norm" else before.abs().sum(1)
    run(net, 0.3, method="node_pruning", importance=importance)
    best = values.topk(net.widths[0]).indices.sort().values
    assert torch.equal(net.hidden[0].weight, before[best])


@pytest.mark.parametrize("importance", ["entropy", "variance"])
def test_nodes_that_never_change_leave_and_only_a_mean_that_moves_keeps_the_logits(importance):
    net = make_net("sigmoid")
    dead = [torch.randperm(width)[: width - round(0.5 * width)] for width in net.widths]
    for layer, units in zip(net.hidden, dead):
        layer.weight.data[units] = 0
        layer.bias.data[units] = 1.5
    spliced = torch.randn(50, 12)
    target = net.macs_per_frame([30, 20]) / net.macs_per_frame()
    with torch.no_grad():
        expected = net(spliced)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as in training, where what moves into the biases must not be rounded
        run(net, target, method="node_pruning", importance=importance, frames=200)
    assert net.widths == [30, 20]
    assert bool((net.hidden[0].bias != 1.5).all())
    with torch.no_grad():
        assert torch.allclose(net(spliced), expected, atol=1e-5) == (importance == "variance")


@pytest.mark.parametrize("kind", ["sigmoid", "lstm", "lstmp", "blstm"])
def test_taylor_is_the_slope_of_the_objective_along_each_unit(kind):
    net = make_net(kind, widths=(7, 6)).double().eval()
    inputs, targets = held_out(net).draw(np.random.default_rng(0), 40)
    inputs = inputs.double() if torch.is_tensor(inputs) else type(inputs)(inputs.frames.double(), inputs.lengths, inputs.rows)
    method = build_method("c", {"method": "criterion_removal", "criterion": "taylor"}, Schedule(4, 4, 0, 1.0))
    method.inputs, method.targets_of_rows = inputs, targets
    found = method.ranks(net)
    for group, ranks in zip(net.unit_groups(), found):
        for unit in range(0, group.gate.width, 5):
            values = []
            for step in (1e-5, -1e-5):
                group.gate.multiplier = torch.ones(group.gate.width, dtype=torch.float64).index_fill(0, torch.tensor([unit]), 1 + step)
                with torch.no_grad():
                    values.append(float(functional.cross_entropy(net(inputs), targets)))
            group.gate.multiplier = None
            assert float(ranks[unit]) == pytest.approx(abs(values[0] - values[1]) / 2e-5, rel=1e-3, abs=1e-8)


def test_l1_is_the_sum_of_incoming_weights():
    net = make_net("lstm")
    method = build_method("c", {"method": "criterion_removal", "criterion": "l1"}, Schedule(4, 4, 0, 1.0))
    half = net.layers[0][0]
    wanted = sum(weight.view(4, 40, -1).abs().sum(dim=(0, 2)) for weight in (half.weight_ih, half.weight_hh))
    assert torch.allclose(method.ranks(net)[0], wanted)


def test_vip_keeps_the_units_that_tell_labels_apart():
    net = make_net("relu", widths=(20, 20))
    method = build_method("c", {"method": "criterion_removal", "criterion": "vip", "components": 4}, Schedule(4, 4, 0, 1.0))
    method.inputs = torch.randn(2000, 12)
    units = statistics.observe(net, method.inputs)
    method.targets_of_rows = (units[0][:, 3] > units[0][:, 3].median()).long() + 2 * (units[0][:, 7] > units[0][:, 7].median()).long()
    assert set(method.ranks(net)[0].topk(2).indices.tolist()) == {3, 7}


def test_rounds_of_dropnet_leave_their_fraction_and_then_the_budget():
    net = make_net(widths=(100, 100))
    first = {name: value.clone() for name, value in net.state_dict().items()}

    def grow(net):
        for parameter in net.parameters():
            parameter.data += 0.01

    method, history = run(net, 0.3, epochs=20, steps=1, each=grow, method="dropnet", end=0.5, fraction=0.2)
    last = net.widths[0]
    rounds = int(np.ceil(np.log(last / 100) / np.log(0.8)))
    wanted = [round(100 * 0.8**number) for number in range(rounds)] + [last]
    assert sorted({100, *(widths[0] for widths in history)}, reverse=True) == wanted
    # After the last round, at half of the training, the weights went back: half of the steps are in them, and no momentum.
    close = (net.hidden[0].weight[:, None] - first["hidden.0.weight"][None] - 0.1).abs().amax(dim=2) < 1e-5
    assert bool((close.sum(dim=1) == 1).all()) and len(set(close.float().argmax(dim=1).tolist())) == last
    assert method.initial is None and method.tensors().keys().isdisjoint({"initial.hidden.0.weight"})


def test_dropnet_without_rewinding_goes_on_with_its_weights():
    net = make_net()
    before = net.hidden[0].weight.detach().clone()
    run(net, 0.3, each=lambda net: net.hidden[0].weight.data.add_(0.01), method="dropnet", rewind=False)
    assert len(survivors(before, net.hidden[0].weight.detach())) == 0
    close = (net.hidden[0].weight[:, None] - before[None] - 0.6).abs().amax(dim=2) < 1e-4
    assert bool((close.sum(dim=1) == 1).all())


def test_dropnet_resumes_with_the_weights_it_goes_back_to():
    values, net = {"method": "dropnet", "min_units": 2}, make_net()
    method = build_method("d", values, Schedule(10, 6, 0, 0.3 * net.macs_per_frame()))
    method.begin_epoch(net, 0, np.random.default_rng(0))
    first = copy.deepcopy(net.state_dict())
    method.training_mode(net, 0)
    for parameter in net.parameters():
        parameter.data.zero_()
    again = build_method("d", values, method.schedule)
    again.load_tensors({name: tensor.clone() for name, tensor in method.tensors().items()})
    again.begin_epoch(net, 1, np.random.default_rng(1))
    assert all(torch.equal(value, first[name]) for name, value in again.initial.state_dict().items())


def test_units_that_say_least_leave():
    net = make_net("relu", widths=(50, 40))
    inputs, _ = held_out(net).draw(np.random.default_rng(0), 1000)
    weak = torch.randperm(50)[:20]
    net.hidden[0].weight.data[weak] *= 1e-3
    before = net.hidden[0].weight.detach().clone()
    run(net, net.macs_per_frame([30, 24]) / net.macs_per_frame(), method="dropnet", frames=500)
    assert survivors(before, net.hidden[0].weight.detach()) == sorted(set(range(50)) - set(weak.tolist()))


def test_global_removal_takes_more_from_the_layer_that_says_less():
    for rewind in (False, True):
        net = make_net(widths=(120, 120, 120))
        full = net.macs_per_frame()
        net.hidden[1].weight.data *= 0.05
        net.hidden[2].weight.data *= 20.0
        method, history = run(net, 0.25, method="dropnet", scope="global", rewind=rewind, min_units=6)
        assert net.macs_per_frame() / full == pytest.approx(0.25, rel=0.02)
        assert 6 <= net.widths[1] < 30 and min(net.widths[0], net.widths[2]) > 80
        totals = [sum(widths) for widths in history]
        assert all(now <= max(before, 0) for before, now in zip(totals, totals[1:])) and totals[0] >= 0.8 * 360 - 1


def test_sigmoid_units_that_are_always_on_say_nothing():
    net = make_net("sigmoid", widths=(30, 30))
    for layer in net.hidden:
        layer.weight.data[:15], layer.bias.data[:15] = 0, 4.0
    spliced = torch.randn(50, 12)
    target = net.macs_per_frame([15, 15]) / net.macs_per_frame()
    with torch.no_grad():
        expected = net(spliced)
    run(net, target, method="dropnet", rewind=False)  # score auto
    with torch.no_grad():
        assert net.widths == [15, 15] and torch.allclose(net(spliced), expected, atol=1e-5)


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match="importance"):
        method_options("n", {"method": "node_pruning", "importance": "onorm"})
    with pytest.raises(ConfigError, match="did you mean 'criterion'"):
        method_options("c", {"method": "criterion_removal", "criterium": "l1"})
    with pytest.raises(ConfigError, match="fraction"):
        method_options("d", {"method": "dropnet", "fraction": 1.0})
    for name in ("node_pruning", "criterion_removal", "dropnet"):
        with pytest.raises(CompactionError, match=f"{name} needs a budget"):
            build_method("m", {"method": name}, Schedule(10, 1, 0))
