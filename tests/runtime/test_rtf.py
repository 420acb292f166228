"""The conditions of the timing: hardware, one core, busy machine, order of the nets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dropasr.runtime import busy
from dropasr.runtime.busy import BUSY_SHARE, busy_share
from dropasr.runtime.machine import hardware, joules, pinned
from dropasr.runtime.timing import order_of_pass


def test_hardware_names_the_processor_and_no_machine():
    found = hardware()
    assert set(found) == {"cpu", "cores", "threads", "memory_gib", "os"}
    assert found["cores"] >= 1 and found["threads"] == 1 and found["memory_gib"] > 0
    assert os.uname().nodename not in {found["cpu"], found["os"]}


def test_one_core_is_left_as_it_was_found():
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), pinned():
        assert torch.get_num_threads() == 1 and len(os.sched_getaffinity(0)) == 1
        raise ZeroDivisionError
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == (threads, cores)


def stat(user: int, idle: int, iowait: int = 0, steal: int = 0) -> str:
    """`/proc/stat` of two cores; the guest's time at the end is part of the user's."""
    total = f"{user} 0 0 {idle} {iowait} 0 0 {steal} {user} 0"
    return f"cpu  {total}\ncpu0 {total}\ncpu1 {total}\nintr 5 0 0\nctxt 1\n"


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (stat(1000, 5200), 0.0),
        (stat(1100, 5100), 1.0),
        (stat(1200, 5000), 2.0),
        (stat(1000, 5000, iowait=200), 0.0),
        (stat(1000, 5150, steal=50), 0.5),
        (stat(1000, 5000), 0.0),
    ],
    ids=["idle", "one core", "both", "disk", "stolen", "no tick"],
)
def test_share_of_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str, expected: float):
    # A second has 100 ticks per core, 200 in all.
    path = tmp_path / "stat"
    path.write_text(stat(1000, 5000), encoding="utf-8")
    monkeypatch.setattr(busy.time, "sleep", lambda seconds: path.write_text(later, encoding="utf-8"))
    assert busy_share(path) == pytest.approx(expected)
    assert (busy_share(path) > BUSY_SHARE) is False  # nothing changed since


def test_share_on_this_machine():
    assert 0 <= busy_share(seconds=0.05) <= (os.cpu_count() or 1)


@pytest.mark.parametrize("count", [3, 4, 6])
def test_no_net_always_follows_the_same_one(count: int):
    names = list("ABCDEF"[:count])
    followed: dict[str, set[str]] = {name: set() for name in names}
    sequence = []
    for number in (1, 2):  # the fewest passes
        order = order_of_pass(names, number)
        assert sorted(order) == names
        sequence += order
    for before, after in zip(sequence, sequence[1:]):
        followed[after].add(before)
    assert all(len(before) > 1 for name, before in followed.items() if name != sequence[0])


def test_energy_of_packages_is_added_up(tmp_path: Path):
    assert joules(tmp_path) is None
    for name, value in (("intel-rapl:0", 3_000_000), ("intel-rapl:1", 500_000), ("intel-rapl:0:0", 9_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
    assert joules(tmp_path) == 3.5
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert joules(tmp_path) is None
