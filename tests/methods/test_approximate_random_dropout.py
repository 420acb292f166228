"""Approximate random dropout: its distribution, its patterns against masks on whole nets, and what is left to compute."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional

from dropasr.config import load_config
from dropasr.errors import ConfigError
from dropasr.methods import build_method, check_method, method_options
from dropasr.methods.approximate_random_dropout import closed_form, drop_shares, search_objective, searched
from dropasr.methods.base import Schedule
from dropasr.models.feedforward import FeedForward
from dropasr.models.patterns import BlockPattern, RowPattern, TilePattern
from dropasr.training.row_checks import check_rows

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "models")]
from lstm_case import VARIANTS, make_chunks, make_net, set_gates  # noqa: E402
from toy_models import ToyRecurrent  # noqa: E402

NAME = "approximate_random_dropout"
CONF = Path(__file__).resolve().parents[2] / "conf" / "synth_commands.yaml"


def method_of(**options):
    method = build_method(NAME, {"method": NAME, **options}, Schedule(4, 5, 0))
    method.begin_epoch(None, 0, np.random.Generator(np.random.SFC64(7)))
    return method


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds")
@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("periods", [8, 12])
def test_the_distribution_is_the_most_diverse_of_its_mean_and_the_search_finds_it(rate, periods):
    found, shares = closed_form(rate, periods), drop_shares(periods)
    assert found.sum() == pytest.approx(1) and found @ shares == pytest.approx(rate)
    limits = [{"type": "eq", "fun": lambda d: d.sum() - 1}, {"type": "eq", "fun": lambda d: d @ shares - rate}]
    best = minimize(lambda d: d @ np.log(d), np.full(periods, 1 / periods), bounds=[(1e-9, 1)] * periods, constraints=limits, tol=1e-12)
    assert np.abs(best.x - found).max() < 1e-4
    by_search = searched(rate, periods)
    assert np.abs(by_search - found).max() < 0.03
    around = np.random.default_rng(0).dirichlet(50 * by_search, size=200)
    assert search_objective(by_search, rate) <= min(search_objective(np.maximum(d, 1e-12), rate) for d in around)


@pytest.mark.parametrize("pattern", ["rows", "tiles"])
@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_every_unit_and_every_tile_is_there_with_the_probability_of_dropout(pattern, rate):
    """13 units: no period above 1 divides them. Of a weight of tiles of one entry, every entry is counted."""
    method, draws = method_of(pattern=pattern, rate=rate, tile=1), 20_000
    kept = torch.zeros(13) if pattern == "rows" else torch.zeros(5, 13)
    scale = torch.zeros_like(kept)
    places = torch.arange(13) if pattern == "rows" else torch.arange(5)[:, None] + torch.arange(13)
    for _ in range(draws):
        drawn = method.draw(13)
        mask = ((places - drawn.bias) % drawn.period == 0).float()
        kept, scale = kept + mask, scale + mask * drawn.scale
    deviation = (rate * (1 - rate) / draws) ** 0.5
    assert float((kept / draws - (1 - rate)).abs().max()) < 4.5 * deviation
    assert float((scale / draws - 1).abs().max()) < 0.1


def gradients(net, inputs, labels):
    net.zero_grad(set_to_none=True)
    logits = net(inputs)
    functional.cross_entropy(logits, labels).backward()
    return logits.detach(), {name: parameter.grad for name, parameter in net.named_parameters()}


def mask_of(pattern, width):
    mask = torch.zeros(width, dtype=torch.float64)
    mask[torch.arange(width) % pattern.period == pattern.bias] = pattern.scale
    return mask


def assert_same(first, second):
    assert torch.allclose(first[0], second[0], rtol=1e-9, atol=1e-12)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        assert torch.allclose(gradient, second[1][name], rtol=1e-8, atol=1e-12), name


PATTERNS = [RowPattern(3, 1, 1.7), RowPattern(2, 0, 2.0), RowPattern(1, 0, 0.5), RowPattern(4, 3, 3.0)]


@pytest.mark.parametrize("ranks", [None, [0, 4, 3, 0]])
@pytest.mark.parametrize("activation,batch_norm", [("relu", False), ("sigmoid", True)])
def test_row_patterns_are_masks_of_feed_forward_nets(activation, batch_norm, ranks):
    torch.manual_seed(0)
    net = FeedForward(4, (1, 1), [17, 13, 10], 5, activation, batch_norm, ranks=ranks).double()
    inputs, labels = torch.randn(9, 12, dtype=torch.float64), torch.randint(5, (9,))
    for shift in range(4):
        patterns = [PATTERNS[(shift + layer) % 4] for layer in range(3)]
        for group, pattern in zip(net.unit_groups(), patterns):
            group.gate.multiplier = mask_of(pattern, group.gate.width)
        masked = gradients(net, inputs, labels)
        for group, pattern in zip(net.unit_groups(), patterns):
            group.gate.multiplier, group.gate.pattern = None, pattern
        found = gradients(net, inputs, labels)
        assert_same(found, masked)
        absent = torch.arange(13) % patterns[1].period != patterns[1].bias
        above = "hidden.2.0.weight" if ranks else "hidden.2.weight"
        assert bool((found[1][above][:, absent] == 0).all())
        for group in net.unit_groups():
            group.gate.pattern = None


def drawn_blocks(width, parts, seed, **options):
    method = build_method(NAME, {"method": NAME, "pattern": "blocks", "parts": parts, **options}, Schedule(4, 5, 0))
    method.begin_epoch(None, 0, np.random.Generator(np.random.SFC64(seed)))
    return method.draw(width)


@pytest.mark.parametrize("ranks", [None, [0, 4, 3, 0]])
@pytest.mark.parametrize("activation,batch_norm", [("relu", False), ("sigmoid", True)])
@pytest.mark.parametrize("frames", [13, 12, 5])
def test_block_patterns_are_masks_of_the_parts_of_a_batch(activation, batch_norm, ranks, frames):
    """Parts of at least 3 frames: 4, 4 and 1 of them. The oracle gives each part to the net by itself, masked."""
    torch.manual_seed(0)
    widths = [64, 32, 96]
    net = FeedForward(4, (1, 1), widths, 5, activation, batch_norm, ranks=ranks).double()
    inputs, labels = torch.randn(frames, 12, dtype=torch.float64), torch.randint(5, (frames,))
    patterns = [drawn_blocks(width, 4, layer, part_frames=3, block=2) for layer, width in enumerate(widths)]
    assert [pattern.size for pattern in patterns] == [2, 1, 2]
    parts = torch.arange(frames).tensor_split({13: 4, 12: 4, 5: 1}[frames])
    logits, total = [], {}
    for part, rows in enumerate(parts):
        for group, pattern in zip(net.unit_groups(), patterns):
            mask = torch.zeros(group.gate.width, dtype=torch.float64)
            mask.view(-1, pattern.size)[pattern.blocks[part]] = pattern.scale
            group.gate.multiplier = mask
        found, gradient = gradients(net, inputs[rows], labels[rows])
        logits.append(found)
        for name, value in gradient.items():
            total[name] = total.get(name, 0) + value * len(rows) / frames
    for group, pattern in zip(net.unit_groups(), patterns):
        group.gate.multiplier, group.gate.pattern = None, pattern
    assert_same(gradients(net, inputs, labels), (torch.cat(logits), total))


def test_with_blocks_running_statistics_of_present_units_see_the_parts_in_order():
    torch.manual_seed(0)
    net = FeedForward(4, (0, 0), [6], 3, batch_norm=True)
    blocks = torch.tensor([[0, 2], [1, 2]])
    net.gates[0].pattern = BlockPattern(blocks, 2, 1.5)
    inputs = torch.randn(50, 4)
    net(inputs)
    units = functional.relu(net.hidden[0](inputs)).detach()
    mean, variance = torch.zeros(6), torch.ones(6)
    for own, there in zip((units[:25], units[25:]), ([0, 1, 4, 5], [2, 3, 4, 5])):
        mean[there] = 0.9 * mean[there] + 0.1 * own[:, there].mean(dim=0)
        variance[there] = 0.9 * variance[there] + 0.1 * own[:, there].var(dim=0)
    assert torch.allclose(net.norms[0].running_mean, mean, atol=1e-6) and torch.allclose(net.norms[0].running_var, variance, atol=1e-6)
    assert int(net.norms[0].num_batches_tracked) == 1


@pytest.mark.parametrize("rate,width,block,size", [(0.3, 64, 8, 2), (0.5, 50, 4, 1), (0.7, 512, 16, 16), (0.3, 96, 32, 3)])
def test_with_blocks_every_unit_is_there_with_the_probability_of_dropout_and_layers_keep_their_sum(rate, width, block, size):
    method, draws, parts = method_of(pattern="blocks", rate=rate, block=block, parts=3), 4000, 3
    kept, shares = torch.zeros(parts, width), []
    for _ in range(draws):
        pattern = method.draw(width)
        mask = torch.zeros(parts, width // pattern.size, pattern.size)
        mask[torch.arange(parts)[:, None], pattern.blocks] = 1
        kept += mask.flatten(1)
        shares.append(float(mask.mean()))
        assert pattern.size == size and mask.flatten(1).sum(dim=1).mul(pattern.scale).tolist() == pytest.approx([width] * parts)
    deviation = (rate * (1 - rate) / draws) ** 0.5
    assert float((kept / draws - (1 - rate)).abs().max()) < 4.5 * deviation
    assert float(np.mean(shares)) == pytest.approx(1 - rate, abs=0.001) and np.ptp(shares) <= size / width + 1e-6


def test_parts_of_a_batch_have_blocks_of_their_own():
    pattern = drawn_blocks(512, 4, 0)
    assert len({tuple(blocks) for blocks in pattern.blocks.tolist()}) == 4
    assert [len(part) for part in pattern.split(torch.zeros(512, 3))] == [128] * 4
    assert [len(part) for part in pattern.split(torch.zeros(300, 3))] == [150, 150]
    assert [len(part) for part in pattern.split(torch.zeros(7, 3))] == [7]


def test_running_statistics_of_absent_units_stay():
    torch.manual_seed(0)
    net = FeedForward(4, (0, 0), [6], 3, batch_norm=True)
    net.gates[0].pattern = RowPattern(2, 1, 2.0)
    net(torch.randn(50, 4) + 1)
    moved = (net.norms[0].running_mean != 0) & (net.norms[0].running_var != 1)
    assert moved.tolist() == [False, True] * 3 and int(net.norms[0].num_batches_tracked) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_row_patterns_are_masks_of_recurrent_nets(variant):
    """The same factor as a gate applies to all sequences; cells that are absent leave no trace."""
    net, chunks = make_net(variant), make_chunks([14, 9, 6], stride=3)
    labels = torch.randint(5, (len(chunks.rows),), generator=torch.Generator().manual_seed(0))
    for shift in range(3):
        patterns = [PATTERNS[(shift + index) % 4] for index in range(len(net.widths))]
        set_gates(net, [mask_of(pattern, width) for pattern, width in zip(patterns, net.widths)])
        masked = gradients(net, chunks, labels)
        for group, pattern in zip(net.unit_groups(), patterns):
            group.gate.multiplier, group.gate.pattern = None, pattern
        assert_same(gradients(net, chunks, labels), masked)
        for group in net.unit_groups():
            group.gate.pattern = None


@pytest.mark.parametrize("least,parts", [(1, [[0, 1], [2]]), (1000, [[0, 1, 2]])])
@pytest.mark.parametrize("variant", VARIANTS)
def test_block_patterns_are_masks_of_the_parts_of_the_pieces_of_recurrent_nets(variant, least, parts):
    """The oracle gives each part to the net by itself, masked."""
    net, chunks = make_net(variant), make_chunks([14, 9, 6], stride=3)
    labels = torch.randint(5, (len(chunks.rows),), generator=torch.Generator().manual_seed(0))
    patterns = []
    for number, width in enumerate(net.widths):
        size = 2 if width % 2 == 0 else 1
        draw = [torch.randperm(width // size, generator=torch.Generator().manual_seed(10 * number + part)) for part in range(2)]
        patterns.append(BlockPattern(torch.stack([order[: width // size // 2 + 1].sort()[0] for order in draw]), size, 1.3, least))
    logits, total = torch.zeros(len(labels), 5, dtype=torch.float64), {}
    for part, pieces in enumerate(parts):
        masks = [torch.zeros(width, dtype=torch.float64) for width in net.widths]
        for mask, pattern in zip(masks, patterns):
            mask.view(-1, pattern.size)[pattern.blocks[part]] = pattern.scale
        set_gates(net, masks)
        own, rows = chunks.select(slice(pieces[0], pieces[-1] + 1))
        logits[rows], gradient = gradients(net, own, labels[rows])
        for name, value in gradient.items():
            total[name] = total.get(name, 0) + value * len(rows) / len(labels)
    for group, pattern in zip(net.unit_groups(), patterns):
        group.gate.multiplier, group.gate.pattern = None, pattern
    assert_same(gradients(net, chunks, labels), (logits, total))
    assert all(group.gate.pattern is pattern for group, pattern in zip(net.unit_groups(), patterns))


@pytest.mark.parametrize("shape", [(8, 12), (7, 11), (3, 2)])
@pytest.mark.parametrize("period,bias", [(2, 0), (3, 1), (5, 4)])
def test_tile_patterns_are_masks_of_weights(shape, period, bias):
    generator = torch.Generator().manual_seed(0)
    weight, inputs = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in (shape, (6, shape[1])))
    offsets = torch.randn(shape[0], generator=generator, dtype=torch.float64)
    tiles = torch.arange(shape[0])[:, None] // 2 + torch.arange(shape[1]) // 2
    mask = (tiles % period == bias).double()
    found = []
    for call in (lambda w, x: TilePattern(period, bias, 1.0, tile=2).product(x, w, offsets), lambda w, x: x @ (w * mask).t() + offsets):
        leaves = weight.clone().requires_grad_(), inputs.clone().requires_grad_()
        result = call(*leaves)
        result.square().sum().backward()
        found.append([result, *(leaf.grad for leaf in leaves)])
    assert all(torch.allclose(first, second) for first, second in zip(*found))


@pytest.mark.parametrize(
    "patterns,wanted",
    [
        ([RowPattern(4, 1, 4.0)] * 2, [4 * 12, 2 * 4, 5 * 2]),
        ([TilePattern(2, 1, 2.0, tile=4)] * 2, [16 * 12, *[8 * 4] * 2, *[4 * 4] * 2]),
        ([BlockPattern(torch.tensor([[0, 3], [1, 2]]), 2, 2.0)] * 2, [*[4 * 12] * 2, *[4 * 4] * 2, *[5 * 4] * 2]),
    ],
)
def test_products_shrink_by_what_is_absent(patterns, wanted, monkeypatch):
    """Multiply-adds per row of every product; the output layer has five rows, padded to two tiles."""
    net = FeedForward(4, (1, 1), [16, 8], 5)
    for gate, pattern in zip(net.gates, patterns):
        gate.pattern = pattern
    seen, plain = [], functional.linear
    monkeypatch.setattr(functional, "linear", lambda x, w, b=None: seen.append(w.numel()) or plain(x, w, b))
    net(torch.randn(3, 12))
    assert seen == wanted


BLOCKS = BlockPattern(torch.arange(4)[:, None] + torch.tensor([[0, 8, 12]]), 4, 4 / 3)


@pytest.mark.parametrize("kind,pattern", [("feedforward", RowPattern(2, 1, 2.0)), ("feedforward", BLOCKS), ("lstm", RowPattern(2, 1, 2.0))])
def test_bfloat16_products_are_near_those_of_float32(kind, pattern):
    net = FeedForward(4, (1, 1), [64, 64], 5) if kind == "feedforward" else make_net("lstmp", dtype=torch.float32)
    inputs = torch.randn(20, 12) if kind == "feedforward" else make_chunks([14, 9], dtype=torch.float32)
    for group in net.unit_groups():
        group.gate.pattern = pattern
    labels = torch.zeros(len(inputs), dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = net(inputs)
    functional.cross_entropy(rounded.float(), labels).backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in net.parameters())
    rounded_gradient = torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
    logits, exact = gradients(net, inputs, labels)
    exact = torch.cat([gradient.flatten() for gradient in exact.values()])
    assert rounded.dtype == torch.bfloat16 and torch.allclose(rounded.float(), logits, atol=0.1 * float(logits.abs().max()))
    assert float(functional.cosine_similarity(rounded_gradient, exact, dim=0)) > 0.99


def test_patterns_change_with_every_step_and_end_with_training():
    net, method = FeedForward(4, (1, 1), [64, 64], 5), method_of()
    method.training_mode(net, 0)
    drawn = []
    for step in range(20):
        method.before_step(net, 0, step)
        drawn.append([gate.pattern for gate in net.gates])
    assert len({(pattern.period, pattern.bias) for pair in drawn for pattern in pair}) > 5
    assert any(first != second for first, second in drawn) and method.report.keep == 0.5
    method.inference_mode(net)
    assert all(gate.pattern is None and gate.multiplier is None for gate in net.gates)


def test_refusals():
    with pytest.raises(ConfigError, match="periods up to 4 reach rates below 0.75, found 0.8"):
        method_options("a", {"method": NAME, "rate": 0.8, "periods": 4})
    with pytest.raises(ConfigError, match="ToyRecurrent do not compute parts"):
        method_of().training_mode(ToyRecurrent(4, 8, 5), 0)
    with pytest.raises(ConfigError, match="knows no tiles"):
        check_method("a", {"method": NAME, "pattern": "tiles"}, make_net("lstm"))
    check_method("a", {"method": NAME, "pattern": "blocks", "rate": 0.9}, make_net("lstm"))
    settings = [f"experiment.large=[dense,{NAME}]", f"methods.{NAME}.pattern=tiles"]
    check_rows(load_config(CONF, settings=settings))
    with pytest.raises(ConfigError, match="knows no tiles"):
        check_rows(load_config(CONF, model="lstm", settings=settings))


def test_plain_dropout_keeps_the_mean_throughout_the_training():
    method = build_method("dropout", {"method": "dropout", "rate": 0.3}, Schedule(10, 1, 0))
    net = FeedForward(4, (1, 1), [50, 50], 5)
    for epoch in (0, 9):
        method.begin_epoch(net, epoch, np.random.Generator(np.random.SFC64(epoch)))
        method.training_mode(net, epoch)
        factor = net.gates[0].multiplier(torch.ones(20_000, 50))
        assert factor.unique().tolist() == pytest.approx([0.0, 1 / 0.7]) and float(factor.mean()) == pytest.approx(1.0, abs=0.01)
    method.inference_mode(net)
    assert net.gates[0].multiplier is None
