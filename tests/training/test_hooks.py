"""What a method adds to the objective, and what it does before a step."""

from __future__ import annotations

import pytest
import torch
from training_case import make_trainer

from dropasr.config import load_config
from dropasr.errors import ConfigError
from dropasr.methods.base import BaseMethod
from dropasr.methods.random_removal import Method as RandomRemoval
from dropasr.training.row_checks import check_rows

WEIGHT = 0.03


def trained(folder, method=None, **options) -> tuple[list[torch.Tensor], BaseMethod]:
    trainer = make_trainer(folder, "dense", epochs=2, **options)
    if method is not None:
        trainer.method = method(trainer.method.options, trainer.method.schedule)
    return [parameter.detach() for parameter in trainer.run().parameters()], trainer.method


def test_a_penalty_is_part_of_the_objective(tmp_path):
    """Half the squared matrices times a weight has the gradient that the optimiser knows as weight decay."""

    class Penalised(BaseMethod):
        def penalty(self, net):
            return WEIGHT / 2 * sum((parameter**2).sum() for parameter in net.parameters() if parameter.dim() > 1)

    options = {"max_grad_norm": 1e6}
    plain, _ = trained(tmp_path / "plain", **options)
    decayed, _ = trained(tmp_path / "decayed", weight_decay=WEIGHT, **options)
    penalised, _ = trained(tmp_path / "penalised", Penalised, **options)
    for first, second, third in zip(penalised, decayed, plain, strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-4)
        assert not torch.allclose(first, third, atol=1e-4)


def test_each_step_is_announced_with_the_weights_that_it_will_change(tmp_path):
    class Watching(BaseMethod):
        calls, weights = [], []

        def before_step(self, net, epoch, step):
            self.calls.append(("before", epoch, step))
            self.weights.append(net.output.weight.detach().clone())

        def after_step(self, net, epoch, step, optimiser, held_out):
            self.calls.append(("after", epoch, step))
            assert not torch.equal(self.weights[-1], net.output.weight)

    _, method = trained(tmp_path, Watching)
    steps = method.schedule.steps_per_epoch
    assert method.calls == [(when, epoch, step) for epoch in range(2) for step in range(steps) for when in ("before", "after")]


@pytest.mark.parametrize("key,value,free", [("start", 0.2, True), ("end", 0.5, True), ("passes", 2, True), ("min_units", 2, False)])
def test_a_schedule_of_its_own_need_not_be_shared(key, value, free, monkeypatch, tiny_yaml):
    settings = ["experiment.compact=[dropout_compaction,random_removal]", f"methods.random_removal.{key}={value}"]
    config = load_config(tiny_yaml(), settings=settings)
    with pytest.raises(ConfigError, match=f"'random_removal' has {key} {value}"):
        check_rows(config)
    monkeypatch.setattr(RandomRemoval, "own_schedule", True)
    if free:
        check_rows(config)
    else:
        with pytest.raises(ConfigError, match=f"'random_removal' has {key} {value}"):
            check_rows(config)
