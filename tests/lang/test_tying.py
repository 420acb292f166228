"""Clustering against a greedy search that recomputes everything from the frames, likelihoods against scipy."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm

from dropasr.errors import ConfigError
from dropasr.lang.tying import Statistics, by_count, cluster, fill, left_context, log_likelihood, tie, with_context
from dropasr.lang.units import OutputUnits

UNITS = OutputUnits(("A", "B", "C"), 2, 2)  # silence 0 1, A 2 3, B 4 5, C 6 7


def frames(seed: int, count: int, phones: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that depend on left phone, phone and state, with their labels and left contexts; some contexts never occur."""
    rng = np.random.default_rng(seed)
    left, phone, state = rng.integers(0, phones + 1, count), rng.integers(0, phones, count), rng.integers(0, 2, count)
    kept = (left + 2 * phone + state) % 5 != 0
    left, phone, state = left[kept], phone[kept], state[kept]
    means = rng.normal(0, 1, (phones + 1, phones, 2, 3))
    return means[left, phone, state] + rng.normal(0, 1, (len(left), 3)), 2 + 2 * phone + state, left


def gather(features: np.ndarray, labels: np.ndarray, left: np.ndarray, units: OutputUnits = UNITS) -> Statistics:
    statistics = Statistics.empty(units, features.shape[1])
    for part in np.array_split(np.arange(len(labels)), 3):
        statistics.add(features[part], labels[part], left[part], units)
    return statistics


def gaussian(values: np.ndarray, floor: np.ndarray) -> float:
    return float(norm.logpdf(values, values.mean(axis=0), np.sqrt(np.maximum(values.var(axis=0), floor))).sum())


def test_likelihood_against_scipy():
    features, labels, left = frames(0, 900)
    statistics = gather(features, labels, left)
    floor = statistics.floor()
    assert np.allclose(floor, 0.05 * features.var(axis=0))
    found = log_likelihood(statistics.counts, statistics.sums, statistics.squares, floor)
    for context in range(4):
        for phone in range(3):
            for state in range(2):
                own = features[(left == context) & (labels == 2 + 2 * phone + state)]
                assert statistics.counts[context, phone, state] == len(own)
                expected = gaussian(own, floor) if len(own) else 0.0
                assert found[context, phone, state] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_silence_is_not_counted():
    statistics = gather(np.ones((4, 3)), np.array([0, 1, 2, 0]), np.array([0, 1, 3, 2]))
    assert statistics.counts.sum() == 1 and statistics.counts[3, 0, 0] == 1


def greedy(features: np.ndarray, labels: np.ndarray, left: np.ndarray, num_classes: int, floor: np.ndarray) -> set:
    """The classes as sets of (left, label), by trying every merge of two classes of one label at every step."""
    values = {((int(context), int(label)),): features[(left == context) & (labels == label)] for context, label in zip(left, labels)}
    while len(values) > num_classes:
        losses = {}
        for first, second in combinations(sorted(values), 2):
            if first[0][1] == second[0][1]:
                joined = np.concatenate([values[first], values[second]])
                losses[first, second] = gaussian(values[first], floor) + gaussian(values[second], floor) - gaussian(joined, floor)
        first, second = min(losses, key=losses.get)
        values[first + second] = np.concatenate([values.pop(first), values.pop(second)])
    return {frozenset(pairs) for pairs in values}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_classes", [6, 9, 14])
def test_clusters_against_brute_force(seed, num_classes):
    features, labels, left = frames(seed, 400)
    statistics = gather(features, labels, left)
    classes = cluster(statistics, num_classes, 1)
    found: dict = {}
    for context, phone, state in zip(*np.nonzero(classes >= 0)):
        found.setdefault((phone, state, classes[context, phone, state]), set()).add((context, 2 + 2 * phone + state))
    assert {frozenset(pairs) for pairs in found.values()} == greedy(features, labels, left, num_classes, statistics.floor())


def test_every_class_has_the_least_occupancy():
    features, labels, left = frames(5, 300)
    statistics = gather(features, labels, left)
    assert statistics.counts[statistics.counts > 0].min() < 25
    tied = tie(UNITS, statistics, "likelihood", 100, 25)
    sizes = np.zeros(tied.num_units)
    np.add.at(sizes, tied.table, statistics.counts)
    assert sizes[2:].min() >= 25 and len(sizes) < 26


def test_by_count_by_hand():
    counts = np.array([[50, 10], [3, 4], [60, 3], [0, 0]], dtype=float)[:, :, None]
    assert by_count(counts, 20)[:, :, 0].tolist() == [[0, 0], [-1, 0], [1, 0], [-1, 0]]  # 3 frames are too few to share a unit
    assert by_count(counts, 3)[:, :, 0].tolist() == [[0, 0], [1, 1], [2, 2], [-1, -1]]
    counts[3, 0] = 18
    assert by_count(counts, 20)[:, :, 0].tolist() == [[0, 0], [2, 0], [1, 0], [2, 0]]


def test_unseen_contexts_go_where_similar_ones_are():
    # Contexts 1 and 3 are together in the first two columns, so 3 follows 1 in the last; 2 has the most frames there.
    classes = np.array([[0, 0, 0, 0], [1, 1, 1, -1], [0, 2, 2, -1], [1, 1, -1, -1]])[:, :, None]
    counts = np.array([[5, 5, 5, 9], [5, 5, 5, 0], [5, 5, 99, 0], [5, 5, 0, 0]], dtype=float)[:, :, None]
    assert fill(classes, counts)[:, :, 0].tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [0, 2, 2, 0], [1, 1, 1, 0]]
    nothing = np.full((4, 3, 1), -1)
    assert (fill(nothing, np.zeros((4, 3, 1))) == 0).all()


def test_left_context_by_hand():
    #                 SIL SIL A  A  B  A  A  A  SIL B | B  B  C
    labels = np.array([0, 1, 2, 3, 4, 2, 3, 2, 0, 4, 4, 5, 6])
    left = left_context(labels, np.array([0, 10]), UNITS)
    assert left.tolist() == [0, 0, 0, 0, 1, 2, 2, 1, 1, 0, 0, 0, 2]
    table = np.broadcast_to(np.arange(2, 8).reshape(3, 2), (4, 3, 2)).copy()
    table[1, 0] = [8, 9]
    table[:, :, :] = [[[2, 4], [6, 7], [8, 9]]] * 4
    table[1, 0] = [3, 5]
    tied = UNITS.tied(table)
    assert with_context(labels, left, UNITS, tied).tolist() == [0, 1, 2, 4, 6, 2, 4, 3, 0, 6, 6, 7, 8]


@pytest.mark.parametrize("method", ["count", "likelihood"])
def test_units_belong_to_one_state(method):
    features, labels, left = frames(7, 1500)
    tied = tie(UNITS, gather(features, labels, left), method, 12, 30)
    assert method == "count" or tied.num_units == 12
    for context in range(4):
        for phone, name in enumerate(UNITS.phones):
            for state in range(2):
                unit = tied.table[context, phone, state]
                assert tied.phone_of(int(unit)) == name and tied.state_index(unit) == state
                assert tied.pdf(name, state, (("SIL", *UNITS.phones)[context])) == unit


def test_too_few_units():
    with pytest.raises(ConfigError, match=r"lang\.num_units: 3 phones of 2 states and 2 of silence need at least 8 units, found 7"):
        tie(UNITS, Statistics.empty(UNITS, 3), "likelihood", 7, 1)


def test_forty_phones_take_seconds():
    units = OutputUnits(tuple(f"P{number}" for number in range(40)), 3, 3)
    rng = np.random.default_rng(1)
    statistics = Statistics.empty(units, 32)
    statistics.counts[:] = rng.integers(0, 2000, statistics.counts.shape)
    means = rng.normal(0, 1, statistics.sums.shape)
    statistics.sums[:] = statistics.counts[..., None] * means
    statistics.squares[:] = statistics.counts[..., None] * (means**2 + 1)
    begin = time.process_time()
    assert tie(units, statistics, "likelihood", 1500, 200).num_units == 1500
    assert time.process_time() - begin < 10
