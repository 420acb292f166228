"""What a net says without any search: phones of the best unit per frame, beside the words. For finding faults, not for figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from dropasr.config import Config
from dropasr.data.store import FrameStore
from dropasr.decoding.search import greedy
from dropasr.lang.units import OutputUnits
from dropasr.models.checkpoint import load_net
from dropasr.paths import Paths
from dropasr.training.rows import row_by_name


@torch.no_grad()
def show(config: Config, paths: Paths, name: str, count: int = 10) -> Iterator[str]:
    """Lines for the first `count` utterances of dev: id, words, collapsed phones. ConfigError if the experiment has no row `name`."""
    net = load_net(paths.net(row_by_name(config, name).name))
    units = OutputUnits.load(paths.align / "units.json")
    store = FrameStore.open(paths.features("dev"))
    for index in range(min(count, len(store.ids))):
        frames = torch.from_numpy(np.array(store.utterance(index), dtype=np.float32))
        yield f"{store.ids[index]}: {' '.join(store.texts[index])}\n    {' '.join(greedy(net.logits(frames), units))}"
