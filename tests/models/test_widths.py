"""Widths that meet a budget: multiples, groups that stay equal, and rows that are refused before they are trained."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropasr.config import Row
from dropasr.errors import CompactionError
from dropasr.methods import method_options
from dropasr.models import build_model
from dropasr.models.base import widths_for_budget
from dropasr.models.feedforward import FeedForward
from dropasr.training.rows import _check_widths

NET = FeedForward(20, (0, 0), [200, 150, 100], 30)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.02, 1.0), st.sampled_from([1, 4, 8, 16]), st.integers(1, 12))
def test_widths_are_multiples_or_whole_and_close(share: float, multiple: int, min_units: int):
    target = share * NET.macs_per_frame()
    widths = widths_for_budget(NET, target, None, min_units, multiple)
    for width, full in zip(widths, NET.widths):
        assert min_units <= width <= full and (width % multiple == 0 or width == full)
    # No closer than a step in every group: neither all a step wider nor all a step narrower come closer.
    found = abs(NET.macs_per_frame(widths) - target)
    wider = [min(width + multiple, full) for width, full in zip(widths, NET.widths)]
    narrower = [width - multiple for width in widths]
    others = [wider] + ([narrower] if min(narrower) >= min_units else [])
    assert all(found <= abs(NET.macs_per_frame(other) - target) for other in others)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.02, 1.0), st.sampled_from([1, 8]))
def test_groups_of_one_number_stay_equal(share: float, multiple: int):
    net = build_model({"name": "lstm", "layers": 2, "cells": 48, "bidirectional": True}, 10, 20)
    widths = widths_for_budget(net, share * net.macs_per_frame(), None, 4, multiple, [0, 0, 1, 1])
    assert widths[0] == widths[1] and widths[2] == widths[3]


def test_multiples_that_miss_the_budget_are_refused_before_training():
    net, row = build_model({"name": "lstm", "layers": 2, "cells": 256}, 40, 600), Row("x@0.25", "random_removal", "compact", 0.25)
    target = 0.25 * net.macs_per_frame()
    for multiple, refused in ((1, False), (8, False), (32, True)):
        options = method_options("x", {"method": "random_removal", "width_multiple": multiple})
        if refused:
            with pytest.raises(CompactionError, match="multiples of 32, .* off the budget"):
                _check_widths(row, net, options, target, 0.02)
        else:
            _check_widths(row, net, options, target, 0.02)
    small = build_model({"name": "feedforward", "layers": 4, "width": 64}, 40, 600)
    with pytest.raises(CompactionError, match=r"of at least 8 \(8/8/8/8\), are .* off the budget"):
        _check_widths(row, small, method_options("x", {"method": "random_removal"}), small.macs_per_frame() / 32, 0.02)
