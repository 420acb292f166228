"""Kinds of methods that no shipped one is of yet: in phases, with noise on units, layer by layer after training. Small ones of each."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from dropasr.errors import ConfigError
from dropasr.methods.base import BaseMethod, CommonOptions
from dropasr.models.lstm import Lstm
from dropasr.training.schedules import learning_rate

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from lstm_case import make_chunks  # noqa: E402 (the folder above is on the path only now)
from training_case import make_trainer  # noqa: E402 (the folder above is on the path only now)


def trainer_of(folder: Path, kind: type[BaseMethod], **options):
    trainer = make_trainer(folder, "dense", **options)
    trainer.method = kind(CommonOptions(method="dense"), trainer.method.schedule)
    return trainer


class Phases(BaseMethod):
    """Rests for two epochs, trains, and ends at a tenth of the rate."""

    def rate_factor(self, epoch: int, step: int) -> float:
        return (0.0, 0.0, 1.0, 1.0, 0.1)[epoch]


def test_a_method_in_phases_has_rates_of_its_own(tmp_path):
    trainer, seen = trainer_of(tmp_path, Phases), []
    before = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    trainer.run(lambda figures: seen.append({name: value.clone() for name, value in trainer.net.state_dict().items()}))
    same = [all(torch.equal(state[name], before[name]) for name in before) for state in seen]
    assert same == [True, True, False, False, False]
    assert all(0 < figures["cpu_seconds"] <= 1.1 * figures["seconds"] + 0.05 for figures in trainer.history), "one thread"
    steps = trainer.method.schedule.steps_per_epoch
    usual = [learning_rate(trainer.config, (epoch + (steps - 1) / steps) / 5) for epoch in range(5)]
    factors = [0.0, 0.0, 1.0, 1.0, 0.1]
    assert [figures["learning_rate"] for figures in trainer.history] == pytest.approx([a * b for a, b in zip(factors, usual)])


class Noisy(BaseMethod):
    """Adds noise to the units of the first layer, and leaves low frequencies over the units of the second."""

    def training_mode(self, net, epoch):
        super().training_mode(net, epoch)
        first, second = net.unit_groups()
        first.gate.noise = lambda units: units + torch.from_numpy(self.generator.normal(0, 0.1, units.shape)).to(units)
        second.gate.noise = lambda units: torch.fft.irfft(torch.fft.rfft(units)[:, :9], n=units.shape[1])


def test_noise_changes_units_in_training_alone(tmp_path):
    trainer, plain = trainer_of(tmp_path / "noisy", Noisy), make_trainer(tmp_path / "plain", "dense")
    net, method = trainer.net, trainer.method
    frames = torch.randn(7, net.hidden[0].in_features)
    clean = functional.linear(frames, net.hidden[0].weight, net.hidden[0].bias).relu()
    method.begin_epoch(net, 0, np.random.default_rng(3))
    method.training_mode(net, 0)
    noise = torch.from_numpy(np.random.default_rng(3).normal(0, 0.1, (7, 32))).float()
    second = functional.linear(clean + noise, net.hidden[1].weight, net.hidden[1].bias).relu()
    low = torch.fft.rfft(second)
    low[:, 9:] = 0
    wanted = functional.linear(torch.fft.irfft(low, n=32), net.output.weight, net.output.bias)
    torch.testing.assert_close(net(frames), wanted)
    trained, other = trainer.run(), plain.run()
    assert not torch.equal(trained.output.weight, other.output.weight)
    assert all(group.gate.noise is None for group in trained.unit_groups())
    # A resumed run draws the same noise.
    again = trainer_of(tmp_path / "again", Noisy)

    def stop(figures):
        if figures["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again.run(stop)
    resumed = trainer_of(tmp_path / "again", Noisy).run()
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), resumed.state_dict().values()))


def test_recurrent_nets_refuse_noise():
    net = Lstm(8, [5], 6)
    net.unit_groups()[0].gate.noise = lambda units: units
    with pytest.raises(ConfigError, match="noise on units: a recurrent net"):
        net(make_chunks([12, 9]))


class LayerByLayer(BaseMethod):
    """After training, refits the output layer to the held-out labels by least squares on what it reads, and prunes each layer below."""

    def finish(self, net, frames, held_out):
        super().finish(net, frames, held_out)
        with torch.no_grad():
            for layer in net.hidden:
                layer.weight[layer.weight.abs() < layer.weight.abs().median()] = 0
            inputs, labels = held_out.draw(np.random.default_rng(0), held_out.num_rows)
            units = net.unit_activations(inputs)[-1]
            targets = functional.one_hot(labels.long(), net.num_outputs).float()
            solved = torch.linalg.lstsq(torch.cat([units, torch.ones(len(units), 1)], dim=1), targets, driver="gelsd").solution
            net.output.weight.copy_(10 * solved[:-1].T)
            net.output.bias.copy_(10 * solved[-1])


def test_a_trained_net_is_worked_on_layer_by_layer_with_data(tmp_path):
    trainer = trainer_of(tmp_path, LayerByLayer)
    net = trainer.run()
    for layer in net.hidden:
        assert int((layer.weight == 0).sum()) >= layer.weight.numel() // 2 - 1
    sampler = trainer.samplers.dev
    figures = trainer.criterion.figures(net, sampler, trainer.config, everything=True)
    assert trainer.history[-1]["dev_ce"] == pytest.approx(figures[0]), "figures on dev are those of the net that is left"
    inputs, labels = trainer.samplers.held_out.draw(np.random.default_rng(0), trainer.samplers.held_out.num_rows)
    assert float((net(inputs).argmax(dim=1) == labels).float().mean()) > 0.8
