"""For every kind of cell a feature that has it, and the histories that the laws are tried on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from features.plan import CellKind
from tests.parity.declared import Feature, feature


class Subject(NamedTuple):
    """A feature whose first cell is of the kind, and the columns that it reads."""

    make: Callable[[], Feature]
    columns: Sequence[str]
    values: dict[str, Any] | None = None


SUBJECTS: dict[CellKind, Subject] = {
    CellKind.COUNT: Subject(lambda: feature("Count", "x"), ["x"]),
    CellKind.SUM_INT: Subject(lambda: feature("Sum", "n"), ["n"]),
    CellKind.SUM_FIXED: Subject(lambda: feature("Sum", "x"), ["x"]),
    CellKind.MIN_INT: Subject(lambda: feature("Min", "n"), ["n"]),
    CellKind.MAX_INT: Subject(lambda: feature("Max", "n"), ["n"]),
    CellKind.MIN_FLOAT: Subject(lambda: feature("Min", "x"), ["x"]),
    CellKind.MAX_FLOAT: Subject(lambda: feature("Max", "x"), ["x"]),
    CellKind.MIN_BYTES: Subject(lambda: feature("Min", "s"), ["s"]),
    CellKind.MAX_BYTES: Subject(lambda: feature("Max", "s"), ["s"]),
    CellKind.FIRST: Subject(lambda: feature("First", "x"), ["x"]),
    CellKind.LAST: Subject(lambda: feature("Last", "n"), ["n"]),
    CellKind.FIRST_BYTES: Subject(lambda: feature("First", "s"), ["s"]),
    CellKind.LAST_BYTES: Subject(lambda: feature("Last", "raw"), ["raw"]),
    CellKind.MOMENTS: Subject(lambda: feature("Variance", "x"), ["x"]),
}
APPROXIMATE = {CellKind.MOMENTS}
"""Cells whose laws hold within 1e-9, not to the bit."""
