"""Whether udfs treat each row alone, tried on made-up rows: a batch is cut otherwise online than offline."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from features.plan import Definitions
from features.udf import Call, called_in
from schemas.errors import DefinitionError
from schemas.types import arrow_type, decimal_scale, element_type, is_decimal, map_types

ROWS = 48
NULL_SHARE = 0.15
DAY = datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None)


def check_udfs(definitions: Definitions) -> None:
    """Raises DefinitionError for a udf whose value for a row depends on the rows that come along with it."""
    calls = {
        name: call
        for view in definitions.views.values()
        for each in view.inputs
        for name, call in called_in(each.sql).items()
    }
    for call in calls.values():
        _check(call)


def _check(call: Call) -> None:
    # The same rows at every apply: an error that comes and goes helps nobody.
    chance = random.Random(7)
    rows = [[_value(type_, chance) for type_ in call.types] for _ in range(ROWS)]
    together = _values(call, rows)
    for how, others in _otherwise(call, rows):
        for number, (one, other) in enumerate(zip(together, others, strict=True)):
            if repr(one) != repr(other):
                raise DefinitionError(
                    "a udf treats each row alone",
                    where=f"udf {call.udf.name}",
                    got=f"{one!r} for {rows[number]} among {ROWS} rows, {other!r} {how}",
                    hint="compute from the row's own columns: no mean, no shift, no sort over the array",
                )


def _otherwise(call: Call, rows: list[list[Any]]) -> Iterator[tuple[str, list[Any]]]:
    """The rows' values, in the rows' order, from batches that were cut or ordered otherwise."""
    yield "where it is alone", [value for row in rows for value in _values(call, [row])]
    yield "in the reverse order", _values(call, rows[::-1])[::-1]
    half = ROWS // 2
    yield "among half of them", [*_values(call, rows[:half]), *_values(call, rows[half:])]


def _values(call: Call, rows: list[list[Any]]) -> list[Any]:
    arrays = [pa.array([row[number] for row in rows], arrow_type(type_)) for number, type_ in enumerate(call.types)]
    values: list[Any] = call.udf.apply(arrays).to_pylist()
    return values


def _value(type_: str, chance: random.Random) -> Any:
    if chance.random() < NULL_SHARE:
        return None
    if element := element_type(type_):
        return [_value(element, chance) for _ in range(chance.randrange(4))]
    if types := map_types(type_):
        keys = {_SCALARS[types[0]](chance) for _ in range(chance.randrange(4))}
        return [(key, _value(types[1], chance)) for key in sorted(keys)]
    if is_decimal(type_):
        return Decimal(chance.randrange(-10, 10)).scaleb(-decimal_scale(type_))
    return _SCALARS[type_](chance)


_SCALARS: dict[str, Callable[[random.Random], Any]] = {
    "bool": lambda chance: chance.random() < 0.5,
    "int64": lambda chance: chance.randrange(-100, 1_000),
    "float64": lambda chance: round(chance.uniform(-100, 1_000), 2),
    "string": lambda chance: chance.choice(["", "a", "JFK", "Zürich", "2024-01-01", "12.5"]),
    "bytes": lambda chance: chance.choice([b"", b"\x00\xff", b"abc"]),
    "timestamp": lambda chance: DAY + timedelta(seconds=chance.randrange(10_000_000)),
    "date": lambda chance: date(2024, 1, 1) + timedelta(days=chance.randrange(1_000)),
}
