"""The debugging verb on a net whose best units are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.cli import main
from dropasr.data.store import FrameStoreWriter
from dropasr.lang.pieces import PieceUnits
from dropasr.lang.units import OutputUnits
from dropasr.models import build_model
from dropasr.models.checkpoint import save_net
from dropasr.paths import Paths

CTC = ["--set", "lang.units=chars", "--set", "train.criterion=ctc", "--set", "train.frame_subsampling=3"]


@pytest.mark.parametrize(
    "units,best,said,settings",
    [(OutputUnits(["A", "B"], 1, 1), 2, "    B", []), (PieceUnits("chars", ("<blk>", "\u2581", "A")), 2, "    A", CTC)],
)
def test_words_and_best_units_are_printed(units, best, said, settings, tiny_yaml, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1)
    paths.align.mkdir(parents=True)
    units.save(paths.align / "units.json")
    with FrameStoreWriter(paths.features("dev"), 20, "float32") as writer:
        for number in range(12):
            writer.add(f"u{number:02d}", "s", ["KEN", "LO"], 0.1, np.zeros((10, 20), dtype=np.float32))
    net = build_model({"name": "feedforward", "layers": 1, "width": 8}, 20, units.num_units)
    with torch.no_grad():  # the last bias alone decides
        last = list(net.parameters())[-1]
        last.copy_(torch.full_like(last, -1e3))
        last[best] = 1e3
    save_net(paths.net("dense"), net, {})
    options = ["--conf", str(tiny_yaml()), "--exp-dir", str(paths.exp_dir), "--data-dir", str(paths.data_dir), *settings]
    assert main(["greedy", "dense", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [line for number in range(10) for line in (f"u{number:02d}: KEN LO", said)]
    assert main(["greedy", "dens", *options]) == 2
    assert "no row 'dens'" in capsys.readouterr().err
    assert main(["greedy", *options]) == 2
    assert "the name of the row is missing" in capsys.readouterr().err
