"""What tells the systems of one corpus apart. Several may share their nets: those that differ in decoding alone."""

from __future__ import annotations

import re

from dropasr.config.loading import Config


def system_name(config: Config) -> str:
    """What tells a system from the usual hybrid one: criterion, units, frame subsampling, skipping, rescoring; empty for the usual."""
    parts = []
    if config.train.criterion == "ctc":
        parts.append(f"CTC {config.lang.units}, {config.decode.ctc}")
    if config.train.frame_subsampling > 1:
        parts.append(f"every {config.train.frame_subsampling}rd frame")
    if config.decode.frame_skip > 1:
        parts.append(f"scores shared by {config.decode.frame_skip} frames")
    if config.decode.rescore != "none":
        parts.append("rescored")
    return ", ".join(parts)


def system_slug(name: str) -> str:
    """The name of a system as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name)


def has_own_graph(config: Config) -> bool:
    """Whether the system needs another decoding graph than that of stage 4, which is for nets evaluated as they are trained."""
    return config.train.criterion == "frames" and config.train.frame_subsampling > 1


def system_folder(config: Config) -> str:
    """Name of the folder of its scores, times and report, where a system only decodes the nets of another one in its own way.

    Empty for the system that the nets were trained for: with frames every frame, with CTC lexicon and language model, no rescoring.
    """
    every_frame = not has_own_graph(config) and config.decode.frame_skip == 1
    as_trained = config.decode.ctc == "hlg" if config.train.criterion == "ctc" else every_frame
    return "" if as_trained and config.decode.rescore == "none" else system_slug(system_name(config))
