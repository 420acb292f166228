"""The best path of kaldi-decoder's FasterDecoder through a graph of kaldifst. It needs numpy alone beside the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_ACTIVE = 30
"""States that stay active in a frame whatever the beam."""
WIDER = 4.0
"""Factor of beam and active states where no path reaches the graph's end."""
UNLIMITED = np.iinfo(np.int32).max
"""Active states where the beam alone prunes."""


@dataclass(frozen=True)
class Path:
    """The best path. `units` `(T,)`: the unit of every frame; `labels`: its output labels; `score`: natural log, higher is better.

    `complete`: it ends in a final state.
    """

    complete: bool
    units: np.ndarray
    labels: list[int]
    score: float


NO_PATH = Path(False, np.zeros(0, np.int64), [], -float("inf"))


def decodable(scores: np.ndarray, first: int = 0) -> Any:
    """Scores `(T, K)` as the decoder reads them, the first row being that of frame `first`. The score of input label k is column k - 1."""
    from kaldi_decoder import DecodableCtc

    return DecodableCtc(np.ascontiguousarray(scores, dtype=np.float32), first)


def best_path(decoder: Any, to_final: bool = True) -> Path:
    """The best path of a decoder so far; with `to_final`, of those that reach a final state where there are any."""
    import kaldifst

    found, path = decoder.get_best_path(to_final)
    if not found:
        return NO_PATH
    _, ilabels, olabels, weight = kaldifst.get_linear_symbol_sequence(path)
    complete = to_final and decoder.reached_final()
    return Path(complete, np.array(ilabels, dtype=np.int64) - 1, list(olabels), -(weight.value1 + weight.value2))


class FasterSearch:
    """Searches over one graph with one beam; the graph's input labels are units + 1, 0 is epsilon."""

    def __init__(self, fst: Any, beam: float, max_active: int, min_active: int = MIN_ACTIVE) -> None:
        self._fst, self._beam, self._max_active, self._min_active = fst, beam, max_active, min_active

    def decoder(self, wider: float = 1.0) -> Any:
        """A decoder that has read nothing yet: `advance_decoding(decodable(scores, first))` feeds it."""
        from kaldi_decoder import FasterDecoder, FasterDecoderOptions

        active = int(self._max_active * wider)
        decoder = FasterDecoder(
            self._fst, FasterDecoderOptions(beam=self._beam * wider, max_active=active, min_active=min(self._min_active, active))
        )
        decoder.init_decoding()
        return decoder

    def decode_once(self, scores: np.ndarray, wider: float = 1.0) -> Path:
        """The best path for scores float32 `(T, K)` inside the beam, of those that reach the graph's end where there are any."""
        decoder = self.decoder(wider)
        decoder.advance_decoding(decodable(scores))
        return best_path(decoder)

    def decode(self, scores: np.ndarray) -> Path:
        """As `decode_once`; where no path reaches the graph's end, with a wider beam. After that, the best that stops short of the end."""
        path = self.decode_once(scores)
        return path if path.complete else self.decode_once(scores, WIDER)
