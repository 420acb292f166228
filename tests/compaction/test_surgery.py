"""Surgery against a forward pass written out in numpy, over random shapes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dropasr.compaction.proof import compact
from dropasr.compaction.surgery import fold_scales, remove_units
from dropasr.errors import CompactionError
from dropasr.models.feedforward import FeedForward


def make_net(features, context, widths, outputs, activation, batch_norm, seed, dtype=torch.float64):
    torch.manual_seed(seed)
    net = FeedForward(features, context, widths, outputs, activation, batch_norm).to(dtype)
    for norm in net.norms:
        if batch_norm:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(norm.weight)
            torch.nn.init.normal_(norm.bias)
    return net.eval()


def numpy_logits(net, inputs, scales):
    """An independent forward pass: plain numpy, units multiplied by `scales`."""
    h = inputs.numpy()
    for layer, norm, scale in zip(net.hidden, net.norms, scales):
        h = h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        h = np.maximum(h, 0) if net.activation == "relu" else 1 / (1 + np.exp(-h))
        if net.batch_norm:
            mean, variance = norm.running_mean.numpy(), norm.running_var.numpy()
            h = (h - mean) / np.sqrt(variance + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()
        h = h * scale.numpy()
    return h @ net.output.weight.detach().numpy().T + net.output.bias.detach().numpy()


shapes = st.fixed_dictionaries(
    {
        "features": st.integers(1, 5),
        "context": st.tuples(st.integers(0, 3), st.integers(0, 3)),
        "widths": st.lists(st.integers(1, 12), min_size=1, max_size=4),
        "outputs": st.integers(2, 6),
        "activation": st.sampled_from(["relu", "sigmoid"]),
        "batch_norm": st.booleans(),
        "seed": st.integers(0, 10_000),
    }
)


@settings(max_examples=60, deadline=None)
@given(shape=shapes, fold=st.booleans(), fractional=st.booleans())
def test_masked_and_compacted_net_agree(shape, fold, fractional):
    net = make_net(**shape)
    generator = torch.Generator().manual_seed(shape["seed"])
    scales = []
    for width in shape["widths"]:
        keep = (torch.rand(width, generator=generator) < 0.6).double()
        keep[int(torch.randint(width, (1,), generator=generator))] = 1.0
        scales.append(keep * (torch.rand(width, generator=generator).double() * 0.9 + 0.1) if fractional else keep)
    inputs = torch.randn(7, shape["features"] * (sum(shape["context"]) + 1), generator=generator, dtype=torch.float64)
    expected = numpy_logits(net, inputs, scales)
    proof = compact(net, [scale.clone() for scale in scales], inputs, fold=fold)
    with torch.no_grad():
        found = net(inputs).numpy()
    assert np.abs(found - expected).max() <= 1e-10 * max(1.0, np.abs(expected).max())
    assert proof.units_after == net.widths == [int((scale > 0).sum()) for scale in scales]
    assert [layer.out_features for layer in net.hidden] == net.widths
    assert net.hidden[0].weight.is_contiguous() and net.output.in_features == net.widths[-1]
    if fold:
        assert all(gate.multiplier is None for gate in net.gates)


@settings(max_examples=25, deadline=None)
@given(shape=shapes, seed=st.integers(0, 1000))
def test_removed_inputs_are_read_as_zero_and_no_longer_computed(shape, seed):
    net = make_net(**shape)
    size = shape["features"] * (sum(shape["context"]) + 1)
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.permutation(size)[: rng.integers(1, size + 1)])
    inputs = torch.from_numpy(rng.standard_normal((5, size)))
    zeroed = torch.zeros_like(inputs)
    zeroed[:, kept] = inputs[:, kept]
    ones = [torch.ones(width, dtype=torch.float64) for width in shape["widths"]]
    expected = numpy_logits(net, zeroed, ones)
    full = net.macs_per_frame()
    net.gate_inputs()
    assert net.macs_per_frame() == full and net.widths == [size, *shape["widths"]]
    # In two steps, as during training: some that leave first, then the others.
    first = np.union1d(kept, rng.permutation(size)[: size // 2])
    remove_units(net, {"inputs": torch.from_numpy(first)})
    remove_units(net, {"inputs": torch.from_numpy(np.searchsorted(first, kept))})
    net.open_inputs()
    with torch.no_grad():
        found = net(inputs).numpy()
    assert net.inputs == kept.tolist() and net.hidden[0].in_features == len(kept)
    assert full - net.macs_per_frame() == (size - len(kept)) * shape["widths"][0]
    assert np.abs(found - expected).max() <= 1e-10 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("kind,key", [("SGD", "momentum_buffer"), ("AdamW", "exp_avg"), ("AdamW", "exp_avg_sq")])
def test_optimiser_state_follows_the_units(kind, key):
    net = make_net(3, (1, 1), [6, 5], 4, "relu", True, 0, torch.float32).train()
    optimiser = getattr(torch.optim, kind)(net.parameters(), lr=0.1, **({"momentum": 0.9} if kind == "SGD" else {}))
    net(torch.randn(8, 9)).square().mean().backward()
    optimiser.step()
    before = {name: optimiser.state[parameter][key].clone() for name, parameter in net.named_parameters()}
    first, second = torch.tensor([0, 2, 5]), torch.tensor([1, 4])
    remove_units(net, {"hidden0": first, "hidden1": second}, optimiser)
    after = {name: optimiser.state[parameter][key] for name, parameter in net.named_parameters()}
    assert torch.equal(after["hidden.0.weight"], before["hidden.0.weight"][first])
    assert torch.equal(after["hidden.1.weight"], before["hidden.1.weight"][second][:, first])
    assert torch.equal(after["norms.1.bias"], before["norms.1.bias"][second])
    assert torch.equal(after["output.weight"], before["output.weight"][:, second])
    parameters = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    assert parameters == {id(parameter) for parameter in net.parameters()}
    old = net.hidden[1].weight.detach().clone()
    optimiser.zero_grad()
    net(torch.randn(8, 9)).square().mean().backward()
    optimiser.step()
    assert not torch.equal(old, net.hidden[1].weight)


def test_folding_scales_the_layer_above():
    net = make_net(2, (0, 0), [4], 3, "sigmoid", False, 1)
    scale = torch.tensor([0.5, 1.0, 0.25, 2.0], dtype=torch.float64)
    before = net.output.weight.detach().clone()
    fold_scales(net.unit_groups(), [scale])
    assert torch.equal(net.output.weight, before * scale)


def test_wrong_requests_are_refused():
    net = make_net(2, (0, 0), [4], 3, "relu", False, 1)
    with pytest.raises(CompactionError, match="hiden0"):
        remove_units(net, {"hiden0": torch.tensor([0])})
    with pytest.raises(CompactionError, match="min_units"):
        remove_units(net, {"hidden0": torch.tensor([], dtype=torch.long)})
    with pytest.raises(CompactionError, match="below 4"):
        remove_units(net, {"hidden0": torch.tensor([1, 4])})


def test_a_surgery_that_changes_the_outputs_fails(monkeypatch):
    """The proof must be able to fail: a fold that forgets the scale is caught."""
    net = make_net(3, (0, 0), [6, 6], 4, "relu", False, 2, torch.float32)
    inputs = torch.randn(16, 3)
    monkeypatch.setattr("dropasr.compaction.proof.fold_scales", lambda groups, scales: None)
    with pytest.raises(CompactionError, match="differs"):
        compact(copy.deepcopy(net), [torch.full((6,), 0.5), torch.ones(6)], inputs, fold=True)
