"""The sampler and the splice against a loop over frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from store_case import random_store

from dropasr.data.batches import FrameSampler, splice, utterance_subsets
from dropasr.data.store import FrameStore, FrameStoreWriter
from dropasr.errors import ConfigError, DataError

LENGTHS = [1, 7, 2, 30, 11]


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return random_store(tmp_path, LENGTHS, "float16", np.arange(sum(LENGTHS), dtype=np.int16) * 3)


def _spliced_by_loop(frames: np.ndarray, left: int, right: int) -> np.ndarray:
    rows = []
    for t in range(len(frames)):
        rows.append(np.concatenate([frames[min(max(t + k, 0), len(frames) - 1)] for k in range(-left, right + 1)]))
    return np.stack(rows)


@pytest.mark.parametrize("context", [(0, 0), (2, 3), (8, 8), (0, 4)])
@pytest.mark.parametrize("in_memory", [True, False])
def test_batches_are_spliced_frames(store: FrameStore, context: tuple[int, int], in_memory: bool) -> None:
    expected = np.concatenate([_spliced_by_loop(store.utterance(i), *context) for i in range(len(store))]).astype(np.float32)
    whole = torch.cat([splice(torch.from_numpy(np.array(store.utterance(i))).float(), *context) for i in range(len(store))])
    np.testing.assert_array_equal(whole.numpy(), expected)
    sampler = FrameSampler(store, None, context, 8, seed=1, in_memory=in_memory)
    assert sampler.input_size == expected.shape[1]
    for inputs, labels, indices in sampler.epoch(0):
        assert inputs.dtype == torch.float32 and labels.dtype == indices.dtype == torch.int64
        np.testing.assert_array_equal(inputs.numpy(), expected[indices.numpy()])
        np.testing.assert_array_equal(labels.numpy(), indices.numpy() * 3)


def test_every_chosen_frame_comes_once_per_epoch(store: FrameStore) -> None:
    sampler = FrameSampler(store, None, (1, 1), 8, utterances=np.array([1, 3]), seed=1)
    batches = [indices.numpy() for _, _, indices in sampler.epoch(0)]
    assert sampler.num_frames == 37 and sampler.steps_per_epoch == len(batches) == 5
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 5]
    assert sorted(np.concatenate(batches)) == [*range(1, 8), *range(10, 40)]


def test_frames_without_a_label_are_left_out_but_stay_context(store: FrameStore) -> None:
    labels = np.arange(51, dtype=np.int32)
    labels[[2, 40, 41]] = -1
    sampler = FrameSampler(store, labels, (1, 1), 64)
    inputs, found, indices = next(sampler.epoch(0))
    assert sorted(indices.tolist()) == [i for i in range(51) if i not in (2, 40, 41)] and torch.equal(found, indices)
    beside = inputs[indices == 3][0, :3].numpy()
    np.testing.assert_array_equal(beside, store.frames[2].astype(np.float32))
    with pytest.raises(DataError, match="none of the 1 utterances has labels"):
        FrameSampler(store, np.full(51, -1), (1, 1), 8, utterances=np.array([2]))


def test_a_subset_samples_like_a_sampler_of_its_own(store: FrameStore) -> None:
    whole = FrameSampler(store, None, (1, 1), 8, seed=3)
    own = FrameSampler(store, None, (1, 1), 8, utterances=np.array([1, 3]), seed=3)
    subset = whole.subset(np.array([1, 3]))
    for expected, found in zip(own.epoch(4), subset.epoch(4), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert whole.num_frames == 51 and subset.num_frames == 37
    with pytest.raises(DataError, match="0 to 4"):
        whole.subset(np.array([7]))


def test_order_depends_on_seed_and_epoch_alone(store: FrameStore) -> None:
    def orders(seed: int, epoch: int) -> list[int]:
        sampler = FrameSampler(store, None, (1, 1), 8, seed=seed)
        return [int(i) for _, _, indices in sampler.epoch(epoch) for i in indices]

    assert orders(1, 2) == orders(1, 2)
    assert len({tuple(orders(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_splice_of_short_and_empty_utterances() -> None:
    assert splice(torch.tensor([[1.0, 2.0]]), 1, 2).tolist() == [[1, 2, 1, 2, 1, 2, 1, 2]]
    assert splice(torch.zeros(0, 2), 1, 2).shape == (0, 8)
    columns = torch.arange(12.0).view(2, 6).t()  # not contiguous in memory
    np.testing.assert_array_equal(splice(columns, 2, 1).numpy(), _spliced_by_loop(columns.numpy(), 2, 1))


@pytest.mark.parametrize("frames", [1, 3, 4, 11])
def test_splice_of_every_third_frame(frames: int) -> None:
    values = torch.randn(frames, 3)
    np.testing.assert_array_equal(splice(values, 2, 1, 3).numpy(), splice(values, 2, 1).numpy()[::3])


def test_wrong_arguments_are_refused(store: FrameStore, tmp_path: Path) -> None:
    bare = FrameStore.open(store.folder)
    with pytest.raises(DataError, match=r"labels of shape \(51,\), found none"):
        FrameSampler(bare, None, (1, 1), 8)
    with pytest.raises(DataError, match=r"found \(50,\)"):
        FrameSampler(bare, np.zeros(50, int), (1, 1), 8)
    with pytest.raises(DataError, match="0 to 4"):
        FrameSampler(store, None, (1, 1), 8, utterances=np.array([5]))
    with pytest.raises(ConfigError, match="batch size"):
        FrameSampler(store, None, (1, 1), 0)
    assert FrameSampler(bare, tmp_path / "labels.npy", (1, 1), 8).num_frames == 51


@pytest.mark.parametrize(("total", "share", "wanted"), [(100, 0.1, 10), (5, 0.01, 1), (2, 0.4, 1)])
def test_subsets_divide_the_utterances(total: int, share: float, wanted: int) -> None:
    train, held_out = utterance_subsets(total, share, 7)
    assert len(held_out) == wanted and sorted([*train, *held_out]) == list(range(total))
    again = utterance_subsets(total, share, 7)
    assert np.array_equal(train, again[0]) and np.array_equal(held_out, again[1])
    if total == 100:
        assert not np.array_equal(held_out, utterance_subsets(total, share, 8)[1])


def test_copies_of_an_utterance_stay_together(tmp_path: Path) -> None:
    originals = [f"u{number}" for number in range(20)]
    with FrameStoreWriter(tmp_path, 3) as writer:
        for prefix in ("", "sp0.9-", "sp1.1-"):
            for name in originals:
                writer.add(prefix + name, "s", [], 0.1, np.zeros((2, 3)), original=name)
    train, held_out = utterance_subsets(FrameStore.open(tmp_path), 0.25, 7)
    plain = utterance_subsets(20, 0.25, 7)
    assert len(held_out) == 15 and sorted([*train, *held_out]) == list(range(60))
    assert [set(part % 20) for part in (train, held_out)] == [set(part) for part in plain]
    assert np.array_equal(held_out[:5], plain[1]) and train.dtype == held_out.dtype == np.int64


def test_subsets_of_too_little_data_are_refused(store: FrameStore) -> None:
    assert len(utterance_subsets(store, 0.2, 0)[1]) == 1
    with pytest.raises(DataError, match="of 1 utterances"):
        utterance_subsets(1, 0.1, 0)
