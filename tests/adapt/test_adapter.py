"""Users' nets as models of dropasr and back: the same outputs before and after compaction, against torch's own modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from net_case import INPUTS, OUTPUTS, Recurrent, masked_recurrent, masked_sequential, masks_for, randomised, sequential
from torch import nn

from dropasr.adapt.adapter import Adapter, difference
from dropasr.adapt.layers import layers_of
from dropasr.compaction.proof import compact
from dropasr.errors import ConfigError
from dropasr.models import model_from_dims

EXACT = 1e-10


def rows(count: int = 20, *shape: int) -> torch.Tensor:
    return torch.randn(count, *shape, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def largest(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).detach().abs().max())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_any_sequential_goes_there_and_back_exactly(seed: int):
    rng = np.random.default_rng(seed)
    module, batch = randomised(sequential(rng), seed), rows()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    adapter = Adapter.of(module)
    net = adapter.net()
    assert largest(net(batch), module(batch)) <= EXACT
    exported = adapter.export(net)
    assert list(exported) == list(before) and all(torch.equal(exported[name], before[name]) for name in before)
    masks = masks_for(net.widths, rng)
    expected = masked_sequential(module, masks, batch)
    compact(net, masks, batch, fold=True)
    made = adapter.rebuild(net)
    assert net.widths == [int(mask.sum()) for mask in masks]
    assert largest(made(batch), expected) <= EXACT
    assert all(torch.equal(module.state_dict()[name], before[name]) for name in before), "the user's module was changed"
    linear = [part for part in made.modules() if isinstance(part, nn.Linear)]
    assert [part.out_features for part in linear] == [*net.widths, OUTPUTS]
    assert all((part.out_features, part.in_features) == part.weight.shape for part in linear)
    # What is written as a checkpoint comes back the same.
    again = model_from_dims(net.dims).double().eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(batch), net(batch))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 10**6))
def test_any_lstm_goes_there_and_back_exactly(layers: int, bidirectional: bool, batch_first: bool, equal: bool, seed: int):
    rng = np.random.default_rng(seed)
    module = randomised(Recurrent(layers, bidirectional, batch_first), seed)
    adapter = Adapter.of(module)
    net, batch = adapter.net(), rows(3, 11)

    def outputs(module: nn.Module) -> torch.Tensor:
        return module(batch) if batch_first else module(batch.transpose(0, 1)).transpose(0, 1)

    assert largest(net(adapter.inputs(batch)), outputs(module).flatten(0, 1)) <= EXACT
    masks = masks_for(net.widths, rng)
    if equal:
        counts = [int(mask.sum()) for mask in masks]
        least = {own: min(count for count, group in zip(counts, adapter.together) if group == own) for own in adapter.together}
        for mask, own in zip(masks, adapter.together):
            mask[torch.nonzero(mask).flatten()[least[own] :]] = 0
    expected = outputs(masked_recurrent(module, masks))
    compact(net, masks, adapter.inputs(batch), fold=True)
    made = adapter.rebuild(net)
    assert largest(outputs(made), expected) <= EXACT
    widest = [max(width for width, own in zip(net.widths, adapter.together) if own == number) for number in (0, 1)]
    assert [made.lower.hidden_size, made.upper.hidden_size] == widest
    assert adapter.sizes(net)["upper"] == {
        "input_size": (1 + bidirectional) * widest[0],
        "hidden_size": widest[1],
        "num_layers": 1,
        "bidirectional": bidirectional,
    }
    if equal:
        assert made.out.in_features == net.output.in_features, "units of equal layers were padded"
    fresh = Recurrent(layers, bidirectional, batch_first, tuple(widest)).double()
    fresh.load_state_dict(adapter.export(net))
    assert largest(outputs(fresh.eval()), expected) <= EXACT
    # A second compaction starts from the first.
    assert difference(made, Adapter.of(made), Adapter.of(made).net(), batch)[0] <= EXACT


def test_sequences_of_unequal_length_are_those_of_packed_ones():
    module = randomised(Recurrent(2, True, True))
    adapter, batch, lengths = Adapter.of(module), rows(3, 9), torch.tensor([9, 4, 6])
    found = adapter.net()(adapter.inputs(batch, lengths)).view(3, 9, -1)
    for index, length in enumerate(lengths.tolist()):
        assert largest(found[index, :length], module(batch[index : index + 1, :length])[0]) <= EXACT


class Functional(nn.Module):
    """Activations where named_modules does not see them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("unused", torch.zeros(3))
        self.second = nn.Linear(9, OUTPUTS)
        self.first = nn.Linear(INPUTS, 9)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(batch)))


def test_a_list_of_layers_says_what_forward_does():
    module, batch = randomised(Functional()), rows()
    adapter = Adapter.of(module, [{"linear": "first"}, "relu", {"linear": "second"}])
    net = adapter.net()
    assert largest(net(batch), module(batch)) <= EXACT
    compact(net, masks_for(net.widths, np.random.default_rng(0)), batch, fold=True)
    assert largest(adapter.rebuild(net)(batch), net(batch)) <= EXACT
    assert torch.equal(adapter.export(net)["unused"], module.unused)


def test_a_factory_makes_the_module():
    module = randomised(Functional())
    asked = []

    def make(sizes):
        asked.append(sizes)
        made = Functional()
        made.first, made.second = (nn.Linear(**sizes[name]) for name in ("first", "second"))
        return made.double()

    layers = [{"linear": "first"}, "relu", {"linear": "second"}]
    adapter = Adapter.of(module, layers, make)
    net = adapter.net()
    compact(net, masks_for(net.widths, np.random.default_rng(0)), rows(), fold=True)
    assert largest(adapter.rebuild(net)(rows()), net(rows())) <= EXACT
    assert asked == [
        {"first": {"in_features": INPUTS, "out_features": net.widths[0]}, "second": {"in_features": net.widths[0], "out_features": OUTPUTS}}
    ]
    with pytest.raises(ConfigError, match="factory: its module does not take"):
        Adapter.of(module, layers, lambda sizes: Functional()).rebuild(net)


def test_layers_read_from_a_module():
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(7, 4), nn.BatchNorm1d(4, eps=1e-3, momentum=0.2), nn.Tanh(), nn.Linear(4, 2), nn.Softmax(-1)
    )
    kinds = [(layer.kind, layer.name) for layer in layers_of(module)]
    assert kinds == [("flatten", ""), ("linear", "1"), ("batch_norm", "2"), ("tanh", ""), ("linear", "4"), ("softmax", "")]
    assert (layers_of(module)[2].eps, layers_of(module)[2].momentum) == (1e-3, 0.2)


STATE = {"a.weight": torch.ones(4, 7), "a.bias": torch.zeros(4), "b.weight": torch.ones(2, 4), "b.bias": torch.zeros(2)}
GOOD = [{"linear": "a"}, "relu", {"linear": "b"}]
SHARED = nn.Linear(7, 7)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.ones(1)), nn.Linear(7, 4)


WRONG = {
    "no list": (STATE, None, ["expected a list of layers", "None"]),
    "kind": (STATE, [{"linear": "a"}, "relo", {"linear": "b"}], ["layers[1]", "'relo'", "did you mean 'relu'"]),
    "no prefix": (STATE, ["linear", "relu", {"linear": "b"}], ["layers[0]", "prefix"]),
    "prefix of none": (STATE, [{"linear": "a"}, {"relu": "x"}, {"linear": "b"}], ["layers[1] (relu)", "alone"]),
    "key": (STATE, [{"linear": "a", "epsilon": 1}, {"linear": "b"}], ["layers[0]", "'epsilon'"]),
    "missing tensor": (STATE, [{"linear": "a"}, "relu", {"linear": "c"}], ["'c.weight'", "a.weight"]),
    "missing norm": (STATE, [{"linear": "a"}, {"batch_norm": "n"}, {"linear": "b"}], ["batch_norm 'n'", "'n.weight'"]),
    "left over": (STATE | {"x": torch.ones(1)}, GOOD, ["'x'", "all 5"]),
    "order": (STATE, [{"linear": "b"}, "relu", {"linear": "a"}], ["'b' makes 2", "'a'", "reads 7", "order"]),
    "one linear": ({"a.weight": torch.ones(4, 7), "a.bias": torch.zeros(4)}, [{"linear": "a"}], ["two linear", "found one"]),
    "no linear": (STATE, ["relu"], ["linear layer for the outputs"]),
    "end": (STATE, [*GOOD, "relu", "relu"], ["behind the last linear", "relu, relu"]),
    "half": ({name: tensor.half() for name, tensor in STATE.items()}, GOOD, ["float32 or float64", "torch.float16"]),
    "no tensors": ({"a": 1}, GOOD, ["nn.Module", "state dict"]),
    "convolution": (nn.Sequential(nn.Conv1d(2, 3, 1), nn.Linear(3, 2)), None, ["Conv1d", "layers="]),
    "own parameters": (Own(), None, ["'scale'", "Own"]),
    "affine": (nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2)), None, ["affine=True"]),
    "shared": (nn.Sequential(SHARED, nn.ReLU(), SHARED, nn.Linear(7, 2)), None, ["share"]),
    "two norms": (
        nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
        None,
        ["at most one batch norm", "'2'"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_adapted_is_said(case: str):
    net, layers, words = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        Adapter.of(net, layers)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(("options", "word"), [({"proj_size": 3}, "proj_size=0"), ({"bias": False}, "bias=True")])
def test_lstm_options_that_are_not_known(options: dict, word: str):
    module = nn.Module()
    module.lstm, module.out = nn.LSTM(7, 5, **options), nn.Linear(options.get("proj_size", 5), 2)
    with pytest.raises(ConfigError, match=word):
        Adapter.of(module)
    with pytest.raises(ConfigError, match="with a projection|without biases|weight"):
        Adapter.of(module.state_dict(), [{"lstm": "lstm"}, {"linear": "out"}])
