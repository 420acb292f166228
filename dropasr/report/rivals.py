"""Which nets are compared with which, and which ones sentences and claims are about.

A table of one method or two compares every compacted net with its rivals: nets from scratch of its size, and controls, all with the same
teacher or without one, as it is. Where more methods without a teacher share a budget with dropout compaction, each is compared with dropout
compaction of its size, and sentences and claims are about that alone; and with the variant of it that dev chooses, where there are some.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TypeVar

from dropasr.report.schema import Row

PIVOT = "dropout_compaction"
"""The method that all others are compared with, where there are many."""
PLAIN_DROPOUT = "dropout"
"""The large net that the other large ones are compared with there: weight scaling, trained with ordinary dropout."""
MANY = 3
"""Compaction methods of one budget from which on all are compared with one."""

RowType = TypeVar("RowType", bound=Row)


def is_control(row: Row) -> bool:
    """Whether units were removed without learning which: the row is there to be compared with."""
    if row.learns_units is None:  # as in files of older versions, whose controls had such names
        return row.method.endswith("_removal")
    return not row.learns_units


def is_variant(row: Row) -> bool:
    """Whether a net of a budget was made by dropout compaction or a variant of it, which have it in their names; controls are none."""
    return row.kind == "compact" and row.budget > 0 and "compaction" in row.method and not is_control(row)


def are_many(rows: Sequence[Row]) -> bool:
    """Whether the rows, of one model and system, compare many methods with dropout compaction."""
    methods = {(row.budget, row.method) for row in rows if row.kind == "compact" and row.budget and row.teacher is None}
    return any(sum(of == budget for of, _ in methods) >= MANY for budget, method in methods if method == PIVOT)


def _are_rivals(row: Row, other: Row) -> bool:
    """Whether a compacted net is to be compared with another of its budget and teacher: one from scratch, or one made by a control."""
    if row.kind != "compact" or row.budget != other.budget or not row.budget or row.teacher != other.teacher:
        return False
    return other.kind == "small" or (other.kind == "compact" and is_control(other) and not is_control(row))


def _pivot_of(row: Row, other: Row) -> bool:
    """Whether `other` is what `row` is compared with where there are many methods."""
    if row.kind == "large":
        return other.kind == "large" and other.method == PLAIN_DROPOUT != row.method
    return other.kind == "compact" and other.method == PIVOT != row.method and row.budget == other.budget > 0


def pairs(rows: Sequence[RowType]) -> list[tuple[RowType, RowType]]:
    """The nets to be compared, each with the one that is subtracted; `rows` are of one model and system."""
    compared = _pivot_of if are_many(rows) else _are_rivals
    return [(row, other) for row, other in product(rows, rows) if compared(row, other)]


def subjects(rows: Sequence[RowType]) -> list[RowType]:
    """The compacted nets with a budget that sentences and claims are about; `rows` are of one model and system."""
    chosen = [row for row in rows if row.kind == "compact" and row.budget and not is_control(row)]
    return [row for row in chosen if row.method == PIVOT] if are_many(rows) else chosen
