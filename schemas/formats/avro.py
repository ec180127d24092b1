"""Avro: a record's fields, read by its writer's schema.

fastavro reads the plain types; the logical ones are read here, exactly, and so that what can't be is known by field:
timestamps (millis, micros, nanos, local ones too) and dates, and decimals of any size. A UUID stays text.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Context, Decimal
from typing import Any, cast

from fastavro import schemaless_reader
from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from schemas.event import Event
from schemas.formats.avro_columns import ColumnReader, column_reader
from schemas.formats.coerce import Record
from schemas.formats.refusal import Misread
from schemas.instants import EPOCH
from schemas.registry import RegisteredSchema, Registry
from schemas.rejection import Reason

HEAD_BYTES = 5
DECIMAL_BYTES_MAX = 64
"""More digits than any column has, and few enough that making text of them costs nothing."""
DEPTH_MAX = 64
"""fastavro reads a level by a call in C: what a schema nests, the stack must hold."""
REFERENCES_MAX = 1_000
EPOCH_DAY = date(1970, 1, 1)
_EXACT = Context(prec=10 * DECIMAL_BYTES_MAX)
_INSTANTS = {
    f"{local}timestamp-{unit}": per
    for local in ("", "local-")
    for unit, per in (("millis", 1_000), ("micros", 1_000_000), ("nanos", 1_000_000_000))
}
_PYTHON_TYPES = {
    "null": type(None),
    "boolean": bool,
    "int": int,
    "long": int,
    "float": float,
    "double": float,
    "bytes": bytes,
    "fixed": bytes,
    "string": str,
    "enum": str,
    "array": list,
    "map": dict,
    "record": dict,
    "error": dict,
}

Convert = Callable[[Any], Any]


def compile_avro(
    schema: RegisteredSchema, registry: Registry, event: type[Event]
) -> tuple[Callable[[bytes], Record], ColumnReader | None]:
    """What reads the messages of a schema: one by one, and many at once where that is possible.

    Raises Misread where the schema is none of a record, or can't be read.
    """
    named: dict[str, Any] = {}
    _parse_references(schema, registry, named, set())
    try:
        parsed = parse_schema(json.loads(schema.text), named_schemas=named)
        plain, convert = _Plain(named).of(parsed)
        writer = parse_schema(plain)
    except (SchemaParseException, UnknownType, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Misread(f"{type(error).__name__}: {error}") from error
    if not isinstance(plain, dict) or plain["type"] not in ("record", "error"):
        raise Misread("an event is a record")

    def read(value: bytes) -> Record:
        file = io.BytesIO(value)
        file.seek(HEAD_BYTES)
        try:
            record = cast(Record, schemaless_reader(file, writer, None))
        except MemoryError:
            raise
        except EOFError as error:
            raise Misread("the record ends too early for its schema") from error
        except Exception as error:
            # fastavro has many ways to say so, and bytes that it was not written for find them all.
            raise Misread(f"the record does not match its schema: {error}") from error
        if file.tell() != len(value):
            raise Misread(f"{len(value) - file.tell()} bytes stand behind the record")
        return record if convert is None else convert(record)

    return read, column_reader(event, parsed, named)


def _parse_references(schema: RegisteredSchema, registry: Registry, named: dict[str, Any], seen: set[str]) -> None:
    """Adds what the schema refers to, and what that does."""
    for reference in schema.references:
        if reference.name in seen:
            continue
        seen.add(reference.name)
        found = registry.version(reference, "avro")
        if found is None or len(seen) > REFERENCES_MAX:
            raise Misread(f"{reference.name}, to which it refers, is not in the registry")
        _parse_references(found, registry, named, seen)
        try:
            parse_schema(json.loads(found.text), named_schemas=named)
        except (SchemaParseException, UnknownType, ValueError, KeyError, TypeError) as error:
            raise Misread(f"{reference.name}: {error}") from error


class _Plain:
    """A parsed schema without logical types, and what makes the values that they mean of what is read then."""

    def __init__(self, named: dict[str, Any]) -> None:
        self._named = named
        self._written: dict[str, Convert | None] = {}
        self._open: list[str] = []

    def of(self, schema: Any, depth: int = 0) -> tuple[Any, Convert | None]:
        """Raises Misread for what isn't safe to read: a schema that contains itself is as deep as a message wants."""
        if depth > DEPTH_MAX:
            raise Misread(f"it nests more than {DEPTH_MAX} levels")
        if isinstance(schema, list):
            return self._union(schema, depth)
        if isinstance(schema, str):
            return self._name(schema, depth)
        kind = schema["type"]
        if not isinstance(kind, str) or kind not in _PYTHON_TYPES:
            return self.of(kind, depth + 1)
        compound = {"array": self._array, "map": self._map, "record": self._record, "error": self._record}
        return compound[kind](schema, depth) if kind in compound else self._scalar(schema, kind)

    def _name(self, name: str, depth: int) -> tuple[Any, Convert | None]:
        if name in self._open:
            raise Misread(f"{name} contains itself")
        if name in self._written:
            return name, self._written[name]
        return (name, None) if name in _PYTHON_TYPES else self.of(self._named[name], depth)

    def _scalar(self, schema: Any, kind: str) -> tuple[Any, Convert | None]:
        convert = _logical(schema, kind)
        if kind not in ("enum", "fixed"):
            return kind, convert
        self._written[schema["name"]] = convert
        return {key: schema[key] for key in ("type", "name", "symbols", "size") if key in schema}, convert

    def _map(self, schema: Any, depth: int) -> tuple[Any, Convert | None]:
        values, convert = self.of(schema["values"], depth + 1)
        return {"type": "map", "values": values}, _of_map(convert)

    def _record(self, schema: Any, depth: int) -> tuple[Any, Convert | None]:
        name = schema["name"]
        self._open.append(name)
        fields, converts = [], []
        for field in schema["fields"]:
            plain, convert = self.of(field["type"], depth + 1)
            fields.append({"name": field["name"], "type": plain})
            if convert is not None:
                converts.append((field["name"], convert))
        self._open.pop()
        convert_all = _of_record(converts)
        self._written[name] = convert_all
        return {"type": "record", "name": name, "fields": fields}, convert_all

    def _array(self, schema: Any, depth: int) -> tuple[Any, Convert | None]:
        items, convert = self.of(schema["items"], depth + 1)
        if self._takes_no_bytes(items):
            # Ten bytes of a message could say that there are 2⁶³ of them.
            raise Misread("it has a list of items that take no bytes")
        return {"type": "array", "items": items}, _of_list(convert)

    def _takes_no_bytes(self, plain: Any) -> bool:
        if isinstance(plain, str):
            return plain == "null" or (plain not in _PYTHON_TYPES and self._takes_no_bytes(self._named[plain]))
        if not isinstance(plain, dict):
            return False
        if not isinstance(plain["type"], str):
            return self._takes_no_bytes(plain["type"])
        if plain["type"] in ("record", "error"):
            return all(self._takes_no_bytes(field["type"]) for field in plain["fields"])
        return plain["type"] == "null" or (plain["type"] == "fixed" and not plain["size"])

    def _union(self, branches: list[Any], depth: int) -> tuple[Any, Convert | None]:
        plain: list[Any] = []
        converts: dict[type, Convert | None] = {}
        for each in branches:
            branch, convert = self.of(each, depth + 1)
            plain.append(branch)
            python = _PYTHON_TYPES[self._kind(branch)]
            if python in converts and (converts[python] is not None or convert is not None):
                raise Misread(f"the branches of a union can't be told apart: two are {python.__name__}")
            converts[python] = convert
        if not any(converts.values()):
            return plain, None
        return plain, lambda value: value if (convert := converts[type(value)]) is None else convert(value)

    def _kind(self, plain: Any) -> str:
        if isinstance(plain, dict):
            return str(plain["type"])
        return plain if plain in _PYTHON_TYPES else str(self._named[plain]["type"])


def _logical(schema: Any, kind: str) -> Convert | None:
    logical = schema.get("logicalType")
    if logical in _INSTANTS and kind == "long":
        return _instant_of(_INSTANTS[logical])
    if logical == "date" and kind == "int":
        return lambda days: EPOCH_DAY + timedelta(days=days)
    if logical == "decimal" and kind in ("bytes", "fixed"):
        return _decimal_of(int(schema.get("scale", 0)))
    return None


def _instant_of(per_second: int) -> Convert:
    if per_second > 1_000_000:
        # Behind the microsecond is nothing that is kept: cut off, as pydantic does with text.
        return lambda count: EPOCH + timedelta(microseconds=count // (per_second // 1_000_000))
    microseconds = 1_000_000 // per_second
    return lambda count: EPOCH + timedelta(microseconds=count * microseconds)


def _decimal_of(scale: int) -> Convert:
    def decimal(raw: bytes) -> Decimal:
        return decimal_of(raw, scale)

    return decimal


def decimal_of(raw: bytes, scale: int) -> Decimal:
    """The decimal of an unscaled big-endian integer; raises ValueError for more than DECIMAL_BYTES_MAX bytes."""
    if len(raw) > DECIMAL_BYTES_MAX:
        raise ValueError(f"a decimal has {len(raw)} bytes")
    return Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-scale, _EXACT)


def _of_record(converts: list[tuple[str, Convert]]) -> Convert | None:
    if not converts:
        return None

    def convert_fields(record: Record) -> Record:
        for name, convert in converts:
            try:
                record[name] = convert(record[name])
            except Misread as misread:
                raise Misread(misread.detail, f"{name}.{misread.path}", misread.reason) from misread
            except (OverflowError, ValueError) as error:
                raise Misread(f"no value can be made of it: {error}", name, Reason.BAD_VALUE) from error
        return record

    return convert_fields


def _of_list(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda values: [convert(value) for value in values]


def _of_map(convert: Convert | None) -> Convert | None:
    return None if convert is None else lambda values: {key: convert(value) for key, value in values.items()}
