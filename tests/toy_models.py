"""Makes the models of the folder `toys` models of dropasr, found by name as those of dropasr/models are."""

from __future__ import annotations

from pathlib import Path

import dropasr.models

TOYS = str(Path(__file__).with_name("toys"))
if TOYS not in dropasr.models.__path__:
    dropasr.models.__path__.append(TOYS)

from dropasr.models.toy_recurrent import ToyRecurrent  # noqa: E402 (its folder is on the path only now)

__all__ = ["ToyRecurrent"]
