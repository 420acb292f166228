"""Recurrent nets against the same nets written out step by step: open, masked in every way, padded, streamed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lstm_case import FEATURES, OUTPUTS, VARIANTS, logits_by_hand, make_chunks, make_net, random_scales, set_gates

from dropasr.config import load_config
from dropasr.data.chunks import Chunks
from dropasr.errors import ConfigError
from dropasr.models import build_model, model_from_dims, model_options, recurrence
from dropasr.models.base import widths_for_budget
from dropasr.models.gates import Gate, sampled
from dropasr.models.lstm import Lstm
from dropasr.models.recurrence import masked_layer_norm, separated

LENGTHS = [31, 12, 25]


def by_hand(net: Lstm, chunks: Chunks, scales_of_piece) -> np.ndarray:
    """Logits of the rows of chunks; `scales_of_piece[b]`: factors of piece b, one per group."""
    pieces = [logits_by_hand(net, frames[:length], own) for frames, length, own in zip(chunks.frames, chunks.lengths, scales_of_piece)]
    size = chunks.frames.shape[1]
    return np.array([pieces[row // size][row % size // net.stride] for row in chunks.rows.tolist()])


def per_sequence(net: Lstm, count: int, fractional: bool = False) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
    """Factors `(count, H)` per group, and the same by sequence."""
    of_piece = [random_scales(net, seed, fractional) for seed in range(count)]
    return [torch.stack(group) for group in zip(*of_piece)], of_piece


def closeness(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.detach().double().numpy() - expected).max() / np.abs(expected).max())


def without_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing but the fused kernels run."""

    def refuse(*_):
        raise AssertionError("a loop over time")

    monkeypatch.setattr(recurrence.Recurrence, "_stepped", refuse)


@pytest.mark.parametrize("variant", VARIANTS)
def test_open_and_shared_factors_run_fused(variant, monkeypatch):
    net = make_net(variant)
    chunks = make_chunks(LENGTHS, stride=net.stride)
    without_steps(monkeypatch)
    ones = [torch.ones(width) for width in net.widths]
    assert closeness(net(chunks), by_hand(net, chunks, [ones] * 3)) < 1e-12
    for fractional in (False, True):
        scales = random_scales(net, 5, fractional)
        set_gates(net, scales)
        assert closeness(net(chunks), by_hand(net, chunks, [scales] * 3)) < 1e-12


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "lstmp" not in name])
@pytest.mark.parametrize("copies", [1, 4])
def test_a_mask_per_sequence_runs_fused(variant, copies, monkeypatch):
    """With 12 pieces there are fewer cells than sequences: the other way to close output gates. Inverted dropout scales its masks."""
    net, lengths = make_net(variant), LENGTHS * copies
    chunks = make_chunks(lengths, stride=net.stride)
    without_steps(monkeypatch)
    masks, of_piece = per_sequence(net, len(lengths))
    set_gates(net, masks)
    assert closeness(net(chunks), by_hand(net, chunks, of_piece)) < 1e-12
    scale = [torch.linspace(1, 2, width, dtype=torch.float64) for width in net.widths]
    set_gates(net, [mask * factor for mask, factor in zip(masks, scale)])
    expected = by_hand(net, chunks, [[m * s for m, s in zip(own, scale)] for own in of_piece])
    assert closeness(net(chunks), expected) < 1e-12


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fractional", [False, True])
def test_any_factor_per_sequence(variant, fractional):
    net = make_net(variant)
    chunks = make_chunks(LENGTHS, stride=net.stride)
    factors, of_piece = per_sequence(net, 3, fractional)
    set_gates(net, factors)
    assert closeness(net(chunks), by_hand(net, chunks, of_piece)) < 1e-12


@pytest.mark.parametrize("variant", ["lstmp", "blstmp"])
def test_a_mask_drawn_for_a_projection_is_one_for_the_batch_and_runs_fused(variant, monkeypatch):
    net = make_net(variant)
    lengths = [9, 14, 11, 8, 12, 10]
    chunks = make_chunks(lengths)
    without_steps(monkeypatch)
    drawn: list[torch.Tensor] = []

    def multiplier(units: torch.Tensor) -> torch.Tensor:
        drawn.append((torch.rand(units.shape, generator=generator) < 0.6).to(torch.uint8).index_fill(1, torch.tensor(0), 1))
        return drawn[-1]

    generator = torch.Generator().manual_seed(1)
    set_gates(net, [multiplier] * len(net.widths))
    found = net(chunks)
    assert [len(mask) for mask in drawn] == [6, 1] * (len(net.widths) // 2)
    of_piece = [[mask[piece % len(mask)].double() for mask in drawn] for piece in range(6)]
    assert closeness(found, by_hand(net, chunks, of_piece)) < 1e-12


@pytest.mark.parametrize("variant", ["lstm", "norm", "blstm", "lstmp"])
def test_gradients_of_fused_masks_are_those_of_the_steps(variant, monkeypatch):
    """Of the weights, under a mask per sequence; torch differentiates the loop over time by itself."""
    net = make_net(variant)
    chunks = make_chunks(LENGTHS)
    masks, _ = per_sequence(net, 3)
    if net.projected:
        masks = [mask if index % 2 == 0 else mask[0] for index, mask in enumerate(masks)]
    set_gates(net, masks)
    fused = torch.autograd.grad(net(chunks).square().mean(), list(net.parameters()))
    monkeypatch.setattr(recurrence.Recurrence, "_fused", lambda *_: None)
    stepped = torch.autograd.grad(net(chunks).square().mean(), list(net.parameters()))
    for a, b in zip(fused, stepped):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variant", ["lstm", "lstmp", "blstm", "norm"])
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_of_factors(variant, shared):
    """What mean-field and straight-through estimators ask for, against central differences."""
    net = make_net(variant)
    chunks = make_chunks([9, 6])
    factors = random_scales(net, 3, True) if shared else per_sequence(net, 2, True)[0]
    factors = [factor.clamp(min=0.1).requires_grad_(True) for factor in factors]

    def objective() -> torch.Tensor:
        return net(chunks).square().mean()

    set_gates(net, factors)
    for gradient, factor in zip(torch.autograd.grad(objective(), factors), factors):
        flat, found = factor.data.view(-1), gradient.reshape(-1)
        for unit in (0, len(flat) - 1):
            values = []
            for step in (1e-5, -2e-5, 1e-5):
                flat[unit] += step
                values.append(float(objective().detach()))
            assert float(found[unit]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_and_neighbours_never_matter(variant):
    net = make_net(variant)
    chunks = make_chunks(LENGTHS, stride=net.stride)
    changed = chunks.frames.clone()
    for piece, length in zip(changed, LENGTHS):
        piece[length:] = 100.0
    assert torch.equal(net(chunks), net(Chunks(changed, chunks.lengths, chunks.rows)))
    alone = net.logits(chunks.frames[1, : LENGTHS[1]], net.stride)
    order = chunks.rows.argsort()[-(-LENGTHS[0] // net.stride) :][: len(alone)]
    assert torch.allclose(net(chunks)[order], alone, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_stream_gives_the_logits_of_the_utterance(variant, dtype):
    net = make_net(variant, dtype=dtype)
    if net.bidirectional:
        with pytest.raises(ConfigError, match="bidirectional.*lstm or lstmp for a stream"):
            net.stream()
        return
    set_gates(net, random_scales(net, 2, True))
    for length in (1, 2, 5, 61, 300):
        frames = make_chunks([length], dtype=dtype).frames[0]
        with torch.no_grad():
            whole = net.logits(frames, net.stride)
        for size in (1, 2, 7, 300):
            stream, parts = net.stream(), []
            for part in frames.split(size):
                parts.append(stream.feed(part))
            early = sum(len(part) for part in parts)
            parts.append(stream.finish())
            assert torch.allclose(torch.cat(parts), whole, rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-4)
            # Logits come as soon as delay and splicing allow.
            last = length - 1 - max(net.splice, net.frames_scored - 1) - net.step * net.output_delay
            assert early == net.frames_scored * max(0, last // net.step + 1)
    with pytest.raises(ValueError, match="finished"):
        stream.feed(frames)
    assert net.stream().finish().shape == (0, OUTPUTS)


def test_every_third_frame_of_a_net_with_and_without_subsampling():
    every, third = make_net("lstm"), make_net("third")
    frames = make_chunks([20]).frames[0]
    assert torch.allclose(every.logits(frames, 3), every.logits(frames)[::3], atol=1e-12)
    assert third.logits(frames, 3).shape == (7, OUTPUTS) and third.logits(frames[:0], 3).shape == (0, OUTPUTS)
    with pytest.raises(ConfigError, match="frame_subsampling 3"):
        third.logits(frames)


def test_a_step_that_scores_all_its_frames_has_a_block_of_outputs_for_each():
    net, third = make_net("frames"), Lstm(FEATURES, [9, 7], OUTPUTS, subsampling=3, output_delay=1).double().eval()
    frames = make_chunks([20]).frames[0]
    found = net.logits(frames)
    assert found.shape == (20, OUTPUTS) and net.logits(frames[:0]).shape == (0, OUTPUTS)
    for place in range(3):
        block = slice(place * OUTPUTS, (place + 1) * OUTPUTS)
        tensors = {name: tensor[block] if name.startswith("output") else tensor for name, tensor in net.state_dict().items()}
        third.load_state_dict(tensors)
        assert torch.allclose(found[place::3], third.logits(frames, 3)[: len(found[place::3])], atol=1e-12)
    with pytest.raises(ConfigError, match="frame_outputs.*expected subsampling 3, found 1"):
        build_model({"name": "lstm", "frame_outputs": True}, FEATURES, OUTPUTS)


def test_context_of_chunks():
    assert make_net("delay").context == (40, 3) and make_net("third").context == (40, 6)
    assert make_net("splice").context == (40, 3) and make_net("blstm").context == (40, 40)
    assert [make_net(name).reads_chunks for name in VARIANTS] == [True] * len(VARIANTS)


def test_a_gate_tells_its_factor():
    gate, like = Gate(3), torch.zeros(1, dtype=torch.float64)
    assert gate.factor(5, like) is None
    gate.multiplier = torch.tensor([[1, 0, 1]], dtype=torch.uint8)
    assert gate.factor(5, like).tolist() == [1, 0, 1] and gate.factor(5, like).dtype == torch.float64
    retention = torch.tensor([1.0, 0.5, 1.0])
    gate.multiplier = sampled(np.random.Generator(np.random.SFC64(0)), retention, inverse_scale=True)
    factor = gate.factor(2000, like)
    assert factor.shape == (2000, 3) and set(factor[:, 1].tolist()) == {0.0, 2.0}
    assert float(factor.mean(dim=0)[1]) == pytest.approx(1, abs=0.1)


def test_factors_that_are_masks_times_a_scale():
    scale, mask = separated(torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.1]]))
    assert scale.tolist() == pytest.approx([1, 2, 0.1]) and mask.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert separated(torch.tensor([[0.5], [0.25]])) is None
    assert separated(torch.tensor([[-1.0], [0.0]])) is None
    assert separated(torch.ones(2, 2, requires_grad=True)) is None


def test_masked_layer_norm_is_that_of_the_units_kept():
    norm = torch.nn.LayerNorm(4).double()
    torch.nn.init.normal_(norm.bias)
    units = torch.randn(6, 2, 4, dtype=torch.float64)
    factor = torch.tensor([[1, 0, 0.5, 1], [1, 1, 1, 1]], dtype=torch.float64)
    found = masked_layer_norm(units, factor, norm)
    kept = [0, 2, 3]
    small = torch.nn.functional.layer_norm(units[:, 0][:, kept], (3,), norm.weight[kept], norm.bias[kept])
    assert torch.allclose(found[:, 0][:, kept], small)
    assert torch.allclose(found[:, 1], norm(units[:, 1]))


@pytest.mark.parametrize("variant", ["lstm", "lstmp", "blstm-all"])
def test_bfloat16_autocast(variant):
    net = make_net(variant, dtype=torch.float32)
    chunks = make_chunks(LENGTHS, dtype=torch.float32)
    generator = np.random.Generator(np.random.SFC64(0))
    set_gates(net, [sampled(generator, torch.full((width,), 0.7), True) for width in net.widths])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(chunks)
    logits.float().square().mean().backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in net.parameters())
    ones = [torch.ones(width) for width in net.widths]
    set_gates(net, [None] * len(ones))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert closeness(net(chunks), by_hand(net, chunks, [ones] * 3)) < 0.05


@pytest.mark.parametrize("variant", VARIANTS)
def test_multiply_adds_and_dims(variant):
    net = make_net(variant)
    matrices = sum(parameter.numel() for parameter in net.parameters() if parameter.dim() == 2)
    assert net.macs_per_frame() == matrices
    other = model_from_dims(net.dims)
    other.load_state_dict(net.state_dict())
    assert other.dims == net.dims
    small = net.with_widths([width - 1 for width in net.widths])
    assert small.widths == [width - 1 for width in net.widths]
    assert net.macs_per_frame(small.widths) == small.macs_per_frame()


def test_budgets_are_met():
    for options in ({"name": "lstm"}, {"name": "lstm", "projection": 128}, {"name": "lstm", "bidirectional": True}):
        net = build_model(options, 40, 120)
        for budget in (0.5, 0.125):
            widths = widths_for_budget(net, budget * net.macs_per_frame())
            assert net.macs_per_frame(widths) / net.macs_per_frame() == pytest.approx(budget, rel=0.02)


def test_three_names_share_one_file(tiny_yaml):
    for name, check in (("lstm", (False, False)), ("blstm", (True, False)), ("lstmp", (False, True))):
        net = build_model(load_config(tiny_yaml(), model=name).model, FEATURES, OUTPUTS)
        assert (net.bidirectional, net.projected) == check
    with pytest.raises(ConfigError, match="model.model.*'lstn'.*did you mean 'lstm'"):
        build_model({"name": "blstm", "model": "lstn"}, 4, 5)
    with pytest.raises(ConfigError, match="'blstm'.*did you mean 'cells'"):
        model_options({"name": "blstm", "model": "lstm", "cels": 3})
    with pytest.raises(ConfigError, match="output_delay"):
        model_options({"name": "blstm", "model": "lstm", "bidirectional": True, "output_delay": 3})


@pytest.mark.parametrize("variant", VARIANTS)
def test_activations_of_units_are_those_of_the_frames_that_are_scored(variant):
    net = make_net(variant)
    lengths = [23, 9, 17]
    chunks = make_chunks(lengths, stride=net.stride)
    for scales in (None, random_scales(net, 1)):
        set_gates(net, scales or [None] * len(net.widths))
        with torch.no_grad():
            found = net.unit_activations(chunks)
        by_piece = []
        for piece, length in zip(chunks.frames, lengths):
            by_piece.append([])
            logits_by_hand(net, piece[:length], scales or [torch.ones(width) for width in net.widths], by_piece[-1])
        places = [divmod(int(row), chunks.frames.shape[1]) for row in chunks.rows]
        for index, (units, width) in enumerate(zip(found, net.widths)):
            expected = np.array([by_piece[piece][index][frame // net.step] for piece, frame in places])
            assert units.shape == (len(chunks), width)
            np.testing.assert_allclose(units.numpy(), expected, atol=1e-12)
