"""For every kind of cell a feature that has it, and the histories that the laws are tried on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from features.plan import CellKind
from tests.parity.declared import Feature, feature

near_a_mean = st.builds(lambda mean, x: mean + x, st.sampled_from([0.0, 1e5]), st.sampled_from([-3.0, -0.5, 0.1, 2.0]))
small = st.integers(-2, 3)
few_words = st.sampled_from(["a", "b", "ab", "", "ä"])


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
    CellKind.MOMENTS: Subject(lambda: feature("Variance", "x"), ["x"], {"x": near_a_mean}),
    CellKind.MOMENTS4: Subject(lambda: feature("Kurtosis", "x"), ["x"], {"x": near_a_mean}),
    CellKind.DECAYED: Subject(lambda: feature("DecayedSum", "x", half_life="6h"), ["x"], {"x": near_a_mean}),
    CellKind.FIRST_K: Subject(lambda: feature("FirstK", "s", k=2), ["s"]),
    CellKind.LAST_K: Subject(lambda: feature("LastK", "x", k=3), ["x"]),
    CellKind.LAST_K_DISTINCT: Subject(lambda: feature("LastK", "s", k=2, distinct=True), ["s"], {"s": few_words}),
    CellKind.TOP_K: Subject(lambda: feature("TopK", "n", k=3), ["n"], {"n": small}),
    CellKind.BOTTOM_K: Subject(lambda: feature("BottomK", "s", k=2), ["s"], {"s": few_words}),
    CellKind.FREQUENCIES: Subject(lambda: feature("MostFrequent", "n", k=2), ["n"], {"n": small}),
    CellKind.DISTINCT: Subject(lambda: feature("CountDistinct", "s", limit=3), ["s"], {"s": few_words}),
    CellKind.REGISTERS: Subject(lambda: feature("ApproxCountDistinct", "n"), ["n"]),
    CellKind.BUCKETS: Subject(lambda: feature("Quantile", "x", p=0.5), ["x"]),
    CellKind.BINS: Subject(lambda: feature("Histogram", "x", edges=[-1.0, 0.0, 2.0]), ["x"]),
    CellKind.BY: Subject(lambda: feature("Sum", "x", by="s"), ["x", "s"], {"s": few_words}),
    CellKind.ELEMENTS: Subject(lambda: feature("Sum", "vector"), ["vector"]),
}
APPROXIMATE = {CellKind.MOMENTS, CellKind.MOMENTS4, CellKind.DECAYED}
"""Cells whose laws hold within 1e-9, not to the bit."""
