"""What a net says without any search: phones or pieces of the best unit per frame, beside the words. To find faults, not for figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from dropasr.config import Config
from dropasr.data.store import FrameStore
from dropasr.decoding.search import greedy
from dropasr.lang.ctc import best_path
from dropasr.lang.pieces import PieceUnits, load_units
from dropasr.models.checkpoint import load_net
from dropasr.paths import Paths
from dropasr.training.rows import row_by_name


@torch.no_grad()
def show(config: Config, paths: Paths, name: str, count: int = 10) -> Iterator[str]:
    """Lines for the first `count` utterances of dev: id, words, collapsed phones or pieces. ConfigError if there is no row `name`."""
    net = load_net(paths.net(row_by_name(config, name).name))
    units = load_units(paths.align / "units.json")
    store = FrameStore.open(paths.features("dev"))
    for index in range(min(count, len(store.ids))):
        frames = torch.from_numpy(np.array(store.utterance(index), dtype=np.float32))
        if isinstance(units, PieceUnits):
            found = [units.pieces[token] for token in best_path(net.logits(frames, config.train.frame_subsampling))]
        else:
            found = greedy(net.logits(frames, net.stride), units)
        yield f"{store.ids[index]}: {' '.join(store.texts[index])}\n    {' '.join(found)}"
