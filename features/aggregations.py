"""Aggregations: what a feature computes, as a list of cells and a finish. Adding one touches this file alone.

Every aggregation takes `(expression, *, over=None, where=None, by=None)`: `expression` is SQL over the columns of the
view's source (or a udf), `over` a duration, a Window or a Calendar (None: the lifetime), `where` a condition for this
feature alone, `by` a second key inside the entity: the value is then a map. Null inputs are skipped. Over no events the
value is null, except for Count and CountDistinct, which are 0.

A list as input: Sum, Mean, Min and Max go element by element; the aggregations whose answer is a list, a count of
distinct values or a sketch take its elements one by one. A map as input: Sum, Mean, Min and Max go key by key.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from features.errors import DefinitionError
from features.plan import CellKind, Finish
from features.sketches import KEYS_MAX
from features.udf import Udf
from features.window import Calendar, Window, as_window
from schemas.duration import parse_duration
from schemas.types import decimal_digits, decimal_scale, is_decimal

NUMBERS = ("int64", "float64")
FIXED = ("int64", "float64", "bool", "timestamp", "date")
"""Types whose values fit a word of 8 bytes; a decimal of at most 18 digits does as well."""
VARIABLE = ("string", "bytes")
DIGITS_OF_A_WORD = 18
DIGITS_OF_A_SUM = 28
"""2**31 inputs of 28 digits stay within the 38 of their sum."""
K_MAX = 1_000
"""Values of a list: some tens of KB a tile at most."""
LIMIT_MAX = 100_000
EDGES_MAX = 1_000


class Part(NamedTuple):
    """A cell of a composition. One that is not `over_input` counts every event of the view."""

    kind: CellKind
    over_input: bool = True
    argument: int = 0
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Composition:
    """What an aggregation is made of: cells in the order its finish takes them, and the type of the value.

    `cast`: the type that the input is cast to first.
    """

    cells: tuple[Part, ...]
    finish: Finish
    type: str
    cast: str | None = None
    parameters: dict[str, int | float] = field(default_factory=dict)


Over = Window | Calendar | str | None


class Aggregation(ABC):
    """The declaration of one feature. Raises DefinitionError where an argument can't mean anything."""

    expression_optional: ClassVar[bool] = False
    element_by_element: ClassVar[bool] = False
    """A list or map as input gives a list or map of values."""
    flattens: ClassVar[bool] = False
    """A list as input stands for its elements."""

    def __init__(
        self,
        expression: str | Udf | None = None,
        *,
        over: Over = None,
        where: str | None = None,
        by: str | None = None,
    ) -> None:
        name = type(self).__name__
        if expression is None and not self.expression_optional:
            raise DefinitionError(f"{name} needs an expression", hint=f'write {name}("column", over="6h")')
        if not isinstance(expression, Udf):
            _check_text(name, "an expression", expression)
        _check_text(name, "where=", where)
        _check_text(name, "by=", by)
        self.expression = expression
        self.over = as_window(over)
        self.where = where
        self.by = by

    @abstractmethod
    def compose(self, type_name: str | None) -> Composition:
        """The cells and the finish over an input of that type (None: no input). Raises DefinitionError for the type."""

    def arguments(self) -> list[str]:
        """The arguments between the expression and `over`, as they are written."""
        return []

    def __repr__(self) -> str:
        parts = [] if self.expression is None else [repr(self.expression)]
        parts += self.arguments()
        parts += [f"over={self.over.shown()}"] if self.over is not None else []
        parts += [f"where={self.where!r}"] if self.where is not None else []
        parts += [f"by={self.by!r}"] if self.by is not None else []
        return f"{type(self).__name__}({', '.join(parts)})"

    def _number(self, type_name: str | None) -> str:
        if type_name is not None and is_decimal(type_name):
            return type_name
        return self._one_of(type_name, NUMBERS, "a number")

    def _value(self, type_name: str | None, what: str) -> str:
        """A type whose values have an order and fit a word or are bytes."""
        if type_name is not None and is_decimal(type_name):
            if decimal_digits(type_name) <= DIGITS_OF_A_WORD:
                return type_name
            raise DefinitionError(
                f"{type(self).__name__} keeps decimals of at most {DIGITS_OF_A_WORD} digits",
                got=f"{self.expression!r} of type {type_name}",
                hint=f"cast it, as in x::DECIMAL({DIGITS_OF_A_WORD}, {decimal_scale(type_name)})",
            )
        return self._one_of(type_name, FIXED + VARIABLE, what)

    def _one_of(self, type_name: str | None, allowed: tuple[str, ...], what: str) -> str:
        if type_name in allowed:
            return type_name
        raise DefinitionError(
            f"{type(self).__name__} needs {what}",
            got=f"{self.expression!r} of type {type_name}",
            hint="cast it, as in (x > 15)::INT, or aggregate another column",
        )

    def _whole(self, what: str, value: object, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise DefinitionError(
                f"{type(self).__name__}: {what} is a whole number from 1 to {most:,}", got=repr(value), hint="write 5"
            )
        return value


def _check_text(name: str, what: str, text: object) -> None:
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise DefinitionError(f"{name}: {what} is SQL text", got=repr(text), hint='write "dep_delay_min > 15"')


class Count(Aggregation):
    """`Count()`: the events; `Count("x")`: those whose x is not null. 0 over no events. INT64."""

    expression_optional = True

    def compose(self, type_name: str | None) -> Composition:
        return Composition((Part(CellKind.COUNT, self.expression is not None),), Finish.COUNT, "int64")


class _Total(Aggregation):
    element_by_element = True
    of_int: ClassVar[Finish]
    of_float: ClassVar[Finish]
    of_decimal: ClassVar[Finish]

    def compose(self, type_name: str | None) -> Composition:
        number = self._number(type_name)
        count = Part(CellKind.COUNT)
        if number == "int64":
            return Composition((Part(CellKind.SUM_INT), count), self.of_int, self._type("int64"))
        if number == "float64":
            return Composition((Part(CellKind.SUM_FIXED), count), self.of_float, self._type("float64"))
        if decimal_digits(number) > DIGITS_OF_A_SUM:
            raise DefinitionError(
                f"{type(self).__name__} takes decimals of at most {DIGITS_OF_A_SUM} digits, so that no sum overflows",
                got=f"{self.expression!r} of type {number}",
                hint=f"cast it, as in x::DECIMAL({DIGITS_OF_A_SUM}, {decimal_scale(number)})",
            )
        scale = decimal_scale(number)
        return Composition(
            (Part(CellKind.SUM_INT), count), self.of_decimal, self._type(f"decimal(38,{scale})"), None, {"scale": scale}
        )

    def _type(self, type_name: str) -> str:
        return type_name


class Sum(_Total):
    """The sum. Of integers: INT64, saturated; of decimals: DECIMAL(38, s); of DOUBLE: exact in fixed point, rounded once.

    Of lists: element by element, of maps: key by key.
    """

    of_int, of_float, of_decimal = Finish.SUM_INT, Finish.SUM_FIXED, Finish.SUM_DECIMAL


class Mean(_Total):
    """float64(sum) / float64(count), of the exact sum. DOUBLE. Of lists and maps: a mean for each element."""

    of_int, of_float, of_decimal = Finish.MEAN_INT, Finish.MEAN_FIXED, Finish.MEAN_DECIMAL

    def _type(self, type_name: str) -> str:
        return "float64"


class _Extreme(Aggregation):
    element_by_element = True
    of_int: ClassVar[CellKind]
    of_float: ClassVar[CellKind]
    of_bytes: ClassVar[CellKind]

    def compose(self, type_name: str | None) -> Composition:
        value_type = self._value(type_name, "a value with an order")
        if value_type in VARIABLE:
            return Composition((Part(self.of_bytes),), Finish.VALUE, value_type)
        kind = self.of_float if value_type == "float64" else self.of_int
        return Composition((Part(kind), Part(CellKind.COUNT)), Finish.VALUE, value_type)


class Min(_Extreme):
    """The smallest value; text and bytes are ordered by their bytes. The input's type."""

    of_int, of_float, of_bytes = CellKind.MIN_INT, CellKind.MIN_FLOAT, CellKind.MIN_BYTES


class Max(_Extreme):
    """The largest value; text and bytes are ordered by their bytes. The input's type."""

    of_int, of_float, of_bytes = CellKind.MAX_INT, CellKind.MAX_FLOAT, CellKind.MAX_BYTES


class _Ordered(Aggregation):
    of_fixed: ClassVar[CellKind]
    of_bytes: ClassVar[CellKind]

    def compose(self, type_name: str | None) -> Composition:
        nested = type_name is not None and type_name.startswith(("list<", "map<"))
        value_type = str(type_name) if nested else self._value(type_name, "a single value")
        kind = self.of_bytes if nested or value_type in VARIABLE else self.of_fixed
        return Composition((Part(kind),), Finish.VALUE, value_type)


class First(_Ordered):
    """The first non-null value in the order (event time, position in the source, partition, offset)."""

    of_fixed, of_bytes = CellKind.FIRST, CellKind.FIRST_BYTES


class Last(_Ordered):
    """The last non-null value in the order (event time, position in the source, partition, offset)."""

    of_fixed, of_bytes = CellKind.LAST, CellKind.LAST_BYTES


class _Moment(Aggregation):
    cell: ClassVar[CellKind]
    finish: ClassVar[Finish]

    def compose(self, type_name: str | None) -> Composition:
        self._number(type_name)
        return Composition((Part(self.cell),), self.finish, "float64", "float64")


class Variance(_Moment):
    """The population's variance, M₂ / n; 0 where min = max. DOUBLE, within 1e-9 · max(1, |v|)."""

    cell, finish = CellKind.MOMENTS, Finish.VARIANCE


class StdDev(_Moment):
    """The population's standard deviation, √(M₂ / n); 0 where min = max. DOUBLE, within 1e-9 · max(1, |v|)."""

    cell, finish = CellKind.MOMENTS, Finish.STDDEV


class Skew(_Moment):
    """The population's skewness, m₃ / m₂^1.5; null where min = max. DOUBLE, within 1e-9 · max(1, |v|)."""

    cell, finish = CellKind.MOMENTS4, Finish.SKEW


class Kurtosis(_Moment):
    """The population's excess kurtosis, m₄ / m₂² − 3; null where min = max. DOUBLE, within 1e-9 · max(1, |v|)."""

    cell, finish = CellKind.MOMENTS4, Finish.KURTOSIS


class _Decayed(Aggregation):
    finish: ClassVar[Finish]

    def __init__(
        self,
        expression: str | Udf,
        half_life: str,
        *,
        over: Over = None,
        where: str | None = None,
        by: str | None = None,
    ) -> None:
        super().__init__(expression, over=over, where=where, by=by)
        try:
            self.half_life_us = parse_duration(half_life)
        except (TypeError, ValueError) as error:
            raise DefinitionError(
                f"{type(self).__name__}: half_life= is a duration", got=repr(half_life), hint=f'write "6h" ({error})'
            ) from None
        if self.half_life_us <= 0:
            raise DefinitionError(
                f"{type(self).__name__}: a half-life is longer than nothing", got=repr(half_life), hint='write "6h"'
            )
        self.half_life = half_life

    def arguments(self) -> list[str]:
        return [f"half_life={self.half_life!r}"]

    def compose(self, type_name: str | None) -> Composition:
        self._number(type_name)
        part = Part(CellKind.DECAYED, True, self.half_life_us)
        return Composition((part,), self.finish, "float64", "float64", {"half_life_us": self.half_life_us})


class DecayedSum(_Decayed):
    """Σ x · 2^(−(q − t) / half_life) for the instant q. DOUBLE, within 1e-9 of Σ|terms|."""

    finish = Finish.DECAYED_SUM


class DecayedMean(_Decayed):
    """DecayedSum divided by the sum of the weights. DOUBLE, within 1e-9 of the same of |x|."""

    finish = Finish.DECAYED_MEAN


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
    if not found or not numbers or len(found) > EDGES_MAX or any(a >= b for a, b in zip(found, found[1:], strict=False)):
        raise DefinitionError(
            f"Histogram: edges= is a list of 1 to {EDGES_MAX:,} rising numbers",
            got=repr(edges),
            hint="write edges=[0, 15, 60]",
        )
    return tuple(float(edge) for edge in found)
