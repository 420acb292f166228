"""Plain cross-entropy training: the large net, and the small net from scratch."""

from __future__ import annotations

from dropasr.methods.base import BaseMethod, CommonOptions


class MethodOptions(CommonOptions):
    """Keys of conf/method/dense.yaml: only the common ones."""


class Method(BaseMethod):
    """All gates open."""
