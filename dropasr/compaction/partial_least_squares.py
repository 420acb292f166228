"""Variable importance in projection: which units a partial least squares model of the labels needs.

PLS2 by the kernel algorithm (Lindgren, Geladi, Wold 1993): all that is needed of N frames are `X'X` and `X'Y`, so a component costs as
much for ten thousand frames as for a thousand. Frames are never looped over.
"""

from __future__ import annotations

import torch

TOLERANCE, ITERATIONS = 1e-12, 1000
"""Power iteration for the weights of a component ends at this squared change, or after so many steps."""


def _standardised(values: torch.Tensor) -> torch.Tensor:
    """Columns of mean 0 and standard deviation 1; those that never change stay 0."""
    centred = values - values.mean(dim=0)
    deviation = centred.square().mean(dim=0).sqrt()
    return centred / torch.where(deviation > 1e-12, deviation, torch.ones_like(deviation))


def _leading(cross: torch.Tensor) -> torch.Tensor:
    """First left singular vector `(p,)` of `X'Y` `(p, k)`, from its largest column on, so that no random numbers are needed."""
    vector = cross[:, int(cross.square().sum(dim=0).argmax())]
    vector = vector / vector.norm()
    for _ in range(ITERATIONS):
        moved = cross @ (cross.t() @ vector)
        moved = moved / moved.norm()
        converged = bool((moved - vector).square().sum() < TOLERANCE)
        vector = moved
        if converged:
            break
    return vector


@torch.no_grad()
def vip(activations: torch.Tensor, targets: torch.Tensor, components: int) -> torch.Tensor:
    """VIP `(p,)` of variables `(N, p)` for responses `(N, k)`, both standardised: `sqrt(p sum_c SS_c w_uc^2 / sum_c SS_c)`.

    `SS_c` is the variance of the responses that component c explains, `w_c` its weights of length 1. The mean of the squares is 1, hence
    the usual advice to drop what is below 1. Units that never change have 0.
    """
    x, y = _standardised(activations.double()), _standardised(targets.double())
    gram, cross = x.t() @ x, x.t() @ y
    total, explained, first = x.new_zeros(x.shape[1]), 0.0, float(cross.norm())
    for _ in range(components):
        if float(cross.norm()) <= 1e-9 * max(first, 1e-9):
            break  # nothing is left to explain
        weights = _leading(cross)
        loading = gram @ weights
        size = float(weights @ loading)  # t't of the scores t = X w
        if size <= 1e-12:
            break
        response = cross.t() @ weights  # t't times the loadings of the responses
        own = float(response @ response) / size
        total += own * weights.square()
        explained += own
        gram -= torch.outer(loading, loading) / size
        cross -= torch.outer(loading, response) / size
    return torch.sqrt(x.shape[1] * total / explained) if explained > 0 else total
