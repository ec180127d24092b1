"""The aggregations whose value is one number, one value, or a moment. Adding one touches this file alone.

Lists, distinct values and sketches stand in features/collections.py; what they share in features/aggregation.py.
"""

from __future__ import annotations

from typing import ClassVar

from features.aggregation import VARIABLE, Aggregation, Composition, Over, Part
from features.errors import DefinitionError
from features.plan import CellKind, Finish
from features.udf import Udf
from schemas.duration import parse_duration
from schemas.types import decimal_digits, decimal_scale, element_type, map_types

PLAIN = ("bool", "int64", "float64", "string", "bytes")
DIGITS_OF_A_SUM = 28
"""2**31 inputs of 28 digits stay within the 38 of their sum."""


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
    """The sum. Of integers: INT64, saturated; of decimals: DECIMAL(38, s).

    Of DOUBLE: exact in fixed point (DESIGN §2), rounded once. Of lists: element by element, of maps: key by key.
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
        inside = None if type_name is None else (element_type(type_name) or (map_types(type_name) or (None, None))[1])
        nested = inside is not None
        if nested:
            # Lists and maps are kept as msgpack, which has words for these.
            self._one_of(
                inside, ("bool", "int64", "float64", "string", "bytes"), "single values, or lists of plain ones"
            )
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
