"""A request's columns: entity keys as the texts under which rows stand, request-time columns in Arrow.

A value of another type is refused, never coerced: "7" and 7 are different entities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from schemas.errors import RequestError
from schemas.event import Column
from schemas.row import TIME_MAX_US, TIME_MIN_US, entity_key
from schemas.types import arrow_type

Columns = Mapping[str, Sequence[Any]]

EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
"""1970 as a naive UTC instant."""
_INSTANT: TypeAdapter[datetime] = TypeAdapter(datetime)
_INT64 = range(-(1 << 63), 1 << 63)


def rename_aliases(aliases: Mapping[str, str], columns: Columns) -> Columns:
    """The columns with entity names replaced by join keys, which Feast's clients may still send."""
    if aliases.keys().isdisjoint(columns):
        return columns
    return {
        (aliases[name] if name in aliases and aliases[name] not in columns else name): values
        for name, values in columns.items()
    }


def count_entities(columns: Columns) -> int:
    """How many entities a request asks for. Raises RequestError where its columns differ in length."""
    lengths = {len(values) for values in columns.values()}
    if len(lengths) == 1:
        return lengths.pop()
    if not lengths:
        raise RequestError("a request names entities", got="none", hint='write {"entities": {"origin": ["JFK"]}}')
    got = ", ".join(f"{name}: {len(values)}" for name, values in columns.items())
    raise RequestError("the columns of a request have one length", got=got, hint="give each entity a value in each")


def key_texts(keys: Sequence[Column], columns: Columns) -> list[str | None]:
    """Each entity's key as `schemas.row.entity_key` writes it; None where a part is null."""
    if len(keys) == 1:
        return TEXTS[keys[0].type](keys[0], _column(keys[0], columns))
    parts = [_checked(key, _column(key, columns)) for key in keys]
    return [None if None in row else entity_key(row) for row in zip(*parts, strict=True)]


def request_table(wanted: Sequence[Column], columns: Columns) -> dict[str, pa.Array]:
    """The request-time columns, in Arrow. Raises RequestError for a missing one, a null or a wrong type."""
    return {column.name: _request_column(column, _column(column, columns)) for column in wanted}


def instant_us(value: object, what: str) -> int:
    """An instant as JSON has it: ISO 8601 (without an offset: UTC), or an epoch number as pydantic reads it."""
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float | datetime):
            raise ValueError(f"{type(value).__name__} is no instant")
        instant = _INSTANT.validate_python(value)
        if instant.tzinfo is not None:
            instant = (instant - instant.utcoffset()).replace(tzinfo=None)  # type: ignore[operator]
    except (ValidationError, ValueError, OverflowError):
        raise _wrong(what, "an instant (ISO 8601, or seconds since 1970)", value) from None
    since = instant - EPOCH
    result = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if not TIME_MIN_US <= result <= TIME_MAX_US:
        raise _wrong(what, "an instant between 1700 and 2250", value)
    return result


def _column(column: Column, columns: Columns) -> Sequence[Any]:
    values = columns.get(column.name)
    if values is None:
        raise RequestError(
            f"the request lacks the column {column.name!r}",
            got=", ".join(columns) or "no column",
            hint=f'add "{column.name}": […] ({column.type}) to "entities"',
        )
    return values


def _wrong(what: str, wanted: str, value: object) -> RequestError:
    got = f"{str(value)[:80]!r} of type {type(value).__name__}"
    return RequestError(f"{what} takes {wanted}", got=got, hint="send it in its own type")


def _string_texts(key: Column, values: Sequence[Any]) -> list[str | None]:
    for value in values:
        if type(value) is not str and value is not None:
            raise _wrong(f"the key {key.name!r}", "text", value)
    return values if isinstance(values, list) else list(values)


def _other_texts(key: Column, values: Sequence[Any]) -> list[str | None]:
    return [None if value is None else entity_key((value,)) for value in _checked(key, values)]


def _checked(key: Column, values: Sequence[Any]) -> Sequence[Any]:
    return CHECKS[key.type](key, values)


def _ints(key: Column, values: Sequence[Any]) -> Sequence[Any]:
    for value in values:
        if value is not None and (type(value) is not int or value not in _INT64):
            raise _wrong(f"the key {key.name!r}", "an integer of 64 bits", value)
    return values


def _bools(key: Column, values: Sequence[Any]) -> Sequence[Any]:
    for value in values:
        if value is not None and type(value) is not bool:
            raise _wrong(f"the key {key.name!r}", "true or false", value)
    return values


def _dates(key: Column, values: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else _date(f"the key {key.name!r}", value).isoformat() for value in values]


CHECKS: dict[str, Callable[[Column, Sequence[Any]], Sequence[Any]]] = {
    "string": _string_texts,
    "int64": _ints,
    "bool": _bools,
    "date": _dates,
}
TEXTS: dict[str, Callable[[Column, Sequence[Any]], list[str | None]]] = {
    "string": _string_texts,
    "int64": _other_texts,
    "bool": _other_texts,
    "date": _other_texts,
}
"""The texts of a single key, by its type."""


def _date(what: str, value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise _wrong(what, 'a date, as in "2013-01-31"', value)


def _request_column(column: Column, values: Sequence[Any]) -> pa.Array:
    what = f"the request column {column.name!r}"
    if not column.nullable and any(value is None for value in values):
        raise RequestError(f"{what} is never null", got="null", hint="send a value, or declare it as `… | None`")
    kind = column.type
    if kind == "timestamp":
        numbers = [None if value is None else instant_us(value, what) for value in values]
        return pa.array(numbers, pa.int64()).cast(pa.timestamp("us"))
    if kind == "date":
        return pa.array([None if value is None else _date(what, value) for value in values], pa.date32())
    allowed = PLAIN.get(kind)
    if allowed is not None:
        for value in values:
            if value is not None and type(value) not in allowed:
                raise _wrong(what, kind, value)
    if kind == "float64":
        # −0.0 becomes 0.0 at every door (DESIGN §2).
        values = [None if value is None else float(value) + 0.0 for value in values]
    try:
        return pa.array(values, arrow_type(kind))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise RequestError(f"{what} takes {kind}", got=str(error), hint="send it in its own type") from None


PLAIN: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int64": (int,),
    "float64": (float, int),
    "string": (str,),
}
"""The Python types that a request column of the type takes, where Arrow alone would take more."""
