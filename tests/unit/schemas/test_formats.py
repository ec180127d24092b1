"""Avro and Protobuf mean what JSON means: the same events, the same refusals; written by confluent-kafka."""

import json
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AliasPath, field_validator
from pydantic import Field as PydanticField

from schemas.decode import Batch, Decoded, Decoder
from schemas.errors import ConfigError
from schemas.event import Event
from schemas.registry import Registry
from schemas.rejection import Reason
from tests.unit.schemas.test_decode import FakeMessage
from tests.unit.schemas.writers import (
    MICROS,
    TOPIC,
    Parts,
    ProtoFields,
    avro,
    logical,
    proto,
    proto_file,
    proto_text,
    register,
)

AT = datetime(2023, 11, 14, 22, 0, 0, 123456)


@pytest.fixture
def registry(unique: Callable[[str], str]) -> Registry:
    return Registry(f"mock://{unique('registry')}")


class Colour(Enum):
    RED = "RED"
    BLUE = "BLUE"


class Level(IntEnum):
    LOW = 0
    HIGH = 1


class Avro(Event, topic=TOPIC, time="at", format="avro"):
    at: datetime
    sensor: str
    value: float | None
    count: Annotated[int, PydanticField(ge=0)] = 7
    price: Annotated[Decimal, PydanticField(max_digits=12, decimal_places=2)] | None = None
    day: date | None = None
    raw: bytes | None = None
    colour: Colour | None = None
    unit: Literal["C", "F"] = "C"
    samples: list[float] | None = None
    labels: dict[str, float] | None = None


class Proto(Event, topic=TOPIC, time="at", format="protobuf"):
    at: datetime
    sensor: str
    value: float | None
    count: Annotated[int, PydanticField(ge=0)] = 7
    price: Annotated[Decimal, PydanticField(max_digits=12, decimal_places=2)] | None = None
    day: date | None = None
    raw: bytes | None = None
    colour: Colour | None = None
    level: Level | None = None
    samples: list[float] | None = None
    labels: dict[str, float] | None = None


def decode(event: type[Event], registry: Registry, *values: bytes | None) -> Decoded:
    messages = [FakeMessage(value, offset) for offset, value in enumerate(values)]
    return Decoder(event, registry).decode(Batch.of(TOPIC, messages))


def reason(decoded: Decoded) -> tuple[Reason, str]:
    (rejection,) = decoded.rejections
    return rejection.reason, rejection.path


PLAIN = {"at": MICROS, "sensor": "string", "value": ["null", "double"]}
GOOD = {"at": AT, "sensor": "a", "value": 1.5}
RICH = PLAIN | {
    "count": "int",
    "price": ["null", logical("bytes", "decimal", precision=12, scale=2)],
    "day": ["null", logical("int", "date")],
    "raw": "bytes",
    "colour": {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE", "GREEN"]},
    "unit": {"type": "enum", "name": "Unit", "symbols": ["C", "F", "K"]},
    "samples": {"type": "array", "items": ["float", "double"]},
    "labels": {"type": "map", "values": "double"},
}
FULL = GOOD | {
    "count": 3,
    "price": Decimal("12345.60"),
    "day": date(2023, 11, 14),
    "raw": b"\x00\xff",
    "colour": "RED",
    "unit": "F",
    "samples": [0.5, -0.0],
    "labels": {"x": -0.0},
}


def test_an_avro_record_becomes_a_row(registry: Registry) -> None:
    decoded = decode(Avro, registry, avro(registry, RICH, FULL))
    assert not decoded.rejections
    (row,) = decoded.table.to_pylist()
    assert {name: row[name] for name in FULL} == FULL | {"labels": [("x", 0.0)], "samples": [0.5, 0.0]}
    assert str(row["samples"][1]) == str(row["labels"][0][1]) == "0.0"


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (logical("long", "timestamp-millis"), AT.replace(microsecond=123000), AT.replace(microsecond=123000)),
        (logical("long", "local-timestamp-micros"), AT, AT),
        (logical("long", "timestamp-nanos"), 1_700_000_000_123_456_789, datetime(2023, 11, 14, 22, 13, 20, 123456)),
        ("long", 1_700_000_000_000, datetime(2023, 11, 14, 22, 13, 20)),
        ("int", 1_700_000_000, datetime(2023, 11, 14, 22, 13, 20)),
        ("double", 1_700_000_000.5, datetime(2023, 11, 14, 22, 13, 20, 500000)),
        ("string", "2023-11-14T23:00:00.123456+01:00", AT),
        (["string", MICROS], AT.replace(tzinfo=UTC), AT),
    ],
)
def test_an_avro_instant_in_all_its_forms(registry: Registry, type_: Any, value: Any, expected: datetime) -> None:
    decoded = decode(Avro, registry, avro(registry, PLAIN | {"at": type_}, GOOD | {"at": value}))
    assert not decoded.rejections
    assert decoded.table["at"].to_pylist() == [expected]


@pytest.mark.parametrize(
    ("fields", "values", "expected"),
    [
        ({"value": "double"}, {"value": float("nan")}, (Reason.BAD_VALUE, "value")),
        ({"value": "float"}, {"value": float("-inf")}, (Reason.BAD_VALUE, "value")),
        ({"samples": {"type": "array", "items": "double"}}, {"samples": [1.0, float("inf")]},
         (Reason.BAD_VALUE, "samples[1]")),
        ({"labels": {"type": "map", "values": "double"}}, {"labels": {"x": float("nan")}},
         (Reason.BAD_VALUE, "labels.x")),
        ({"count": "long"}, {"count": -1}, (Reason.BAD_VALUE, "count")),
        ({"count": "string"}, {"count": "3"}, (Reason.WRONG_TYPE, "count")),
        ({"count": "boolean"}, {"count": True}, (Reason.WRONG_TYPE, "count")),
        ({"count": "double"}, {"count": 3.0}, (Reason.WRONG_TYPE, "count")),
        ({"value": "string"}, {"value": "1.5"}, (Reason.WRONG_TYPE, "value")),
        ({"sensor": ["null", "string"]}, {"sensor": None}, (Reason.WRONG_TYPE, "sensor")),
        ({"sensor": "bytes"}, {"sensor": b"a"}, (Reason.WRONG_TYPE, "sensor")),
        ({"raw": "string"}, {"raw": "AP8="}, (Reason.WRONG_TYPE, "raw")),
        ({"price": logical("bytes", "decimal", precision=20, scale=4)}, {"price": Decimal("1.2345")},
         (Reason.BAD_VALUE, "price")),
        ({"colour": {"type": "enum", "name": "C", "symbols": ["GREEN"]}}, {"colour": "GREEN"},
         (Reason.BAD_VALUE, "colour")),
        ({"unit": {"type": "enum", "name": "U", "symbols": ["K"]}}, {"unit": "K"}, (Reason.BAD_VALUE, "unit")),
        ({"at": "long"}, {"at": 10**17}, (Reason.BAD_TIME, "at")),
        ({"at": "long"}, {"at": 2**62}, (Reason.BAD_TIME, "at")),
        ({"at": MICROS}, {"at": 2**62}, (Reason.BAD_TIME, "at")),
        ({"at": MICROS}, {"at": -9 * 10**15}, (Reason.BAD_TIME, "at")),
        ({"at": MICROS}, {"at": datetime(2150, 1, 1)}, (Reason.FUTURE, "at")),
        ({"day": logical("int", "date")}, {"day": 2**31 - 1}, (Reason.BAD_VALUE, "day")),
    ],
)  # fmt: skip
def test_bad_input_in_avro_gets_the_reason_it_has_in_json(
    registry: Registry, fields: dict[str, Any], values: dict[str, Any], expected: tuple[Reason, str]
) -> None:
    bad = avro(registry, PLAIN | fields, GOOD | values, "bad")
    good = avro(registry, PLAIN, GOOD, "good")
    decoded = decode(Avro, registry, good, bad, good)
    assert reason(decoded) == expected
    assert decoded.table["kafka_offset"].to_pylist() == [0, 2]


def test_a_missing_field_and_a_default(registry: Registry) -> None:
    without = {name: type_ for name, type_ in PLAIN.items() if name != "sensor"}
    assert reason(decode(Avro, registry, avro(registry, without, GOOD))) == (Reason.MISSING_FIELD, "sensor")
    assert decode(Avro, registry, avro(registry, PLAIN, GOOD)).table["count"].to_pylist() == [7]


@pytest.mark.parametrize("event", [Avro, Proto])
@pytest.mark.parametrize("message", [b"\x00", b"{}", b"\x00\x00\x00\x00", b"\x01\x00\x00\x00\x01abc", b'{"at": 1}'])
def test_what_has_no_schemas_number_is_undecodable(registry: Registry, event: type[Event], message: bytes) -> None:
    assert reason(decode(event, registry, message)) == (Reason.UNDECODABLE, "")


def test_a_damaged_record_is_undecodable_and_harms_nothing_beside_it(registry: Registry) -> None:
    good = avro(registry, PLAIN, GOOD)
    bad = [good[:9], good + b"\x00", good[:5], good[:5] + b"\xff" * 30]
    decoded = decode(Avro, registry, good, *bad, good)
    assert decoded.table["kafka_offset"].to_pylist() == [0, 5]
    assert {r.reason for r in decoded.rejections} == {Reason.UNDECODABLE}
    assert "1 bytes stand behind the record" in decoded.rejections[1].detail


@pytest.mark.parametrize("event", [Avro, Proto])
def test_a_schema_that_the_registry_lacks_is_a_rejection(registry: Registry, event: type[Event]) -> None:
    (rejection,) = decode(event, registry, b"\x00" + struct.pack(">I", 4711) + b"\x00abc").rejections
    assert rejection.reason is Reason.UNKNOWN_SCHEMA
    assert "no schema 4711" in rejection.detail


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("string", "an event is a record"),
        ({"type": "record", "name": "N", "fields": [{"name": "n", "type": ["null", "N"]}]}, "N contains itself"),
        ({"type": "record", "name": "N", "fields": [{"name": "x", "type": {"type": "array", "items": "null"}}]},
         "items that take no bytes"),
        ({"type": "record", "name": "N", "fields": [{"name": "x", "type": ["int", MICROS]}]}, "told apart"),
        ({"type": "record", "name": "N", "fields": [{"name": "x", "type": "Nowhere"}]}, "Nowhere"),
        ({"type": "recrod"}, "recrod"),
    ],
)  # fmt: skip
def test_a_schema_that_is_not_safe_to_read_is_refused(registry: Registry, schema: Any, why: str) -> None:
    head = register(registry, '"string"' if schema == "string" else schema)
    # A list of nothings, and a message nested as deep as it is long, would take the process with it.
    for hostile in (b"\x02" * 500_000, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"):
        (rejection,) = decode(Avro, registry, head + hostile).rejections
        assert rejection.reason is Reason.UNKNOWN_SCHEMA
        assert why in rejection.detail


def test_a_schema_of_the_other_format_is_refused(registry: Registry) -> None:
    head = register(registry, proto_text(proto_file(PLAIN_PROTO)), "PROTOBUF")
    (rejection,) = decode(Avro, registry, head + b"\x00").rejections
    assert (rejection.reason, "one of protobuf" in rejection.detail) == (Reason.UNKNOWN_SCHEMA, True)
    head = register(registry, 'syntax = "proto3"; message A {}', "PROTOBUF")
    (rejection,) = decode(Proto, registry, head + b"\x00").rejections
    assert (rejection.reason, "no serialized descriptor" in rejection.detail) == (Reason.UNKNOWN_SCHEMA, True)


def test_an_avro_schema_may_refer_to_another(registry: Registry) -> None:
    colour = {"type": "enum", "name": "Colour", "namespace": "paint", "symbols": ["RED", "BLUE"]}
    registry.client.register_schema("colour", Schema(json.dumps(colour), "AVRO"))
    fields = [{"name": n, "type": t} for n, t in (PLAIN | {"colour": "paint.Colour"}).items()]
    schema = {"type": "record", "name": "R", "fields": fields}
    head = register(registry, schema, references=[SchemaReference("paint.Colour", "colour", 1)])
    whole = avro(registry, RICH | {"colour": colour}, FULL | {"colour": "BLUE"}, "whole")
    body = avro(registry, PLAIN, GOOD)[5:] + b"\x02"
    decoded = decode(Avro, registry, head + body, whole)
    assert decoded.table["colour"].to_pylist() == ["BLUE", "BLUE"]
    head = register(registry, schema | {"name": "Q"}, references=[SchemaReference("paint.Colour", "nowhere", 1)])
    (rejection,) = decode(Avro, registry, head + body).rejections
    assert (rejection.reason, "not in the registry" in rejection.detail) == (Reason.UNKNOWN_SCHEMA, True)


PLAIN_PROTO: ProtoFields = {
    "at": (1, Field.TYPE_MESSAGE, Field.LABEL_OPTIONAL, ".google.protobuf.Timestamp"),
    "sensor": (2, Field.TYPE_STRING),
    "value": (3, Field.TYPE_DOUBLE, Field.LABEL_OPTIONAL, None, True),
}
RICH_PROTO = PLAIN_PROTO | {
    "count": (4, Field.TYPE_INT64),
    "price": (5, Field.TYPE_STRING, Field.LABEL_OPTIONAL, None, True),
    "day": (6, Field.TYPE_MESSAGE, Field.LABEL_OPTIONAL, ".google.type.Date"),
    "raw": (7, Field.TYPE_BYTES),
    "colour": (8, Field.TYPE_ENUM, Field.LABEL_OPTIONAL, ".t.Colour"),
    "samples": (9, Field.TYPE_DOUBLE, Field.LABEL_REPEATED),
    "level": (10, Field.TYPE_ENUM, Field.LABEL_OPTIONAL, ".t.Colour"),
}


def test_a_protobuf_message_becomes_a_row(registry: Registry) -> None:
    fields = RICH_PROTO | {"labels": (11, Field.TYPE_MESSAGE, Field.LABEL_REPEATED, ".t.Reading.LabelsEntry")}
    full = GOOD | {
        "count": 3,
        "price": "12345.60",
        "day": date(2023, 11, 14),
        "raw": b"\x00\xff",
        "colour": 1,
        "level": 1,
        "samples": [0.5, -0.0],
        "labels": {"x": -0.0},
    }
    decoded = decode(Proto, registry, proto(registry, fields, full))
    assert not decoded.rejections
    (row,) = decoded.table.to_pylist()
    expected = full | {"price": Decimal("12345.60"), "colour": "BLUE", "labels": [("x", 0.0)]}
    assert {name: row[name] for name in full} == expected
    assert str(row["samples"][1]) == str(row["labels"][0][1]) == "0.0"


def test_what_is_unset_in_protobuf(registry: Registry) -> None:
    message = proto(registry, RICH_PROTO, {"at": AT})
    decoded = decode(Proto, registry, message)
    (row,) = decoded.table.to_pylist()
    # Without `optional` a scalar is its zero; with it, null where the event has no default, else the default.
    assert (row["sensor"], row["count"], row["value"], row["price"]) == ("", 0, None, None)
    assert reason(decode(Proto, registry, proto(registry, RICH_PROTO, {}))) == (Reason.MISSING_FIELD, "at")
    old = decode(Proto, registry, proto(registry, PLAIN_PROTO, {"at": AT}, "old"))
    assert old.table["count"].to_pylist() == [7]


@pytest.mark.parametrize(
    ("fields", "values", "expected"),
    [
        ({}, {"value": float("nan")}, (Reason.BAD_VALUE, "value")),
        ({}, {"samples": [1.0, float("inf")]}, (Reason.BAD_VALUE, "samples[1]")),
        ({}, {"count": -1}, (Reason.BAD_VALUE, "count")),
        ({}, {"price": "1.2345"}, (Reason.BAD_VALUE, "price")),
        ({}, {"price": "dear"}, (Reason.WRONG_TYPE, "price")),
        ({}, {"colour": 2}, (Reason.BAD_VALUE, "colour")),
        ({}, {"colour": 77}, (Reason.BAD_VALUE, "colour")),
        ({}, {"level": 2}, (Reason.BAD_VALUE, "level")),
        ({}, {"at": datetime(2150, 1, 1)}, (Reason.FUTURE, "at")),
        ({}, {"at": datetime(1066, 10, 14)}, (Reason.BAD_TIME, "at")),
        ({"at": (1, Field.TYPE_INT64)}, {"at": 2**62}, (Reason.BAD_TIME, "at")),
        ({"count": (4, Field.TYPE_UINT64)}, {"count": 2**64 - 1}, (Reason.BAD_VALUE, "count")),
        ({"count": (4, Field.TYPE_STRING)}, {"count": "3"}, (Reason.WRONG_TYPE, "count")),
        ({"count": (4, Field.TYPE_DOUBLE)}, {"count": 3.0}, (Reason.WRONG_TYPE, "count")),
        ({"sensor": (2, Field.TYPE_BYTES)}, {"sensor": b"a"}, (Reason.WRONG_TYPE, "sensor")),
        ({"day": (6, Field.TYPE_BYTES)}, {"day": b"a"}, (Reason.WRONG_TYPE, "day")),
    ],
)
def test_bad_input_in_protobuf_gets_the_reason_it_has_in_json(
    registry: Registry, fields: dict[str, Any], values: dict[str, Any], expected: tuple[Reason, str]
) -> None:
    bad = proto(registry, RICH_PROTO | fields, GOOD | values, "bad")
    good = proto(registry, PLAIN_PROTO, GOOD, "good")
    decoded = decode(Proto, registry, good, bad, good)
    assert reason(decoded) == expected
    assert decoded.table["kafka_offset"].to_pylist() == [0, 2]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"at": Parts(seconds=2**62)}, (Reason.BAD_TIME, "at")),
        ({"at": Parts(seconds=1, nanos=-1)}, (Reason.BAD_TIME, "at")),
        ({"at": Parts(seconds=1, nanos=10**9)}, (Reason.BAD_TIME, "at")),
        ({"day": Parts(year=2023)}, (Reason.BAD_VALUE, "day")),
        ({"day": Parts(year=2023, month=2, day=30)}, (Reason.BAD_VALUE, "day")),
    ],
)
def test_an_impossible_timestamp_or_date_of_protobuf(
    registry: Registry, values: dict[str, Any], expected: tuple[Reason, str]
) -> None:
    assert reason(decode(Proto, registry, proto(registry, RICH_PROTO, GOOD | values))) == expected


def test_which_message_of_the_file_it_is(registry: Registry) -> None:
    file = proto_file(PLAIN_PROTO)
    outer = file.message_type.add(name="Outer")
    outer.nested_type.add().CopyFrom(file.message_type[0])
    outer.nested_type[0].name = "Inner"
    head = register(registry, proto_text(file), "PROTOBUF")
    body = proto(registry, PLAIN_PROTO, GOOD)[6:]
    for indexes in (b"\x00", b"\x02\x00", b"\x04\x02\x00"):  # the first; [0] written out; [1, 0]
        assert decode(Proto, registry, head + indexes + body).table["sensor"].to_pylist() == ["a"]
    for indexes, expected in (
        (b"\x02\x08", Reason.UNKNOWN_SCHEMA),
        (b"\x04\x02\x04", Reason.UNKNOWN_SCHEMA),
        (b"\x02\x01", Reason.UNKNOWN_SCHEMA),
        (b"\xff\xff\xff\xff\xff\xff", Reason.UNDECODABLE),
        (b"\xfe\xff\x03", Reason.UNDECODABLE),
    ):
        assert reason(decode(Proto, registry, head + indexes + body)) == (expected, "")
    assert reason(decode(Proto, registry, head)) == (Reason.UNDECODABLE, "")
    assert reason(decode(Proto, registry, head + b"\x00\xff\xff")) == (Reason.UNDECODABLE, "")


def test_a_protobuf_file_may_import_others(registry: Registry) -> None:
    shared = descriptor_pb2.FileDescriptorProto(name="shared.proto", package="shared", syntax="proto3")
    place = shared.message_type.add(name="Place")
    place.field.add(name="city", number=1, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
    registry.client.register_schema("shared.proto", Schema(proto_text(shared), "PROTOBUF"))
    fields = PLAIN_PROTO | {"place": (12, Field.TYPE_MESSAGE, Field.LABEL_OPTIONAL, ".shared.Place")}
    file = proto_file(fields)
    file.dependency.append("shared.proto")
    body = b"\x00" + proto(registry, PLAIN_PROTO, GOOD)[6:] + b"\x62\x06\x0a\x04Rome"

    class Placed(Event, topic=TOPIC, time="at", format="protobuf"):
        at: datetime
        city: str = PydanticField(validation_alias=AliasPath("place", "city"))

    head = register(
        registry, proto_text(file), "PROTOBUF", references=[SchemaReference("shared.proto", "shared.proto", 1)]
    )
    assert decode(Placed, registry, head + body).table["city"].to_pylist() == ["Rome"]
    assert reason(decode(Placed, registry, head + body[:-8])) == (Reason.MISSING_FIELD, "place.city")
    head = register(registry, proto_text(file), "PROTOBUF")
    (rejection,) = decode(Placed, registry, head + body).rejections
    assert (rejection.reason, "not among its references" in rejection.detail) == (Reason.UNKNOWN_SCHEMA, True)


def test_validators_see_what_they_see_in_json(registry: Registry) -> None:
    def fussy(format_: str) -> type[Event]:
        class Fussy(Event, topic=TOPIC, time="at", format=format_):
            at: datetime
            colour: Colour
            colours: list[Colour]
            levels: dict[int, Level]
            price: Annotated[Decimal, PydanticField(max_digits=6, decimal_places=2)] = Decimal(1)
            prices: list[Annotated[Decimal, PydanticField(max_digits=6, decimal_places=2)]]
            days: list[date]

            @field_validator("colour", mode="before")
            @classmethod
            def _others_are_blue(cls, value: Any) -> Any:
                return value if value in {"RED", "BLUE"} else "BLUE"

            @field_validator("price", mode="before")
            @classmethod
            def _without_currency(cls, value: Any) -> Any:
                return value.removesuffix(" EUR") if isinstance(value, str) else value

        return Fussy

    record = {
        "at": 1_700_000_000,
        "colour": "GREEN",
        "colours": ["RED"],
        "levels": {"1": 0},
        "price": "1.50 EUR",
        "prices": ["2.25"],
        "days": ["2023-11-14"],
    }
    fields = {
        "at": "long",
        "colour": "string",
        "colours": {"type": "array", "items": "string"},
        "levels": {"type": "map", "values": "long"},
        "price": "string",
        "prices": {"type": "array", "items": "string"},
        "days": {"type": "array", "items": "string"},
    }
    from_json = decode(fussy("json"), registry, json.dumps(record).encode())
    from_avro = decode(fussy("avro"), registry, avro(registry, fields, record))
    assert not from_json.rejections + from_avro.rejections
    assert from_avro.table.equals(from_json.table)
    (row,) = from_avro.table.to_pylist()
    assert (row["colour"], row["colours"], row["levels"]) == ("BLUE", ["RED"], [(1, 0)])
    assert (row["price"], row["prices"], row["days"]) == (Decimal("1.50"), [Decimal("2.25")], [date(2023, 11, 14)])


def test_a_format_that_needs_a_registry_says_which_setting_names_it() -> None:
    with pytest.raises(ConfigError, match="readings: messages in avro name their schema.*HEADRACE_SCHEMA_REGISTRY_URL"):
        Decoder(Avro)


def test_the_local_registry_serves_both_formats(tmp_path: Path) -> None:
    registry = Registry(f"file://{tmp_path}/registry")
    assert len(decode(Avro, registry, avro(registry, RICH, FULL)).table) == 1
    assert len(decode(Proto, registry, proto(registry, RICH_PROTO, GOOD)).table) == 1


@given(st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_messages_never_stop_anything(registry: Registry, data: st.DataObject) -> None:
    event, message = data.draw(
        st.sampled_from([(Avro, avro(registry, RICH, FULL)), (Proto, proto(registry, RICH_PROTO, GOOD | {"count": 3}))])
    )
    damaged = bytearray(message)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        piece = data.draw(st.binary(max_size=3) | st.sampled_from([b"\xff" * 9, b"\x00" * 3, b"\x80" * 5]))
        damaged[at : at + data.draw(st.integers(0, 4))] = piece
    decoded = decode(event, registry, message, bytes(damaged), message)
    assert len(decoded.table) + len(decoded.rejections) == 3
    assert {0, 2} <= set(decoded.table["kafka_offset"].to_pylist())
