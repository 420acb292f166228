"""Nets, data and a bare loop for methods that remove units: epochs without training steps, or with those of a given loss."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parent.parent / "models"))
from lstm_case import FEATURES, OUTPUTS, make_chunks  # noqa: E402 (the folder above is on the path only now)

from dropasr.methods import build_method
from dropasr.methods.base import BaseMethod, HeldOut, Schedule
from dropasr.models.base import AcousticModel
from dropasr.models.feedforward import FeedForward
from dropasr.models.lstm import Lstm

RECURRENT = {
    "lstm": {"widths": [40, 30]},
    "norm": {"widths": [40, 30], "layer_norm": True, "learned_state": True},
    "lstmp": {"widths": [40, 24, 36, 20], "projected": True},
    "blstm": {"widths": [30, 26, 28, 24], "bidirectional": True},
}


def make_net(kind: str = "relu", widths=(60, 40), seed: int = 0) -> AcousticModel:
    """`relu`, `sigmoid`, `norm_relu` (batch norm), or a key of RECURRENT."""
    torch.manual_seed(seed)
    if kind in RECURRENT:
        return Lstm(FEATURES, num_outputs=OUTPUTS, **RECURRENT[kind])
    return FeedForward(4, (1, 1), list(widths), 5, kind.replace("norm_", ""), batch_norm=kind.startswith("norm_"))


def held_out(net: AcousticModel) -> HeldOut:
    """Random inputs with random labels; of recurrent nets, chunks of 20 frames."""

    def draw(generator, count):
        if net.reads_chunks:
            inputs = make_chunks([20] * -(-count // 20), seed=int(generator.integers(1 << 30)), dtype=torch.float32)
        else:
            inputs = torch.from_numpy(generator.standard_normal((count, 12)).astype(np.float32))
        return inputs, torch.from_numpy(generator.integers(0, 5, len(inputs)))

    return HeldOut(draw, 1000)


def run(
    net: AcousticModel, target: float | None, epochs: int = 10, steps: int = 6, each=lambda net: None, masks: bool = False, **options
) -> tuple[BaseMethod, list]:
    """Go through a training; returns the method and the widths after every epoch. `each(net)` stands in the place of a step.

    `target`: the budget, as share of the net; None where the method has none. `masks`: the method trains with masks.
    """
    values = {"min_units": 2, **options}
    method = build_method(values["method"], values, Schedule(epochs, steps, 0, None if target is None else target * net.macs_per_frame()))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    history = []
    for epoch in range(epochs):
        method.begin_epoch(net, epoch, np.random.Generator(np.random.SFC64([0, epoch])))
        method.training_mode(net, epoch)
        for step in range(steps):
            method.before_step(net, epoch, step)
            each(net)
            method.after_step(net, epoch, step, optimiser, held_out(net))
            assert masks or all(gate.multiplier is None for gate in (group.gate for group in net.unit_groups()))
        history.append(list(net.widths))
    method.finish(net, held_out(net).draw(np.random.default_rng(0), 64)[0], held_out(net))
    return method, history
