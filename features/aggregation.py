"""What an aggregation is: what a feature computes, as a list of cells and a finish.

Every aggregation takes `(expression, *, over=None, where=None, by=None)`: `expression` is SQL over the columns of the
view's source (or a udf), `over` a duration, a Window or a Calendar (None: the lifetime), `where` a condition for this
feature alone, `by` a second key inside the entity: the value is then a map. Null inputs are skipped. Over no events the
value is null, except for Count and CountDistinct, which are 0.

A list as input: Sum, Mean, Min and Max go element by element; the aggregations whose answer is a list, a count of
distinct values or a sketch take its elements one by one. A map as input: Sum, Mean, Min and Max go key by key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from features.errors import DefinitionError
from features.plan import CellKind, Finish
from features.udf import Udf
from features.window import Calendar, Window, as_window
from schemas.types import decimal_digits, decimal_scale, is_decimal

NUMBERS = ("int64", "float64")
FIXED = ("int64", "float64", "bool", "timestamp", "date")
"""Types whose values fit a word of 8 bytes; a decimal of at most 18 digits does as well."""
VARIABLE = ("string", "bytes")
DIGITS_OF_A_WORD = 18


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
