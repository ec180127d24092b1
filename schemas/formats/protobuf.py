"""Protobuf: a message's fields, read by its writer's descriptor. Behind the schema's number stands which message it is.

fields        as they are; uint64 beyond 64 bits fits no column
enums         their names (their numbers for a column of numbers)
unset         absent, where presence is known (`optional`, messages, oneof): the event's default, or null for a
              column without one that may be null; a plain proto3 scalar is never unset, it is 0 or ""
Timestamp     an instant, cut to microseconds;  wrappers  what they wrap
google.type.Date, google.type.Decimal, confluent.type.Decimal   a date, decimals
other messages  objects, which an alias path of the event's class can reach into
"""

from __future__ import annotations

import base64
import importlib
import re
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from decimal import Decimal, DecimalException
from functools import partial
from types import MappingProxyType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from schemas.event import Event
from schemas.formats.avro import DECIMAL_BYTES_MAX, REFERENCES_MAX, decimal_of
from schemas.formats.coerce import Record
from schemas.formats.fast import has_own_code, keys_of
from schemas.formats.protobuf_columns import ColumnReader, column_reader
from schemas.formats.refusal import Misread
from schemas.instants import EPOCH
from schemas.registry import Reference, RegisteredSchema, Registry
from schemas.rejection import Reason

HEAD_BYTES = 5
MESSAGE_INDEXES_MAX = 16
"""Messages nested in messages: more than anybody declares."""
NANOS = 1_000_000_000
WELL_KNOWN = re.compile(r"(google/(?:protobuf|type)/\w+|confluent/(?:meta|types?/\w+))\.proto")
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)

Convert = Callable[[Any], Any]
Field = tuple[str, bool, Convert | None]
"""Its name, whether it may be unset, and what makes a value of what is read."""


class ProtobufCompiler:
    """Makes the readers of one event's messages."""

    def __init__(self, event: type[Event]) -> None:
        spec = event.spec()
        self._null_if_unset = frozenset(
            column.name for column in spec.columns if column.nullable and event.model_fields[column.name].is_required()
        )
        self._event = event
        self._wanted = _wanted(event)
        self._numbers = frozenset(column.name for column in spec.columns if column.type in ("int64", "list<int64>"))

    def compile(
        self, schema: RegisteredSchema, registry: Registry
    ) -> tuple[Callable[[bytes], Record], ColumnReader | None]:
        """What reads the messages of a schema: one by one, and many at once where that is possible.

        Raises Misread where its descriptor can't be read.
        """
        file, pool = _pool(schema, registry)
        readers: dict[tuple[int, ...], Callable[[bytes], Record]] = {}

        def read(value: bytes) -> Record:
            indexes, start = _indexes(value)
            reader = readers.get(indexes)
            if reader is None:
                reader = readers[indexes] = self._reader(pool.FindMessageTypeByName(_message_name(file, indexes)))
            return reader(value[start:])

        first = pool.FindMessageTypeByName(_message_name(file, (0,))) if file.message_type else None
        return read, None if first is None else column_reader(self._event, first)

    def _reader(self, descriptor: Descriptor) -> Callable[[bytes], Record]:
        message_class = message_factory.GetMessageClass(descriptor)
        fields = [
            (field.name, field.has_presence, _converter(field, field.name in self._numbers))
            for field in descriptor.fields
            if self._wanted is None or field.name in self._wanted
        ]
        nulls = self._null_if_unset & {name for name, may_be_unset, _ in fields if may_be_unset}

        def read(data: bytes) -> Record:
            try:
                message = message_class.FromString(data)
            except DecodeError as error:
                raise Misread(f"the message does not match its schema: {error}") from error
            record = _record(message, fields)
            for name in nulls:
                record.setdefault(name, None)
            return record

        return read


def _wanted(event: type[Event]) -> frozenset[str] | None:
    """The fields that an event looks at; None where its own code may look at any."""
    keys = [key for name, field in event.model_fields.items() for key in keys_of(name, field)]
    names = [key for key in keys if isinstance(key, str)]
    return None if has_own_code(event) or len(names) < len(keys) else frozenset(names)


def _record(message: Message, fields: Iterable[Field]) -> Record:
    record: Record = {}
    for name, may_be_unset, convert in fields:
        if may_be_unset and not message.HasField(name):
            continue
        try:
            value = getattr(message, name)
            record[name] = value if convert is None else convert(value)
        except Misread as misread:
            raise Misread(misread.detail, f"{name}.{misread.path}", misread.reason) from misread
        except (OverflowError, ValueError, DecimalException) as error:
            raise Misread(f"no value can be made of it: {error}", name, Reason.BAD_VALUE) from error
    return record


def _converter(field: FieldDescriptor, is_number: bool) -> Convert | None:
    """What makes a plain value of a field's; None where it is one."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        item = _element(field.message_type.fields_by_name["value"], is_number)
        return dict if item is None else lambda values: {key: item(value) for key, value in values.items()}
    one = _element(field, is_number)
    if field.is_repeated:
        return list if one is None else lambda values: [one(value) for value in values]
    return one


def _element(field: FieldDescriptor, is_number: bool) -> Convert | None:
    if field.enum_type is not None:
        return None if is_number else partial(_enum_name, field.enum_type)
    if field.message_type is None:
        return None
    name = field.message_type.full_name
    if name in _WRAPPERS:
        return lambda message: message.value
    return _VALUES.get(name) or _Nested(field.message_type)


class _Nested:
    """Another message, as an object. Its fields are looked at when one comes: a message may contain itself."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._fields: list[Field] | None = None

    def __call__(self, message: Message) -> Record:
        if self._fields is None:
            self._fields = [
                (field.name, field.has_presence, _converter(field, is_number=False))
                for field in self._descriptor.fields
            ]
        return _record(message, self._fields)


def _enum_name(enum: EnumDescriptor, number: int) -> str:
    value = enum.values_by_number.get(number)
    if value is None:
        raise ValueError(f"{number} is no value of {enum.full_name}")
    return str(value.name)


def _instant(message: Any) -> Any:
    if not 0 <= message.nanos < NANOS:
        raise ValueError(f"{message.nanos} nanoseconds are none of a second")
    return EPOCH + timedelta(0, message.seconds, message.nanos // 1_000)


def _decimal_of_text(message: Any) -> Decimal:
    if len(message.value) > 4 * DECIMAL_BYTES_MAX:
        raise ValueError(f"a decimal has {len(message.value)} characters")
    return Decimal(message.value)


_VALUES: MappingProxyType[str, Convert] = MappingProxyType(
    {
        "google.protobuf.Timestamp": _instant,
        "google.type.Date": lambda message: date(message.year, message.month, message.day),
        "google.type.Decimal": _decimal_of_text,
        "confluent.type.Decimal": lambda message: decimal_of(message.value, message.scale),
    }
)


def _indexes(value: bytes) -> tuple[tuple[int, ...], int]:
    """Which message of the file it is, from the outermost in, and where it begins. A single 0 stands for the first."""
    if value[HEAD_BYTES : HEAD_BYTES + 1] == b"\x00":
        return (0,), HEAD_BYTES + 1
    count, at = _varint(value, HEAD_BYTES)
    if not 0 < count <= MESSAGE_INDEXES_MAX:
        raise Misread(f"behind the schema's number stand {count} message indexes")
    indexes = []
    for _ in range(count):
        index, at = _varint(value, at)
        indexes.append(index)
    return tuple(indexes), at


def _varint(value: bytes, at: int) -> tuple[int, int]:
    """A zigzag integer and the place behind it."""
    result = 0
    for shift in range(0, 35, 7):
        if at >= len(value):
            break
        byte = value[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (result >> 1) ^ -(result & 1), at
    raise Misread("the message indexes behind the schema's number can't be read")


def _message_name(file: descriptor_pb2.FileDescriptorProto, indexes: tuple[int, ...]) -> str:
    names = [file.package] if file.package else []
    messages = file.message_type
    for index in indexes:
        if not 0 <= index < len(messages):
            detail = f"the schema has no message at {list(indexes)}"
            raise Misread(detail, reason=Reason.UNKNOWN_SCHEMA)
        names.append(messages[index].name)
        messages = messages[index].nested_type
    return ".".join(names)


def _pool(
    schema: RegisteredSchema, registry: Registry
) -> tuple[descriptor_pb2.FileDescriptorProto, descriptor_pool.DescriptorPool]:
    pool = descriptor_pool.DescriptorPool()
    file = _file(schema.text, "event.proto")
    _add_imports(file, schema.references, registry, pool, set())
    _add(pool, file)
    return file, pool


def _file(text: str, name: str) -> descriptor_pb2.FileDescriptorProto:
    try:
        file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (ValueError, DecodeError) as error:
        raise Misread(f"{name} is no serialized descriptor, which the registry is asked for: {error}") from error
    file.name = name
    return file


def _add_imports(
    file: descriptor_pb2.FileDescriptorProto,
    references: Iterable[Reference],
    registry: Registry,
    pool: descriptor_pool.DescriptorPool,
    added: set[str],
) -> None:
    """Adds what the file imports: from the registry, or one of the files that everybody has."""
    by_name = {reference.name: reference for reference in references}
    for name in file.dependency:
        if name in added:
            continue
        added.add(name)
        if len(added) > REFERENCES_MAX:
            raise Misread(f"it imports more than {REFERENCES_MAX} files")
        if name in by_name:
            found = registry.version(by_name[name], "protobuf")
            if found is None:
                raise Misread(f"{name}, which it imports, is not in the registry")
            imported = _file(found.text, name)
            _add_imports(imported, found.references, registry, pool, added)
        else:
            imported = _well_known(name)
            _add_imports(imported, (), registry, pool, added)
        _add(pool, imported)


def _add(pool: descriptor_pool.DescriptorPool, file: descriptor_pb2.FileDescriptorProto) -> None:
    try:
        pool.AddSerializedFile(file.SerializeToString())
        pool.FindFileByName(file.name)
    except (TypeError, KeyError, ValueError) as error:
        raise Misread(f"{file.name}: {error}") from error


def _well_known(name: str) -> descriptor_pb2.FileDescriptorProto:
    found = WELL_KNOWN.fullmatch(name)
    if found is None:
        raise Misread(f"{name}, which it imports, is not among its references")
    package = "confluent_kafka.schema_registry." if name.startswith("confluent/") else ""
    try:
        module = importlib.import_module(f"{package}{found[1].replace('/', '.')}_pb2")
    except ImportError as error:
        raise Misread(f"{name}, which it imports, is not known here: {error}") from error
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    file.name = name
    return file
