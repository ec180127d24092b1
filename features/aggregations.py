"""Aggregations: what a feature computes, as a list of cells and a finish. Adding one touches this file alone.

Every aggregation takes `(expression, *, over=None, where=None)`: `expression` is SQL over the columns of the view's
source, `over` a duration or a Window (None: the lifetime), `where` a condition for this feature alone. Null inputs are
skipped. Over no events the value is null, except for counts, which are 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from features.errors import DefinitionError
from features.plan import CellKind, Finish
from features.window import Window, as_window

NUMBERS = ("int64", "float64")
FIXED = ("int64", "float64", "bool", "timestamp", "date")
"""Types whose values fit a word of 8 bytes."""
VARIABLE = ("string", "bytes")


@dataclass(frozen=True)
class Composition:
    """What an aggregation is made of: cells in the order its finish takes them, and the type of the value.

    A cell is (kind, over the input?); a cell not over the input counts every event of the view.
    """

    cells: tuple[tuple[CellKind, bool], ...]
    finish: Finish
    type: str


class Aggregation(ABC):
    """The declaration of one feature. Raises DefinitionError where an argument can't mean anything."""

    expression_optional: ClassVar[bool] = False

    def __init__(
        self, expression: str | None = None, *, over: Window | str | None = None, where: str | None = None
    ) -> None:
        name = type(self).__name__
        if expression is None and not self.expression_optional:
            raise DefinitionError(f"{name} needs an expression", hint=f'write {name}("column", over="6h")')
        for what, text in (("an expression", expression), ("where=", where)):
            if text is not None and (not isinstance(text, str) or not text.strip()):
                raise DefinitionError(f"{name}: {what} is SQL text", got=repr(text), hint='write "dep_delay_min > 15"')
        self.expression = expression
        self.over = as_window(over)
        self.where = where

    @abstractmethod
    def compose(self, type_name: str | None) -> Composition:
        """The cells and the finish over an input of that type (None: no input). Raises DefinitionError for the type."""

    def __repr__(self) -> str:
        parts = [] if self.expression is None else [repr(self.expression)]
        parts += [f"over={str(self.over)!r}"] if self.over is not None else []
        parts += [f"where={self.where!r}"] if self.where is not None else []
        return f"{type(self).__name__}({', '.join(parts)})"

    def _one_of(self, type_name: str | None, allowed: tuple[str, ...], what: str) -> str:
        if type_name in allowed:
            return type_name
        raise DefinitionError(
            f"{type(self).__name__} needs {what}",
            got=f"{self.expression!r} of type {type_name}",
            hint="cast it, as in (x > 15)::INT, or aggregate another column",
        )


class Count(Aggregation):
    """`Count()`: the events; `Count("x")`: those whose x is not null. 0 over no events. INT64."""

    expression_optional = True

    def compose(self, type_name: str | None) -> Composition:
        return Composition(((CellKind.COUNT, self.expression is not None),), Finish.COUNT, "int64")


class Sum(Aggregation):
    """The sum. Of integers: INT64, saturated. Of DOUBLE: exact in fixed point (DESIGN §2), rounded once."""

    def compose(self, type_name: str | None) -> Composition:
        number = self._one_of(type_name, NUMBERS, "a number")
        if number == "int64":
            return Composition(((CellKind.SUM_INT, True), (CellKind.COUNT, True)), Finish.SUM_INT, "int64")
        return Composition(((CellKind.SUM_FIXED, True), (CellKind.COUNT, True)), Finish.SUM_FIXED, "float64")


class Mean(Aggregation):
    """float64(sum) / float64(count), of the exact sum. DOUBLE."""

    def compose(self, type_name: str | None) -> Composition:
        number = self._one_of(type_name, NUMBERS, "a number")
        if number == "int64":
            return Composition(((CellKind.SUM_INT, True), (CellKind.COUNT, True)), Finish.MEAN_INT, "float64")
        return Composition(((CellKind.SUM_FIXED, True), (CellKind.COUNT, True)), Finish.MEAN_FIXED, "float64")


class _Extreme(Aggregation):
    of_int: ClassVar[CellKind]
    of_float: ClassVar[CellKind]
    of_bytes: ClassVar[CellKind]

    def compose(self, type_name: str | None) -> Composition:
        value_type = self._one_of(type_name, FIXED + VARIABLE, "a value with an order")
        if value_type in VARIABLE:
            return Composition(((self.of_bytes, True),), Finish.VALUE, value_type)
        kind = self.of_float if value_type == "float64" else self.of_int
        return Composition(((kind, True), (CellKind.COUNT, True)), Finish.VALUE, value_type)


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
        value_type = self._one_of(type_name, FIXED + VARIABLE, "a single value")
        kind = self.of_bytes if value_type in VARIABLE else self.of_fixed
        return Composition(((kind, True),), Finish.VALUE, value_type)


class First(_Ordered):
    """The first non-null value in the order (event time, position in the source, partition, offset)."""

    of_fixed, of_bytes = CellKind.FIRST, CellKind.FIRST_BYTES


class Last(_Ordered):
    """The last non-null value in the order (event time, position in the source, partition, offset)."""

    of_fixed, of_bytes = CellKind.LAST, CellKind.LAST_BYTES


class Variance(Aggregation):
    """The population's variance, M₂ / n; 0 where min = max. DOUBLE, within 1e-9 · max(1, |v|)."""

    def compose(self, type_name: str | None) -> Composition:
        self._one_of(type_name, NUMBERS, "a number")
        return Composition(((CellKind.MOMENTS, True),), Finish.VARIANCE, "float64")


class StdDev(Aggregation):
    """The population's standard deviation, √(M₂ / n); 0 where min = max. DOUBLE, within 1e-9 · max(1, |v|)."""

    def compose(self, type_name: str | None) -> Composition:
        self._one_of(type_name, NUMBERS, "a number")
        return Composition(((CellKind.MOMENTS, True),), Finish.STDDEV, "float64")
