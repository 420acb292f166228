"""A recurrent net on an utterance that arrives in parts: the state is carried on, and the logits are those of the whole utterance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

import torch

from dropasr.models.recurrence import State

if TYPE_CHECKING:
    from dropasr.models.lstm import Lstm


class Stream:
    """Fed frames `(n, F)` as they come, returns the logits `(k, K)` that they complete; `finish` returns the rest.

    Logits come for the first of every `net.stride` frames, later than their frame by the net's output delay and splicing, and those of
    one step together.
    """

    def __init__(self, net: Lstm) -> None:
        self.net = net
        self._waiting: Union[torch.Tensor, None] = None
        self._first = 0  # number of the first waiting frame
        self._step = 0
        self._scored = 0  # frames that had their logits
        self._states: Union[list[State], None] = None
        self._finished = False

    def feed(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits `(k, K)` of the steps that can be computed with these frames; k may be 0. Raises ValueError after `finish`."""
        if self._finished:
            raise ValueError("the stream is finished: open another one, net.stream(), for the next utterance")
        self._waiting = frames if self._waiting is None else torch.cat([self._waiting, frames])
        # A step waits for all the frames that it scores, so that none is scored that never comes.
        later = max(self.net.window[-1], self.net.frames_scored - 1)
        return self._advance((self._received - 1 - later) // self.net.step + 1)

    def finish(self) -> torch.Tensor:
        """Logits of the frames left, as at the end of a whole utterance; afterwards the stream is closed."""
        self._finished = True
        if not self._received:
            return self.net.output.weight.new_empty(0, self.net.num_outputs)
        received, scored = self._received, self._scored
        logits = self._advance(-(-received // self.net.step) + self.net.output_delay)
        return logits[: -(-received // self.net.stride) - scored]

    @property
    def _received(self) -> int:
        return self._first + (0 if self._waiting is None else len(self._waiting))

    @torch.no_grad()
    def _advance(self, until: int) -> torch.Tensor:
        """Run the steps before `until` that have not been run."""
        net, start = self.net, self._step
        if until <= start:
            return net.output.weight.new_empty(0, net.num_outputs)
        columns = net.step * torch.arange(start, until)[:, None] + torch.tensor(net.window)
        inputs = self._waiting[columns.clamp(0, self._received - 1) - self._first]
        hidden, self._states = net.run_layers(inputs.reshape(until - start, 1, -1), states=self._states)
        self._step = until
        done = max(0, min(net.step * until + net.window[0], self._received - 1) - self._first)
        self._waiting, self._first = self._waiting[done:], self._first + done
        logits = net.output(hidden[max(0, net.output_delay - start) :, 0]).reshape(-1, net.num_outputs)
        self._scored += len(logits)
        return logits
