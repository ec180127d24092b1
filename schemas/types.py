"""The types of values, each in every system's words.

name             Python annotation                        Arrow              DuckDB
bool             bool                                     bool               BOOLEAN
int64            int                                      int64              BIGINT
float64          float                                    float64            DOUBLE
string           str, Literal["a", …], an Enum of text,   string             VARCHAR
                 UUID
bytes            bytes                                    binary             BLOB
timestamp        datetime, AwareDatetime, NaiveDatetime   timestamp[us]      TIMESTAMP   (naive, UTC)
date             date                                     date32             DATE
decimal(p,s)     Annotated[Decimal, Field(max_digits=p, decimal_places=s)]   DECIMAL(p,s)
list<T>          list[T]                                  list<T>            T[]
map<K,V>         dict[K, V]                               map<K, V>          MAP(K, V)
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import pyarrow as pa
from pydantic import AwareDatetime, NaiveDatetime

_ARROW = {
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
}
_DUCKDB = {
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "bytes": "BLOB",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
}
_FROM_DUCKDB = {text: name for name, text in _DUCKDB.items()} | {
    "TINYINT": "int64",
    "SMALLINT": "int64",
    "INTEGER": "int64",
    "UTINYINT": "int64",
    "USMALLINT": "int64",
    "UINTEGER": "int64",
    "FLOAT": "float64",
    "UUID": "string",
}
_SCALARS: dict[Any, str] = {
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "string",
    bytes: "bytes",
    datetime: "timestamp",
    AwareDatetime: "timestamp",
    NaiveDatetime: "timestamp",
    date: "date",
    UUID: "string",
}
KEY_SCALARS = ("string", "int64", "bool", "date")
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)", re.IGNORECASE)
_MAP = re.compile(r"map<([a-z0-9]+),(.+)>")
DECIMAL_DIGITS_MAX = 38


class TypeNotSupported(Exception):
    """A type that headrace does not keep; the message says which ones it does."""

    def __init__(self, got: object) -> None:
        names = ", ".join([*_ARROW, "decimal(p,s)", "list<T>", "map<K,V>"])
        super().__init__(f"{got} is none of: {names}")


def is_decimal(name: str) -> bool:
    """True for decimal(p,s)."""
    return _DECIMAL.fullmatch(name) is not None


def decimal_digits(name: str) -> int:
    """p of decimal(p,s); TypeNotSupported for another type."""
    found = _DECIMAL.fullmatch(name)
    if found is None:
        raise TypeNotSupported(name)
    return int(found[1])


def decimal_scale(name: str) -> int:
    """s of decimal(p,s); TypeNotSupported for another type."""
    found = _DECIMAL.fullmatch(name)
    if found is None:
        raise TypeNotSupported(name)
    return int(found[2])


def element_type(name: str) -> str | None:
    """T of list<T>; None for any other type."""
    return name[5:-1] if name.startswith("list<") and name.endswith(">") else None


def map_types(name: str) -> tuple[str, str] | None:
    """K and V of map<K,V>; None for any other type."""
    found = _MAP.fullmatch(name)
    return None if found is None else (found[1], found[2])


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type. Raises TypeNotSupported."""
    if name in _ARROW:
        return _ARROW[name]
    if found := _DECIMAL.fullmatch(name):
        return pa.decimal128(int(found[1]), int(found[2]))
    if element := element_type(name):
        return pa.list_(arrow_type(element))
    if types := map_types(name):
        return pa.map_(arrow_type(types[0]), arrow_type(types[1]))
    raise TypeNotSupported(name)


def duckdb_type(name: str) -> str:
    """DuckDB's word for the type. Raises TypeNotSupported."""
    if name in _DUCKDB:
        return _DUCKDB[name]
    if found := _DECIMAL.fullmatch(name):
        return f"DECIMAL({found[1]},{found[2]})"
    if element := element_type(name):
        return f"{duckdb_type(element)}[]"
    if types := map_types(name):
        return f"MAP({duckdb_type(types[0])}, {duckdb_type(types[1])})"
    raise TypeNotSupported(name)


def from_duckdb(text: str) -> str:
    """The name of a type that DuckDB describes; integers up to 64 bits are int64. Raises TypeNotSupported."""
    if text in _FROM_DUCKDB:
        return _FROM_DUCKDB[text]
    if found := _DECIMAL.fullmatch(text):
        return f"decimal({found[1]},{found[2]})"
    if text.endswith("]"):
        # A fixed-length array, DOUBLE[3], is a list to us.
        return f"list<{from_duckdb(text[: text.rindex('[')])}>"
    if text.startswith("MAP("):
        key, value = text[4:-1].split(", ", 1)
        return f"map<{from_duckdb(key)},{from_duckdb(value)}>"
    raise TypeNotSupported(text)


def from_arrow(type_: pa.DataType) -> str:
    """The name of an Arrow type; narrower numbers widen, instants lose their zone. Raises TypeNotSupported."""
    for holds, name in _ARROW_FAMILIES:
        if holds(type_):
            return name
    if pa.types.is_decimal(type_):
        return f"decimal({type_.precision},{type_.scale})"
    if pa.types.is_map(type_):
        return f"map<{from_arrow(type_.key_type)},{from_arrow(type_.item_type)}>"
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return f"list<{from_arrow(type_.value_type)}>"
    if pa.types.is_dictionary(type_):
        return from_arrow(type_.value_type)
    raise TypeNotSupported(type_)


_ARROW_FAMILIES = (
    (pa.types.is_boolean, "bool"),
    (lambda t: pa.types.is_integer(t) and t != pa.uint64(), "int64"),
    (pa.types.is_floating, "float64"),
    (lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t), "string"),
    (lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t) or pa.types.is_fixed_size_binary(t), "bytes"),
    (pa.types.is_timestamp, "timestamp"),
    (pa.types.is_date, "date"),
)


def from_annotation(annotation: Any, metadata: tuple[Any, ...] = ()) -> tuple[str, bool]:
    """The name of a Python annotation's type, and whether it may be None. Raises TypeNotSupported."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return from_annotation(inner, (*metadata, *more))
    if origin in (Union, UnionType):
        inner = [each for each in get_args(annotation) if each is not NoneType]
        if len(inner) != 1:
            raise TypeNotSupported(annotation)
        return from_annotation(inner[0], metadata)[0], len(get_args(annotation)) == 2
    return _from_plain(annotation, origin, metadata), False


def _from_plain(annotation: Any, origin: Any, metadata: tuple[Any, ...]) -> str:
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if annotation is Decimal:
        return _decimal(metadata)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _one_type([each.value for each in annotation], annotation)
    if origin is Literal:
        return _one_type(list(get_args(annotation)), annotation)
    if origin is list:
        return f"list<{from_annotation(get_args(annotation)[0])[0]}>"
    if origin is dict:
        key, value = (from_annotation(each)[0] for each in get_args(annotation))
        if key in KEY_SCALARS:
            return f"map<{key},{value}>"
    raise TypeNotSupported(annotation)


def _one_type(values: list[Any], annotation: Any) -> str:
    types = {type(value) for value in values}
    if len(types) == 1 and (only := types.pop()) in (str, int):
        return _SCALARS[only]
    raise TypeNotSupported(annotation)


def _decimal(metadata: tuple[Any, ...]) -> str:
    parts = [inner for each in metadata for inner in getattr(each, "metadata", [each])]
    digits = next((each.max_digits for each in parts if getattr(each, "max_digits", None)), DECIMAL_DIGITS_MAX)
    places = next((each.decimal_places for each in parts if getattr(each, "decimal_places", None) is not None), None)
    if places is None or digits > DECIMAL_DIGITS_MAX:
        raise TypeNotSupported(
            "Decimal without Field(max_digits=…, decimal_places=…) (max_digits is at most 38), so it"
        )
    return f"decimal({digits},{places})"
