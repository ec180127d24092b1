"""Messages that are read as columns at once mean what they mean one by one, whatever they hold and however damaged."""

import io
import json
import struct
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from confluent_kafka.schema_registry import Schema
from fastavro import parse_schema, schemaless_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, Field

from schemas.decode import Batch, Decoder
from schemas.event import Event
from schemas.formats import registered
from schemas.formats.avro_columns import column_reader
from schemas.registry import Registry
from tests.unit.schemas.test_decode import FakeMessage
from tests.unit.schemas.writers import logical


class Colour(Enum):
    RED = "RED"
    BLUE = "BLUE"


class Flat(Event, topic="t", time="at", format="avro"):
    at: datetime
    name: Annotated[str, Field(min_length=1, max_length=3)] = "n"
    count: Annotated[int, Field(ge=-5, lt=2**62)] = 1
    ratio: Annotated[float, Field(gt=-10)] | None = None
    flag: bool | None = True
    raw: bytes | None = None
    unit: Literal["C", "F"] = "C"
    digit: Literal[1, 2] = 1
    colour: Colour = Colour.BLUE
    zero: float = -0.0
    day: date | None = None
    then: datetime | None = datetime(2020, 1, 1)
    renamed: str = Field("x", validation_alias=AliasChoices("new", "old"))


INTS = st.sampled_from([0, 1, 2, -1, -6, 64, 2**31 - 1, 1_700_000_000]) | st.integers(-5, 5)
LONGS = INTS | st.sampled_from([2**62, 2**63 - 1, -(2**63), 1_700_000_000_000, 253_402_300_800_000, 10**17])
TEXTS = st.sampled_from(["", "a", "C", "F", "RED", "abc", "abcd", "été", "\U0001f600"])
FLOATS = st.sampled_from([0.0, -0.0, 1.5, -10.0, 1e300, float("nan"), float("inf")])
ENUM = ["RED", "BLUE", "C", "K"]
WRITERS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    ("int", INTS),
    ("long", LONGS),
    ("float", FLOATS.filter(lambda value: value != 1e300)),
    ("double", FLOATS),
    ("boolean", st.booleans()),
    ("string", TEXTS),
    ("bytes", st.sampled_from([b"", b"\x00\xff"])),
    ("null", st.none()),
    ({"type": "string"}, TEXTS),
    (logical("long", "timestamp-millis"), LONGS),
    (logical("long", "timestamp-micros"), LONGS),
    (logical("long", "local-timestamp-nanos"), LONGS),
    (logical("long", "time-micros"), LONGS),
    (logical("int", "date"), INTS),
    (logical("bytes", "decimal", precision=9, scale=2), st.sampled_from([b"\x01", b"\xff\x00"])),
    ({"type": "array", "items": "int"}, st.lists(INTS, max_size=2)),
]
NAMES = sorted({*Flat.model_fields, "new", "old", "unknown"} - {"at", "renamed"})


@st.composite
def writers(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A writer's schema of some fields, and records of it."""
    fields, values = [], {}
    for number, name in enumerate(["at", *draw(st.lists(st.sampled_from(NAMES), max_size=5, unique=True))]):
        type_, strategy = draw(st.sampled_from(WRITERS))
        if name == "at" and draw(st.booleans()):
            type_, strategy = logical("long", "timestamp-millis"), st.just(1_690_000_000_000)
        if draw(st.integers(0, 5)) == 0:
            type_, strategy = {"type": "enum", "name": f"E{number}", "symbols": ENUM}, st.sampled_from(ENUM)
        if type_ != "null" and draw(st.booleans()):
            type_, strategy = draw(st.permutations(["null", type_])), st.none() | strategy
        fields.append({"name": name, "type": type_})
        values[name] = strategy
    records = draw(st.lists(st.fixed_dictionaries(values), min_size=1, max_size=6))
    return {"type": "record", "name": "R", "fields": fields}, records


def without_logical_types(schema: Any) -> Any:
    """What writes counts and bytes as they are, whatever they mean."""
    if isinstance(schema, dict):
        return {name: without_logical_types(value) for name, value in schema.items() if name != "logicalType"}
    return [without_logical_types(each) for each in schema] if isinstance(schema, list) else schema


def messages(head: bytes, schema: dict[str, Any], records: list[dict[str, Any]]) -> list[bytes]:
    parsed, found = parse_schema(without_logical_types(schema)), []
    for record in records:
        file = io.BytesIO()
        schemaless_writer(file, parsed, record)
        found.append(head + file.getvalue())
    return found


def head_of(registry: Registry, schema: dict[str, Any]) -> bytes:
    return b"\x00" + struct.pack(">I", registry.client.register_schema("s", Schema(json.dumps(schema), "AVRO")))


@pytest.fixture(autouse=True)
def from_the_first_message_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "MESSAGES_MIN", 1)
    monkeypatch.setattr(registered, "RUN_BYTES_MAX", 64)


def both_alike(registry: Registry, values: list[bytes]) -> Decoder:
    batch = Batch.of("t", [FakeMessage(value, offset) for offset, value in enumerate(values)])
    at_once, singly = Decoder(Flat, registry), Decoder(Flat, registry)
    singly._reader._read_columns = lambda values: (None, range(len(values)))  # type: ignore[attr-defined]
    wanted, found = singly.decode(batch), at_once.decode(batch)
    assert found.table.equals(wanted.table)
    assert found.rejections == wanted.rejections
    return at_once


SETTINGS = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@SETTINGS
@given(writers())
def test_whatever_the_writers_schema(drawn: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    registry = Registry("mock://at-once")
    both_alike(registry, messages(head_of(registry, drawn[0]), *drawn))


@SETTINGS
@given(writers(), writers(), st.data())
def test_damaged_and_mixed(
    one: tuple[dict[str, Any], list[dict[str, Any]]],
    other: tuple[dict[str, Any], list[dict[str, Any]]],
    data: st.DataObject,
) -> None:
    registry = Registry("mock://at-once")
    values = messages(head_of(registry, one[0]), *one) + messages(head_of(registry, other[0]), *other)
    values.append(b"\x00\x7f\xff\xff\xff")
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(0, len(values) - 1))
        damaged = bytearray(values[which])
        at = data.draw(st.integers(min(5, len(damaged)), len(damaged)))
        piece = data.draw(st.binary(max_size=2) | st.sampled_from([b"\xff" * 9 + b"\x01", b"\x80" * 10, b"\xff" * 12]))
        # The index of an enum and a boolean are read by fastavro whatever they are; so they are here.
        damaged[at : at + data.draw(st.integers(0, 3))] = piece
        values[which] = bytes(damaged)
    both_alike(registry, data.draw(st.permutations(values)))


FULL: dict[str, Any] = {
    "at": logical("long", "timestamp-micros"),
    "name": "string",
    "count": ["null", "long"],
    "ratio": "double",
    "flag": "boolean",
    "raw": "bytes",
    "unit": {"type": "enum", "name": "U", "symbols": ["C", "F", "K"]},
    "colour": "string",
    "day": ["null", logical("int", "date")],
    "new": "string",
}


def test_what_is_flat_is_read_at_once() -> None:
    registry = Registry("mock://at-once")
    schema = {"type": "record", "name": "R", "fields": [{"name": n, "type": t} for n, t in FULL.items()]}
    record = {
        "at": 1_690_000_000_000_000, "name": "ab", "count": 3, "ratio": -0.0, "flag": False, "raw": b"\x00",
        "unit": "F", "colour": "RED", "day": 19_000, "new": "y",
    }  # fmt: skip
    values = messages(head_of(registry, schema), schema, [record, record | {"count": None}, record | {"unit": "K"}])
    decoder = both_alike(registry, values)
    (writer,) = decoder._reader._writers.values()  # type: ignore[attr-defined]
    assert writer.columns is not None
    block, left = decoder._reader._read_columns(values)  # type: ignore[attr-defined]
    assert (block.rows.tolist(), list(left)) == ([0], [1, 2])


@pytest.mark.parametrize(
    "fields",
    [
        {"xs": {"type": "array", "items": "int"}},
        {"m": {"type": "map", "values": "int"}},
        {"name": ["null", "string", "int"]},
        {"count": "string"},
        {"fixed": {"type": "fixed", "name": "F", "size": 3}},
    ],
)
def test_what_is_not_flat_is_left_to_the_reader_of_single_messages(fields: dict[str, Any]) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": n, "type": t} for n, t in fields.items()]}
    assert column_reader(Flat, parse_schema(schema), {}) is None


def test_decimals_are_left_to_it_too() -> None:
    class Priced(Event, topic="t", time="at", format="avro"):
        at: datetime
        price: Annotated[Decimal, Field(max_digits=9, decimal_places=2)]

    fields = {"at": "long", "price": logical("bytes", "decimal", precision=9, scale=2)}
    schema = {"type": "record", "name": "R", "fields": [{"name": n, "type": t} for n, t in fields.items()]}
    assert column_reader(Priced, parse_schema(schema), {}) is None
