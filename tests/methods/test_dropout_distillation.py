"""Dropout distillation: masked teachers teach their average, and only nets trained with dropout may be teachers."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rows_case import SMALL, tiny_data
from torch.nn import functional

from dropasr.config import load_config
from dropasr.errors import ConfigError
from dropasr.files import read_json
from dropasr.methods import build_method
from dropasr.methods.base import Schedule
from dropasr.models.feedforward import FeedForward
from dropasr.training.criteria import frame_loss
from dropasr.training.row_checks import check_rows
from dropasr.training.rows import row_by_name, train_row
from dropasr.training.teacher import NetTeacher

sys.path[:0] = [str(Path(__file__).parents[1] / "training"), str(Path(__file__).parents[1] / "models")]
from lstm_case import make_chunks, make_net  # noqa: E402
from training_case import make_trainer  # noqa: E402

NAME = "dropout_distillation"
CONF = Path(__file__).resolve().parents[2] / "conf" / "synth_commands.yaml"


def method_of(seed=0, **options):
    method = build_method(NAME, {"method": NAME, **options}, Schedule(4, 5, 0))
    method.begin_epoch(None, 0, np.random.Generator(np.random.SFC64(seed)))
    return method


def masked_posteriors(teacher, spliced, rate):
    """Posteriors `(N, K)` for every mask of a teacher of one layer, and the probability of the mask."""
    width = teacher.widths[0]
    for bits in itertools.product((0.0, 1.0), repeat=width):
        mask = torch.tensor(bits)
        units = torch.relu(teacher.hidden[0](spliced)) * mask / (1 - rate)
        yield torch.softmax(teacher.output(units), dim=1).detach(), rate ** (width - sum(bits)) * (1 - rate) ** sum(bits)


def test_gradients_of_single_masks_are_on_average_those_of_the_distance_from_the_whole_average():
    torch.manual_seed(0)
    rate, frames = 0.3, 4
    teacher, student = FeedForward(3, (0, 0), [6], 5), FeedForward(3, (0, 0), [4], 5)
    for parameter in teacher.parameters():
        parameter.data *= 2
    spliced, labels = torch.randn(frames, 3), torch.zeros(frames, dtype=torch.long)

    def gradient(loss):
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(student.parameters()))])

    every = list(masked_posteriors(teacher, spliced, rate))
    average = sum(weight * posteriors for posteriors, weight in every)
    exact = gradient(functional.kl_div(functional.log_softmax(student(spliced), dim=1), average, reduction="batchmean"))
    expected = sum(weight * gradient(frame_loss(student(spliced), labels, posteriors, 1.0)) for posteriors, weight in every)
    assert torch.allclose(expected, exact, atol=1e-6)
    method = method_of(rate=rate)
    method.mask_teacher(teacher)
    many = 40_000
    taught = NetTeacher(teacher, "float32")(spliced.repeat(many, 1), torch.arange(many * frames)).view(many, frames, 5)
    assert float((taught.mean(dim=0) - average).abs().max()) < 5 * float(taught.std(dim=0).max()) / many**0.5
    scaled = torch.softmax(teacher.output(torch.relu(teacher.hidden[0](spliced))), dim=1)
    assert float((scaled - average).abs().max()) > 10 * float(taught.std(dim=0).max()) / many**0.5, "scaled weights are another net"
    assert len(taught[:, 0].unique(dim=0)) == 2 ** int((torch.relu(teacher.hidden[0](spliced[:1])) > 0).sum())


def test_masks_of_a_recurrent_teacher_are_one_per_piece():
    teacher, chunks = make_net("lstm", dtype=torch.float32), make_chunks([9, 9, 9], dtype=torch.float32)
    chunks.frames[:] = chunks.frames[:1].clone()
    method_of().mask_teacher(teacher)
    found = NetTeacher(teacher, "float32")(chunks, chunks.rows)
    by_piece = [found[chunks.rows // 9 == piece][chunks.rows[chunks.rows // 9 == piece].argsort()] for piece in range(3)]
    assert not torch.allclose(by_piece[0], by_piece[1]) and not torch.allclose(by_piece[1], by_piece[2])


def test_a_student_of_the_same_shape_starts_with_the_weights_of_the_teacher(tmp_path):
    trainer = make_trainer(tmp_path, NAME, epochs=1)
    teacher = trainer.teacher.net
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    for initial, same in (("random", False), ("teacher", True)):
        method = method_of(initial=initial)
        method.meet_teacher(trainer.net, teacher)
        assert all(torch.equal(value, before[name]) for name, value in trainer.net.state_dict().items()) is same
    narrow = FeedForward(8, (2, 2), [16, 16], 6)
    own = {name: value.clone() for name, value in narrow.state_dict().items()}
    method_of().meet_teacher(narrow, teacher)
    assert all(torch.equal(value, own[name]) for name, value in narrow.state_dict().items())
    trainer.method = method_of()
    trainer.run()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items()), "the teacher learns nothing"


LARGE = f"experiment.large=[dense,dropout,{NAME}]"


@pytest.mark.parametrize(
    "settings,message",
    [
        ([LARGE, f"methods.{NAME}.teacher=dense"], "expected a teacher trained with dropout"),
        ([LARGE, f"methods.{NAME}.teacher=null"], "expected a teacher trained with dropout"),
        ([LARGE, "methods.dropout.rate=0.3"], "expected the rate 0.3 of the teacher 'dropout', found 0.5"),
        ([f"experiment.small=[dense,{NAME}]"], "not among experiment.large"),
        ([LARGE, f"methods.dropout.teacher={NAME}"], f"{NAME} <- dropout <- {NAME}|dropout <- {NAME} <- dropout"),
        ([LARGE, "methods.dense.teacher=dense"], "dense <- dense"),
        ([LARGE, "methods.dropout_compaction.teacher=dropout"], "a net distilled from it from scratch must stand beside it"),
    ],
)
def test_teachers_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_rows(load_config(CONF, settings=settings))


def test_students_of_both_sizes_are_accepted_and_make_a_distilled_table_fair():
    check_rows(load_config(CONF, settings=[LARGE, f"experiment.small=[dense,{NAME}]", "methods.dropout_compaction.teacher=dropout"]))


def test_rows_are_taught_by_the_row_that_was_trained_with_dropout(tmp_path):
    """The whole way of two rows: the teacher is read from its folder and masked anew for every batch, and no file of posteriors is kept."""
    config = load_config(CONF, settings=[*SMALL, LARGE, f"experiment.small=[{NAME}]", "experiment.budgets=[0.25]"])
    paths = tiny_data(tmp_path)
    told = []
    for name in ("dropout", NAME, f"small_{NAME}@0.25"):
        train_row(config, paths, row_by_name(config, name), told.append, lambda figures: None)
    assert told.count("starts with the weights of dropout") == 1
    widths = [read_json(paths.net(name) / "summary.json")["units"][0] for name in (NAME, f"small_{NAME}@0.25")]
    assert widths[0] == 16 > widths[1] and not list(tmp_path.rglob("posteriors-train.npy"))
