"""Letting the units that stay take over what those that leave gave the layers above, and what it costs where a unit leaves.

The units `h` of a group are read linearly, by weights `W` and biases. If a set R of them leaves, the best that the set K that stays can do
for it is a least-squares `h_R ~ A h_K + c` over real frames, and the readers keep what they had of R but for the residual:
`W_K += W_R A`, `b += W_R c`. For a single unit u the mean squared error of all that reads it is then `|w_u|^2 / (M^-1)_uu`, where `M` is
the covariance of the units: the saliency of the optimal brain surgeon (Hassibi and Stork 1993), of units and of what the next layer reads.

Units that read themselves, in recurrent nets, are replaced without the constant `c` (their first step has no past), and `M` is `E h h^T`.
"""

from __future__ import annotations

import torch

from dropasr.compaction.surgery import fold_constants
from dropasr.compaction.unit_statistics import feeds_itself, unit_norms, weight_blocks
from dropasr.models.base import UnitGroup

RIDGE = 1e-3
"""Share of the units' mean square that is added to each on the diagonal, so that rare units are not trusted too far."""


def _moments(group: UnitGroup, units: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean `(H,)` (0 for units that read themselves) and second moments around it `(H, H)`, with the ridge, of activations `(N, H)`."""
    units = units.double()
    mean = torch.zeros_like(units[0]) if feeds_itself(group) else units.mean(dim=0)
    centred = units - mean
    moments = centred.t() @ centred / len(units)
    moments.diagonal().add_(RIDGE * float(moments.diagonal().mean().clamp(min=1e-12)))
    return mean, moments


@torch.no_grad()
def saliencies(group: UnitGroup, units: torch.Tensor) -> torch.Tensor:
    """Float64 `(H,)`: what the mean squared error of all that reads each unit is where it leaves and the others take over."""
    _, moments = _moments(group, units)
    return unit_norms(group, makes=False, reads=True).double().square() / torch.linalg.inv(moments).diagonal()


@torch.no_grad()
def take_over(group: UnitGroup, units: torch.Tensor, kept: torch.Tensor) -> None:
    """Let the units `kept` (bool `(H,)`) take over what the readers have of the others, by activations `(N, H)`, in place.

    The weights that read the others become 0; the optimiser's momentum stays as it is.
    """
    mean, moments = _moments(group, units)
    shares = torch.linalg.solve(moments[kept][:, kept], moments[kept][:, ~kept])
    if not feeds_itself(group):
        constants = torch.zeros_like(mean)
        constants[~kept] = mean[~kept] - mean[kept] @ shares
        fold_constants(group, constants)
    for block in weight_blocks(group, outgoing=True):
        gone = block[:, ~kept].double()
        block[:, kept] += torch.einsum("kr,brn->bkn", shares, gone).to(block.dtype)
        block[:, ~kept] = 0
