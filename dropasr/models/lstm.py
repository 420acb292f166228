"""Recurrent acoustic models: layers of LSTM cells, in one direction or both, with or without projection, one softmax.

What a gate does inside a layer, and how layer norm stays exact under it, is said in recurrence.py. The backward half of a bidirectional
layer reads each sequence reversed within its own length, so the padding on the right comes last in both directions and never matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Union

import torch
from pydantic import Field, model_validator
from torch import nn

from dropasr.config import Options
from dropasr.data.chunks import Chunks
from dropasr.errors import ConfigError
from dropasr.models.base import AcousticModel, Slice, UnitGroup
from dropasr.models.gates import Gate
from dropasr.models.patterns import BlockPattern, linear
from dropasr.models.recurrence import Recurrence, State
from dropasr.models.streaming import Stream

BURN_IN = 40
"""Frames that a chunk has before (bidirectional: and after) those that are scored, so that the state is that of the utterance."""


class ModelOptions(Options):
    """Keys of conf/model/lstm.yaml, blstm.yaml and lstmp.yaml."""

    layers: int = Field(default=2, ge=1)
    """Recurrent layers."""
    cells: int = Field(default=256, ge=1)
    """Cells per layer and direction."""
    bidirectional: bool = False
    """A second net per layer reads the utterance from its end; each layer reads both of the one below."""
    projection: int = Field(default=0, ge=0)
    """Linear outputs per layer and direction, which the next step and the next layer read in place of the cells; 0 is none."""
    output_delay: int = Field(default=0, ge=0)
    """Steps that the net has read beyond a frame before it must name it (one direction only)."""
    subsampling: Literal[1, 3] = 1
    """Frames per step: with 3, a step reads the frames since the last one, and has logits for the newest (train.frame_subsampling 3)."""
    frame_outputs: bool = False
    """A step has logits for the newest frame and for those up to the next step's, too (train.frame_subsampling 1): the search goes frame by
    frame while the net does not (Vanhoucke et al. 2013, multiframe nets)."""
    layer_norm: bool = False
    """Layer normalisation of what a layer passes up, over the units that its gate keeps."""
    splice: int = Field(default=0, ge=0)
    """Frames before and after those of the step that it reads, too."""
    learned_state: bool = False
    """The state before the first frame is learned, and not 0."""

    @model_validator(mode="after")
    def _check(self) -> ModelOptions:
        if self.bidirectional and self.output_delay:
            raise ValueError(f"output_delay: a bidirectional net sees all that follows; expected 0, found {self.output_delay}")
        if self.frame_outputs and self.subsampling == 1:
            raise ValueError("frame_outputs: a step over one frame has nothing more to name; expected subsampling 3, found 1")
        return self


class Lstm(AcousticModel):
    """`widths`: cells of each layer, of its forward and then its backward half, each followed by its projection where there is one.

    `input_rank`: linear combinations of the inputs that the first layer reads in their place; 0 is none.
    """

    reads_chunks = True
    knows_patterns = True

    def __init__(
        self,
        num_features: int,
        widths: Sequence[int],
        num_outputs: int,
        bidirectional: bool = False,
        projected: bool = False,
        output_delay: int = 0,
        subsampling: int = 1,
        layer_norm: bool = False,
        splice: int = 0,
        learned_state: bool = False,
        input_rank: int = 0,
        frame_outputs: bool = False,
    ) -> None:
        super().__init__()
        self.num_features, self.num_outputs = num_features, num_outputs
        self.bidirectional, self.projected = bidirectional, projected
        self.output_delay, self.step, self.splice = output_delay, subsampling, splice
        self.frames_scored = subsampling if frame_outputs else 1
        self.stride = subsampling // self.frames_scored
        self.layer_norm, self.learned_state = layer_norm, learned_state
        self.layers = nn.ModuleList()
        inputs = num_features * len(self.window)
        self.reduction = nn.Linear(inputs, input_rank, bias=False) if input_rank else None
        inputs = input_rank or inputs
        for sizes in self._by_layer(widths):
            halves = [Recurrence(inputs, *half, layer_norm=layer_norm, learned_state=learned_state) for half in sizes]
            self.layers.append(nn.ModuleList(halves))
            inputs = sum(half.outputs for half in halves)
        self.output = nn.Linear(inputs, self.frames_scored * num_outputs)
        nn.init.xavier_normal_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @property
    def window(self) -> range:
        """Frames that a step reads, counted from the first that it has logits for."""
        return range(1 - self.step - self.splice, self.splice + 1)

    def _by_layer(self, widths: Sequence[int]) -> list[list[tuple[int, ...]]]:
        """Widths by layer and direction: `(cells,)` or `(cells, projection)`."""
        per_half, halves = 1 + self.projected, 1 + self.bidirectional
        if len(widths) % (per_half * halves):
            raise ValueError(f"expected a multiple of {per_half * halves} widths, found {len(widths)}")
        sizes = [tuple(widths[start : start + per_half]) for start in range(0, len(widths), per_half)]
        return [sizes[start : start + halves] for start in range(0, len(sizes), halves)]

    @property
    def dims(self) -> dict[str, Any]:
        return {
            "model": "lstm",
            "num_features": self.num_features,
            "widths": self.widths,
            "num_outputs": self.num_outputs,
            "bidirectional": self.bidirectional,
            "projected": self.projected,
            "output_delay": self.output_delay,
            "subsampling": self.step,
            "layer_norm": self.layer_norm,
            "splice": self.splice,
            "learned_state": self.learned_state,
            **({} if self.reduction is None else {"input_rank": self.reduction.out_features}),
            **({"frame_outputs": True} if self.frames_scored > 1 else {}),
        }

    @property
    def context(self) -> tuple[int, int]:
        return BURN_IN, BURN_IN if self.bidirectional else self.step * self.output_delay + self.splice

    def forward(self, chunks: Chunks) -> torch.Tensor:
        gates = [gate for layer in self.layers for half in layer for gate in (half.gate, half.cell_gate) if gate is not None]
        if any(isinstance(gate.pattern, BlockPattern) for gate in gates):
            return self._in_parts(chunks, gates)
        inputs, lengths, rows = self._steps(chunks)
        hidden = self.run_layers(inputs, lengths)[0].flatten(0, 1)
        gates = [half.gate for half in self.layers[-1]]
        if self.frames_scored == 1:
            return linear(self.output, hidden[rows], gates)
        # Each step is multiplied once, whichever of its frames are scored.
        steps, step_of_row = torch.unique(rows, return_inverse=True)
        place = chunks.rows % chunks.frames.shape[1] % self.step
        return linear(self.output, hidden[steps], gates).unflatten(1, (self.step, self.num_outputs))[step_of_row, place]

    def _in_parts(self, chunks: Chunks, gates: Sequence[Gate]) -> torch.Tensor:
        """Logits where each part of the pieces has blocks of units of its own (all gates have a BlockPattern): part by part."""
        patterns = [gate.pattern for gate in gates]
        count = min(patterns[0].parts(len(chunks)), chunks.num_pieces)
        logits, places = [], []
        for part, pieces in enumerate(torch.arange(chunks.num_pieces).tensor_split(count)):
            for gate, pattern in zip(gates, patterns):
                gate.pattern = pattern.of_part(part)
            own, rows = chunks.select(slice(int(pieces[0]), int(pieces[-1]) + 1))
            logits.append(self(own))
            places.append(rows)
        for gate, pattern in zip(gates, patterns):
            gate.pattern = pattern
        return torch.cat(logits).index_select(0, torch.cat(places).argsort())

    def unit_activations(self, chunks: Chunks) -> list[torch.Tensor]:
        """Activations at the step that has the logits of the row, before layer norm; a backward half has read from there to the end."""
        inputs, lengths, rows = self._steps(chunks)
        found: list[torch.Tensor] = []
        self.run_layers(inputs, lengths, found=found)
        return [units.flatten(0, 1)[rows] for units in found]

    def _steps(self, chunks: Chunks) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs of the steps `(steps, B, I)`, steps of each piece `(B,)`, and where of steps times pieces the scored rows `(N,)` lie."""
        step = chunks.rows % chunks.frames.shape[1] // self.step + self.output_delay
        lengths = -(-chunks.lengths // self.step)
        steps = int(lengths.max()) if self.bidirectional else int(step.max()) + 1
        return self._inputs(chunks, steps), lengths, step * chunks.num_pieces + chunks.piece_of_row

    def _inputs(self, chunks: Chunks, steps: int) -> torch.Tensor:
        """What the steps read, `(steps, B, I)`; before the first and after the last frame of a piece that frame is repeated."""
        batch, size, _ = chunks.frames.shape
        columns = self.step * torch.arange(steps)[:, None] + torch.tensor(self.window)
        columns = torch.minimum(columns.clamp(min=0)[:, None], chunks.lengths[:, None] - 1)
        rows = columns + size * torch.arange(batch)[:, None]
        return chunks.frames.reshape(batch * size, -1)[rows].reshape(steps, batch, -1)

    def run_layers(
        self,
        inputs: torch.Tensor,
        lengths: Union[torch.Tensor, None] = None,
        states: Union[Sequence[State], None] = None,
        found: Union[list[torch.Tensor], None] = None,
    ) -> tuple[torch.Tensor, list[State]]:
        """Outputs `(steps, B, R)` of the last layer for the inputs of steps `(steps, B, I)`, and the states of the forward halves.

        `lengths` (int64 `(B,)`): steps of each sequence, which a bidirectional net must know; `states`: where the forward halves go on;
        `found`: is given the activations `(steps, B, H)` of every group of units.
        """
        back = _reversal(inputs, lengths) if self.bidirectional else None
        reached = []
        inputs = inputs if self.reduction is None else self.reduction(inputs)
        below: list[Gate] = []
        for index, layer in enumerate(self.layers):
            outputs, state = layer[0](inputs, None if states is None else states[index], below, found)
            reached.append(state)
            if back is not None:
                read: Union[list[torch.Tensor], None] = None if found is None else []
                reverse = _rows(layer[1](_rows(inputs, back), None, below, read)[0], back)
                if found is not None:
                    found += [_rows(units, back) for units in read]
                outputs = torch.cat([outputs, reverse.to(outputs.dtype)], dim=2)
            inputs = outputs
            below = [half.gate for half in layer]
        return inputs, reached

    def logits(self, frames: torch.Tensor, stride: int = 1) -> torch.Tensor:
        if stride % self.stride:
            raise ConfigError(f"model.subsampling {self.step} needs train.frame_subsampling {self.stride}, found {stride}.")
        if not len(frames):
            return frames.new_empty(0, self.num_outputs)
        return self(Chunks(frames[None], torch.tensor([len(frames)]), torch.arange(0, len(frames), stride)))

    def stream(self) -> Stream:
        """An utterance that arrives in parts. Raises ConfigError for a bidirectional net, which has to see its end first."""
        if self.bidirectional:
            raise ConfigError("a bidirectional net reads utterances from their ends, too: take model lstm or lstmp for a stream.")
        return Stream(self)

    def unit_groups(self) -> list[UnitGroup]:
        groups = []
        for index, layer in enumerate(self.layers):
            above = [(half, "weight_ih") for half in self.layers[index + 1]] if index + 1 < len(self.layers) else [(self.output, "weight")]
            offset = 0
            for half, direction in zip(layer, (".forward", ".backward")):
                readers = [Slice(module, name, 1, offset, consumer=True) for module, name in above]
                groups += half.unit_groups(f"layer{index}{direction if self.bidirectional else ''}", readers)
                offset += half.outputs
        return groups

    def resized(self, keep: dict[str, torch.Tensor]) -> None:
        """The sizes of recurrent layers are those of their tensors; two modules of torch keep theirs as numbers."""
        self.output.in_features = self.output.weight.shape[1]
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.normalized_shape = tuple(module.weight.shape)

    def macs_per_frame(self, widths: Sequence[int] | None = None) -> int:
        """Multiply-adds per step, which is a frame, or every third with `subsampling` 3."""
        below, total = self.num_features * len(self.window), 0
        if self.reduction is not None:
            below, total = self.reduction.out_features, below * self.reduction.out_features
        for sizes in self._by_layer(self.widths if widths is None else widths):
            for half in sizes:
                cells, outputs = half[0], half[-1]
                total += 4 * cells * (below + outputs) + (cells * outputs if self.projected else 0)
            below = sum(half[-1] for half in sizes)
        return total + below * self.output.out_features

    def with_widths(self, widths: Sequence[int]) -> Lstm:
        return from_dims({**self.dims, "widths": list(widths)})


def _reversal(inputs: torch.Tensor, lengths: Union[torch.Tensor, None]) -> torch.Tensor:
    """For each step of each sequence the row, in `(steps * B)`, that it has when sequences are read from their ends, `(steps, B)`."""
    steps, batch = inputs.shape[:2]
    time = torch.arange(steps)[:, None]
    lengths = torch.full((batch,), steps) if lengths is None else lengths
    mirrored = torch.where(time < lengths, lengths - 1 - time, time)
    return mirrored * batch + torch.arange(batch)


def _rows(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return values.flatten(0, 1)[rows]


def build(options: ModelOptions, num_features: int, num_outputs: int) -> Lstm:
    """A randomly initialised net for `num_features` log-mel channels and `num_outputs` output units."""
    half = [options.cells, options.projection] if options.projection else [options.cells]
    return Lstm(
        num_features,
        half * (options.layers * (1 + options.bidirectional)),
        num_outputs,
        options.bidirectional,
        options.projection > 0,
        options.output_delay,
        options.subsampling,
        options.layer_norm,
        options.splice,
        options.learned_state,
        frame_outputs=options.frame_outputs,
    )


def from_dims(dims: dict[str, Any]) -> Lstm:
    """The net that `Lstm.dims` describes, randomly initialised."""
    return Lstm(**{key: value for key, value in dims.items() if key != "model"})
