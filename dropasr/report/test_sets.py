"""Test sets: their names, sizes and union, and over which of them verdicts are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dropasr.report.records import Record
from dropasr.scoring.bootstrap import FEW_SPEAKERS, IntervalKind

ALL = "all"
"""The union of test and the further test sets, as a test set of its own."""


def with_union(tests: Iterable[str]) -> list[str]:
    """`test` and the further test sets, then their union where there are several."""
    names = list(tests)
    return [*names, ALL] if len(names) > 1 else names


def parts(test: str, tests: Iterable[str]) -> list[str]:
    """The test sets of `tests` that a test set consists of: all of them for the union, else itself."""
    return list(tests) if test == ALL else [test]


def set_name(test: str) -> str:
    """A test set for people."""
    return "all tests" if test == ALL else test


class SplitSize(Record):
    """Size of a test set, and how the intervals of its error rates are made."""

    words: int
    """Words of the references."""
    speakers: int
    """Speakers."""
    bootstrap_unit: str
    """What the intervals of its error rates are over: `speaker`, or `utterance` where there is one speaker."""
    interval: IntervalKind = "bootstrap"
    """How they are made: `t` (Student's t) for fewer than thirty speakers, of several sets in one of them, else `bootstrap`."""
    sets: int = 1
    """Test sets of which it is the union; intervals are made within each."""

    @property
    def speakers_text(self) -> str:
        """How many speakers."""
        return "1 speaker" if self.speakers == 1 else f"{self.speakers} speakers"

    @property
    def interval_text(self) -> str:
        """The same in words."""
        made = f"t interval over {self.speakers_text}" if self.interval == "t" else f"bootstrap over {self.bootstrap_unit}s"
        return f"{made} within {self.sets} test sets" if self.sets > 1 else made


def headline_test(sizes: Mapping[str, SplitSize]) -> str:
    """The test set of the verdicts: the union where `test` alone has too few speakers and the union has more, else `test`."""
    few = sizes["test"].speakers < FEW_SPEAKERS
    return ALL if few and ALL in sizes and sizes[ALL].speakers > sizes["test"].speakers else "test"


def ordered(sizes: Mapping[str, SplitSize]) -> list[str]:
    """All test sets, that of the verdicts first."""
    first = headline_test(sizes)
    return [first, *(test for test in sizes if test != first)]
