"""Masking of frequency bands and time spans in the input, as in SpecAugment (Park et al., 2019): in each window of spliced frames, or in
each piece of an utterance.

torchaudio's `mask_along_axis_iid` does the same for one mask at a time, but draws from torch's global generator and takes none: a resumed
epoch could not repeat its masks. The few lines here draw from a generator that the caller seeds.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field

from dropasr.config import Options
from dropasr.data.chunks import Chunks, Inputs


class MaskOptions(Options):
    """How much is masked; a width is drawn evenly from 0 to the largest, then a position."""

    frequency_masks: int = Field(default=1, ge=0)
    """Frequency bands masked in each input."""
    frequency_width: int = Field(default=8, ge=0)
    """Largest width of a band, filters."""
    time_masks: int = Field(default=1, ge=0)
    """Time spans masked in each input."""
    time_width: int = Field(default=4, ge=0)
    """Largest width of a span, frames of the spliced window or of the piece."""
    share: float = Field(default=1.0, ge=0, le=1)
    """Share of the inputs that are masked at all."""


def _spans(rows: int, masks: int, largest: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Bool `(rows, length)`: the union of `masks` spans of 0 to `largest` positions in each row."""
    width = torch.randint(min(largest, length) + 1, (rows, masks, 1), generator=generator)
    # Every position at which the span fits whole is as likely as another.
    start = (torch.rand(rows, masks, 1, generator=generator) * (length - width + 1)).long()
    position = torch.arange(length)
    return ((position >= start) & (position < start + width)).any(dim=1)


def mask_spliced(inputs: torch.Tensor, num_features: int, generator: torch.Generator, options: MaskOptions) -> torch.Tensor:
    """A copy of `inputs`, `(N, W*num_features)` spliced windows of W frames, with bands and spans set to 0, the mean after normalisation.

    A band covers the same filters in all frames of its window, a span all filters. `generator` is a CPU generator: the same state gives the
    same masks, whatever the device of `inputs`. The state advances by the same amount for the same shape and options.
    """
    rows, size = inputs.shape
    frames = size // num_features
    bands = _spans(rows, options.frequency_masks, options.frequency_width, num_features, generator)
    spans = _spans(rows, options.time_masks, options.time_width, frames, generator)
    chosen = torch.rand(rows, 1, 1, generator=generator) < options.share
    masked = (bands[:, None, :] | spans[:, :, None]) & chosen
    return inputs.masked_fill(masked.view(rows, size).to(inputs.device), 0.0)


def mask_inputs(inputs: Inputs, num_features: int, generator: torch.Generator, options: MaskOptions) -> Inputs:
    """`mask_spliced` for spliced frames and, piece by piece, contexts included, for pieces of utterances."""
    if not isinstance(inputs, Chunks):
        return mask_spliced(inputs, num_features, generator, options)
    masked = mask_spliced(inputs.frames.flatten(start_dim=1), num_features, generator, options)
    return replace(inputs, frames=masked.view_as(inputs.frames))
