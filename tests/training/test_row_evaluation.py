"""One row's way through stage 7: which acoustic scales and weights are tried, and which are kept."""

from __future__ import annotations

import pytest
from evaluation_case import Experiment

from dropasr.config import rows
from dropasr.data.store import FrameStore
from dropasr.decoding.search import PLAIN, Weights
from dropasr.training import decode_parts
from dropasr.training.row_evaluation import RowEvaluation


@pytest.fixture
def experiment(tiny_yaml, tmp_path) -> Experiment:
    return Experiment(tmp_path, tiny_yaml())


@pytest.mark.parametrize(
    "wrong,tried,chosen",
    [
        ([4, 3, 2, 1, 2], [0.3, 0.4, 0.5], 0.4),
        ([1, 2, 3, 4, 4], [0.1, 0.2, 0.3, 0.4], 0.1),
        ([4, 3, 2, 1, 0], [0.3, 0.4, 0.5], 0.5),
        ([4, 1, 1, 1, 4], [0.1, 0.2, 0.3, 0.4, 0.5], 0.3),
        ([2, 1, 0], [0.2, 0.3], 0.3),
        ([0, 1], [0.1, 0.2], 0.1),
        ([0], [0.1], 0.1),
    ],
)
def test_scales_are_tried_from_the_middle_towards_the_best(experiment, wrong, tried, chosen):
    scales = [round(0.1 * (number + 1), 1) for number in range(len(wrong))]
    config = experiment.config(f"decode.acoustic_scales={scales[::-1]}")
    stores = {split: FrameStore.open(experiment.paths.features(split)) for split in ("dev", "test", "noisy")}
    evaluation = RowEvaluation(config, experiment.paths, rows(config)[0], "identity", stores, 2)
    truth, seen, handed = dict(zip(stores["dev"].ids, stores["dev"].texts)), [], 0

    def words(setting):
        seen.append(setting.acoustic_scale)
        return {
            id_: text if number >= wrong[scales.index(setting.acoustic_scale)] else [] for number, (id_, text) in enumerate(truth.items())
        }

    parts = evaluation.start()
    while parts[0].split == "dev":
        first, second = parts
        handed += len(parts)
        ids = [{stores["dev"].ids[position] for position in part.positions} for part in parts]
        found = {setting: words(setting) for setting in first.settings}
        pieces = [{setting: {id_: all_[id_] for id_ in own} for setting, all_ in found.items()} for own in ids]
        assert evaluation.done(first, pieces[0]) == []
        parts = evaluation.done(second, pieces[1])
    assert sorted(seen) == tried and parts[0].settings[0].acoustic_scale == chosen
    assert handed + len(parts) <= evaluation.total


def test_plain_weights_have_a_walk_of_their_own(experiment):
    """The lattice is best at the third scale, plain weights at the last; the search does not confirm the lattice."""
    config = experiment.config("decode.acoustic_scales=[0.1,0.2,0.3,0.4,0.5]", "decode.lm_scales=[0.5,1.0]")
    stores = {split: FrameStore.open(experiment.paths.features(split)) for split in ("dev", "test", "noisy")}
    evaluation = RowEvaluation(config, experiment.paths, rows(config)[0], "identity", stores, 1)
    truth = dict(zip(stores["dev"].ids, stores["dev"].texts))
    wrong = {scale: {0.5: 0 if scale == 0.3 else 6, 1.0: plain} for scale, plain in zip((0.1, 0.2, 0.3, 0.4, 0.5), (6, 5, 4, 3, 2))}

    def words(count):
        return {id_: text if number >= count else [] for number, (id_, text) in enumerate(truth.items())}

    parts = evaluation.start()
    while parts[0].tune:
        (part,) = parts
        found = {item: words(wrong[item.acoustic_scale][item.weights.lm_scale]) for item in part.settings}
        parts = evaluation.done(part, found)
    (part,) = parts
    assert part.settings == (decode_parts.Setting(0.3, Weights(0.5, 0.0)),)
    parts = evaluation.done(part, {part.settings[0]: words(6)})
    assert parts[0].split == "test" and parts[0].settings == (decode_parts.Setting(0.5, PLAIN),)


def test_plain_weights_are_kept_where_a_search_does_not_confirm_the_lattice(experiment):
    config = experiment.config("decode.lm_scales=[0.5,1.0]")
    stores = {split: FrameStore.open(experiment.paths.features(split)) for split in ("dev", "test", "noisy")}
    evaluation = RowEvaluation(config, experiment.paths, rows(config)[0], "identity", stores, 1)
    (part,) = evaluation.start()
    truth = dict(zip(stores["dev"].ids, stores["dev"].texts))
    nearly = {**truth, stores["dev"].ids[0]: ["ab"]}
    best = evaluation.grid[0]
    assert best.weights == Weights(0.5, 0.0)
    (again,) = evaluation.done(part, {setting: truth if setting == best else nearly for setting in evaluation.grid})
    assert (again.split, again.settings) == ("dev", (best,))
    parts = evaluation.done(again, {best: {id_: ["too"] for id_ in truth}})
    assert [(part.split, part.settings[0].weights) for part in parts] == [("test", PLAIN), ("noisy", PLAIN)]
