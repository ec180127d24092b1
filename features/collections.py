"""The aggregations whose value is a list, a number of distinct values, or read from a sketch.

Adding one touches this file alone. What aggregations share stands in features/aggregation.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from features.aggregation import Aggregation, Composition, Over, Part
from features.errors import DefinitionError
from features.plan import CellKind, Finish
from features.sketches import KEYS_MAX
from features.udf import Udf
from schemas.types import is_decimal

K_MAX = 1_000
"""Values of a list: some tens of KB a tile at most."""
LIMIT_MAX = 100_000
EDGES_MAX = 1_000


class _KValues(Aggregation):
    flattens = True
    cell: ClassVar[CellKind]

    def __init__(
        self,
        expression: str | Udf,
        k: int,
        *,
        over: Over = None,
        where: str | None = None,
        by: str | None = None,
    ) -> None:
        super().__init__(expression, over=over, where=where, by=by)
        self.k = self._whole("k", k, K_MAX)

    def arguments(self) -> list[str]:
        return [repr(self.k)]

    def compose(self, type_name: str | None) -> Composition:
        value_type = self._value(type_name, "single values or a list of them")
        part = Part(self.cell, True, self.k)
        return Composition((part,), Finish.LIST, f"list<{value_type}>", None, {"k": self.k})


class FirstK(_KValues):
    """The k first non-null values, oldest first. A list of the input's type, shorter where there are fewer."""

    cell = CellKind.FIRST_K


class LastK(_KValues):
    """The k last non-null values, newest first; `distinct=True`: each value once, at its newest. A list."""

    cell = CellKind.LAST_K

    def __init__(
        self,
        expression: str | Udf,
        k: int,
        *,
        distinct: bool = False,
        over: Over = None,
        where: str | None = None,
        by: str | None = None,
    ) -> None:
        super().__init__(expression, k, over=over, where=where, by=by)
        self.distinct = bool(distinct)

    def arguments(self) -> list[str]:
        return [repr(self.k), *(["distinct=True"] if self.distinct else [])]

    def compose(self, type_name: str | None) -> Composition:
        composed = super().compose(type_name)
        if not self.distinct:
            return composed
        part = Part(CellKind.LAST_K_DISTINCT, True, self.k)
        return Composition((part,), composed.finish, composed.type, None, composed.parameters)


class TopK(_KValues):
    """The k largest values, largest first, equal ones kept. Text is ordered by its bytes. A list."""

    cell = CellKind.TOP_K


class BottomK(_KValues):
    """The k smallest values, smallest first, equal ones kept. Text is ordered by its bytes. A list."""

    cell = CellKind.BOTTOM_K


class MostFrequent(_KValues):
    """The k most frequent values; of equally frequent ones the smaller first. A list.

    Exact up to 1,000 distinct values in a tile; beyond them the answer is null with status INVALID.
    """

    def compose(self, type_name: str | None) -> Composition:
        value_type = self._value(type_name, "single values or a list of them")
        part = Part(CellKind.FREQUENCIES, True, KEYS_MAX)
        return Composition((part,), Finish.MOST_FREQUENT, f"list<{value_type}>", None, {"k": self.k})


class CountDistinct(Aggregation):
    """min(n, limit) of the n distinct values: exact below `limit`, 'at least' there. 0 over no events. INT64."""

    flattens = True

    def __init__(
        self,
        expression: str | Udf,
        *,
        limit: int = 10_000,
        over: Over = None,
        where: str | None = None,
        by: str | None = None,
    ) -> None:
        super().__init__(expression, over=over, where=where, by=by)
        self.limit = self._whole("limit", limit, LIMIT_MAX)

    def arguments(self) -> list[str]:
        return [f"limit={self.limit}"]

    def compose(self, type_name: str | None) -> Composition:
        self._value(type_name, "single values or a list of them")
        part = Part(CellKind.DISTINCT, True, self.limit)
        return Composition((part,), Finish.COUNT_DISTINCT, "int64", None, {"limit": self.limit})


class ApproxCountDistinct(Aggregation):
    """The number of distinct values by HyperLogLog with 2**12 registers: a standard error of 1.6 %. INT64."""

    flattens = True

    def compose(self, type_name: str | None) -> Composition:
        self._value(type_name, "single values or a list of them")
        return Composition((Part(CellKind.REGISTERS),), Finish.APPROX_COUNT_DISTINCT, "int64")


class Quantile(Aggregation):
    """The value at rank ⌊p · (n − 1)⌋ within 1 % of itself, by DDSketch (features/sketches.py). DOUBLE."""

    flattens = True

    def __init__(
        self,
        expression: str | Udf,
        p: float,
        *,
        over: Over = None,
        where: str | None = None,
        by: str | None = None,
    ) -> None:
        super().__init__(expression, over=over, where=where, by=by)
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
            raise DefinitionError("Quantile: the quantile is a number from 0 to 1", got=repr(p), hint="write 0.9")
        self.p = float(p)

    def arguments(self) -> list[str]:
        return [repr(self.p)]

    def compose(self, type_name: str | None) -> Composition:
        self._number(type_name)
        return Composition((Part(CellKind.BUCKETS),), Finish.QUANTILE, "float64", "float64", {"p": self.p})


class Histogram(Aggregation):
    """Counts between `edges`: n rising edges give n + 1 counts, a value on an edge counts above it. list<int64>."""

    flattens = True

    def __init__(
        self,
        expression: str | Udf,
        edges: Sequence[float],
        *,
        over: Over = None,
        where: str | None = None,
        by: str | None = None,
    ) -> None:
        super().__init__(expression, over=over, where=where, by=by)
        self.edges = _edges(edges)

    def arguments(self) -> list[str]:
        return [f"edges={list(self.edges)}"]

    def compose(self, type_name: str | None) -> Composition:
        number = self._number(type_name)
        if is_decimal(number):
            self._value(number, "a number")
        part = Part(CellKind.BINS, True, 0, self.edges)
        return Composition((part,), Finish.HISTOGRAM, "list<int64>", None, {"bins": len(self.edges) + 1})


def _edges(edges: object) -> tuple[float, ...]:
    found = tuple(edges) if isinstance(edges, Sequence) and not isinstance(edges, str) else ()
    numbers = all(isinstance(e, int | float) and not isinstance(e, bool) and math.isfinite(e) for e in found)
    if not found or not numbers or len(found) > EDGES_MAX or any(a >= b for a, b in pairwise(found)):
        raise DefinitionError(
            f"Histogram: edges= is a list of 1 to {EDGES_MAX:,} rising numbers",
            got=repr(edges),
            hint="write edges=[0, 15, 60]",
        )
    return tuple(float(edge) for edge in found)
