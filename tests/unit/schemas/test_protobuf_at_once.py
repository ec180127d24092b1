"""Protobuf messages that are read as columns at once mean what they mean one by one."""

import struct
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from confluent_kafka.schema_registry import Schema
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, Field

from schemas.decode import Batch, Decoder
from schemas.event import Event
from schemas.formats import registered
from schemas.registry import Registry
from tests.unit.schemas.test_columns_at_once import SETTINGS
from tests.unit.schemas.test_decode import FakeMessage
from tests.unit.schemas.writers import Parts, ProtoFields, proto_class, proto_file, proto_text


class Colour(Enum):
    RED = "RED"
    BLUE = "BLUE"


class Flat(Event, topic="t", time="at", format="protobuf"):
    at: datetime
    name: Annotated[str, Field(max_length=3)] = "n"
    count: Annotated[int, Field(ge=-5, lt=2**62)] = 1
    ratio: Annotated[float, Field(gt=-10)] | None = None
    flag: bool | None = True
    raw: bytes | None
    unit: Literal["RED", "GREEN"] = "RED"
    colour: Colour = Colour.BLUE
    then: datetime | None = datetime(2020, 1, 1)
    renamed: str = Field("x", validation_alias=AliasChoices("new", "old"))


INTS = st.sampled_from([0, 1, 2, -1, -6, 64, 2**31 - 1, -(2**31), 1_700_000_000])
LONGS = INTS | st.sampled_from([2**62, 2**63 - 1, -(2**63), 1_700_000_000_000, 253_402_300_800_000])
WIDE = st.sampled_from([0, 1, 2**32 - 1])
FLOATS = st.sampled_from([0.0, -0.0, 1.5, -10.0, float("nan"), float("inf")])
TEXTS = st.sampled_from(["", "a", "RED", "abc", "abcd", "été", "\U0001f600"])
SECONDS = st.sampled_from([0, 1, 1_690_000_000, -1, 253_402_300_799, 253_402_300_800, 2**62, -(2**62)])
INSTANTS = st.builds(Parts, seconds=SECONDS, nanos=st.sampled_from([0, 1, 999_999_999, -1, 10**9]))
ONE, MANY = Proto.LABEL_OPTIONAL, Proto.LABEL_REPEATED
TYPES: list[tuple[int, str | None, Any]] = [
    (Proto.TYPE_INT32, None, INTS),
    (Proto.TYPE_SINT32, None, INTS),
    (Proto.TYPE_SFIXED32, None, INTS),
    (Proto.TYPE_INT64, None, LONGS),
    (Proto.TYPE_SINT64, None, LONGS),
    (Proto.TYPE_SFIXED64, None, LONGS),
    (Proto.TYPE_UINT32, None, WIDE),
    (Proto.TYPE_FIXED32, None, WIDE),
    (Proto.TYPE_UINT64, None, WIDE | st.just(2**64 - 1)),
    (Proto.TYPE_FIXED64, None, WIDE | st.just(2**64 - 1)),
    (Proto.TYPE_BOOL, None, st.booleans()),
    (Proto.TYPE_DOUBLE, None, FLOATS),
    (Proto.TYPE_FLOAT, None, FLOATS),
    (Proto.TYPE_STRING, None, TEXTS),
    (Proto.TYPE_BYTES, None, st.sampled_from([b"", b"\x00\xff"])),
    (Proto.TYPE_ENUM, ".t.Colour", st.sampled_from([0, 1, 2, 77])),
    (Proto.TYPE_MESSAGE, ".google.protobuf.Timestamp", INSTANTS),
]
NAMES = sorted({*Flat.model_fields, "new", "old", "unknown"} - {"at", "renamed"})
AT = (1, Proto.TYPE_MESSAGE, ONE, ".google.protobuf.Timestamp")


@st.composite
def writers(draw: st.DrawFn) -> tuple[ProtoFields, list[bytes]]:
    """A writer's fields, and messages of it."""
    fields: ProtoFields = {"at": AT}
    values: dict[str, Any] = {"at": st.just(Parts(seconds=1_690_000_000)) | INSTANTS}
    for number, name in enumerate(draw(st.lists(st.sampled_from(NAMES), max_size=6, unique=True)), 2):
        type_, type_name, strategy = draw(st.sampled_from(TYPES))
        many = draw(st.integers(0, 9)) == 0 and type_ != Proto.TYPE_MESSAGE
        optional = not many and type_ != Proto.TYPE_MESSAGE and draw(st.booleans())
        fields[name] = (number, type_, MANY if many else ONE, type_name, optional)
        values[name] = st.lists(strategy, max_size=2) if many else strategy
    message_class = proto_class(proto_file(fields))
    found = []
    for record in draw(st.lists(st.fixed_dictionaries({}, optional=values), min_size=1, max_size=6)):
        message = message_class()
        for name, value in record.items():
            if isinstance(value, Parts):
                getattr(message, name).SetInParent()
                for part, number in value.items():
                    setattr(getattr(message, name), part, number)
            elif isinstance(value, list):
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
        found.append(message.SerializeToString())
    return fields, found


def messages(registry: Registry, fields: ProtoFields, bodies: list[bytes]) -> list[bytes]:
    text = proto_text(proto_file(fields))
    head = b"\x00" + struct.pack(">I", registry.client.register_schema("s", Schema(text, "PROTOBUF")))
    return [head + b"\x00" + body for body in bodies]


@pytest.fixture(autouse=True)
def from_the_first_message_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "MESSAGES_MIN", 1)


def both_alike(registry: Registry, values: list[bytes]) -> Decoder:
    batch = Batch.of("t", [FakeMessage(value, offset) for offset, value in enumerate(values)])
    at_once, singly = Decoder(Flat, registry), Decoder(Flat, registry)
    singly._reader._read_columns = lambda values: (None, range(len(values)))  # type: ignore[attr-defined]
    wanted, found = singly.decode(batch), at_once.decode(batch)
    assert found.table.equals(wanted.table)
    assert found.rejections == wanted.rejections
    return at_once


@SETTINGS
@given(writers())
def test_whatever_the_writers_schema(drawn: tuple[ProtoFields, list[bytes]]) -> None:
    registry = Registry("mock://protobuf-at-once")
    both_alike(registry, messages(registry, *drawn))


@SETTINGS
@given(writers(), writers(), st.data())
def test_damaged_and_mixed(
    one: tuple[ProtoFields, list[bytes]], other: tuple[ProtoFields, list[bytes]], data: st.DataObject
) -> None:
    registry = Registry("mock://protobuf-at-once")
    values = messages(registry, *one) + messages(registry, *other)
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(0, len(values) - 1))
        damaged = bytearray(values[which])
        at = data.draw(st.integers(min(5, len(damaged)), len(damaged)))
        # Any bytes; a field again; unknown fields of every wire type; a tag of no field, of too many bits.
        piece = data.draw(
            st.binary(max_size=3)
            | st.just(values[which][6:])
            | st.sampled_from([b"\xf8\x07\x05", b"\xf9\x07" + bytes(8), b"\xfa\x07\x01a", b"\xfd\x07" + bytes(4)])
            | st.sampled_from([b"\xfb\x07\xfc\x07", b"\x00\x00", b"\xff" * 9 + b"\x01", b"\x80" * 11, b"\x0a\x00"])
        )
        damaged[at : at + data.draw(st.integers(0, 2))] = piece
        values[which] = bytes(damaged)
    both_alike(registry, data.draw(st.permutations(values)))


def test_what_is_flat_is_read_at_once() -> None:
    fields: ProtoFields = {
        "at": AT,
        "name": (2, Proto.TYPE_STRING),
        "raw": (3, Proto.TYPE_BYTES, ONE, None, True),
        "ratio": (4, Proto.TYPE_FLOAT),
        "colour": (5, Proto.TYPE_ENUM, ONE, ".t.Colour"),
        "many": (6, Proto.TYPE_INT32, MANY),
    }
    registry, message_class = Registry("mock://protobuf-at-once"), proto_class(proto_file(fields))
    bodies = []
    for extra in ({}, {"raw": b"x"}, {"colour": 2}, {"many": [1]}):
        message = message_class(name="ab", **extra)
        message.at.seconds = 1_690_000_000
        bodies.append(message.SerializeToString())
    values = messages(registry, fields, bodies)
    decoder = both_alike(registry, values)
    block, left = decoder._reader._read_columns(values)  # type: ignore[attr-defined]
    # The third has a colour that the event doesn't know, the last a list that the event doesn't have.
    assert (block.rows.tolist(), list(left)) == ([0, 1], [2, 3])
