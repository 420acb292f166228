"""Pieces of utterances against a loop over utterances and frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from store_case import random_store
from toy_models import ToyRecurrent

from dropasr.data.chunks import Chunks, ChunkSampler
from dropasr.data.masking import MaskOptions, mask_inputs, mask_spliced
from dropasr.data.sequences import SequenceSampler, TokenSequences
from dropasr.data.store import FrameStore, FrameStoreWriter
from dropasr.errors import ConfigError, DataError
from dropasr.models.lstm import Lstm

LENGTHS = [1, 7, 2, 30, 11, 8, 23, 5]
TOTAL = sum(LENGTHS)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
LABELS = np.where(np.arange(TOTAL) % 7 == 3, -1, np.arange(TOTAL) * 2).astype(np.int16)
LABELS[OFFSETS[5] : OFFSETS[6]] = -1
UTTERANCE = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
PLACE = np.arange(TOTAL) - OFFSETS[UTTERANCE]


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return random_store(tmp_path, LENGTHS)


def sampler(store: FrameStore, context: tuple[int, int] = (4, 2), **options) -> ChunkSampler:
    return ChunkSampler(store, LABELS, context, **{"chunk_frames": 6, "batch_frames": 30, "seed": 1, **options})


def pieces(chunks: Chunks) -> list[torch.Tensor]:
    """The frames of each piece, padding removed."""
    return [frames[:length] for frames, length in zip(chunks.frames, chunks.lengths.tolist(), strict=True)]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("context", [(0, 0), (4, 2), (5, 0), (40, 40)])
@pytest.mark.parametrize("chunk_frames", [1, 6, 100])
def test_every_labelled_frame_comes_once_with_the_frames_around_it(store, context, step, chunk_frames, in_memory) -> None:
    batches = sampler(store, context, chunk_frames=chunk_frames, frame_subsampling=step, in_memory=in_memory)
    values, seen, scored_of = np.array(store.frames), [], []
    for chunks, labels, indices in (batch for epoch in range(step) for batch in batches.epoch(epoch)):
        assert chunks.frames.dtype == torch.float32 and labels.dtype == chunks.rows.dtype == chunks.lengths.dtype == torch.int64
        assert len(chunks) == len(labels) == len(indices) and chunks.frames.shape[1] == int(chunks.lengths.max())
        assert int(chunks.lengths.sum()) <= 30 or chunks.num_pieces == 1
        np.testing.assert_array_equal(labels.numpy(), LABELS[indices.numpy()])
        scored: dict[int, list[int]] = {}
        for row, index in zip(chunks.rows.tolist(), indices.tolist(), strict=True):
            piece, column = divmod(row, chunks.frames.shape[1])
            # Where the frame lies says where its piece lies; then the whole piece must be that part of the utterance.
            begin, length = index - column, int(chunks.lengths[piece])
            utterance = UTTERANCE[index]
            assert OFFSETS[utterance] <= begin and begin + length <= OFFSETS[utterance + 1] and column < length
            assert column % step == 0
            np.testing.assert_array_equal(chunks.frames[piece, :length].numpy(), values[begin : begin + length])
            assert bool((chunks.frames[piece, length:] == chunks.frames[piece, length - 1]).all())
            before, after = column, length - 1 - column
            assert before >= min(context[0], PLACE[index] - step + 1)  # a grid may leave out the first frames
            assert after >= min(context[1], LENGTHS[utterance] - 1 - PLACE[index])
            scored.setdefault(piece, []).append(column)
        most = step * -(-chunk_frames // step)
        assert all(max(columns) - min(columns) < most for columns in scored.values())
        owners = chunks.piece_of_row.numpy()
        scored_of += [frozenset(indices.numpy()[owners == piece].tolist()) for piece in scored]
        assert chunks.piece_of_row.tolist() == [piece for piece in scored for _ in scored[piece]]
        seen += indices.tolist()
    # A pass for each grid shows every frame of the pieces that have a labelled one on the first grid, and the same frames again only
    # where another grid has none.
    assert sorted(index for piece in set(scored_of) for index in piece) == sorted(set(seen))
    missed = set(np.flatnonzero(LABELS >= 0).tolist()) - set(seen)
    assert len(missed) <= (0 if step == 1 else 7) and all(LABELS[index - PLACE[index] % step] < 0 for index in missed)
    wanted = [index for index in range(TOTAL) if LABELS[index] >= 0 and PLACE[index] % step == 0]
    assert batches.num_rows == len(wanted) and batches.num_frames == step * len(wanted)
    assert sorted(i for _, _, indices in batches.sample(10_000) for i in indices.tolist()) == wanted
    assert batches.steps(0) == batches.steps_per_epoch == len(list(batches.epoch(0)))


def test_utterances_are_cut_evenly_and_no_context_is_longer_than_asked(store: FrameStore) -> None:
    batches = sampler(store, (4, 2), chunk_frames=12)
    lengths = sorted(batches.lengths(batches.items).tolist())
    # 1, 7, 2, 11 and 5 whole; 30 in three tens; 23 as 12 and 11; the one without labels is not there.
    assert lengths == sorted([1, 7, 2, 11, 5, 10 + 2, 4 + 10 + 2, 4 + 10, 12 + 2, 4 + 11])


def test_padding_never_reaches_a_scored_logit(store: FrameStore) -> None:
    torch.manual_seed(0)
    for step in (1, 3):
        net = ToyRecurrent(3, 5, 4, stride=step).eval()
        for chunks, _, _ in sampler(store, frame_subsampling=step).epoch(0):
            padding = torch.arange(chunks.frames.shape[1])[None] >= chunks.lengths[:, None]
            other = Chunks(torch.where(padding[:, :, None], torch.tensor(torch.nan), chunks.frames), chunks.lengths, chunks.rows)
            assert torch.equal(net(chunks), net(other))


@pytest.mark.parametrize("step", [1, 3])
def test_with_the_whole_past_as_context_pieces_give_the_logits_of_whole_utterances(store: FrameStore, step: int) -> None:
    """Also on the slower grid: training sees the frames that decoding sees."""
    torch.manual_seed(0)
    net = ToyRecurrent(3, 5, 4, stride=step).eval()
    whole = torch.zeros(TOTAL, 4)
    for number in range(len(store)):
        whole[OFFSETS[number] : OFFSETS[number + 1] : step] = net.logits(torch.from_numpy(np.array(store.utterance(number))), step)
    for chunks, _, indices in sampler(store, (30, 0), frame_subsampling=step).sample(10_000):
        torch.testing.assert_close(net(chunks), whole[indices])


@pytest.mark.parametrize("chunk_frames", [1, 6, 100])
def test_a_net_that_scores_every_frame_of_a_step_still_steps_on_its_grid(store: FrameStore, chunk_frames: int) -> None:
    net = Lstm(3, [4], 5, subsampling=3, frame_outputs=True, output_delay=1).double().eval()
    whole = torch.zeros(TOTAL, 5, dtype=torch.float64)
    for number in range(len(store)):
        whole[OFFSETS[number] : OFFSETS[number + 1]] = net.logits(torch.from_numpy(np.array(store.utterance(number), np.float64)))
    batches = sampler(store, (30, 3), chunk_frames=chunk_frames, frame_subsampling=net.stride, step=net.step)
    for chunks, _, indices in batches.sample(10_000):
        found = net(Chunks(chunks.frames.double(), chunks.lengths, chunks.rows))
        torch.testing.assert_close(found, whole[indices], rtol=0, atol=1e-6)
    wanted = np.flatnonzero(LABELS >= 0)
    assert batches.num_rows == batches.num_frames == len(wanted)
    assert sorted(i for _, _, indices in batches.sample(10_000) for i in indices.tolist()) == wanted.tolist()
    # Over the passes each frame stands at each of the three places of a step, but where an utterance begins.
    places = {(index, row % chunks.frames.shape[1] % 3) for epoch in range(3) for chunks, _, indices in batches.epoch(epoch)
              for row, index in zip(chunks.rows.tolist(), indices.tolist())}  # fmt: skip
    assert {(index, place) for index in wanted if PLACE[index] >= 2 for place in range(3)} <= places


def test_batches_hold_pieces_of_similar_length(tmp_path: Path) -> None:
    with FrameStoreWriter(tmp_path / "store", 1, "float32") as writer:
        for number, length in enumerate(np.random.default_rng(0).integers(10, 100, 200).tolist()):
            writer.add(f"u{number}", "s", [], length / 100, np.zeros((length, 1)))
    store = FrameStore.open(tmp_path / "store")
    batches = ChunkSampler(store, np.zeros(store.num_frames, int), (0, 0), 1000, 500, seed=1)
    used = sum(int(chunks.lengths.sum()) for chunks, _, _ in batches.epoch(0))
    padded = sum(chunks.frames.shape[0] * chunks.frames.shape[1] for chunks, _, _ in batches.epoch(0))
    assert used == store.num_frames and padded < 1.15 * used
    assert len({tuple(batch) for epoch in range(3) for batch in batches.batches(epoch)}) > len(batches.batches(0)), "others come together"


def test_order_depends_on_seed_and_epoch_alone(store: FrameStore) -> None:
    def orders(seed: int, epoch: int) -> list[list[int]]:
        return [indices.tolist() for _, _, indices in sampler(store, seed=seed).epoch(epoch)]

    assert orders(1, 2) == orders(1, 2)
    assert len({str(orders(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


@pytest.mark.parametrize("change", [3, 4, 5])
def test_parts_of_a_pass_are_whole_together(store: FrameStore, change: int) -> None:
    def frames_of(batches: ChunkSampler, epochs: range) -> list[int]:
        return [index for epoch in epochs for _, _, indices in batches.epoch(epoch) for index in indices.tolist()]

    labelled = np.flatnonzero(LABELS >= 0).tolist()
    whole = sampler(store, epochs_per_pass=3)
    kept = whole.subset(np.array([0, 1, 3, 4]))
    assert sorted(frames_of(whole, range(0, 3))) == labelled
    assert sorted(frames_of(kept, range(0, 3))) == [index for index in labelled if UTTERANCE[index] in (0, 1, 3, 4)]
    then = whole.following(kept, change)
    assert sorted(frames_of(kept, range(3, change)) + frames_of(then, range(change, 6))) == labelled
    assert [then.steps(epoch) for epoch in range(change, 6)] == [len(then.batches(epoch)) for epoch in range(change, 6)]


def test_draws_and_samples(store: FrameStore) -> None:
    batches = sampler(store)
    chunks, labels = batches.draw(np.random.default_rng(0), 20)
    assert 20 <= len(chunks) == len(labels) < 20 + 6
    again, other = (batches.draw(np.random.default_rng(seed), 20)[1] for seed in (0, 1))
    assert torch.equal(labels, again) and not torch.equal(labels, other)
    everything, all_labels = batches.draw(np.random.default_rng(0), 10_000)
    assert len(everything) == len(all_labels) == batches.num_rows
    assert sum(len(part) for _, part, _ in batches.sample(10_000)) == batches.num_rows
    assert batches.num_rows / 3 < sum(len(part) for _, part, _ in batches.sample(batches.num_rows // 2)) < 2 * batches.num_rows / 3


@pytest.mark.parametrize("chosen", [slice(0, None, 2), slice(1, None, 2), slice(1, 3), slice(5, 5)])
def test_some_of_the_pieces(store: FrameStore, chosen: slice) -> None:
    chunks, labels, _ = sampler(store).gather(np.arange(6))
    part, kept = chunks.select(chosen)
    wanted = list(range(6))[chosen]
    assert part.num_pieces == len(wanted) and kept.tolist() == [row for row in range(len(labels)) if chunks.piece_of_row[row] in wanted]
    assert all(torch.equal(a, b) for a, b in zip(pieces(part), [pieces(chunks)[number] for number in wanted], strict=True))
    flat, own = chunks.frames.reshape(-1, 3), part.frames.reshape(-1, 3)
    assert torch.equal(own[part.rows], flat[chunks.rows[kept]]) and part.piece_of_row.tolist() == sorted(part.piece_of_row.tolist())


def test_masking_of_pieces(store: FrameStore) -> None:
    chunks, _, _ = sampler(store).gather(np.arange(6))
    options = MaskOptions(frequency_width=2, time_width=5)
    masked = mask_inputs(chunks, 3, torch.Generator().manual_seed(3), options)
    expected = mask_spliced(chunks.frames.reshape(6, -1), 3, torch.Generator().manual_seed(3), options)
    assert torch.equal(masked.frames.reshape(6, -1), expected) and not torch.equal(masked.frames, chunks.frames)
    assert torch.equal(masked.rows, chunks.rows) and torch.equal(masked.lengths, chunks.lengths)


@pytest.mark.parametrize("subsampling", [1, 3])
def test_whole_utterances_as_pieces_stand_beside_their_tokens(store: FrameStore, subsampling: int) -> None:
    tokens = TokenSequences.from_lists([[1], [2, 3], [1], [4, 5, 6, 7], [], [3, 3], [2], [9]])
    plain, batches = (
        SequenceSampler(store, tokens, (0, 0), 40, 1, frame_subsampling=subsampling, chunks=chunks) for chunks in (False, True)
    )
    for (rows, expected, indices), (chunks, targets, same) in zip(plain.epoch(0), batches.epoch(0), strict=True):
        assert torch.equal(indices, same) and all(torch.equal(getattr(expected, k), getattr(targets, k)) for k in ("frames", "tokens"))
        assert torch.equal(chunks.frames.reshape(-1, 3)[chunks.rows], rows)
        assert torch.equal(chunks.piece_of_row, targets.utterance_of_row)
        assert chunks.lengths.tolist() == [LENGTHS[UTTERANCE[i]] for i in indices[torch.cumsum(targets.frames, 0) - 1].tolist()]
        part, wanted = targets.select(chunks, slice(0, None, 2))
        rows_of, other = expected.select(rows, slice(0, None, 2))
        assert torch.equal(part.frames.reshape(-1, 3)[part.rows], rows_of) and torch.equal(wanted.tokens, other.tokens)


def test_wrong_arguments_are_refused(store: FrameStore) -> None:
    with pytest.raises(DataError, match=r"labels of shape \(87,\), found none"):
        ChunkSampler(store, None, (1, 1), 8, 30)
    with pytest.raises(DataError, match="0 to 7"):
        sampler(store).subset(np.array([8]))
    with pytest.raises(DataError, match="none of the 1 utterances has labels"):
        sampler(store).subset(np.array([5]))
    for sizes in ({"chunk_frames": 0}, {"batch_frames": 0}, {"context": (-1, 0)}):
        with pytest.raises(ConfigError, match="pieces and batches of 1 frame or more"):
            sampler(store, **sizes)
