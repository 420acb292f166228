"""Recurrent nets of every kind in small, and the same nets written out step by step in numpy."""

from __future__ import annotations

import numpy as np
import torch

from dropasr.data.chunks import Chunks
from dropasr.models.lstm import Lstm

VARIANTS = {
    "lstm": {"widths": [9, 7]},
    "delay": {"widths": [9, 7], "output_delay": 3},
    "splice": {"widths": [6, 5], "splice": 2, "output_delay": 1},
    "third": {"widths": [9, 7], "subsampling": 3, "output_delay": 2},
    "frames": {"widths": [9, 7], "subsampling": 3, "frame_outputs": True, "output_delay": 1},
    "frames-splice": {"widths": [9, 7], "subsampling": 3, "frame_outputs": True, "splice": 1},
    "norm": {"widths": [9, 7], "layer_norm": True},
    "state": {"widths": [9, 7], "learned_state": True},
    "lstmp": {"widths": [11, 6, 9, 5], "projected": True, "output_delay": 2},
    "lstmp-all": {"widths": [11, 6, 9, 5], "projected": True, "layer_norm": True, "learned_state": True, "subsampling": 3, "splice": 1},
    "lstmp-square": {"widths": [6, 6, 5, 5], "projected": True},
    "blstm": {"widths": [8, 6, 7, 5], "bidirectional": True},
    "blstm-third": {"widths": [8, 6, 7, 5], "bidirectional": True, "subsampling": 3},
    "blstm-frames": {"widths": [8, 6, 7, 5], "bidirectional": True, "subsampling": 3, "frame_outputs": True},
    "blstm-all": {"widths": [8, 6, 7, 5], "bidirectional": True, "layer_norm": True, "learned_state": True, "splice": 1},
    "blstmp": {"widths": [8, 6, 9, 5, 7, 4, 8, 5], "bidirectional": True, "projected": True, "layer_norm": True, "learned_state": True},
}
FEATURES, OUTPUTS = 4, 5


def make_net(variant: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Lstm:
    """A net with random values in every tensor, weights large enough that the state carries far."""
    generator = torch.Generator().manual_seed(seed)
    net = Lstm(FEATURES, num_outputs=OUTPUTS, **VARIANTS[variant]).to(dtype).eval()
    for parameter in net.parameters():
        spread = 0.5 if parameter.dim() == 1 else 1.5 / parameter.shape[1] ** 0.5
        parameter.data = spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
    return net


def make_chunks(lengths: list[int], seed: int = 0, dtype: torch.dtype = torch.float64, stride: int = 1) -> Chunks:
    """Random pieces; every `stride`-th frame is scored, in a random order."""
    generator = torch.Generator().manual_seed(seed)
    size = max(lengths)
    frames = torch.randn(len(lengths), size, FEATURES, generator=generator, dtype=torch.float64).to(dtype)
    for piece, length in zip(frames, lengths):
        piece[length:] = piece[length - 1]
    rows = torch.cat([torch.arange(0, length, stride) + size * index for index, length in enumerate(lengths)])
    return Chunks(frames, torch.tensor(lengths), rows[torch.randperm(len(rows), generator=generator)])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def half_by_hand(half, inputs: np.ndarray, cell_scale, scale, seen: list) -> np.ndarray:
    """One direction of one layer on one sequence `(S, I)`: what it passes up, `(S, R)`; factors `(H,)` and `(R,)`.

    `seen` is given what the gates multiply: cells `(S, H)`, and a projection `(S, R)`.
    """
    weights = {name: value.detach().double().numpy() for name, value in half.named_parameters()}
    H, R = len(weights["bias_ih"]) // 4, weights["weight_hh"].shape[1]
    h, c = weights.get("first_output", np.zeros(R)), weights.get("first_cells", np.zeros(H))
    passed, units = [], []
    for x in inputs:
        a = weights["weight_ih"] @ x + weights["bias_ih"] + weights["weight_hh"] @ (scale * h) + weights["bias_hh"]
        i, f, g, o = a[:H], a[H : 2 * H], a[2 * H : 3 * H], a[3 * H :]
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        units.append([h])
        if "weight_hr" in weights:
            h = weights["weight_hr"] @ (cell_scale * h)
            units[-1].append(h)
        up = h
        if "norm.weight" in weights:
            kept = h[scale != 0]
            up = (h - kept.mean()) / np.sqrt(kept.var() + 1e-5) * weights["norm.weight"] + weights["norm.bias"]
        passed.append(scale * up)
    seen += [np.array(group) for group in zip(*units)]
    return np.array(passed)


def logits_by_hand(net: Lstm, frames: torch.Tensor, scales: list[torch.Tensor], seen: list | None = None) -> np.ndarray:
    """Logits of all frames that have some, of one utterance `(T, F)`; units multiplied by `scales` (one per group, input side first).

    `seen` is given the activations of all groups at the steps that have these logits.
    """
    frames, step = frames.double().numpy(), net.step
    steps = -(-len(frames) // step)
    x = []
    for t in range(steps + net.output_delay):
        window = range(step * t - step + 1 - net.splice, step * t + net.splice + 1)
        x.append(np.concatenate([frames[min(max(u, 0), len(frames) - 1)] for u in window]))
    x, remaining = np.array(x), [scale.double().numpy() for scale in scales]
    for layer in net.layers:
        halves = []
        for half, way in zip(layer, (1, -1)):
            cell_scale = remaining.pop(0) if net.projected else None
            own = []
            halves.append(half_by_hand(half, x[::way], cell_scale, remaining.pop(0), own)[::way])
            if seen is not None:
                seen += [units[::way][net.output_delay :] for units in own]
        x = np.concatenate(halves, axis=1)
    x = x[net.output_delay :] @ net.output.weight.detach().double().numpy().T + net.output.bias.detach().double().numpy()
    if step == net.stride:
        return x
    return np.array([x[t // step][t % step * net.num_outputs :][: net.num_outputs] for t in range(len(frames))])


def random_scales(net: Lstm, seed: int, fractional: bool = False) -> list[torch.Tensor]:
    """A mask per group that leaves about 60 % of the units and at least one, in the precision of the net."""
    rng, scales = np.random.default_rng(seed), []
    for width in net.widths:
        keep = (rng.random(width) < 0.6).astype(float)
        keep[rng.integers(width)] = 1.0
        scales.append(torch.from_numpy(keep * rng.uniform(0.2, 1, width) if fractional else keep).to(net.output.weight.dtype))
    return scales


def set_gates(net: Lstm, multipliers) -> None:
    for group, multiplier in zip(net.unit_groups(), multipliers):
        group.gate.multiplier = multiplier
