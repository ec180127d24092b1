"""The fast path of decoding JSON: a msgspec Struct with the fields and constraints of an event's pydantic schema.

It accepts no message that pydantic would refuse or read differently; what it refuses is put before pydantic.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from pydantic import Strict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from schemas.event import Event

Decode = Callable[[Any], Any]

INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1
_CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")
_SAME = (bool, float, str)
_VALIDATORS = ("validators", "field_validators", "root_validators", "model_validators")


class _OnlyPydantic(Exception):
    """The schema has something that msgspec can't check, or checks otherwise."""


def fast_decoder(event: type[Event]) -> Decode | None:
    """bytes -> an object with the event's fields (ValueError or TypeError where it is none); None: no fast path."""
    if any(getattr(event.__pydantic_decorators__, name) for name in _VALIDATORS):
        return None
    try:
        fields = [_field(name, field) for name, field in event.model_fields.items()]
        struct = msgspec.defstruct(event.__name__, fields, gc=False, frozen=True, kw_only=True)
        return msgspec.json.Decoder(struct).decode
    except (_OnlyPydantic, TypeError):
        return None


def _field(name: str, field: FieldInfo) -> tuple[str, Any] | tuple[str, Any, Any]:
    if field.alias is not None or field.validation_alias is not None or field.default_factory is not None:
        raise _OnlyPydantic(name)
    annotation = _annotation(field.annotation, tuple(field.metadata))
    if field.default is PydanticUndefined:
        return name, annotation
    if not isinstance(field.default, bool | int | float | str | datetime | date | NoneType):
        raise _OnlyPydantic(name)
    return name, annotation, field.default


def _annotation(annotation: Any, metadata: tuple[Any, ...]) -> Any:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _annotation(inner, (*metadata, *more))
    if origin in (Union, UnionType):
        inner = [each for each in get_args(annotation) if each is not NoneType]
        if len(inner) != 1:
            raise _OnlyPydantic(annotation)
        return _annotation(inner[0], metadata) | None
    return _constrained(_plain(annotation, origin), metadata, is_int=annotation is int)


def _plain(annotation: Any, origin: Any) -> Any:
    if annotation in _SAME or annotation is int or origin is Literal:
        return annotation
    if annotation is datetime:
        return datetime | int
    if annotation is date:
        return date
    if origin is list:
        return list[_annotation(get_args(annotation)[0], ())]  # type: ignore[misc]
    if origin is dict and get_args(annotation)[0] is str:
        return dict[str, _annotation(get_args(annotation)[1], ())]  # type: ignore[misc]
    raise _OnlyPydantic(annotation)


def _constrained(type_: Any, metadata: tuple[Any, ...], *, is_int: bool) -> Any:
    constraints: dict[str, Any] = {}
    for each in metadata:
        if isinstance(each, Strict):
            continue
        known = {name: getattr(each, name) for name in _CONSTRAINTS if getattr(each, name, None) is not None}
        if not known:
            raise _OnlyPydantic(each)
        constraints |= known
    if is_int:
        constraints.setdefault("ge", INT64_MIN) if "gt" not in constraints else None
        constraints.setdefault("le", INT64_MAX) if "lt" not in constraints else None
    return Annotated[type_, msgspec.Meta(**constraints)] if constraints else type_
