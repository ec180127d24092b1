"""headrace's values as Feast's protobuf, and back.

Feast's instants have whole seconds and it has no dates: through its SDK an instant loses its fraction, and a date is
the first second of its day. Over HTTP neither is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any

import numpy as np
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from feast.value_type import ValueType

from features.finish import Values
from schemas.types import element_type, is_decimal, map_types
from serving.entities import EPOCH

NULL = Value()
_EPOCH_DAY = date(1970, 1, 1)


def _seconds(value: datetime) -> int:
    since = value - EPOCH
    return since.days * 86_400 + since.seconds


SCALARS: dict[str, tuple[str, Callable[[Any], Any] | None]] = {
    "bool": ("bool_val", None),
    "int64": ("int64_val", None),
    "float64": ("double_val", None),
    "string": ("string_val", None),
    "bytes": ("bytes_val", None),
    "timestamp": ("unix_timestamp_val", _seconds),
    "date": ("unix_timestamp_val", lambda value: (value - _EPOCH_DAY).days * 86_400),
}
"""The field of Feast's Value in which a type stands, and how its values are converted."""

LISTS = {
    "bool": ValueType.BOOL_LIST,
    "int64": ValueType.INT64_LIST,
    "float64": ValueType.DOUBLE_LIST,
    "string": ValueType.STRING_LIST,
    "bytes": ValueType.BYTES_LIST,
    "timestamp": ValueType.UNIX_TIMESTAMP_LIST,
    "date": ValueType.UNIX_TIMESTAMP_LIST,
}


def to_protos(type_name: str, values: Values) -> list[Value]:
    """One Value for each value; an empty one for null."""
    convert = converter(type_name)
    plain = values.to_list()
    if values.valid.all():
        return [convert(value) for value in plain]
    return [NULL if value is None else convert(value) for value in plain]


@lru_cache(maxsize=256)
def converter(type_name: str) -> Callable[[Any], Value]:
    """How a value of the type becomes a Value."""
    if type_name in SCALARS:
        return _scalar(*SCALARS[type_name])
    if is_decimal(type_name):
        return lambda value: Value(decimal_val=str(value))
    if (element := element_type(type_name)) is not None:
        return _by_feast(_list_type(element), _first_instants if element == "date" else list)
    if (types := map_types(type_name)) is not None:
        return _by_feast(ValueType.MAP if types[0] == "string" else ValueType.SCALAR_MAP, dict)
    raise TypeError(f"Feast has no value of type {type_name}")


def from_proto(value: Value) -> Any:
    """The Python value of an entity's Value."""
    return feast_value_type_to_python_type(value)


def from_columns(values: Iterable[Any]) -> list[Any]:
    """A column of a request as Feast takes it (Values, NumPy scalars, plain values) as plain Python values."""
    return [
        from_proto(value) if isinstance(value, Value) else value.item() if isinstance(value, np.generic) else value
        for value in values
    ]


def _scalar(field: str, convert: Callable[[Any], Any] | None) -> Callable[[Any], Value]:
    if convert is None:
        return lambda value: Value(**{field: value})
    return lambda value: Value(**{field: convert(value)})


def _list_type(element: str) -> ValueType:
    if is_decimal(element):
        return ValueType.DECIMAL_LIST
    if element not in LISTS:
        raise TypeError(f"Feast has no list of {element}")
    return LISTS[element]


def _first_instants(days: Iterable[date]) -> list[datetime]:
    return [datetime.combine(day, time(), UTC) for day in days]


def _by_feast(value_type: ValueType, shape: Callable[[Any], Any]) -> Callable[[Any], Value]:
    def convert(value: Any) -> Value:
        protos: list[Value] = python_values_to_proto_values([shape(value)], value_type)
        return protos[0]

    return convert
