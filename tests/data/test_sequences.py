"""Batches of whole utterances against a loop over utterances and frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from store_case import random_store

from dropasr.data.batches import FrameSampler, splice
from dropasr.data.sequences import SequenceSampler, TokenSequences
from dropasr.data.store import FrameStore
from dropasr.errors import DataError

LENGTHS = [1, 7, 2, 30, 11, 8, 3, 5]
TOKENS = [[1], [2, 3], [1], [4, 5, 6, 7], [], [3, 3], [2], [9]]


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return random_store(tmp_path, LENGTHS)


def sampler(store: FrameStore, **options) -> SequenceSampler:
    return SequenceSampler(store, TokenSequences.from_lists(TOKENS), (2, 3), **{"batch_frames": 16, "seed": 1, **options})


@pytest.mark.parametrize("subsampling", [1, 3])
def test_every_utterance_comes_once_with_its_spliced_frames_and_tokens(store: FrameStore, subsampling: int) -> None:
    batches = sampler(store, frame_subsampling=subsampling)
    seen = []
    for inputs, targets, indices in batches.epoch(0):
        parts = zip(inputs.split(targets.frames.tolist()), targets.tokens.split(targets.lengths.tolist()), strict=True)
        starts = indices[torch.cumsum(targets.frames, 0) - targets.frames]
        assert targets.subsampling == subsampling
        for (rows, tokens), start in zip(parts, starts.tolist(), strict=True):
            number = store.offsets.tolist().index(start)
            frames = torch.from_numpy(np.array(store.utterance(number)))
            assert torch.equal(rows, splice(frames, 2, 3)[::subsampling])
            assert tokens.tolist() == TOKENS[number]
            seen.append(number)
        assert sum(store.offsets[n + 1] - store.offsets[n] for n in seen[-len(targets) :]) <= 16 or len(targets) == 1
    assert sorted(seen) == [0, 1, 2, 3, 5, 6, 7], "all but the one without tokens"
    assert batches.steps(0) == batches.steps_per_epoch == len(list(batches.epoch(0)))


def test_order_depends_on_seed_and_epoch_alone(store: FrameStore) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in sampler(store, seed=seed).batches(epoch)]

    assert order(1, 2) == order(1, 2)
    assert len({str(order(seed, epoch)) for seed in (1, 2) for epoch in range(4)}) > 4


def test_parts_of_a_pass_see_everything_equally_often(store: FrameStore) -> None:
    whole = sampler(store, epochs_per_pass=3)
    for first in (0, 3):
        parts = [np.concatenate(whole.batches(epoch)).tolist() for epoch in range(first, first + 3)]
        assert sorted(sum(parts, [])) == [0, 1, 2, 3, 5, 6, 7] and all(len(part) in (2, 3) for part in parts)
    frames = FrameSampler(store, np.arange(67) % 5, (1, 1), 8, seed=3, epochs_per_pass=4)
    passes = [np.concatenate([frames.order(epoch) for epoch in range(first, first + 4)]) for first in (0, 4)]
    assert all(sorted(order) == list(range(67)) for order in passes) and passes[0].tolist() != passes[1].tolist()
    assert [frames.steps(epoch) for epoch in range(4)] == [len(list(frames.epoch(epoch))) for epoch in range(4)]


@pytest.mark.parametrize("change", [4, 5])
def test_a_pass_that_another_sampler_began_is_completed(store: FrameStore, change: int) -> None:
    def frames_of(sampler: FrameSampler, epochs: range) -> list[int]:
        return np.concatenate([sampler.order(epoch) for epoch in epochs]).tolist()

    whole = FrameSampler(store, np.arange(67) % 5, (1, 1), 8, seed=3, epochs_per_pass=3)
    kept = whole.subset(np.array([0, 1, 3, 4]))
    then = whole.following(kept, change)
    assert sorted(frames_of(kept, range(3, change)) + frames_of(then, range(change, 6))) == list(range(67))
    sizes = [len(then.order(epoch)) for epoch in range(change, 6)]
    assert max(sizes) - min(sizes) <= 1 and [-(-size // 8) for size in sizes] == [then.steps(epoch) for epoch in range(change, 6)]
    assert frames_of(then, range(6, 9)) == frames_of(whole, range(6, 9))
    assert whole.following(kept, 3) is whole, "whole passes stay as they are"
    parts = sampler(store, epochs_per_pass=3)
    few = parts.subset(np.array([0, 1, 3]))
    found = [few.batches(epoch) for epoch in range(3, change)] + [parts.following(few, change).batches(epoch) for epoch in range(change, 6)]
    assert sorted(np.concatenate(sum(found, [])).tolist()) == [0, 1, 2, 3, 5, 6, 7]


def test_part_of_a_batch(store: FrameStore) -> None:
    batches = sampler(store)
    inputs, targets, _ = batches.gather(np.array([3, 0, 5, 1]))
    chosen, part = targets.select(inputs, slice(1, None, 2))
    expected_inputs, expected, _ = batches.gather(np.array([0, 1]))
    assert torch.equal(chosen, expected_inputs) and torch.equal(part.tokens, expected.tokens)
    assert torch.equal(part.frames, expected.frames) and torch.equal(part.lengths, expected.lengths)
    assert targets.utterance_of_row.tolist() == [0] * 30 + [1] + [2] * 8 + [3] * 7


def test_subsets_and_refusals(store: FrameStore, tmp_path: Path) -> None:
    part = sampler(store).subset(np.array([1, 4, 6]))
    assert part.num_frames == 10 and sorted(np.concatenate(part.batches(0))) == [1, 6]
    with pytest.raises(DataError, match="none of the 1 utterances has tokens"):
        sampler(store).subset(np.array([4]))
    with pytest.raises(DataError, match="expected tokens of 8 utterances, found 2"):
        SequenceSampler(store, TokenSequences.from_lists(TOKENS[:2]), (1, 1), 10)
    tokens = TokenSequences.from_lists(TOKENS)
    tokens.save(tmp_path / "tokens.npz")
    again = TokenSequences.load(tmp_path / "tokens.npz")
    assert [again[i].tolist() for i in range(len(again))] == TOKENS
    (tmp_path / "tokens.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="tokens.npz: expected the arrays"):
        TokenSequences.load(tmp_path / "tokens.npz")
    with pytest.raises(DataError, match="absent.npz: the token sequences are missing"):
        TokenSequences.load(tmp_path / "absent.npz")
