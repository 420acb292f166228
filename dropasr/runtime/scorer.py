"""A net in torch with what its ONNX graphs hold beside it: raw log-mels in, what the search adds up out."""

from __future__ import annotations

import copy
import io
import warnings

import numpy as np
import torch
from torch import nn

from dropasr.errors import ExportError
from dropasr.models.base import AcousticModel
from dropasr.runtime.graphs import graphs_of, layout_of

TRACED_FRAMES = (31, 47)
"""Lengths of the utterances that a net is traced with and then tried with; steps, windows and delays fit in."""


class Scorer(nn.Module):
    """`features` `(T, F)`, `mean` and `std` `(F,)` to scores `(⌈T/stride⌉, K)`, or `(⌈T/stride⌉, P * K)` where a step scores P frames.

    Windows are gathered by frame number, so that a trace of it holds for any length (the nets' own splicing does not).
    """

    def __init__(self, net: AcousticModel, stride: int, log_prior: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.net = net
        self._layout = layout_of(net, stride)
        self.register_buffer("_offsets", torch.tensor(list(self._layout.window)))
        self.register_buffer("_log_prior", log_prior)
        self._scale = scale

    def forward(self, features: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        layout = self._layout
        frames = (features - mean) / std
        # Named as a size, so that a trace asks for it again; len() would become a number.
        last = frames.size(0) - 1
        step = layout.step
        end = (
            last + 1
            if layout.both_ends
            else torch.div(last, layout.stride, rounding_mode="floor") * layout.stride + step * layout.delay + 1
        )
        numbers = torch.arange(0, end, step)[:, None] + self._offsets
        inputs = frames[torch.minimum(numbers.clamp(min=0), torch.as_tensor(last))].flatten(1)
        logits = graphs_of(self.net).torch_logits(self.net, inputs, slice(layout.delay, None, layout.every))
        logits = logits.unflatten(1, (self.net.frames_scored, -1))
        return (self._scale * (torch.log_softmax(logits, dim=2) - self._log_prior)).flatten(1)


def torchscript(net: AcousticModel, stride: int, log_prior: torch.Tensor, scale: float) -> bytes:
    """The net as TorchScript, which torch alone can run (`torch.jit.load`). Raises ExportError where the trace does not hold."""
    scorer = Scorer(copy.deepcopy(net).float().eval(), stride, log_prior.float(), scale).eval()
    features = [torch.randn(frames, net.dims["num_features"]) for frames in TRACED_FRAMES]
    mean, std = features[0].mean(dim=0), features[0].std(dim=0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(scorer, (features[0], mean, std), check_trace=False)
        traced = torch.jit.freeze(traced)
        found, expected = traced(features[1], mean, std), scorer(features[1], mean, std)
    if found.shape != expected.shape or not np.allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-4):
        raise ExportError(f"model '{net.dims['model']}': its TorchScript gives other scores for utterances of another length.")
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    return buffer.getvalue()
