"""Budgets: how they are read, and the widths that they lead to, counted on torch's own modules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from net_case import Recurrent, randomised, sequential
from torch import nn

from dropasr.adapt.adapter import Adapter
from dropasr.adapt.budgets import Budget, num_bytes, num_parameters, parse_budget, shapes_at, widths_of
from dropasr.compaction.surgery import remove_units
from dropasr.errors import CompactionError, ConfigError

GOOD = {
    "macs=1/8": Budget("macs", 0.125, True),
    "macs = 0.25": Budget("macs", 0.25, True),
    "macs=2M": Budget("macs", 2e6, False),
    "params=200k": Budget("params", 2e5, False),
    "bytes=200k": Budget("bytes", 2e5, False),
    "bytes=1.5MiB": Budget("bytes", 1.5 * 2**20, False),
    "bytes=200kB": Budget("bytes", 2e5, False),
    "latency=1/4": Budget("latency", 0.25, True),
    "latency=0.5ms": Budget("latency", 5e-4, False),
    "latency=20us/frame": Budget("latency", 2e-5, False, True),
    "latency=1s/call": Budget("latency", 1.0, False),
    "dev-loss=+0.05": Budget("dev-loss", 0.05, False),
    "error=+0.5%": Budget("error", 0.5, False),
    "wer-loss=0.5": Budget("wer-loss", 0.5, False),
    "error=0.5 %": Budget("error", 0.5, False),
}
WRONG = {
    "mac=1/8": ["macs", "'mac=1/8'"],
    "macs": ["'macs'", "macs=1/8"],
    "macs=1/0": ["between 0 and 1"],
    "macs=9/8": ["between 0 and 1", "'9/8'"],
    "macs=3ms": ["budget macs", "'3ms'"],
    "bytes=lots": ["budget bytes", "'lots'"],
    "bytes=0": ["more than 0"],
    "latency=5 hours": ["budget latency", "0.5ms"],
    "latency=5": ["budget latency", "0.5ms"],
    "params=3/frame": ["budget params"],
    "dev-loss=5%": ["budget dev-loss", "'5%'"],
    "error=-1": ["budget error", "'-1'"],
}


@pytest.mark.parametrize("text", GOOD)
def test_budgets_are_read(text: str):
    found, wanted = parse_budget(text), GOOD[text]
    assert (found.kind, found.relative, found.per_frame) == (wanted.kind, wanted.relative, wanted.per_frame)
    assert math.isclose(found.value, wanted.value)


@pytest.mark.parametrize("text", WRONG)
def test_wrong_budgets_are_told(text: str):
    with pytest.raises(ConfigError) as caught:
        parse_budget(text)
    assert all(word in str(caught.value) for word in WRONG[text]), str(caught.value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_shapes_are_those_that_surgery_leaves(seed: int, recurrent: bool, bidirectional: bool):
    rng = np.random.default_rng(seed)
    net = Adapter.of(randomised(Recurrent(2, bidirectional, True) if recurrent else sequential(rng))).net()
    widths = [int(rng.integers(1, width + 1)) for width in net.widths]
    foretold, size, count = shapes_at(net, widths), num_bytes(net, widths), num_parameters(net, widths)
    remove_units(net, {group.name: torch.arange(width) for group, width in zip(net.unit_groups(), widths)})
    assert foretold == {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
    assert size == sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    assert count == net.num_parameters()


def mlp(*sizes: int) -> nn.Sequential:
    parts = [part for below, width in zip(sizes, sizes[1:]) for part in (nn.Linear(below, width), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def bytes_of(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 200), st.integers(40, 200), st.floats(0.05, 0.9))
def test_bytes_are_met_by_the_widest_net_that_fits(first: int, second: int, share: float):
    net, limit = Adapter.of(mlp(30, first, second, 10)).net(), share * bytes_of(mlp(30, first, second, 10))
    try:
        widths = widths_of(Budget("bytes", limit, False), net)
    except CompactionError:
        assert bytes_of(mlp(30, 8, 8, 10)) > limit
        return
    assert bytes_of(mlp(30, *widths, 10)) <= limit
    # A unit more in each layer would not fit.
    assert bytes_of(mlp(30, min(widths[0] + 1, first), min(widths[1] + 1, second), 10)) > limit


def test_params_and_macs():
    net = Adapter.of(mlp(30, 128, 128, 10)).net()
    widths = widths_of(parse_budget("params=5k"), net)
    assert sum(parameter.numel() for parameter in mlp(30, *widths, 10).parameters()) <= 5000
    for text, target in (("macs=1/8", (30 * 128 + 128 * 128 + 1280) / 8), ("macs=4k", 4000)):
        widths = widths_of(parse_budget(text), net)
        assert abs(30 * widths[0] + widths[0] * widths[1] + widths[1] * 10 - target) <= 0.02 * target
    for text in ("macs=10M", "bytes=1M"):
        with pytest.raises(CompactionError, match="nothing to remove"):
            widths_of(parse_budget(text), net)
    with pytest.raises(CompactionError, match="narrowest net has .8/8 units"):
        widths_of(parse_budget("bytes=1k"), net)
    with pytest.raises(CompactionError, match="narrowest"):
        widths_of(parse_budget("macs=1/1000"), net)


@pytest.mark.parametrize("multiple", [1, 4, 16])
def test_widths_are_multiples(multiple: int):
    net = Adapter.of(mlp(30, 128, 100, 10)).net()
    for text in ("macs=1/4", "bytes=25k"):
        widths = widths_of(parse_budget(text), net, multiple=multiple)
        assert all(width % multiple == 0 for width in widths)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["macs=1/3", "macs=1/8", "bytes=60k", "params=1/5"]), st.booleans(), st.integers(20, 60), st.integers(20, 60))
def test_layers_of_one_lstm_stay_equal(text: str, bidirectional: bool, lower: int, upper: int):
    adapter = Adapter.of(Recurrent(2, bidirectional, True, (lower, upper)))
    try:
        widths = widths_of(parse_budget(text), adapter.net(), min_units=4, together=adapter.together)
    except CompactionError:
        return
    for number in (0, 1):
        assert len({width for width, own in zip(widths, adapter.together) if own == number}) == 1


@pytest.mark.parametrize("text", ["latency=1/4", "latency=3ms"])
def test_latency_is_found_by_bisection(text: str):
    """A machine whose calls take 1 ms and 10 ns per multiply-add; times of a machine are replaced, nothing else."""
    net = Adapter.of(mlp(100, 1000, 1000, 10)).net()
    asked = []

    def seconds(widths: list[int]) -> float:
        asked.append(widths)
        return 1e-3 + 1e-8 * net.macs_per_frame(widths)

    large, budget = seconds(net.widths), parse_budget(text)
    widths = widths_of(budget, net, seconds=seconds)
    limit = budget.value * large if budget.relative else budget.value
    assert 0.95 * limit <= seconds(widths) <= limit
    assert len(asked) < 15
    with pytest.raises(CompactionError, match="narrowest net"):
        widths_of(parse_budget("latency=0.9ms"), net, seconds=seconds)
