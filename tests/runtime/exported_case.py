"""A card of an exported net for tests."""

from __future__ import annotations

from typing import Any

from dropasr.runtime.exported import Exported


def card(**changes: Any) -> Exported:
    """A card with plausible values."""
    values: dict[str, Any] = {
        "corpus": "tiny",
        "licence": "CC0",
        "model": "feedforward",
        "row": "dense",
        "dims": {"model": "feedforward"},
        "widths": [3, 4],
        "git_revision": "unknown",
        "sample_rate": 8000,
        "features": {"num_mel_bins": 2, "frame_shift": 0.01, "frame_length": 0.025, "low_freq": 20.0, "high_freq": -400.0},
        "normalisation": {"kind": "speaker", "prior_frames": 0.0, "mean": [1.5, 0.25], "std": [2.0, 0.1]},
        "stride": 1,
        "left_context": 2,
        "right_context": 1,
        "output_delay": 0,
        "recurrent": False,
        "states": [],
        "acoustic_scale": 0.1,
        "prior": "none",
        "units": 5,
    }
    return Exported(**{**values, **changes})
