"""Targeted dropout of units and of weights: the published ramp, ranks by hand, draws, pruning, and masks that optimisers do not notice."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from dropasr.errors import CompactionError, ConfigError
from dropasr.methods import build_method, learns_units, makes_smaller
from dropasr.methods.base import HeldOut, Schedule
from dropasr.methods.base_targets import TargetOptions
from dropasr.methods.base_weights import WeightView, unit_matrices
from dropasr.methods.targeted_weight_dropout import lowest, prune
from dropasr.models.base import widths_for_budget
from dropasr.models.feedforward import FeedForward

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from lstm_case import VARIANTS, make_chunks, make_net  # noqa: E402 (the folder above is on the path only now)


def feed_forward(widths=(60, 40), activation="relu"):
    torch.manual_seed(0)
    return FeedForward(4, (1, 1), list(widths), 5, activation)


def make(kind):
    return make_net(kind, dtype=torch.float32) if kind in VARIANTS else feed_forward(activation=kind)


def data_of(net):
    if net.reads_chunks:
        chunks = make_chunks([31, 12, 25], dtype=torch.float32, stride=net.stride)
        return chunks, torch.arange(len(chunks)) % 5
    generator = torch.Generator().manual_seed(1)
    return torch.randn(64, 12, generator=generator), torch.randint(0, 5, (64,), generator=generator)


def units(net, target=0.3, epochs=10, steps=4, **options):
    values = {"method": "targeted_dropout", "min_units": 2, **options}
    return build_method("t", values, Schedule(epochs, steps, 0, target * net.macs_per_frame()))


def train(method, net, watch=lambda epoch, step: None):
    inputs, targets = data_of(net)
    held_out = HeldOut(lambda generator, count: (inputs, targets), len(targets))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
    for epoch in range(method.schedule.epochs):
        method.begin_epoch(net, epoch, np.random.Generator(np.random.SFC64([0, epoch])))
        method.training_mode(net, epoch)
        net.train()
        for step in range(method.schedule.steps_per_epoch):
            method.before_step(net, epoch, step)
            watch(epoch, step)
            optimiser.zero_grad()
            functional.cross_entropy(net(inputs), targets).backward()
            optimiser.step()
            net.eval()
            method.after_step(net, epoch, step, optimiser, held_out)
            net.train()
    method.finish(net, inputs, held_out)


def test_the_ramp_is_the_published_one():
    """gamma(t) = .95 g min(1, t / 20k) + .05 g clip((t - 20k) / 20k, 0, 1), alpha(t) = a min(1, t / 40k), of 100k steps."""
    options = TargetOptions(rate=0.8, ramp=0.4)
    for t in range(0, 100_000, 2_500):
        share = 0.95 * min(1, t / 20e3) + 0.05 * np.clip((t - 20e3) / 20e3, 0, 1)
        assert options.ramped_share(t / 1e5) == pytest.approx(share) and options.ramped_rate(t / 1e5) == pytest.approx(
            0.8 * min(1, t / 40e3)
        )


def test_the_lowest_units_are_dropped_each_by_itself():
    net = feed_forward()
    method = units(net, rate=0.6, ramp=0.5)
    method.training_mode(net, 0)
    method.before_step(net, 0, 0)
    assert all(gate.multiplier is None for gate in net.gates), "nothing is targeted before the first step"
    method.before_step(net, 7, 0)
    norms = net.hidden[0].weight.norm(dim=1)
    final = widths_for_budget(net, 0.3 * net.macs_per_frame(), min_units=2)
    targeted = norms.topk(60 - final[0], largest=False).indices
    mask = net.gates[0].multiplier(torch.ones(20_000, 60)).double()
    chance = torch.ones(60, dtype=torch.float64).index_fill(0, targeted, 0.4)
    torch.testing.assert_close(mask.mean(dim=0), chance, rtol=0, atol=0.02)
    correlation = np.corrcoef(mask[:, targeted].numpy().T)
    assert abs(correlation - np.eye(len(targeted))).max() < 0.04
    method.before_step(net, 1, 1)  # 0.125 of the steps, a quarter of the ramp: half of 95 %, and a quarter of the rate
    mask = net.gates[0].multiplier(torch.ones(20_000, 60)).double().mean(dim=0)
    assert int((mask < 1).sum()) == int(0.475 * (60 - final[0])) and float(mask[mask < 1].mean()) == pytest.approx(0.85, abs=0.01)


@pytest.mark.parametrize("variant", ["lstm", "lstmp", "blstm"])
def test_units_of_recurrent_nets_rank_by_all_their_weights(variant):
    net = make_net(variant, dtype=torch.float32)
    method = units(net)
    assert method.ranking(net) == "group"
    ranks, group, half = method.ranks(net), net.unit_groups()[0], net.layers[0][0]
    for unit in range(group.gate.width):
        changed = make_net(variant, dtype=torch.float32)
        own = changed.layers[0][0]
        rows = [unit + gate * half.cells for gate in range(4)]
        own.weight_ih.data[rows], own.weight_hh.data[rows] = 0, 0
        if variant == "lstmp":
            own.weight_hr.data[:, unit] = 0
        else:
            own.weight_hh.data[:, unit] = 0
            above = changed.layers[1]
            for reader in above:
                reader.weight_ih.data[:, unit] = 0
        # What is gone from the squares of all matrices; entries that make and read the unit count once each time they do.
        gone = sum(float((a**2).sum() - (b**2).sum()) for a, b in zip(net.parameters(), changed.parameters()))
        twice = 0.0 if variant == "lstmp" else float((half.weight_hh[rows, unit] ** 2).sum())
        assert float(ranks[0][unit]) ** 2 == pytest.approx(gone + twice, rel=1e-4)


def test_sigmoid_units_rank_by_what_they_send():
    net = feed_forward(activation="sigmoid")
    method = units(net, epochs=2, steps=50)
    inputs, _ = data_of(net)
    method.training_mode(net, 0)
    for _ in range(60):
        net.train()
        net(inputs)
        net.eval()
        net(100 * inputs)
    with torch.no_grad():
        first = torch.sigmoid(net.hidden[0](inputs)).mean(dim=0) * (1 - 0.99**60)
    torch.testing.assert_close(method.ranks(net)[0], net.hidden[1].weight.norm(dim=0) * first, rtol=1e-4, atol=1e-6)
    again = units(net, epochs=2, steps=50)
    again.load_tensors(method.tensors())
    assert all(torch.equal(a, b) for a, b in zip(again.ranks(net), method.ranks(net)))
    net = feed_forward(activation="sigmoid")
    train(units(net, passes=3), net)
    assert not any(gate._forward_pre_hooks for gate in net.gates), "nothing is left in the finished net"


@pytest.mark.parametrize("kind", ["relu", "sigmoid", *VARIANTS])
@pytest.mark.parametrize("passes", [1, 3])
def test_the_budget_is_met(kind, passes):
    net = make(kind)
    wanted = widths_for_budget(net, 0.4 * net.macs_per_frame(), min_units=2)
    method = units(net, 0.4, epochs=5, start=0.2, end=0.9, passes=passes)
    assert makes_smaller("t", {"method": "targeted_dropout"}) and learns_units("t", {"method": "targeted_dropout"})
    train(method, net)
    assert net.widths == wanted and all(group.gate.multiplier is None for group in net.unit_groups())


def test_refusals():
    with pytest.raises(CompactionError, match="targeted_dropout needs a budget"):
        build_method("t", {"method": "targeted_dropout"}, Schedule(10, 1, 0))
    net = make_net("lstm", dtype=torch.float32)
    with pytest.raises(ConfigError, match="ranking 'outgoing'.*ranking: group"):
        units(net, ranking="outgoing").training_mode(net, 0)
    assert not makes_smaller("w", {"method": "targeted_weight_dropout"})


class Masked(nn.Module):
    """A parametrisation of torch: the reference for weights seen through a mask."""

    def __init__(self):
        super().__init__()
        self.mask = None

    def forward(self, weight):
        return weight if self.mask is None else weight * self.mask


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("kind", ["relu", "lstm", "lstmp", "blstm-all"])
def test_masked_steps_equal_those_of_a_parametrisation(kind, bfloat16):
    """Gradients, clipping, momentum and decay: torch computes them from the whole weights that it keeps."""
    net, other = make(kind), make(kind)
    inputs, targets = data_of(net)
    places, others = unit_matrices(net), unit_matrices(other)
    masks = [Masked() for _ in others]
    for (module, name), mask in zip(others, masks):
        parametrize.register_parametrization(module, name, mask)
    view, names = WeightView(), [name for name, _ in net.named_parameters()]
    optimisers = [torch.optim.SGD(n.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01) for n in (net, other)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for mask, (module, name) in zip(masks, places):
            mask.mask = (torch.rand(getattr(module, name).shape, generator=generator) < 0.5).float()
        view.apply(places, lambda index, weight: weight * masks[index].mask)
        for n, optimiser in zip((net, other), optimisers):
            optimiser.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                logits = n(inputs)
            functional.cross_entropy(logits.float(), targets).backward()
            torch.nn.utils.clip_grad_norm_(n.parameters(), 0.1)
            optimiser.step()
        view.restore()
    assert [name for name, _ in net.named_parameters()] == names
    for (module, name), (reference, same) in zip(places, others):
        whole = getattr(reference.parametrizations, same).original
        torch.testing.assert_close(getattr(module, name), whole, rtol=1e-5, atol=1e-6)


def test_matrices_that_make_units():
    net = feed_forward()
    assert [place[0] for place in unit_matrices(net)] == list(net.hidden)
    net = make_net("lstmp", dtype=torch.float32)
    assert {name for _, name in unit_matrices(net)} == {"weight_ih", "weight_hh", "weight_hr"} and len(unit_matrices(net)) == 6


def test_ranks_within_each_unit():
    weight = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    for count in (0, 1, 6, 11):
        assert ((weight.abs() <= lowest(weight, count)).sum(dim=1) == count).all()
        pruned = weight.clone()
        prune(pruned, count)
        order = weight.abs().argsort(dim=1)
        assert (pruned.gather(1, order[:, :count]) == 0).all()
        assert torch.equal(pruned.gather(1, order[:, count:]), weight.gather(1, order[:, count:]))


@pytest.mark.parametrize("kind", ["relu", "lstm", "lstmp", "blstm"])
def test_targeted_weights_are_dropped_and_pruned_in_the_end(kind):
    net = make(kind)
    values = {"method": "targeted_weight_dropout", "share": 0.6, "rate": 0.5, "ramp": 0.4, "rank_every": 1}
    method, seen = build_method("w", values, Schedule(5, 4, 0)), []
    module, name = unit_matrices(net)[0]

    def watch(epoch, step):
        weight, used = module._parameters[name].detach(), getattr(module, name).detach()
        dropped = (used == 0) & (weight != 0)
        assert torch.equal(used[~dropped], weight[~dropped]), "nothing is rescaled"
        low = weight.abs() <= lowest(weight, int(0.6 * weight.shape[1]))
        assert not bool((dropped & ~low).any())
        if epoch >= 2:
            seen.append(float(dropped[low].float().mean()))

    macs = net.macs_per_frame()
    train(method, net, watch)
    assert np.mean(seen) == pytest.approx(0.5, abs=0.05) and net.macs_per_frame() == macs
    left = total = 0
    for module, name in unit_matrices(net):
        weight = getattr(module, name)
        assert ((weight == 0).sum(dim=1) == int(0.6 * weight.shape[1])).all()
        left, total = left + int((weight != 0).sum()), total + weight.numel()
    assert f"{left} of {total}" in method.report.messages[-1]
