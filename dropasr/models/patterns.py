"""Dropout patterns so regular that matrix products shrink by what is dropped (Song et al. 2018, "Approximate random dropout").

A gate whose `pattern` is set stands for masks that many frames of a batch share, with a `RowPattern` or `TilePattern` all of them. With a
`RowPattern` the net computes every `period`-th unit of the group alone, and the layers above read the columns of those: forward product
and both backward products have that much less to do, and gradients of whatever belongs to absent units are 0. With a `TilePattern` all
units are there, and the layer above uses every `period`-th tile of its weights, diagonal by diagonal, so that its product falls into
`period` dense ones of `1 / period ** 2` the size. A `BlockPattern`, an addition of ours, divides the batch into parts, each with random
blocks of neighbouring units of its own; nets that read sequences divide the pieces of the batch and run each part by itself, with the
`UnitPattern` that is left of it.

Weights of what is there are gathered into small matrices, and their gradients spread into one full matrix; for a matrix of 1024 x 1024
and 256 rows that takes 0.1 to 0.4 ms where the products of a forward pass take 3 to 15.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import torch
from torch import nn
from torch.nn import functional

from dropasr.models.gates import Gate

EVERYTHING = slice(None)
Units = Union[slice, torch.Tensor]
"""Units that are there: regularly, or by their numbers, int64 and sorted."""


@dataclass(frozen=True)
class RowPattern:
    """Unit i is there if `(i - bias) mod period == 0`, for `bias` in 0 .. period - 1, and is multiplied by `scale`."""

    period: int
    bias: int
    scale: float

    def units(self, width: int, offset: int = 0) -> slice:
        """The units that are there, of a group of `width` that begins at `offset`."""
        return slice(offset + self.bias, offset + width, self.period)


@dataclass(frozen=True)
class TilePattern:
    """Of the weights that read the units, tile (i, j) of `tile` x `tile` is there if `(i + j - bias) mod period == 0`; rest as above."""

    period: int
    bias: int
    scale: float
    tile: int = 32

    def product(self, inputs: torch.Tensor, weight: torch.Tensor, bias: Union[torch.Tensor, None]) -> torch.Tensor:
        """`inputs` `(N, C)` times the tiles of `weight` `(R, C)` that are there, plus `bias` `(R,)`."""
        size, (rows, columns) = self.tile, weight.shape
        wide = functional.pad(inputs, (0, -columns % size)).view(len(inputs), -1, size)
        products = []
        for number, part in enumerate(_Tiles.apply(weight, self, _number_type(weight))):
            read = wide[:, (self.bias - number) % self.period :: self.period]
            products.append(functional.linear(read.reshape(len(inputs), part.shape[1]), part))
        tiles = -(-rows // size)
        order = torch.cat([torch.arange(tiles)[number :: self.period] for number in range(self.period)])
        found = torch.cat(products, dim=1).view(len(inputs), tiles, size).index_select(1, order.argsort()).flatten(1)[:, :rows]
        return found if bias is None else found + bias.to(found.dtype)


@dataclass(frozen=True, eq=False)
class UnitPattern:
    """The units of `numbers` (int64, sorted) are there, and are multiplied by `scale`."""

    numbers: torch.Tensor
    scale: float


@dataclass(frozen=True, eq=False)
class BlockPattern:
    """A batch is divided into parts; in part p the `size` units of each of `blocks[p]` (sorted numbers, `(P, K)`) are there, and are
    multiplied by `scale`. Parts have at least `least` rows, so that there may be fewer of them than P."""

    blocks: torch.Tensor
    size: int
    scale: float
    least: int = 1

    def parts(self, rows: int) -> int:
        """Parts of a batch of `rows` frames."""
        return max(1, min(len(self.blocks), rows // self.least))

    def split(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The rows of `inputs` `(N, ·)` by parts of about equal size, in order."""
        return inputs.tensor_split(self.parts(len(inputs)))

    def of_part(self, part: int) -> UnitPattern:
        """The units of one part."""
        return UnitPattern((self.blocks[part][:, None] * self.size + torch.arange(self.size)).flatten(), self.scale)


Pattern = Union[RowPattern, TilePattern, BlockPattern, UnitPattern]


def _number_type(weight: torch.Tensor) -> torch.dtype:
    """What the products of this weight are computed in: gathered matrices are converted once, small, and not where they are used."""
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() and weight.dtype == torch.float32 else weight.dtype


class _Tiles(torch.autograd.Function):
    """The tiles of a weight that a pattern keeps: for every remainder of tile rows a dense matrix."""

    @staticmethod
    def _views(padded: torch.Tensor, pattern: TilePattern) -> list[torch.Tensor]:
        size, period = pattern.tile, pattern.period
        tiles = padded.view(padded.shape[0] // size, size, padded.shape[1] // size, size)
        return [tiles[number::period, :, (pattern.bias - number) % period :: period] for number in range(period)]

    @staticmethod
    def _padded(shape: torch.Size, size: int) -> tuple[int, int]:
        return shape[0] + -shape[0] % size, shape[1] + -shape[1] % size

    @staticmethod
    def forward(ctx, weight: torch.Tensor, pattern: TilePattern, dtype: torch.dtype):
        ctx.pattern, ctx.shape, ctx.dtype = pattern, weight.shape, weight.dtype
        rows, columns = _Tiles._padded(weight.shape, pattern.tile)
        padded = functional.pad(weight, (0, columns - weight.shape[1], 0, rows - weight.shape[0]))
        views = _Tiles._views(padded.contiguous(), pattern)
        return tuple(view.reshape(view.shape[0] * pattern.tile, view.shape[2] * pattern.tile).to(dtype) for view in views)

    @staticmethod
    def backward(ctx, *gradients: torch.Tensor):
        padded = torch.zeros(_Tiles._padded(ctx.shape, ctx.pattern.tile), dtype=ctx.dtype)
        for view, gradient in zip(_Tiles._views(padded, ctx.pattern), gradients):
            view.copy_(gradient.view(view.shape))
        return padded[: ctx.shape[0], : ctx.shape[1]].contiguous(), None, None


class _Present(torch.autograd.Function):
    """Rows and columns of a matrix as a small one; the gradient of the others is 0."""

    @staticmethod
    def forward(ctx, weight: torch.Tensor, rows: Units, columns: Sequence[Units], blocks: int, scale: float, dtype: torch.dtype):
        ctx.place, ctx.shape, ctx.dtype = (rows, columns, blocks, scale), weight.shape, weight.dtype
        own = weight.view(blocks, weight.shape[0] // blocks, -1)[:, rows]
        parts = [own[..., part] for part in columns]
        # Strided values are copied first: converting them takes torch three times as long as copying and converting.
        small = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)).flatten(0, 1).contiguous()
        return (small if scale == 1 else small * scale).to(dtype)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        rows, columns, blocks, scale = ctx.place
        whole = torch.zeros(ctx.shape, dtype=ctx.dtype).view(blocks, ctx.shape[0] // blocks, -1)
        own = whole[:, rows] if isinstance(rows, slice) else whole.new_zeros(blocks, len(rows), whole.shape[2])
        gradient = (gradient if scale == 1 else gradient * scale).view(blocks, own.shape[1], -1).to(ctx.dtype)
        begin = 0
        for part in columns:
            count = own[0, 0, part].numel() if isinstance(part, slice) else len(part)
            values = gradient[..., begin : begin + count]
            if isinstance(part, slice):
                own[..., part].copy_(values)
            else:
                own.index_copy_(2, part, values)
            begin += count
        if not isinstance(rows, slice):
            whole.index_copy_(1, rows, own)
        return whole.view(ctx.shape), None, None, None, None, None


class _Blocks(torch.autograd.Function):
    """For every part of a batch the rows and columns of a weight that two patterns keep (None: all), as a small dense matrix."""

    @staticmethod
    def forward(
        ctx, weight: torch.Tensor, rows: Union[BlockPattern, None], columns: Union[BlockPattern, None], parts: int, dtype: torch.dtype
    ):
        ctx.rows, ctx.columns, ctx.shape, ctx.dtype = rows, columns, weight.shape, weight.dtype
        small, weight = [], weight.to(dtype)
        for part in range(parts):
            found = weight
            if rows is not None:
                found = found.view(-1, rows.size * weight.shape[1]).index_select(0, rows.blocks[part]).view(-1, weight.shape[1])
            if columns is not None:
                found = found.view(len(found), -1, columns.size).index_select(1, columns.blocks[part]).flatten(1)
            small.append(found)
        return tuple(small)

    @staticmethod
    def backward(ctx, *gradients: torch.Tensor):
        whole = torch.zeros(ctx.shape, dtype=ctx.dtype)
        sizes = [1 if pattern is None else pattern.size for pattern in (ctx.rows, ctx.columns)]
        # Blocks by their two numbers, then the places within one: `index_put_` copies whole rows of a block.
        blocks = whole.view(ctx.shape[0] // sizes[0], sizes[0], ctx.shape[1] // sizes[1], sizes[1]).permute(0, 2, 1, 3)
        for part, gradient in enumerate(gradients):
            rows, columns = (None if pattern is None else pattern.blocks[part] for pattern in (ctx.rows, ctx.columns))
            values = gradient.to(ctx.dtype)
            if columns is None:
                blocks_of_rows = whole.view(-1, sizes[0] * ctx.shape[1])
                blocks_of_rows.index_add_(0, rows, values.reshape(len(rows), -1))
                continue
            rows = torch.arange(blocks.shape[0]) if rows is None else rows
            values = values.view(len(rows), sizes[0], len(columns), sizes[1]).permute(0, 2, 1, 3)
            blocks.index_put_((rows[:, None], columns[None]), values, accumulate=True)
        return whole, None, None, None, None


def _in_blocks(part: nn.Linear, inputs: torch.Tensor, rows: Union[BlockPattern, None], columns: Union[BlockPattern, None]) -> torch.Tensor:
    """`inputs` times what is there of the weight of `part`, a product for each part of the batch."""
    pattern = rows or columns
    if pattern is None:
        return part(inputs)
    own = pattern.split(inputs)
    biases: Sequence[Union[torch.Tensor, None]] = [part.bias] * len(own)
    if part.bias is not None and rows is not None:
        biases = [part.bias.view(-1, rows.size)[blocks].flatten() for blocks in rows.blocks[: len(own)]]
    weights = _Blocks.apply(part.weight, rows, columns, len(own), _number_type(part.weight))
    return torch.cat([functional.linear(x, weight, bias) for x, weight, bias in zip(own, weights, biases)])


def _are_all(units: Units) -> bool:
    return isinstance(units, slice) and units == EVERYTHING


def present(
    weight: torch.Tensor, rows: Units = EVERYTHING, columns: Sequence[Units] = (EVERYTHING,), blocks: int = 1, scale: float = 1.0
) -> torch.Tensor:
    """`scale` times the given columns of the given rows of each of the `blocks` of a weight `(blocks * R, C)`, as a small dense matrix.

    It has the type in which products are computed. A vector `(blocks * R,)` has no columns.
    """
    if weight.dim() == 1:
        return weight.view(blocks, -1)[:, rows].flatten()
    if _are_all(rows) and all(map(_are_all, columns)) and scale == 1:
        return weight
    return _Present.apply(weight, rows, tuple(columns), blocks, scale, _number_type(weight))


def rows_of(gate: Union[Gate, None]) -> Units:
    """The units of a group that are there."""
    pattern = None if gate is None else gate.pattern
    if isinstance(pattern, UnitPattern):
        return pattern.numbers
    return pattern.units(gate.width) if isinstance(pattern, RowPattern) and pattern.period > 1 else EVERYTHING


def columns_of(gates: Sequence[Gate]) -> tuple[Units, ...]:
    """The columns that are there of a weight that reads these groups, which lie side by side."""
    if all(_are_all(rows_of(gate)) for gate in gates):
        return (EVERYTHING,)
    parts: list[Units] = []
    offset = 0
    for gate in gates:
        units = rows_of(gate)
        sliced = isinstance(units, slice)
        parts.append(slice(offset + (units.start or 0), offset + gate.width, units.step) if sliced else offset + units)
        offset += gate.width
    return tuple(parts)


def parts_of(layer: nn.Module) -> list[nn.Linear]:
    """The matrices of a layer, input side first: one, or the two that a low rank leaves of it."""
    return list(layer) if isinstance(layer, nn.Sequential) else [layer]


def _blocks_of(gate: Union[Gate, None] = None) -> Union[BlockPattern, None]:
    return gate.pattern if gate is not None and isinstance(gate.pattern, BlockPattern) else None


def linear(layer: nn.Module, inputs: torch.Tensor, below: Sequence[Gate] = (), above: Union[Gate, None] = None) -> torch.Tensor:
    """What a layer makes for the units of `above` that are there, of `inputs` `(N, ·)`: the units of `below` that are there."""
    if all(gate is None or gate.pattern is None for gate in (above, *below)):
        return layer(inputs)
    parts = parts_of(layer)
    if any(gate is not None and isinstance(gate.pattern, BlockPattern) for gate in (above, *below)):
        for part in parts:
            inputs = _in_blocks(
                part, inputs, _blocks_of(above) if part is parts[-1] else None, _blocks_of(*below) if part is parts[0] else None
            )
        return inputs
    for part in parts:
        gates = below if part is parts[0] else ()
        tiles = next((gate.pattern for gate in gates if isinstance(gate.pattern, TilePattern) and gate.pattern.period > 1), None)
        if tiles is not None:
            inputs = tiles.product(inputs, part.weight, part.bias)
            continue
        rows = rows_of(above) if part is parts[-1] else EVERYTHING
        weight = present(part.weight, rows, columns_of(gates))
        inputs = functional.linear(inputs, weight, None if part.bias is None else present(part.bias, rows))
    return inputs


def batch_norm(norm: nn.Module, units: torch.Tensor, gate: Gate) -> torch.Tensor:
    """Batch norm of the units that are there; the running statistics of the others stay as they are."""
    rows = rows_of(gate)
    if isinstance(norm, nn.BatchNorm1d) and isinstance(gate.pattern, BlockPattern):
        return _batch_norm_in_blocks(norm, units, gate.pattern)
    if _are_all(rows) or not isinstance(norm, nn.BatchNorm1d):
        return norm(units)
    mean, variance = norm.running_mean[rows].clone(), norm.running_var[rows].clone()
    weight, bias = norm.weight[rows].contiguous(), norm.bias[rows].contiguous()
    units = functional.batch_norm(units, mean, variance, weight, bias, norm.training, norm.momentum, norm.eps)
    if norm.training:
        norm.running_mean[rows], norm.running_var[rows] = mean, variance
        norm.num_batches_tracked.add_(1)
    return units


def _batch_norm_in_blocks(norm: nn.BatchNorm1d, units: torch.Tensor, pattern: BlockPattern) -> torch.Tensor:
    """Batch norm of each part of the batch for itself; running statistics see the parts one after the other."""
    made = []
    for own, blocks in zip(pattern.split(units), pattern.blocks):
        rows = (blocks[:, None] * pattern.size + torch.arange(pattern.size)).flatten()
        mean, variance = norm.running_mean[rows], norm.running_var[rows]
        made.append(functional.batch_norm(own, mean, variance, norm.weight[rows], norm.bias[rows], norm.training, norm.momentum, norm.eps))
        if norm.training:
            norm.running_mean[rows], norm.running_var[rows] = mean, variance
    if norm.training:
        norm.num_batches_tracked.add_(1)
    return torch.cat(made)
