"""Low ranks in place of fewer units: best approximations, budgets, recurrent projections, and the training around them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.compaction.low_rank import become, factored, fixed_macs, matrices_of, ranks_for_budget
from dropasr.compaction.proof import compact
from dropasr.config import load_config
from dropasr.errors import CompactionError, ConfigError
from dropasr.methods import build_method, makes_smaller
from dropasr.methods.base import Schedule
from dropasr.models.checkpoint import load_net, save_net
from dropasr.models.feedforward import FeedForward
from dropasr.training.loop import make_optimiser
from dropasr.training.row_checks import check_rows

sys.path[:0] = [str(Path(__file__).parents[1] / "training"), str(Path(__file__).parents[1] / "models")]
from lstm_case import VARIANTS, logits_by_hand, make_chunks, make_net  # noqa: E402
from training_case import make_trainer  # noqa: E402

CONF = Path(__file__).resolve().parents[2] / "conf" / "synth_commands.yaml"
RECURRENT = [name for name, options in VARIANTS.items() if not options.get("layer_norm")]


def feed_forward(widths=(40, 30, 20), batch_norm=False):
    torch.manual_seed(0)
    return FeedForward(4, (1, 1), list(widths), 9, "sigmoid", batch_norm).double().eval()


@pytest.mark.parametrize("kind", ["feedforward", *RECURRENT])
def test_full_ranks_leave_the_logits(kind):
    net = feed_forward(batch_norm=True) if kind == "feedforward" else make_net(kind)
    inputs = torch.randn(11, 12, dtype=torch.float64) if kind == "feedforward" else make_chunks([14, 9, 6], stride=3)
    matrices = matrices_of(net)
    new = factored(net, matrices, [len(matrix.spectrum) for matrix in matrices])
    with torch.no_grad():
        assert torch.allclose(new(inputs), net(inputs), rtol=1e-9, atol=1e-11)


def test_each_matrix_is_the_best_of_its_rank():
    """Eckart and Young: the error is that of the singular values left out, by numpy's decomposition."""
    net = feed_forward()
    new = factored(net, matrices_of(net), [5, 7, 0, 3])
    layers = zip([*net.hidden, net.output], [*new.hidden, new.output], [5, 7, 0, 3])
    for old, layer, rank in layers:
        if not rank:
            assert torch.equal(layer.weight, old.weight)
            continue
        product = (layer[1].weight @ layer[0].weight).detach().numpy()
        left, values, right = np.linalg.svd(old.weight.detach().numpy())
        assert np.allclose(product, (left[:, :rank] * values[:rank]) @ right[:rank])
        assert torch.equal(layer[1].bias, old.bias) and np.isclose(*(float(part.weight.detach().norm()) for part in layer))


@pytest.mark.parametrize("variant", RECURRENT)
def test_projections_of_recurrent_nets_are_the_joint_scheme(variant):
    """The factored net is the old one with `W_h P' P` and, in what reads the layer, `W_x P' P`, run step by step in numpy."""
    net, ranks = make_net(variant), []
    matrices = matrices_of(net)
    for index, matrix in enumerate(matrices):
        ranks.append(0 if index == 0 else max(1, len(matrix.spectrum) // 2))
    new = factored(net, matrices, ranks)
    remaining = iter(ranks[1:])
    with torch.no_grad():
        for index, layer in enumerate(net.layers):
            above = [half.weight_ih for half in net.layers[index + 1]] if index + 1 < len(net.layers) else [net.output.weight]
            offset = 0
            for half in layer:
                right = np.linalg.svd(half.weight_hh.numpy())[2][: next(remaining)]
                onto = torch.from_numpy(right.T @ right)
                half.weight_hh.copy_(half.weight_hh @ onto)
                for weight in above:
                    weight[:, offset : offset + len(onto)] = weight[:, offset : offset + len(onto)] @ onto
                offset += len(onto)
        frames = torch.randn(17, 4, dtype=torch.float64)
        expected = logits_by_hand(net, frames, [torch.ones(width) for width in net.widths])
        found = new.logits(frames, net.stride).numpy()
    assert np.allclose(found, expected[: len(found)], rtol=1e-8, atol=1e-10)
    assert new.projected and new.widths[1::2] == ranks[1:]


@pytest.mark.parametrize("kind", ["feedforward", "lstm", "third", "frames", "lstmp", "blstm"])
@pytest.mark.parametrize("ends", [True, False])
def test_costs_are_those_of_the_net_that_results(kind, ends):
    net = feed_forward() if kind == "feedforward" else make_net(kind)
    matrices = matrices_of(net, ends)
    fixed = fixed_macs(net, matrices)
    for ranks in ([1] * len(matrices), [2] * len(matrices), [3, *[2] * (len(matrices) - 1)]):
        new = factored(net, matrices, ranks)
        assert fixed + sum(matrix.macs(rank) for matrix, rank in zip(matrices, ranks)) == new.macs_per_frame()


@pytest.mark.parametrize("kind", ["feedforward", "lstm", "blstm"])
@pytest.mark.parametrize("budget", [0.5, 0.25, 0.0625])
def test_the_budget_is_met_with_the_same_share_of_every_matrix(kind, budget):
    torch.manual_seed(0)
    net = FeedForward(40, (4, 4), [192] * 3, 100)
    if kind != "feedforward":
        net = type(make_net(kind))(40, [96] * (2 if kind == "lstm" else 4), 100, kind == "blstm", subsampling=3)
    matrices = matrices_of(net)
    ranks, _ = ranks_for_budget(matrices, fixed_macs(net, matrices), budget * net.macs_per_frame())
    assert factored(net, matrices, ranks).macs_per_frame() / net.macs_per_frame() == pytest.approx(budget, rel=0.02)
    shares = [
        float(matrix.spectrum[:rank].square().sum() / matrix.spectrum.square().sum()) for matrix, rank in zip(matrices, ranks) if rank
    ]
    steps = [float(matrix.spectrum[0] ** 2 / matrix.spectrum.square().sum()) for matrix in matrices]
    assert max(shares) - min(shares) < 2 * max(steps)


@pytest.mark.parametrize("kind", ["feedforward", "lstm", "blstm"])
def test_low_ranks_survive_checkpoints_and_surgery(kind, tmp_path):
    net = feed_forward().float() if kind == "feedforward" else make_net(kind, dtype=torch.float32)
    inputs = torch.randn(11, 12) if kind == "feedforward" else make_chunks([14, 9, 6], dtype=torch.float32)
    matrices = matrices_of(net)
    assert "ranks" not in net.dims and "input_rank" not in net.dims, "dims of nets without low ranks stay as they were"
    become(net, factored(net, matrices, [2, *[3] * (len(matrices) - 1)]))
    save_net(tmp_path, net, {})
    loaded = load_net(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(inputs), net(inputs))
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in net.named_parameters()], "sums over them are the same"
    scales = [(torch.arange(width) % 2).float() for width in net.widths]
    proof = compact(net, scales, inputs, fold=True)
    assert proof.units_after == [width // 2 for width in proof.units_before]
    assert net.macs_per_frame() == net.with_widths(net.widths).macs_per_frame()
    with pytest.raises(ConfigError, match="low ranks already"):
        matrices_of(net)


def test_the_net_changes_in_place_and_momentum_of_what_stays_goes_on():
    net = feed_forward().float().train()
    optimiser = make_optimiser(net, load_config(CONF).train)
    net(torch.randn(5, 12)).square().sum().backward()
    optimiser.step()
    whole = optimiser.state[net.hidden[2].weight]["momentum_buffer"].clone()
    become(net, factored(net, matrices_of(net), [4, 4, 0, 0]), optimiser)
    assert net.dims["ranks"] == [4, 4, 0, 0] and net.training
    assert torch.equal(optimiser.state[net.hidden[2].weight]["momentum_buffer"], whole)
    assert net.hidden[0][0].weight not in optimiser.state
    listed = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in listed} == {id(parameter) for parameter in net.parameters()}
    assert all(parameter.dim() > 1 for parameter in optimiser.param_groups[0]["params"])
    assert {id(parameter) for parameter in optimiser.state} <= {id(parameter) for parameter in listed}


def test_training_factors_once_at_its_start_and_learns_on(tmp_path):
    messages = []
    trainer = make_trainer(tmp_path, "svd", epochs=8, say=messages.append)
    large = trainer.net.macs_per_frame()
    net = trainer.run()
    assert net.macs_per_frame() / (0.3 * large) == pytest.approx(1, rel=0.02) and net.widths == [32, 32]
    told = [number for number, text in enumerate(messages) if text.startswith("factored")]
    epochs = [number for number, text in enumerate(messages) if text.startswith("epoch")]
    assert len(told) == 1 and told[0] < epochs[3] and told[0] > epochs[2]
    assert trainer.history[-1]["dev_frame_error"] < 30  # six classes: chance is 83 %


def test_refusals():
    assert makes_smaller("svd", {"method": "svd"})
    with pytest.raises(CompactionError, match="svd needs a budget"):
        build_method("svd", {"method": "svd"}, Schedule(10, 1, 0))
    net = feed_forward()
    matrices = matrices_of(net, ends=False)
    with pytest.raises(CompactionError, match="rank 1 of 2 matrices.*matrices: all"):
        ranks_for_budget(matrices, fixed_macs(net, matrices), 0.1 * net.macs_per_frame())
    check_rows(load_config(CONF, settings=["experiment.compact=[svd]"]))
    check_rows(load_config(CONF, model="blstm", settings=["experiment.compact=[svd,dropout_compaction]"]))
    with pytest.raises(ConfigError, match="layer norm"):
        check_rows(load_config(CONF, model="lstm", settings=["experiment.compact=[svd]", "model.layer_norm=true"]))
