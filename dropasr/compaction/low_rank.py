"""Weight matrices as products of two thin ones, by singular values: which there are, which ranks meet a budget, and the net that results.

Feed-forward nets (Xue, Li, Gong 2013): `W ~ U_r S_r V_r'` becomes two linear layers, with the root of `S_r` on either side, so that both
learn at the same pace. A matrix whose two factors would cost as much as itself stays whole.

Recurrent nets (Prabhavalkar et al. 2016): of the recurrent matrix `W_h ~ U_r S_r V_r'` of each layer and direction, `P = V_r'` becomes a
projection that the next step and the layers above share: `Z_h = U_r S_r`, and what reads the layer becomes `Z_x = W_x P'`, the solution
of `min ||Z P - W_x||_F`. The result is an LSTM with projections (LSTMP); of one that has them already, `P` multiplies the projection.
Beyond that source, the input matrices of the first layer, stacked, share one factor of their own, without which the cells would read all
inputs at any budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import torch

from dropasr.errors import CompactionError, ConfigError
from dropasr.models.base import AcousticModel
from dropasr.models.feedforward import FeedForward, from_dims
from dropasr.models.lstm import Lstm
from dropasr.models.patterns import parts_of


@dataclass(frozen=True)
class Matrix:
    """A matrix that can be given a rank: its singular values, largest first, and what it costs in multiply-adds per frame."""

    name: str
    spectrum: torch.Tensor
    per_rank: int
    """Multiply-adds of each unit of its rank."""
    whole: Union[int, None]
    """Multiply-adds where it is left as it is; None: it always gets a rank."""

    def rank_for(self, share: float) -> int:
        """The least rank that explains `share` of the sum of squared singular values; 0 where the matrix stays whole."""
        energy = self.spectrum.double().square().cumsum(0)
        rank = min(int(torch.searchsorted(energy, share * energy[-1])) + 1, len(energy))
        return 0 if self.whole is not None and rank * self.per_rank >= self.whole else rank

    def macs(self, rank: int) -> int:
        """Multiply-adds per frame at a rank."""
        return rank * self.per_rank if rank else self.whole or 0


def check_factorable(net: AcousticModel) -> None:
    """Raise ConfigError for a net whose matrices cannot be factored."""
    if isinstance(net, Lstm):
        if net.layer_norm:
            raise ConfigError("svd: layer norm stands on the outputs that a projection would replace. Set model.layer_norm=false.")
        if net.reduction is None:
            return
    elif not isinstance(net, FeedForward):
        raise ConfigError(f"svd: expected a feed-forward or LSTM net, found one of the kind {type(net).__name__}.")
    elif not any(net.ranks):
        return
    raise ConfigError("svd: the net has low ranks already.")


def matrices_of(net: AcousticModel, ends: bool = True) -> list[Matrix]:
    """The matrices of a net, input side first; without `ends`, those that read the inputs or make the logits of a feed-forward net, and
    the one that reads the inputs of a recurrent net, are left out. The order is that of `ranks` in `factored`, whose ends are then 0."""
    check_factorable(net)
    found = []
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        if isinstance(net, FeedForward):
            layers = [*net.hidden, net.output]
            for number, layer in enumerate(layers if ends else layers[1:-1], start=0 if ends else 1):
                name = "output" if layer is net.output else f"hidden{number}"
                found.append(Matrix(name, torch.linalg.svdvals(layer.weight), sum(layer.weight.shape), layer.weight.numel()))
            return found
        if ends:
            stacked = torch.cat([half.weight_ih for half in net.layers[0]])
            found.append(Matrix("input", torch.linalg.svdvals(stacked), sum(stacked.shape), stacked.numel()))
        for index, layer in enumerate(net.layers):
            above = net.layers[index + 1] if index + 1 < len(net.layers) else None
            readers = net.output.out_features if above is None else sum(4 * half.cells for half in above)
            for way, half in zip(("forward", "backward"), layer):
                name = f"layer{index}.{way}" if net.bidirectional else f"layer{index}"
                found.append(Matrix(name, torch.linalg.svdvals(half.weight_hh), 5 * half.cells + readers, None))
    return found


def fixed_macs(net: AcousticModel, matrices: Sequence[Matrix]) -> int:
    """Multiply-adds per frame of what `matrices_of` left out."""
    if isinstance(net, Lstm):
        whole = sum(4 * half.cells for half in net.layers[0]) * net.num_features * len(net.window)
        return 0 if any(matrix.name == "input" for matrix in matrices) else whole
    return net.macs_per_frame() - sum(matrix.whole or 0 for matrix in matrices)


def ranks_for_budget(matrices: Sequence[Matrix], fixed: int, target: float, tolerance: float = 0.02) -> tuple[list[int], float]:
    """Ranks that explain the same share of every matrix and come closest to `target` multiply-adds per frame; and that share.

    Raises CompactionError where rank 1 everywhere is above the budget.
    """

    def macs(ranks: Sequence[int]) -> int:
        return fixed + sum(matrix.macs(rank) for matrix, rank in zip(matrices, ranks))

    least = fixed + sum(min(matrix.per_rank, matrix.whole or matrix.per_rank) for matrix in matrices)
    if least > target * (1 + tolerance):
        raise CompactionError(
            f"svd: expected a budget of at least {least} multiply-adds per frame, which rank 1 of {len(matrices)} matrices needs, found "
            f"{target:.0f}. Raise experiment.budgets{'' if fixed == 0 else ', or set matrices: all'}."
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        within = macs([matrix.rank_for(middle) for matrix in matrices]) <= target
        low, high = (middle, high) if within else (low, middle)
    candidates = [([matrix.rank_for(share) for matrix in matrices], share) for share in (low, high)]
    ranks, share = min(candidates, key=lambda item: abs(macs(item[0]) - target))
    # Where the spectrum has steps, single ranks come closer than any share.
    for index, matrix in enumerate(matrices):
        for change in (1, -1):
            other = [rank + change * (position == index and rank > 0) for position, rank in enumerate(ranks)]
            while 1 <= other[index] <= len(matrix.spectrum) and abs(macs(other) - target) < abs(macs(ranks) - target):
                ranks, other = other, [rank + change * (position == index) for position, rank in enumerate(other)]
    return ranks, share


def _halves(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`U_r (m, r)`, `S_r (r,)` and `V_r' (r, n)` of a matrix `(m, n)`."""
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    return left[:, :rank], values[:rank], right[:rank]


def factored(net: AcousticModel, matrices: Sequence[Matrix], ranks: Sequence[int]) -> AcousticModel:
    """A net with the given ranks of the `matrices` of `net`; everything else has the values that it has there."""
    by_name = {matrix.name: rank for matrix, rank in zip(matrices, ranks, strict=True)}
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        new = _factored_lstm(net, by_name) if isinstance(net, Lstm) else _factored_feed_forward(net, by_name)
    return new.train(net.training)


def _factored_feed_forward(net: FeedForward, ranks: dict[str, int]) -> FeedForward:
    names = [*(f"hidden{number}" for number in range(len(net.hidden))), "output"]
    new = from_dims({**net.dims, "ranks": [ranks.get(name, 0) for name in names]}).to(net.output.weight.dtype)
    values = net.state_dict()
    new.load_state_dict({name: value for name, value in values.items() if name in new.state_dict()}, strict=False)
    for old, layer, rank in zip([*net.hidden, net.output], [*new.hidden, new.output], new.ranks):
        if rank:
            (left, spectrum, right), (inner, outer) = _halves(old.weight, rank), parts_of(layer)
            inner.weight.copy_(spectrum.sqrt()[:, None] * right)
            outer.weight.copy_(left * spectrum.sqrt())
            outer.bias.copy_(old.bias)
    return new


def _factored_lstm(net: Lstm, ranks: dict[str, int]) -> Lstm:
    projections = [rank for name, rank in ranks.items() if name != "input"]
    cells = [half.cells for layer in net.layers for half in layer]
    widths = [size for pair in zip(cells, projections) for size in pair]
    dims = {**net.dims, "widths": widths, "projected": True, "input_rank": ranks.get("input", 0)}
    new = type(net)(**{key: value for key, value in dims.items() if key != "model"}).to(net.output.weight.dtype)
    below = None
    if new.reduction is not None:
        left, spectrum, right = _halves(torch.cat([half.weight_ih for half in net.layers[0]]), ranks["input"])
        new.reduction.weight.copy_(spectrum.sqrt()[:, None] * right)
        inputs = (left * spectrum.sqrt()).split([4 * half.cells for half in net.layers[0]])
    else:
        inputs = [half.weight_ih for half in net.layers[0]]
    remaining = iter(projections)
    for index, (old_layer, new_layer) in enumerate(zip(net.layers, new.layers)):
        projecting = []
        for old, half, first in zip(old_layer, new_layer, inputs if index == 0 else [None] * len(old_layer)):
            left, spectrum, projection = _halves(old.weight_hh, next(remaining))
            half.weight_ih.copy_(first if index == 0 else old.weight_ih @ below.t())
            half.weight_hh.copy_(left * spectrum)
            half.weight_hr.copy_(projection if old.weight_hr is None else projection @ old.weight_hr)
            half.bias_ih.copy_(old.bias_ih)
            half.bias_hh.copy_(old.bias_hh)
            if old.first_output is not None:
                half.first_output.copy_(projection @ old.first_output)
                half.first_cells.copy_(old.first_cells)
            projecting.append(projection)
        below = torch.block_diag(*projecting)
    new.output.weight.copy_(net.output.weight @ below.t())
    new.output.bias.copy_(net.output.bias)
    return new


def become(net: AcousticModel, new: AcousticModel, optimiser: Union[torch.optim.Optimizer, None] = None) -> None:
    """Let `net` be `new`, in place, for all who hold it; the optimiser goes on with momentum for tensors that stayed as they were."""
    old = dict(net.named_parameters())
    net.__dict__.clear()
    net.__dict__.update(new.__dict__)
    if optimiser is None:
        return
    for group in optimiser.param_groups:
        are_matrices = any(parameter.dim() > 1 for parameter in group["params"])
        group["params"] = [parameter for parameter in net.parameters() if (parameter.dim() > 1) == are_matrices]
    states = {name: optimiser.state.pop(parameter, None) for name, parameter in old.items()}
    for name, parameter in net.named_parameters():
        if name in old and states[name] is not None and torch.equal(old[name], parameter):
            optimiser.state[parameter] = states[name]
