"""Surgery on recurrent nets against nets written out step by step in numpy, over sequences of 1000 frames."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent.parent / "models"))
from lstm_case import VARIANTS, logits_by_hand, make_chunks, make_net, random_scales, set_gates  # noqa: E402 (the folder above is on the path only now)

from dropasr.compaction.proof import compact
from dropasr.compaction.surgery import fold_scales, remove_units
from dropasr.errors import CompactionError
from dropasr.models import model_from_dims

FRAMES = 1000
PRECISION = {torch.float64: 1e-10, torch.float32: 1e-4}


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    fold=st.booleans(),
    fractional=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_masked_and_compacted_net_agree(variant, seed, fold, fractional, dtype):
    net = make_net(variant, seed, dtype)
    if dtype == torch.float32:
        # As trained nets are: with the weights of make_net some are chaotic, and rounding grows over a thousand frames.
        for parameter in net.parameters():
            parameter.data *= 0.5
    scales = random_scales(net, seed, fractional)
    chunks = make_chunks([FRAMES, 117], seed, dtype, net.stride)
    frames = chunks.frames[0]
    expected = logits_by_hand(net, frames, scales)
    largest = np.abs(expected).max()
    proof = compact(net, [scale.clone() for scale in scales], chunks, fold=fold)
    with torch.no_grad():
        found = net.logits(frames, net.stride).double().numpy()
    assert np.abs(found - expected).max() <= PRECISION[dtype] * largest
    assert proof.units_after == net.widths == [int((scale > 0).sum()) for scale in scales]
    # Nothing is merely masked: the tensors are those of a net that was made that small.
    shapes = {name: value.shape for name, value in model_from_dims(net.dims).state_dict().items()}
    assert {name: value.shape for name, value in net.state_dict().items()} == shapes
    assert net.macs_per_frame() == sum(parameter.numel() for parameter in net.parameters() if parameter.dim() == 2)
    assert all(parameter.is_contiguous() for parameter in net.parameters())
    if fold:
        assert all(group.gate.multiplier is None for group in net.unit_groups())


def test_the_backward_half_is_cut_where_it_lies():
    """Both halves lose units at once, the forward one first: the columns of the backward half must be counted from where it was."""
    net = make_net("blstm")
    first, second = torch.tensor([0, 3, 7]), torch.tensor([1, 4])
    old = {name: value.clone() for name, value in net.state_dict().items()}
    remove_units(net, {"layer0.forward": first, "layer0.backward": second})
    columns = torch.cat([first, 8 + second])
    gates = torch.cat([second + 6 * gate for gate in range(4)])
    for half in (0, 1):
        assert torch.equal(net.layers[1][half].weight_ih, old[f"layers.1.{half}.weight_ih"][:, columns])
    backward = net.layers[0][1]
    assert torch.equal(backward.weight_ih, old["layers.0.1.weight_ih"][gates])
    assert torch.equal(backward.weight_hh, old["layers.0.1.weight_hh"][gates][:, second])
    for name in ("bias_ih", "bias_hh"):
        assert torch.equal(getattr(backward, name), old[f"layers.0.1.{name}"][gates])


@pytest.mark.parametrize("variant", ["blstmp", "lstmp-all", "norm"])
def test_optimiser_state_follows_the_units(variant):
    """Momentum is cut as the weights are: made equal to them before, it must be equal to them afterwards; and training goes on."""
    net = make_net(variant, dtype=torch.float32).train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    chunks = make_chunks([20, 15], dtype=torch.float32, stride=net.stride)
    net(chunks).square().mean().backward()
    optimiser.step()
    for parameter in net.parameters():
        optimiser.state[parameter]["momentum_buffer"].copy_(parameter.detach())
    keep = {group.name: torch.nonzero(scale).flatten() for group, scale in zip(net.unit_groups(), random_scales(net, 4))}
    remove_units(net, keep, optimiser)
    assert {id(parameter) for group in optimiser.param_groups for parameter in group["params"]} == set(map(id, net.parameters()))
    assert all(torch.equal(optimiser.state[parameter]["momentum_buffer"], parameter) for parameter in net.parameters())
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimiser.zero_grad()
    net(chunks).square().mean().backward()
    optimiser.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, net.parameters()))


def test_folding_scales_recurrent_and_upward_columns():
    net = make_net("lstmp")
    scales = random_scales(net, 1, True)
    frames = make_chunks([50]).frames[0]
    set_gates(net, scales)
    with torch.no_grad():
        scaled = net.logits(frames)
        fold_scales(net.unit_groups(), scales)
        set_gates(net, [None] * 4)
        assert torch.allclose(net.logits(frames), scaled, atol=1e-11)


def test_a_refused_request_changes_nothing():
    net = make_net("blstm")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(CompactionError, match="layer0.backward.*below 6"):
        remove_units(net, {"layer0.forward": torch.tensor([1]), "layer0.backward": torch.tensor([6])})
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()) and net.widths == [8, 6, 7, 5]


def test_a_surgery_that_forgets_the_recurrent_columns_fails(monkeypatch):
    net = make_net("lstm", dtype=torch.float32)
    chunks = make_chunks([30], dtype=torch.float32)

    def upward_only(groups, scales):
        for group, scale in zip(groups, scales):
            fold_scales([type(group)(group.name, group.gate, [part for part in group.slices if part.name != "weight_hh"])], [scale])

    monkeypatch.setattr("dropasr.compaction.proof.fold_scales", upward_only)
    with pytest.raises(CompactionError, match="differs.*on 30 frames"):
        compact(copy.deepcopy(net), [torch.full((width,), 0.5) for width in net.widths], chunks, fold=True)
