"""Taking over what leaves, against numpy's least squares and nets whose units can be done without."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.compaction import reconstruction
from dropasr.compaction.reconstruction import saliencies, take_over
from dropasr.compaction.unit_statistics import observe
from dropasr.config import load_config
from dropasr.data.chunks import Chunks
from dropasr.errors import ConfigError
from dropasr.methods import build_method
from dropasr.methods.base import HeldOut, Schedule
from dropasr.models.feedforward import FeedForward
from dropasr.models.lstm import Lstm
from dropasr.training.row_checks import check_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from training_case import make_trainer  # noqa: E402 (the folder above is on the path only now)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(reconstruction, "RIDGE", 1e-12)


def feedforward(activation: str = "relu", batch_norm: bool = False) -> tuple[FeedForward, torch.Tensor]:
    torch.manual_seed(3)
    net = FeedForward(6, (1, 1), [9, 7], 5, activation, batch_norm).double().eval()
    for layer in net.hidden:
        torch.nn.init.normal_(layer.bias)
    return net, torch.randn(400, 18, dtype=torch.float64)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_readers_get_the_least_squares_weights_and_biases(activation):
    net, frames = feedforward(activation)
    group, units = net.unit_groups()[0], observe(net, frames)[0]
    kept = torch.tensor([True, False, True, True, False, True, False, True, True])
    above = net.hidden[1]
    wanted = (units @ above.weight.t() + above.bias).detach().numpy()
    columns = np.concatenate([units[:, kept].numpy(), np.ones((len(units), 1))], axis=1)
    solution, *_ = np.linalg.lstsq(columns, wanted, rcond=None)
    take_over(group, units, kept)
    np.testing.assert_allclose(above.weight[:, kept].detach(), solution[:-1].T, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(above.bias.detach(), solution[-1], rtol=1e-6, atol=1e-8)
    assert not above.weight[:, ~kept].any()


def test_saliency_is_the_error_that_is_left_where_one_unit_leaves():
    net, frames = feedforward()
    group, units = net.unit_groups()[0], observe(net, frames)[0]
    weight = net.hidden[1].weight.detach().numpy()
    expected = []
    for unit in range(9):
        others = np.concatenate([np.delete(units.numpy(), unit, axis=1), np.ones((len(units), 1))], axis=1)
        _, residual, *_ = np.linalg.lstsq(others, units[:, unit].numpy(), rcond=None)
        expected.append(residual[0] / len(units) * (weight[:, unit] ** 2).sum())
    np.testing.assert_allclose(saliencies(group, units), expected, rtol=1e-6)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_units_that_say_what_others_say_leave_without_a_trace(batch_norm):
    net, frames = feedforward(batch_norm=batch_norm)
    with torch.no_grad():
        # Unit 4 is twice unit 1, and a constant more where batch norm moves it.
        net.hidden[0].weight[4], net.hidden[0].bias[4] = 2 * net.hidden[0].weight[1], 2 * net.hidden[0].bias[1]
        if batch_norm:
            net.norms[0].bias[4] += 0.7
    logits, kept = net(frames), torch.arange(9) != 4
    group, units = net.unit_groups()[0], observe(net, frames)[0]
    assert int(saliencies(group, units).argmin()) in (1, 4)
    take_over(group, units, kept)
    group.gate.multiplier = kept.double()
    torch.testing.assert_close(net(frames), logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"projected": True}])
def test_recurrent_units_that_say_what_others_say_leave_without_a_trace(options):
    torch.manual_seed(5)
    halves = 1 + options.get("bidirectional", False)
    widths = [6, 4, 5, 3] if options.get("projected") else [6] * 2 * halves
    net = Lstm(4, widths, 5, **options).double().eval()
    first = net.layers[0][-1]
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            tensor = getattr(first, name)
            tensor.unflatten(0, (4, 6))[:, 5] = tensor.unflatten(0, (4, 6))[:, 2]  # all gates of cell 5 are those of cell 2
    lengths = torch.full((8,), 30)
    chunks = Chunks(torch.randn(8, 30, 4, dtype=torch.float64), lengths, torch.arange(8 * 30))
    logits, kept = net(chunks), torch.arange(6) != 5
    index = next(number for number, group in enumerate(net.unit_groups()) if group.gate is (first.cell_gate or first.gate))
    group, units = net.unit_groups()[index], observe(net, chunks)[index]
    take_over(group, units, kept)
    group.gate.multiplier = kept.double()
    torch.testing.assert_close(net(chunks), logits, rtol=0, atol=1e-6)


def test_layer_norm_is_refused(tiny_yaml):
    settings = ["methods.dropout_compaction.reconstruction_frames=64"]
    check_rows(load_config(tiny_yaml(), model="lstm", settings=settings))
    with pytest.raises(ConfigError, match="dropout_compaction: reconstruction_frames 64 with model.layer_norm"):
        check_rows(load_config(tiny_yaml(), model="lstm", settings=[*settings, "model.layer_norm=true"]))


@pytest.mark.parametrize("method", ["random_removal", "dropout_compaction", "l0_hard_concrete"])
def test_taking_over_spares_the_frames_by_which_it_is_done(tmp_path, method):
    """Right behind the last removal the criterion on these frames is nearer to what it was than where nothing is taken over."""
    losses = {}
    for frames in (0, 512):
        trainer = make_trainer(tmp_path / str(frames), "dense", epochs=3)
        net = trainer.run()
        values = {"method": method, "start": 0.0, "end": 0.4, "passes": 1, "min_units": 3, "reconstruction_frames": frames}
        schedule = Schedule(1, 1, 1, 0.3 * net.macs_per_frame())
        made = build_method(method, values, schedule)
        held_out = HeldOut(trainer.samplers.all.draw, trainer.samplers.all.num_rows)
        made.begin_removal(net, trained=True)
        made.after_step(net, 0, 0, trainer.optimiser, held_out)
        assert net.macs_per_frame() < 0.35 * schedule.target_macs / 0.3
        losses[frames] = trainer.criterion.figures(net.eval(), trainer.samplers.dev, trainer.config)[0]
    assert losses[512] < 0.9 * losses[0]
