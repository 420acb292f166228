"""The benchmark that goes to other machines: it must need numpy and ONNX Runtime alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from package_case import write_package

from dropasr.runtime import bundle_bench
from dropasr.runtime.packaging import BENCH


@pytest.fixture
def bundle(tmp_path):
    folder = write_package(tmp_path / "bundle")
    shutil.copy(Path(bundle_bench.__file__), folder / BENCH)
    return folder


def run(bundle: Path, *arguments: str) -> subprocess.CompletedProcess:
    blocked = (
        "import runpy, sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('dropasr', 'torch', 'soundfile', 'kaldifst', 'scipy', 'pydantic'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        f"sys.argv = ['bench.py', *sys.argv[1:]]\nrunpy.run_path({str(bundle / BENCH)!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", blocked, *arguments], capture_output=True, text=True, cwd=bundle.parent)


def test_it_measures_nets_in_turns(bundle):
    result = run(bundle, str(bundle), str(bundle), "--repeats", "3", "--out", "figures.json")
    assert result.returncode == 0, result.stderr
    figures = json.loads((bundle.parent / "figures.json").read_text())
    rows = figures["rows"]
    assert [row["engine"] for row in rows] == ["float32", "float32, stream"] * 2
    assert all(0 < row["rtf"] < 1 and row["p95"] >= row["median"] > 0 for row in rows)
    assert [row["speed_up"] is None for row in rows] == [True, True, False, False]
    low, high = rows[2]["speed_up"][1:]
    assert low <= rows[2]["speed_up"][0] <= high
    assert "| bundle | float32 |" in result.stdout and figures["machine"]["cores"] >= 1


def test_damaged_files_are_refused_by_name(bundle):
    (bundle / "model.onnx").write_bytes(b"nothing")
    result = run(bundle)
    assert result.returncode == 1 and "model.onnx: the file is missing or damaged" in result.stderr


def test_passes_begin_one_later_each_time():
    assert [bundle_bench.order(3, number) for number in range(3)] == [[0, 1, 2], [0, 2, 1], [2, 0, 1]]


def test_speed_up_is_that_of_the_sums():
    slow, fast = np.array([[4.0, 4.0], [4.0, 6.0]]), np.array([[2.0, 1.0], [1.0, 2.0]])
    value, low, high = bundle_bench.speed_up(slow, fast)
    assert value == pytest.approx(3.0) and low == pytest.approx(8 / 3, abs=1e-3) and high == pytest.approx(10 / 3, abs=1e-3)
