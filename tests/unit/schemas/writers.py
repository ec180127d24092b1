"""Producers of messages in every format, as confluent-kafka writes them; a writer's schema is given by its fields."""

import base64
import json
import struct
from datetime import date, datetime
from typing import Any

import google.protobuf.timestamp_pb2
import google.type.date_pb2
import google.type.decimal_pb2
from confluent_kafka.schema_registry import Schema
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from schemas.registry import Registry

TOPIC = "readings"


def avro(registry: Registry, fields: dict[str, Any], record: dict[str, Any], subject: str = "s") -> bytes:
    """A message as confluent-kafka writes it; `fields` are the writer's, by name."""
    schema = {"type": "record", "name": "Reading", "fields": [{"name": n, "type": t} for n, t in fields.items()]}
    serializer = AvroSerializer(registry.client, json.dumps(schema), conf={"subject.name.strategy": lambda *_: subject})
    return serializer(record, SerializationContext(TOPIC, MessageField.VALUE))  # type: ignore[no-any-return]


def logical(type_: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": type_, "logicalType": name, **more}


MICROS = logical("long", "timestamp-micros")


def register(registry: Registry, schema: Any, kind: str = "AVRO", **more: Any) -> bytes:
    """The head of a message with this schema."""
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return b"\x00" + struct.pack(">I", registry.client.register_schema("other", Schema(text, kind, **more)))


# Of a message's field: its number, its type, and if need be its label, the name of its type, proto3's `optional`.
ProtoFields = dict[str, tuple[Any, ...]]


def proto_file(fields: ProtoFields, name: str = "r.proto") -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=name, package="t", syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/type/date.proto", "google/type/decimal.proto"])
    colour = file.enum_type.add(name="Colour")
    for number, symbol in enumerate(["RED", "BLUE", "GREEN"]):
        colour.value.add(name=symbol, number=number)
    message = file.message_type.add(name="Reading")
    for field_name, (number, type_, *rest) in fields.items():
        label, type_name, optional = (*rest, *(Field.LABEL_OPTIONAL, None, False)[len(rest) :])
        field = message.field.add(name=field_name, number=number, type=type_, label=label, type_name=type_name)
        if optional:
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field_name}")
    if "labels" in fields:
        entry = message.nested_type.add(name="LabelsEntry", options=descriptor_pb2.MessageOptions(map_entry=True))
        entry.field.add(name="key", number=1, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
        entry.field.add(name="value", number=2, type=Field.TYPE_DOUBLE, label=Field.LABEL_OPTIONAL)
    return file


def proto_text(file: descriptor_pb2.FileDescriptorProto) -> str:
    return base64.b64encode(file.SerializeToString()).decode()


def proto_class(file: descriptor_pb2.FileDescriptorProto) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for module in (google.protobuf.timestamp_pb2, google.type.date_pb2, google.type.decimal_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Reading"))


class Parts(dict[str, Any]):
    """The fields of a message inside of another."""


def proto(registry: Registry, fields: ProtoFields, record: dict[str, Any], subject: str = "p") -> bytes:
    """A message as confluent-kafka writes it."""
    message_class = proto_class(proto_file(fields))
    message = message_class()
    for name, value in record.items():
        if isinstance(value, datetime):
            getattr(message, name).FromDatetime(value)
        elif isinstance(value, date | Parts):
            parts = value if isinstance(value, Parts) else Parts(year=value.year, month=value.month, day=value.day)
            for part, number in parts.items():
                setattr(getattr(message, name), part, number)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        elif isinstance(value, dict):
            getattr(message, name).update(value)
        elif value is not None:
            setattr(message, name, value)
    conf = {
        "use.deprecated.format": False,
        "subject.name.strategy": lambda *_: subject,
        "skip.known.types": True,
    }
    serializer = ProtobufSerializer(message_class, registry.client, conf)
    return serializer(message, SerializationContext(TOPIC, MessageField.VALUE))  # type: ignore[no-any-return]
