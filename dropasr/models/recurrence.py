"""One direction of one recurrent layer: an LSTM, with or without projection, whose units a gate multiplies at every step.

The gate stands on the hidden output, and both the recurrent and the upward connection read what it lets through; a mask is one per
sequence, or one for all. torch's fused kernels run over whole sequences and know no gates, so the mask is worked into what they know:

- a factor `(H,)` shared by all sequences scales the columns of the recurrent matrix, and the outputs on their way up;
- a mask of 0 and 1 per sequence closes the output gates of its masked units: inputs of constant value, one per sequence, reach them with
  a weight that no activation outweighs, so that `h = sigmoid(-10000 + ...) tanh(c)` is exactly 0 at every step;
- a factor per sequence that is both (inverted dropout) is the product of the two.

A projection has no gates that could close: the masks that are drawn for it in training are one for the batch, beside masks per sequence
on its cells. What is left takes a Python loop over time, which only retention learning asks for: factors per sequence that are neither of
these, or that need gradients, and masks per sequence that were drawn elsewhere for a projection.

A pattern (patterns.py) leaves cells out for the whole batch: the kernel runs over the cells that are there, with matrices that are
smaller in both dimensions, which is the same as a factor `(H,)` that is 0 for the others.

Layer norm stands on the way up alone, behind the fused kernel. Its mean and variance are over the units that the gate does not remove
(factor 0), and the gate multiplies what it returns: so a masked unit leaves neither its shift nor a trace in the statistics of the others,
and the masked net is exactly the one without the unit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Union

import torch
from torch import nn
from torch.nn import functional

from dropasr.models.base import Slice, UnitGroup
from dropasr.models.gates import Gate
from dropasr.models.patterns import columns_of, present, rows_of

warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")

CLOSED = -1e4
"""What a closed output gate adds to its activation; finite in half precision, and the sigmoid of it is 0 in double precision."""

State = tuple[torch.Tensor, torch.Tensor]
"""Hidden output `(B, R)`, not yet multiplied by its gate, and cells `(B, H)`, after a step."""
Factor = Union[torch.Tensor, None]


def separated(factor: torch.Tensor) -> Union[tuple[torch.Tensor, torch.Tensor], None]:
    """A factor `(B, H)` as a shared scale `(H,)` times masks `(B, H)` of 0 and 1; None where it is no such product, or needs a gradient."""
    if factor.requires_grad:
        return None
    largest = factor.amax(dim=0)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    mask = factor / scale
    return (scale, mask) if bool(((mask == 0) | (mask == 1)).all()) else None


def masked_layer_norm(units: torch.Tensor, factor: Factor, norm: nn.LayerNorm) -> torch.Tensor:
    """Layer norm of units `(..., R)` over those alone whose `factor` `(R,)` or `(B, R)` is not 0; what the others get has no meaning."""
    units = units.to(norm.weight.dtype)
    if factor is None:
        return functional.layer_norm(units, norm.weight.shape, norm.weight, norm.bias, norm.eps)
    kept = (factor.detach() != 0).to(units.dtype)
    count = kept.sum(dim=-1, keepdim=True).clamp(min=1)
    centred = units - (units * kept).sum(dim=-1, keepdim=True) / count
    variance = (centred.square() * kept).sum(dim=-1, keepdim=True) / count
    return centred * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias


def _for_autocast(weight: torch.Tensor) -> torch.Tensor:
    """The weight in the precision of autocast, which keeps a copy of parameters but would convert anything else at every step."""
    if not torch.is_autocast_cpu_enabled() or (weight.is_leaf and weight.requires_grad):
        return weight
    return weight.to(torch.get_autocast_cpu_dtype()) if weight.dtype == torch.float32 else weight


@lru_cache(maxsize=1)
def _runs_in_bfloat16() -> bool:
    """Whether torch's LSTM takes bfloat16 on this processor: torch 2 hands it to oneDNN, which refuses to compute it without AVX512."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or bool(supported())


class Recurrence(nn.Module):
    """`cells` LSTM cells that read `inputs` values a step; tensors are laid out as torch.nn.LSTM does (gates in the order i, f, g, o).

    `projection` above 0: the outputs are that many linear combinations of the cells' outputs (LSTMP, Sak et al. 2014), with a gate of
    their own beside that on the cells. `learned_state`: state before the first step is learned, and not 0.
    """

    def __init__(self, inputs: int, cells: int, projection: int = 0, layer_norm: bool = False, learned_state: bool = False) -> None:
        super().__init__()
        outputs = projection or cells
        self.weight_ih = nn.Parameter(torch.empty(4 * cells, inputs))
        self.weight_hh = nn.Parameter(torch.empty(4 * cells, outputs))
        self.bias_ih = nn.Parameter(torch.zeros(4 * cells))
        self.bias_hh = nn.Parameter(torch.zeros(4 * cells))
        self.weight_hr = nn.Parameter(torch.empty(projection, cells)) if projection else None
        self.norm = nn.LayerNorm(outputs) if layer_norm else None
        self.first_output = nn.Parameter(torch.zeros(outputs)) if learned_state else None
        self.first_cells = nn.Parameter(torch.zeros(cells)) if learned_state else None
        self.gate = Gate(outputs)
        self.cell_gate = Gate(cells) if projection else None
        for weight in (self.weight_ih, self.weight_hh):
            nn.init.uniform_(weight, -1 / math.sqrt(cells), 1 / math.sqrt(cells))
        if self.weight_hr is not None:  # outputs of the size that those of the cells have, on which what follows relies
            nn.init.uniform_(self.weight_hr, -math.sqrt(3 / cells), math.sqrt(3 / cells))
        with torch.no_grad():
            self.bias_ih[cells : 2 * cells] = 1.0  # cells remember from the start (Jozefowicz et al. 2015)

    @property
    def cells(self) -> int:
        """Cells H."""
        return self.bias_ih.numel() // 4

    @property
    def outputs(self) -> int:
        """Values R that the layers above, and the next step, read: the projection, or the cells."""
        return self.weight_hh.shape[1]

    def unit_groups(self, name: str, readers: Sequence[Slice]) -> list[UnitGroup]:
        """The cells, and the projection if there is one; `readers` are the places above that read the outputs."""
        outputs = [Slice(self, "weight_hh", 1, consumer=True), *readers]
        if self.norm is not None:
            outputs += [Slice(self.norm, "weight", 0), Slice(self.norm, "bias", 0)]
        if self.first_output is not None:
            outputs.append(Slice(self, "first_output", 0))
        cells = [Slice(self, tensor, 0, blocks=4) for tensor in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        if self.first_cells is not None:
            cells.append(Slice(self, "first_cells", 0))
        if self.weight_hr is None:
            return [UnitGroup(name, self.gate, [*cells, *outputs])]
        cells.append(Slice(self, "weight_hr", 1, consumer=True))
        outputs.append(Slice(self, "weight_hr", 0))
        return [UnitGroup(f"{name}.cells", self.cell_gate, cells), UnitGroup(f"{name}.projection", self.gate, outputs)]

    def forward(
        self,
        inputs: torch.Tensor,
        state: Union[State, None] = None,
        below: Sequence[Gate] = (),
        found: Union[list[torch.Tensor], None] = None,
    ) -> tuple[torch.Tensor, State]:
        """Outputs `(S, B, R)` for the layers above, normalised and multiplied by the gate, of inputs `(S, B, I)`; and the last state.

        `below`: gates of what is read, side by side; where one has a pattern, `inputs` holds the units that are there alone. `found` is
        given what the gates will multiply: cells `(S, B, H)`, and outputs `(S, B, R)` of a projection, before layer norm.
        """
        if any(gate is not None and gate.pattern is not None for gate in (self.gate, self.cell_gate, *below)):
            return self._patterned(inputs, below)
        batch = inputs.shape[1]
        state = self._first_state(batch) if state is None else state
        like = self.weight_hh
        if self.cell_gate is None:
            cells, factor = None, self.gate.factor(batch, like)
        else:
            # Drawn for a projection, a mask is one for the batch, which is what keeps the kernel fused.
            cells, factor = self.cell_gate.factor(batch, like), self.gate.factor(1 if callable(self.gate.multiplier) else batch, like)
        # The kernel does not tell what a projection reads.
        told = found is not None and self.cell_gate is not None
        fused = None if told else self._fused(inputs, state, cells, factor)
        outputs, state = fused or self._stepped(inputs, state, cells, factor, found if told else None)
        if found is not None:
            found.append(outputs)
        if self.norm is not None:
            outputs = masked_layer_norm(outputs, factor, self.norm)
        return (outputs if factor is None else outputs * factor), state

    def _first_state(self, batch: int) -> State:
        if self.first_output is not None:
            return self.first_output.expand(batch, -1), self.first_cells.expand(batch, -1)
        return self.weight_hh.new_zeros(batch, self.outputs), self.weight_hh.new_zeros(batch, self.cells)

    def _fused(self, inputs: torch.Tensor, state: State, cells: Factor, factor: Factor) -> Union[tuple[torch.Tensor, State], None]:
        """Outputs before their norm and gate from torch's kernel over whole sequences; None where it cannot apply these factors."""
        per_sequence = factor if self.cell_gate is None else cells
        scale = mask = None
        if per_sequence is not None and per_sequence.dim() == 2:
            parts = separated(per_sequence)
            if parts is None:
                return None
            scale, mask = parts
        elif per_sequence is not None:
            scale = per_sequence
        weight_ih, weight_hh, weight_hr = self.weight_ih, self.weight_hh, self.weight_hr
        if self.cell_gate is not None:
            if factor is not None and factor.dim() == 2:
                return None
            weight_hr = weight_hr if scale is None else weight_hr * scale
            scale = factor
        if scale is not None:
            weight_hh = weight_hh * scale
        hidden = state[0]
        if mask is not None:
            inputs, weight_ih = self._closing(inputs, mask)
            hidden = hidden * mask if self.cell_gate is None else hidden
        return self._kernel(inputs, (hidden, state[1]), [weight_ih, weight_hh, self.bias_ih, self.bias_hh], weight_hr)

    def _patterned(self, inputs: torch.Tensor, below: Sequence[Gate]) -> tuple[torch.Tensor, State]:
        """Outputs `(S, B, ·)` of the units that are there, from the beginning of a sequence on, by a kernel that has no others."""
        hidden_gate = self.gate if self.cell_gate is None else self.cell_gate
        cells, outputs = rows_of(hidden_gate), rows_of(self.gate)
        weights = [
            present(self.weight_ih, cells, columns_of(below), blocks=4),
            present(self.weight_hh, cells, (outputs,), blocks=4, scale=1.0 if self.gate.pattern is None else self.gate.pattern.scale),
            present(self.bias_ih, cells, blocks=4),
            present(self.bias_hh, cells, blocks=4),
        ]
        weight_hr = None
        if self.weight_hr is not None:
            weight_hr = present(self.weight_hr, outputs, (cells,), scale=1.0 if hidden_gate.pattern is None else hidden_gate.pattern.scale)
        hidden, cell_values = self._first_state(inputs.shape[1])
        found, state = self._kernel(inputs, (hidden[:, outputs], cell_values[:, cells]), weights, weight_hr)
        if self.norm is not None:
            weight, bias = present(self.norm.weight, outputs), present(self.norm.bias, outputs)
            found = functional.layer_norm(found.to(weight.dtype), weight.shape, weight, bias, self.norm.eps)
        return self.gate(found), state

    def _kernel(self, inputs: torch.Tensor, state: State, weights: list[torch.Tensor], weight_hr: Factor) -> tuple[torch.Tensor, State]:
        """torch's LSTM over whole sequences; `weights`: input matrix, recurrent matrix, and the biases of both."""
        if torch.is_autocast_cpu_enabled() and not _runs_in_bfloat16():
            full = self.weight_ih.dtype
            values, hidden, cell_values, *matrices = (tensor.to(full) for tensor in (inputs, *state, *weights))
            weight_hr = weight_hr if weight_hr is None else weight_hr.to(full)
            with torch.autocast("cpu", enabled=False):
                return self._kernel(values, (hidden, cell_values), matrices, weight_hr)
        hidden, cell_values = state
        weight_ih, weight_hh, *biases = weights
        # The kernel takes a projection to as many values as there are cells for none at all: give it one value more, which is 0.
        padded = weight_hr is not None and hidden.shape[1] == cell_values.shape[1]
        if padded:
            weight_hr = functional.pad(weight_hr, (0, 0, 0, 1))
            weight_hh, hidden = functional.pad(weight_hh, (0, 1)), functional.pad(hidden, (0, 1))
        weights = [weight_ih, weight_hh, *biases] + ([] if weight_hr is None else [weight_hr])
        weights = [_for_autocast(weight) for weight in weights]
        first = (hidden.unsqueeze(0).contiguous(), cell_values.unsqueeze(0).contiguous())
        # Gradients are asked of nets in evaluation mode, too: what the kernel calls training is that they are needed.
        training = torch.is_grad_enabled()
        outputs, hidden, cell_values = torch._VF.lstm(inputs, first, weights, True, 1, 0.0, training, False, False)
        if padded:
            outputs, hidden = outputs[..., :-1], hidden[..., :-1]
        return outputs, (hidden[0], cell_values[0])

    def _closing(self, inputs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and input weights with columns more that close the output gates of the units that `mask` `(B, H)` removes.

        One column per sequence, or one per cell where there are fewer: the product of what is fed, `(B, C)`, and of its weights is
        `CLOSED * (1 - mask)`, a matrix that has such factors of either size.
        """
        removed, width = 1 - mask, self.cells
        if len(mask) <= width:
            fed, closing = torch.eye(len(mask), dtype=mask.dtype, device=mask.device), CLOSED * removed.t()
        else:
            fed, closing = removed, CLOSED * torch.eye(width, dtype=mask.dtype, device=mask.device)
        columns = torch.cat([closing.new_zeros(3 * width, closing.shape[1]), closing])
        fed = fed.to(inputs.dtype).expand(len(inputs), -1, -1)
        return torch.cat([inputs, fed], dim=2), torch.cat([self.weight_ih, columns], dim=1)

    def _stepped(
        self, inputs: torch.Tensor, state: State, cells: Factor, factor: Factor, found: Union[list[torch.Tensor], None] = None
    ) -> tuple[torch.Tensor, State]:
        """The same outputs step by step, for any factors and with gradients for them; `found` is given what a projection reads."""
        hidden, cell_values = state
        outputs, read = [], []
        for above in functional.linear(inputs, self.weight_ih, self.bias_ih + self.bias_hh):
            gated = hidden if factor is None else hidden * factor
            i, f, g, o = (above + functional.linear(gated, self.weight_hh)).chunk(4, dim=1)
            cell_values = torch.sigmoid(f) * cell_values + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell_values)
            if self.weight_hr is not None:
                if found is not None:
                    read.append(hidden)
                hidden = functional.linear(hidden if cells is None else hidden * cells, self.weight_hr)
            outputs.append(hidden)
        if found is not None:
            found.append(torch.stack(read))
        return torch.stack(outputs), (hidden, cell_values)
