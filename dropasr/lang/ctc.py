"""Connectionist temporal classification (Graves et al. 2006): the likelihood of a token sequence, its shortest duration, its best path."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from dropasr.data.sequences import SequenceTargets
from dropasr.lang.pieces import BLANK

SPREAD = 0.25
"""Share of the rows that carry a token in `spread_labels`. All of them made nets that could not tell how often a token comes."""


def sequence_losses(log_posteriors: torch.Tensor, targets: SequenceTargets) -> torch.Tensor:
    """-log p(tokens) in nats of every utterance, `(B,)`; infinite where the frames are too few.

    `log_posteriors`: `(N, K)`, all utterances in a row, float32 or float64.
    """
    padded = pad_sequence(log_posteriors.split(targets.frames.tolist()))
    return functional.ctc_loss(padded, targets.tokens, targets.frames, targets.lengths, blank=BLANK, reduction="none")


def spread_labels(targets: SequenceTargets) -> torch.Tensor:
    """A unit for each input row, int64 `(N,)`: the tokens evenly over their utterance, each on a quarter of its part or on one row at
    least, and the blank between them, as nets trained with CTC have it."""
    utterance = targets.utterance_of_row
    frames, lengths = targets.frames[utterance], targets.lengths[utterance]
    first_row, first_token = (torch.cumsum(counts, 0) - counts for counts in (targets.frames, targets.lengths))
    # Where the middle of each row lies among the tokens, times twice the number of rows.
    place = (2 * (torch.arange(len(utterance)) - first_row[utterance]) + 1) * lengths
    token = targets.tokens[first_token[utterance] + place // (2 * frames)]
    near = (place % (2 * frames) - frames).abs() <= torch.maximum(SPREAD * frames, lengths)
    return torch.where(near, token, torch.full_like(token, BLANK))


def minimal_frames(tokens: Sequence[int]) -> int:
    """Fewest frames that tokens can be spread over: equal neighbours need a blank between them."""
    return len(tokens) + sum(first == second for first, second in zip(tokens, tokens[1:]))


def best_path(scores: torch.Tensor) -> list[int]:
    """Tokens of the best unit per frame, repetitions joined, then blanks removed. Input `(T, K)`."""
    return [token for token, _ in groupby(scores.argmax(dim=1).tolist()) if token != BLANK]
