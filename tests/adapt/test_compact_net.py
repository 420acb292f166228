"""A user's net compacted from end to end, by the function."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from compact_case import CENTRES, FEW, QUICK, batches, error_of, one_thread, rows, shrink, trained  # noqa: F401
from torch import nn

from dropasr.adapt import search
from dropasr.adapt.adapter import Adapter
from dropasr.compaction.unit_statistics import deviation, observe
from dropasr.errors import CompactionError, ConfigError, DataError
from dropasr.methods import build_method
from dropasr.methods.base import Schedule
from dropasr.methods.base_gates import LearnedGates


def test_a_net_of_a_quarter_of_the_multiply_adds_is_as_good():
    net = trained().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    said = []
    result = shrink(net, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows()), batch_size=50, shuffle=True), say=said.append)
    macs = sum(part.weight.numel() for part in result.module if isinstance(part, nn.Linear))
    assert abs(macs / (12 * 64 + 64 * 64 + 64 * 6) - 0.25) < 0.02
    assert result.figures["after"]["macs"] == macs
    assert result.figures["after"]["bytes"] == sum(tensor.numel() * tensor.element_size() for tensor in result.state_dict.values())
    assert error_of(result.module) < error_of(net.eval()) + 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    made = nn.Sequential(*trained())  # the user's own class with the sizes that came back
    for name, size in result.sizes.items():
        made[int(name)] = type(made[int(name)])(**size)
    made.load_state_dict(result.state_dict)
    assert torch.equal(made.eval()(rows()[0]), result.module(rows()[0]))
    text = "\n".join(said)
    assert "s left" in text and "compacted: " in text and "error" in text


def test_the_module_keeps_its_mode():
    net = trained().train()
    net[3].eval()
    shrink(net, batches())
    assert [part.training for part in net] == [True, True, True, False, True, True, True]


def test_a_criterion_of_the_users_own():
    """Regression: targets are no labels, so there is a loss and no error."""
    inputs, _ = rows()
    targets = torch.stack([inputs[:, :3].sum(dim=1), inputs[:, 3:6].prod(dim=1)], dim=1)
    asked = []

    def criterion(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        asked.append((outputs.shape, wanted.shape))
        return (outputs - wanted).square().mean()

    net = trained(outputs=2)
    result = shrink(net, (inputs, targets), criterion, epochs=8)
    before, after = result.figures["before"], result.figures["after"]
    assert math.isnan(before["error"]) and after["loss"] < 0.6 * before["loss"]
    assert all(outputs == wanted for outputs, wanted in asked)
    with pytest.raises(ConfigError, match="dev-loss"):
        shrink(net, (inputs, targets), criterion, "error=+0.5%")
    with pytest.raises(CompactionError, match="criterion: expected"):
        shrink(net, (inputs, targets), lambda outputs, wanted: float(outputs.sum()))
    with pytest.raises(CompactionError, match="estimator score"):
        shrink(net, (inputs, targets), criterion, options={**FEW, "estimator": "score"})


@pytest.mark.parametrize("criterion", ["cross_entropy", nn.functional.cross_entropy])
def test_figures_are_those_of_all_of_dev(monkeypatch: pytest.MonkeyPatch, criterion):
    for module in ("dropasr.training.criteria", "dropasr.adapt.criterion"):
        monkeypatch.setattr(f"{module}.FRAMES", 50)
    net, dev = trained().eval(), rows(600, seed=3)
    with torch.no_grad():
        whole = float(nn.functional.cross_entropy(net(dev[0]), dev[1]))
    found = shrink(net, batches(), criterion, dev=[dev], epochs=1).figures["before"]["loss"]
    assert found == pytest.approx(whole, rel=1e-5)


def test_cross_entropy_by_name_and_as_a_function_are_one():
    by_name, by_function = (shrink(trained(), batches(), criterion) for criterion in ("cross_entropy", nn.functional.cross_entropy))
    assert all(torch.equal(by_name.state_dict[name], by_function.state_dict[name]) for name in by_name.state_dict)
    assert by_name.figures["after"]["loss"] == pytest.approx(by_function.figures["after"]["loss"], rel=1e-6)
    assert by_name.figures["after"]["error"] == by_function.figures["after"]["error"]


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_whole_number_type_are_the_same(kind: torch.dtype):
    inputs, labels = rows()
    wanted, found = (shrink(trained(), (inputs, each), epochs=2).figures for each in (labels, labels.to(kind)))
    assert (found["before"]["loss"], found["after"]["error"]) == (wanted["before"]["loss"], wanted["after"]["error"])


class Tagger(nn.Module):
    def __init__(self, cells: int = 24) -> None:
        super().__init__()
        self.rnn = nn.LSTM(12, cells, 2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * cells, 6)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(frames)[0])


def sequences() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    inputs, labels = rows(1800)
    frames, wanted, lengths = inputs.view(60, 30, 12).clone(), labels.view(60, 30).clone(), torch.full((60,), 30)
    for index in range(0, 60, 3):
        lengths[index] = 21
        frames[index, 21:], wanted[index, 21:] = 99.0, -100
    return list(zip(frames.split(6), wanted.split(6), lengths.split(6)))


def test_an_lstm_with_padded_sequences():
    torch.manual_seed(0)
    net = Tagger()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    for frames, wanted, _ in sequences() * 8:
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(frames).flatten(0, 1), wanted.flatten()).backward()
        optimiser.step()
    result = shrink(net, sequences(), budget="macs=1/3", epochs=8, train={**QUICK, "learning_rate": 0.5})
    cells = result.module.rnn.hidden_size
    assert result.widths == [cells] * 4 and 10 <= cells < 24
    assert result.figures["after"]["error"] < result.figures["before"]["error"] + 3 < 20
    fresh = Tagger(cells)
    fresh.load_state_dict(result.state_dict)
    frames = sequences()[0][0]
    assert torch.allclose(fresh.eval()(frames), result.module(frames), atol=1e-6)
    state = shrink(net.state_dict(), sequences(), budget="macs=1/3", layers=[{"lstm": "rnn"}, {"linear": "out"}], epochs=8,
                   train={**QUICK, "learning_rate": 0.5})  # fmt: skip
    assert state.module is None and state.sizes == result.sizes
    assert all(torch.equal(state.state_dict[name], result.state_dict[name]) for name in result.state_dict)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path):
    whole = shrink(trained(), batches(), folder=tmp_path / "whole")

    def killed(message: str) -> None:
        if message.startswith("epoch 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shrink(trained(), batches(), folder=tmp_path / "part", say=killed)
    said = []
    again = shrink(trained(), batches(), folder=tmp_path / "part", say=said.append)
    epochs = [message[:7] for message in said if message.startswith("epoch")]
    assert epochs[0] in ("epoch 3", "epoch 4") and len(epochs) <= 3
    assert all(torch.equal(again.state_dict[name], whole.state_dict[name]) for name in whole.state_dict)
    said.clear()
    shrink(trained(), batches(), folder=tmp_path / "part", say=said.append)
    assert any("already done" in message for message in said) and not any(message.startswith("epoch") for message in said)
    said.clear()
    shrink(trained(), batches(seed=5), folder=tmp_path / "part", say=said.append)
    assert any(message.startswith("epoch 1") for message in said), "other data must not find the net of the first"


def test_another_criterion_is_another_run(tmp_path: Path):
    """Functions and modules of one name may weigh rows in other ways."""

    def of_first_class(weight: float) -> nn.Module:
        return nn.CrossEntropyLoss(weight=torch.tensor([weight, *[1.0] * 5]))

    said: list[str] = []
    for weight, done in ((1.0, False), (1.0, True), (9.0, False)):
        said.clear()
        shrink(trained(), batches(), of_first_class(weight), epochs=1, folder=tmp_path, say=said.append)
        assert any("already done" in message for message in said) == done


def test_the_smallest_net_within_an_error(tmp_path: Path):
    said: list[str] = []
    result = shrink(trained(), batches(), budget="error=+1.5%", folder=tmp_path, say=said.append)
    assert [each["share"] for each in result.tried[:2]] == [0.5, 0.25]
    within = [each for each in result.tried if each["within"]]
    assert result.widths == min((each["widths"] for each in within), key=sum)
    assert all(each["within"] == (each["rise"] <= 1.5) for each in result.tried)
    assert result.figures["after"]["error"] - result.figures["before"]["error"] <= 1.5
    calls = len(said)
    again = shrink(trained(), batches(), budget="error=+1.5%", folder=tmp_path, say=said.append)
    assert again.widths == result.widths and not any(message.startswith("epoch") for message in said[calls:])


def test_a_loss_that_no_size_meets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search, "SHARES", (1 / 16,))
    with pytest.raises(CompactionError, match="off the large net"):
        shrink(trained(), batches(), budget="dev-loss=0.000001", epochs=1)


def test_latency_of_the_users_module():
    net = nn.Sequential(nn.Linear(12, 900), nn.ReLU(), nn.Linear(900, 900), nn.ReLU(), nn.Linear(900, 6))
    result = shrink(net, batches(300), budget="latency=1/3", epochs=1, frames_per_call=64)
    measured = result.figures["measured"]
    assert result.figures["latency_share"] < 0.5, measured  # a third, and what other work on the machine makes of it
    assert 0 < result.figures["after"]["latency"] < result.figures["before"]["latency"]
    assert result.figures["after"]["macs"] < 0.6 * result.figures["before"]["macs"]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 6)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.third(batch + self.second(self.first(batch)))


GOOD = batches(200)
WRONG = {
    "residual": (Residual(), GOOD, {}, ConfigError, ["differ by", "residual"]),
    "no budget": (trained(), GOOD, {"budget": "1/8"}, ConfigError, ["'1/8'"]),
    "criterion": (trained(), GOOD, {"criterion": "mse"}, ConfigError, ["'cross_entropy'", "'mse'"]),
    "method": (trained(), GOOD, {"method": "dropout_compactoin"}, ConfigError, ["did you mean 'dropout_compaction'"]),
    "large method": (trained(), GOOD, {"method": "annealed_dropout"}, ConfigError, ["removes units", "annealed_dropout"]),
    "svd": (trained(), GOOD, {"method": "svd"}, ConfigError, ["removes units", "'svd'"]),
    "no controller": (trained(), GOOD, {"options": {"controller": "none"}}, ConfigError, ["controller"]),
    "option": (trained(), GOOD, {"options": {"pices": 1}}, ConfigError, ["'pices'", "did you mean 'pace'"]),
    "train": (trained(), GOOD, {"train": {"rate": 1}}, ConfigError, ["train", "'rate'"]),
    "ctc": (trained(), GOOD, {"train": {"criterion": "ctc"}}, ConfigError, ["train: criterion"]),
    "end": (nn.Sequential(*trained(), nn.Softmax(dim=-1)), GOOD, {}, ConfigError, ["cross_entropy", "softmax"]),
    "a tensor": (trained(), torch.ones(3, 12), {}, DataError, ["data", "Tensor"]),
    "dictionaries": (trained(), [{"x": 1}], {}, DataError, ["batch 0", "dict"]),
    "nothing": (trained(), [], {}, DataError, ["data", "found none"]),
    "used up": (trained(), iter(()), {}, DataError, ["used up"]),
    "features": (trained(), [(torch.ones(5, 11), torch.zeros(5).long())], {}, DataError, ["(..., N, 12)", "(5, 11)"]),
    "targets": (trained(), [(torch.ones(5, 12), torch.zeros(4).long())], {}, DataError, ["targets", "(4,)"]),
    "labels": (trained(), [(torch.ones(500, 12), torch.full((500,), 6))], {}, DataError, ["from 0 to 5", "found 6"]),
    "float labels": (trained(), [(torch.ones(500, 12), torch.zeros(500))], {}, DataError, ["integer label", "float32"]),
    "number type": (trained(), (np.ones((500, 12), np.float32), np.full(500, "a")), {}, DataError, ["targets", "<U1"]),
    "length type": (Tagger(), [(torch.ones(2, 9, 12), torch.zeros(2, 9).long(), torch.ones(2))], {}, DataError, ["lengths", "float32"]),
    "none count": (trained(), [(torch.ones(500, 12), torch.full((500,), -1))], {}, DataError, ["negative ones only"]),
    "not finite": (trained(), [(torch.full((500, 12), torch.nan), torch.zeros(500).long())], {}, DataError, ["finite"]),
    "too few": (trained(), [(torch.ones(5, 12), torch.zeros(5).long())], {}, DataError, ["Use more data"]),
    "dev": (trained(), GOOD, {"dev": [(torch.ones(5, 9), torch.zeros(5).long())]}, DataError, ["dev: ", "(5, 9)"]),
    "lengths": (trained(), [(torch.ones(5, 12), torch.zeros(5).long(), torch.ones(5))], {}, DataError, ["no lengths"]),
    "long": (Tagger(), [(torch.ones(2, 9, 12), torch.zeros(2, 9).long(), torch.tensor([3, 10]))], {}, DataError, ["1 to 9", "10"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_is_said(case: str):
    net, data, other, kind, words = WRONG[case]
    with pytest.raises(kind) as caught:
        shrink(net, data, **other)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_sigmoid_units_of_a_users_net_are_ranked_as_such():
    module = nn.Sequential(nn.Linear(12, 20), nn.Sigmoid(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 6))
    net = Adapter.of(module).net(torch.float32)
    schedule = Schedule(1, 1, 0, 0.25 * net.macs_per_frame())
    assert build_method("t", {"method": "targeted_dropout"}, schedule).ranking(net) == "outgoing"
    dropnet = build_method("d", {"method": "dropnet"}, schedule)
    dropnet.inputs = torch.randn(50, 12)
    assert all(torch.equal(found, deviation(units)) for found, units in zip(dropnet.ranks(net), observe(net, dropnet.inputs)))


@pytest.mark.parametrize(
    "method,options", [("node_pruning", {"importance": "variance"}), ("random_removal", {"reconstruction_frames": 64})]
)
def test_means_need_biases_to_go_to(method: str, options: dict):
    """Told before the training; methods that fold no means do without."""
    module = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 6))
    for method, options in (("node_pruning", {"importance": "variance"}), ("random_removal", {"reconstruction_frames": 64})):
        with pytest.raises(ConfigError, match="what reads the units of hidden0 has no biases"):
            shrink(module, batches(), method=method, options=options, epochs=1)
    for plain in ("norm_removal", "dropneuron"):
        assert shrink(module, batches(), method=plain, options={}, epochs=1).widths != [24, 24]


@pytest.mark.parametrize(
    "method", ["online_compaction", "beta_bernoulli", "generalised_dropout", "l0_hard_concrete", "adaptive_dropout", "dropout_compaction"]
)
def test_a_trained_net_says_the_same_when_learning_of_gates_begins(method: str):
    """With gates from the first step on, what they take away is given back by the weights above."""
    net = Adapter.of(trained()).net(torch.float32).eval()
    inputs = rows(50)[0]
    before = net(inputs)
    schedule = Schedule(5, 10, 0, 0.25 * net.macs_per_frame(), trained=True)
    gates = build_method("t", {"method": method, "start": 0.0}, schedule)
    gates.training_mode(net, 0)
    gates.inference_mode(net)
    assert torch.allclose(net(inputs), before, rtol=1e-4, atol=1e-4)


def test_methods_know_that_a_users_net_is_trained(monkeypatch: pytest.MonkeyPatch):
    seen, begin = [], LearnedGates.begin_removal
    monkeypatch.setattr(LearnedGates, "begin_removal", lambda self, net, trained: (seen.append(trained), begin(self, net, trained))[1])
    shrink(trained(), batches(), method="online_compaction", options={}, epochs=1)
    assert seen == [True]


def test_width_multiple_is_an_option_of_every_removal():
    result = shrink(trained(), batches(), options={**FEW, "width_multiple": 8}, budget="macs=1/3")
    assert all(width % 8 == 0 for width in result.widths)


def test_a_figure_of_the_users_own_is_the_budget():
    """`evaluate` gets the user's module at every size, and its figures decide."""
    seen = []

    def wer(module: nn.Module) -> float:
        units = module[0].out_features
        seen.append(units)
        return 10.0 if units > 30 else 10.6 if units > 20 else 13.0

    result = shrink(trained(), batches(), budget="wer-loss=1.0", evaluate=wer, epochs=1)
    assert seen[0] == 64 and 20 < result.widths[0] <= 30
    assert (result.figures["before"]["wer-loss"], result.figures["after"]["wer-loss"]) == (10.0, 10.6)
    with pytest.raises(ConfigError, match="evaluate="):
        shrink(trained(), batches(), budget="wer-loss=1.0")


def test_a_net_of_double_precision_stays_one(tmp_path: Path):
    inputs, labels = rows()
    result = shrink(trained().double(), (inputs.double(), labels), budget="macs=1/2", epochs=1)
    assert {tensor.dtype for tensor in result.state_dict.values()} == {torch.float64, torch.int64}
    assert result.module(inputs[:3].double()).dtype == torch.float64
    assert result.figures["before"]["bytes"] == sum(tensor.numel() * 8 for tensor in trained().state_dict().values())
    result.figures["before"]["error"] = math.nan
    result.save(tmp_path)
    assert json.loads((tmp_path / "compacted.json").read_text(), parse_constant=pytest.fail)["figures"]["before"]["error"] is None
