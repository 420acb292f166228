"""ONNX graphs give what the nets give that they were written from: whole utterances and streams, every kind of net."""

from __future__ import annotations

import numpy as np
import pytest
from exported_case import card
from graphs_case import FEATURES, FEEDFORWARD, KINDS, OUTPUTS, SCALE, expected, feedforward, net_of, prior, session, strides_of, utterance
from hypothesis import given, settings
from hypothesis import strategies as st

from dropasr.errors import ExportError
from dropasr.models.lstm import Lstm
from dropasr.runtime.graphs import layout_of, lstm, write_graph

CLOSE = {"rtol": 0, "atol": 2e-5}


def check_whole(net, stride: int, lengths=(1, 2, 3, 4, 11, 30)) -> None:
    model, _ = write_graph(net, stride, prior(), SCALE, stream=False)
    whole = session(model)
    for frames in lengths:
        features, mean, std = utterance(frames, frames)
        (scores,) = whole.run(["scores"], {"features": features, "mean": mean, "std": std})
        assert scores.dtype == np.float32 and scores.shape == (-(-frames // stride), net.frames_scored * OUTPUTS)
        about = card(stride=stride, units=OUTPUTS, frames_scored=net.frames_scored)
        np.testing.assert_allclose(about.spread(scores, frames), expected(net, stride, features, mean, std), **CLOSE)


def check_stream(net, stride: int, parts=(1, 4, 2), frames: int = 31) -> None:
    layout = layout_of(net, stride)
    model, states = write_graph(net, stride, prior(), SCALE, stream=True)
    about = card(
        stride=stride,
        left_context=layout.left_context,
        right_context=layout.right_context,
        output_delay=layout.output_delay,
        states=[state.about() for state in states],
        units=OUTPUTS,
        frames_scored=net.frames_scored,
    )
    part = session(model)
    features, mean, std = utterance(frames, 5)
    carried, found, first = about.first_states(), [], 0
    total = about.num_scores(frames) + about.output_delay
    while first < total:
        count = min(parts[first % len(parts)], total - first)
        window = features[about.window(first, count, frames)]
        fed = {f"state_in_{name}": value for name, value in carried.items()}
        names = ["scores", *(f"state_out_{name}" for name in carried)]
        scores, *left = part.run(names, {"window": window, "mean": mean, "std": std, **fed})
        assert len(scores) == count
        carried = dict(zip(carried, left))
        found.append(scores)
        first += count
    scores = np.concatenate(found)[about.output_delay :]
    np.testing.assert_allclose(about.spread(scores, frames), expected(net, stride, features, mean, std), **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_utterances(kind: str):
    net = net_of(kind)
    for stride in strides_of(net):
        check_whole(net, stride)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("blstm")])
def test_a_stream_gives_the_scores_of_the_whole(kind: str):
    net = net_of(kind)
    for stride in strides_of(net):
        check_stream(net, stride)


def test_both_ways_to_write_a_projection_are_tested():
    halves = [layer[0] for kind in ("lstmp", "lstmp-wide", "lstmp-all") for layer in net_of(kind).layers]
    assert {lstm.folds(half) for half in halves} == {True, False}


widths = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@settings(max_examples=15, deadline=None)
@given(widths=widths, options=st.sampled_from([value for value in FEEDFORWARD.values() if "ranks" not in value]), stride=st.integers(1, 4))
def test_feedforward_nets_of_any_widths(widths, options, stride):
    net = feedforward(**{**options, "widths": widths})
    check_whole(net, stride, (1, 7))
    check_stream(net, stride)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), layers=st.integers(1, 3), both=st.booleans(), projected=st.booleans(), norm=st.booleans(), state=st.booleans())
def test_recurrent_nets_of_any_widths(data, layers, both, projected, norm, state):
    size = (1 + projected) * (1 + both) * layers
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=size, max_size=size))
    delay, splice, step = (data.draw(st.integers(0, 3)) * (not both), data.draw(st.integers(0, 2)), data.draw(st.sampled_from([1, 3])))
    net = Lstm(FEATURES, sizes, OUTPUTS, both, projected, delay, step, norm, splice, state).double().eval()
    # Layer norm of one or two units amplifies what rounding leaves.
    stride = step * data.draw(st.integers(1, 2))
    if norm and min(half.outputs for layer in net.layers for half in layer) < 4:
        return
    check_whole(net, stride, (1, 8))
    if not both:
        check_stream(net, stride)


def test_a_net_without_a_prior():
    net = feedforward()
    model, _ = write_graph(net, 1, np.zeros(()), 1.0, stream=False)
    features, mean, std = utterance(6)
    (scores,) = session(model).run(["scores"], {"features": features, "mean": mean, "std": std})
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)


def test_a_model_without_nodes_is_refused():
    class Other(type(feedforward())):
        dims = {"model": "other"}

    net = feedforward()
    net.__class__ = Other
    with pytest.raises(ExportError, match="graphs/other.py"):
        layout_of(net, 1)
