"""What Avro and Protobuf decode to -> what strict pydantic takes: the forms that it takes in JSON's lists and maps.

A column's own text forms are lax already (`schemas.event`); here is what stands inside of lists and maps, the keys of
maps, which are text in Avro, and Enums of numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

from pydantic import AwareDatetime, NaiveDatetime, TypeAdapter, ValidationError

from schemas.event import Event
from schemas.formats.fast import keys_of

Coerce = Callable[[Any], Any]
Record = dict[str, Any]
_LAX = (datetime, AwareDatetime, NaiveDatetime, date, Decimal, UUID)
_KEYS = (int, bool, date)


def record_coercer(event: type[Event]) -> Callable[[Record], Record]:
    """A record as the event's `model_validate` takes it. What fits not is left as it is: pydantic says so."""
    coercers = {
        key: coercer
        for name, field in event.model_fields.items()
        if (coercer := _coercer(field.annotation, inside=False)) is not None
        for key in keys_of(name, field)
        if isinstance(key, str)
    }

    def coerced(record: Record) -> Record:
        return record | {key: coercer(record[key]) for key, coercer in coercers.items() if key in record}

    return coerced if coercers else lambda record: record


def _coercer(annotation: Any, *, inside: bool) -> Coerce | None:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _coercer(parts[0], inside=inside)
    if origin in (Union, UnionType):
        found = [each for part in parts if (each := _coercer(part, inside=inside)) is not None]
        return found[0] if found else None
    if origin is list:
        return _of_list(_coercer(parts[0], inside=True))
    if origin is dict:
        return _of_dict(_as(parts[0]) if parts[0] in _KEYS else None, _coercer(parts[1], inside=True))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        numbers = not all(isinstance(each.value, str) for each in annotation)
        return _as(annotation) if inside or numbers else None
    return _as(annotation) if inside and annotation in _LAX else None


def _as(type_: Any) -> Coerce:
    validate = TypeAdapter(type_).validate_python

    def coerced(value: Any) -> Any:
        # True is no 1, here as in JSON.
        if value is not None and not isinstance(value, bool):
            with suppress(ValidationError):
                return validate(value)
        return value

    return coerced


def _of_list(item: Coerce | None) -> Coerce | None:
    if item is None:
        return None
    return lambda value: [item(each) for each in value] if isinstance(value, list) else value


def _of_dict(key: Coerce | None, item: Coerce | None) -> Coerce | None:
    if key is None and item is None:
        return None
    of_key, of_item = key or (lambda each: each), item or (lambda each: each)
    return lambda value: {of_key(k): of_item(v) for k, v in value.items()} if isinstance(value, dict) else value
