"""headrace's types in Feast's words."""

from __future__ import annotations

from feast import ValueType
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    FeastType,
    Float64,
    Int64,
    Map,
    ScalarMap,
    String,
    UnixTimestamp,
)

from schemas.types import TypeNotSupported, element_type, is_decimal, map_types

_SCALARS: dict[str, FeastType] = {
    "bool": Bool,
    "int64": Int64,
    "float64": Float64,
    "string": String,
    "bytes": Bytes,
    "timestamp": UnixTimestamp,
    # Feast has no dates: a day is its first instant.
    "date": UnixTimestamp,
}


def feast_type(name: str) -> FeastType:
    """Feast's type for a name of schemas/types.py. Raises TypeNotSupported."""
    if name in _SCALARS:
        return _SCALARS[name]
    if is_decimal(name):
        return Decimal
    if element := element_type(name):
        return Array(feast_type(element))
    if types := map_types(name):
        return Map if types[0] == "string" else ScalarMap
    raise TypeNotSupported(name)


def value_type(name: str) -> ValueType:
    """The same as the type of an entity's join key."""
    return feast_type(name).to_value_type()
