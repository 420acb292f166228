"""Forced alignment: the search on the graph of one transcript."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dropasr.decoding.search import check_scores, choose_backend
from dropasr.errors import DataError
from dropasr.lang.fst import Arcs


def align(
    log_likelihoods: list[torch.Tensor],
    graphs: list[Arcs],
    beam: float,
    backend: str = "auto",
    ids: Sequence[str] | None = None,
) -> list[np.ndarray]:
    """The most likely unit per frame, int32 `(T,)` for each utterance.

    `log_likelihoods`: float32 `(T, K)` each; `graphs`: from `dropasr.lang.linear.linear_graph`; `beam` in natural log. An
    utterance whose path is lost to the beam is searched again without one. Raises DataError with the id (or
    `utterance N` counted from 0) where the frames are fewer than the transcript needs.
    """
    names = [f"utterance {position}" for position in range(len(graphs))] if ids is None else list(ids)
    if not len(names) == len(graphs) == len(log_likelihoods):
        raise DataError(f"alignment: {len(log_likelihoods)} utterances, {len(graphs)} graphs and {len(names)} ids; expected equal numbers.")
    if not graphs:
        return []
    check_scores(log_likelihoods, log_likelihoods[0].shape[-1])
    search: Any
    if choose_backend(backend) == "k2":
        from dropasr.decoding import k2_search as search
    else:
        from dropasr.decoding import kaldi_search as search
    results = search.align(log_likelihoods, graphs, beam)
    lost = [position for position, result in enumerate(results) if result is None]
    for position in lost:
        frames, needed = len(log_likelihoods[position]), graphs[position].shortest()
        if frames < needed:
            message = f"the transcript needs at least {needed} frames, found {frames}. Check transcript and segment."
            raise DataError(f"{names[position]}: {message}")
    if lost:
        again = search.align([log_likelihoods[position] for position in lost], [graphs[position] for position in lost], 1e9)
        for position, result in zip(lost, again, strict=True):
            if result is None:
                raise DataError(f"{names[position]}: no alignment was found; the scores have no path of finite likelihood. Check the net.")
            results[position] = result
    return results
