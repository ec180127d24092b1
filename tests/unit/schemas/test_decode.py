import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pyarrow as pa
import pytest
from pydantic import AliasChoices, Field, field_validator

from schemas.decode import Batch, Decoded, Decoder
from schemas.event import Event, log_schema
from schemas.rejection import (
    ENCODED_BYTES_MAX,
    REJECTS_SCHEMA,
    VALUE_BYTES_KEPT,
    Reason,
    decode_rejection,
    encode_rejection,
    rejections_of,
    rejections_table,
)

BROKER_MS = 1_700_000_000_000


class FakeMessage:
    """What the Kafka client hands over; the client's own class can't be made in Python."""

    def __init__(self, value: bytes | None, offset: int = 0, timestamp: tuple[int, int] = (2, BROKER_MS)) -> None:
        self._value, self._offset, self._timestamp = value, offset, timestamp

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return b"key"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return [("trace", b"\x00\xff"), ("empty", None)]


class Reading(Event, topic="readings", time="at", key=["sensor"]):
    at: datetime
    sensor: str
    value: float | None
    level: Annotated[int, Field(ge=0, lt=1_000)] = 0
    unit: Literal["C", "F"] = "C"
    samples: list[float] | None = None
    labels: dict[str, float] | None = None
    day: date | None = None


GOOD: dict[str, Any] = {"at": "2023-11-14T22:00:00", "sensor": "a", "value": 1.5}


def decode(event: type[Event], *values: bytes | None) -> Decoded:
    messages = [FakeMessage(value, offset) for offset, value in enumerate(values)]
    return Decoder(event).decode(Batch.of("readings", messages))


def one(event: type[Event], **fields: Any) -> dict[str, Any]:
    decoded = decode(event, json.dumps(GOOD | fields).encode())
    assert not decoded.rejections
    (row,) = decoded.table.to_pylist()
    return row


def reason(event: type[Event], value: bytes | None) -> tuple[Reason, str]:
    (rejection,) = decode(event, value).rejections
    return rejection.reason, rejection.path


def body(**fields: Any) -> bytes:
    return json.dumps(GOOD | fields).encode()


def test_good_events_become_rows_with_their_place_in_the_log() -> None:
    decoded = decode(Reading, body(), body(samples=[1, 2.5], labels={"x": 1}, day="2023-11-14"))
    assert decoded.table.schema == log_schema(Reading.spec())
    first, second = decoded.table.to_pylist()
    assert first["at"] == datetime(2023, 11, 14, 22)
    assert (first["kafka_partition"], first["kafka_offset"], first["kafka_key"]) == (3, 0, b"key")
    assert first["kafka_timestamp"] == datetime.fromtimestamp(BROKER_MS / 1000, UTC).replace(tzinfo=None)
    assert (second["samples"], second["labels"], second["day"]) == ([1.0, 2.5], [("x", 1.0)], date(2023, 11, 14))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (Reason.EMPTY, "")),
        (b"", (Reason.EMPTY, "")),
        (b"not json", (Reason.UNDECODABLE, "")),
        (b"\xff\xfe", (Reason.UNDECODABLE, "")),
        (b"[1, 2]", (Reason.UNDECODABLE, "")),
        (b'{"at": "2023-11-14T22:00:00", "sensor": "a"', (Reason.UNDECODABLE, "")),
        (b'{"at": "2023-11-14T22:00:00", "value": 1.0}', (Reason.MISSING_FIELD, "sensor")),
        (body(sensor=5), (Reason.WRONG_TYPE, "sensor")),
        (body(sensor=None), (Reason.WRONG_TYPE, "sensor")),
        (body(value="12"), (Reason.WRONG_TYPE, "value")),
        (body(value=True), (Reason.WRONG_TYPE, "value")),
        (body(level="3"), (Reason.WRONG_TYPE, "level")),
        (body(samples=[1, None]), (Reason.WRONG_TYPE, "samples[1]")),
        (body(value=float("nan")), (Reason.BAD_VALUE, "value")),
        (body(value=float("inf")), (Reason.BAD_VALUE, "value")),
        (body().replace(b"1.5", b"1e999"), (Reason.BAD_VALUE, "value")),
        (body(level=-1), (Reason.BAD_VALUE, "level")),
        (body(level=2**70), (Reason.BAD_VALUE, "level")),
        (body(unit="K"), (Reason.BAD_VALUE, "unit")),
        (body(at="yesterday"), (Reason.BAD_TIME, "at")),
        (body(at="2013-02-30T00:00:00"), (Reason.BAD_TIME, "at")),
        (body(at="1066-10-14T00:00:00"), (Reason.BAD_TIME, "at")),
        (body(at=None), (Reason.WRONG_TYPE, "at")),
        (body(at=10**17), (Reason.BAD_TIME, "at")),
        (body(at="2150-01-01T00:00:00"), (Reason.FUTURE, "at")),
        (body(at=BROKER_MS + 300_001), (Reason.FUTURE, "at")),
    ],
)
def test_bad_input_gets_its_reason_and_field(value: bytes | None, expected: tuple[Reason, str]) -> None:
    assert reason(Reading, value) == expected


def test_nothing_good_beside_bad_input_is_lost() -> None:
    values = [body(sensor="a"), b"junk", body(sensor="b"), None, body(value=float("nan")), body(sensor="c"), body(at=1)]
    decoded = decode(Reading, *values)
    assert decoded.table["sensor"].to_pylist() == ["a", "b", "c", "a"]
    assert decoded.table["kafka_offset"].to_pylist() == [0, 2, 5, 6]
    assert [rejection.offset for rejection in decoded.rejections] == [1, 3, 4]
    assert [rejection.value for rejection in decoded.rejections] == [b"junk", None, values[4]]


def test_an_instant_is_iso_text_or_an_epoch_number() -> None:
    expected = datetime(2023, 11, 14, 22, 13, 20)
    for at in (1_700_000_000, 1_700_000_000_000, 1_700_000_000.0, "2023-11-14T22:13:20", "2023-11-14T23:13:20+01:00"):
        assert one(Reading, at=at)["at"] == expected
    assert one(Reading, at="2023-11-14 22:13:20Z")["at"] == expected
    assert one(Reading, at=BROKER_MS + 300_000)["at"] == expected + timedelta(minutes=5)


def test_negative_zero_becomes_zero_at_the_door() -> None:
    row = one(Reading, value=-0.0, samples=[-0.0, 1.0], labels={"x": -0.0})
    assert [str(row["value"]), str(row["samples"][0]), str(row["labels"][0][1])] == ["0.0", "0.0", "0.0"]


def test_an_integer_of_a_list_beyond_64_bits_is_one_rejection() -> None:
    class Wide(Event, topic="t", time="at"):
        at: datetime
        xs: list[int]

    good, bad = body(xs=[1]), body(xs=[2**80])
    decoded = decode(Wide, good, bad, good)
    assert decoded.table["kafka_offset"].to_pylist() == [0, 2]
    assert [(r.offset, r.reason, r.path) for r in decoded.rejections] == [(1, Reason.BAD_VALUE, "xs")]


def test_schemas_that_only_pydantic_can_check() -> None:
    class Colour(Enum):
        RED = "red"

    class Fussy(Event, topic="t", time="at"):
        at: datetime
        sensor: Annotated[str, Field(validation_alias=AliasChoices("sensor", "device"))]
        amount: Annotated[Decimal, Field(max_digits=6, decimal_places=2)] | None = None
        colour: Colour = Colour.RED
        blob: bytes | None = None

        @field_validator("sensor")
        @classmethod
        def _not_x(cls, value: str) -> str:
            if value == "x":
                raise ValueError("x is out of order")
            return value

    assert one(Fussy, amount="12.50", blob="AP8=")["amount"] == Decimal("12.50")
    assert one(Fussy, blob="AP8=")["blob"] == b"\x00\xff"
    assert decode(Fussy, b'{"at": 1, "device": "renamed"}').table["sensor"].to_pylist() == ["renamed"]
    assert one(Fussy)["colour"] == "red"
    assert reason(Fussy, body(colour="blue")) == (Reason.BAD_VALUE, "colour")
    assert reason(Fussy, body(sensor="x")) == (Reason.BAD_VALUE, "sensor")
    assert reason(Fussy, body(amount="1.234"))[0] == Reason.BAD_VALUE


def test_rejections_survive_the_topic_and_the_table() -> None:
    (rejection,) = decode(Reading, b"\x00\xff").rejections
    assert decode_rejection(encode_rejection(rejection)) == rejection
    table = rejections_table([rejection])
    assert table.schema == REJECTS_SCHEMA
    (row,) = table.to_pylist()
    assert (row["value"], row["key"], row["topic"], row["kafka_partition"]) == (b"\x00\xff", b"key", "readings", 3)
    assert json.loads(row["headers"]) == [["trace", "AP8="], ["empty", None]]
    assert isinstance(rejections_table([]), pa.Table)
    assert rejections_of(table) == [rejection]


def test_a_rejection_that_no_broker_takes_is_cut_and_says_so() -> None:
    (rejection,) = decode(Reading, b"x" * 1_000_000).rejections
    huge = msgspec.structs.replace(rejection, key=b"k" * 900_000, headers=[("h", b"v" * 900_000)])
    encoded = encode_rejection(huge)
    assert len(encoded) <= ENCODED_BYTES_MAX
    cut = decode_rejection(encoded)
    assert cut.value == b"x" * VALUE_BYTES_KEPT
    assert cut.detail == (f"(the first {VALUE_BYTES_KEPT} of 1000000 bytes, 0 of 1 headers) {rejection.detail}")
    assert (cut.offset, cut.reason) == (rejection.offset, rejection.reason)


def test_a_uuid_is_text_in_its_canonical_form() -> None:
    class Identified(Event, topic="t", time="at", id="uid"):
        at: datetime
        uid: UUID
        also: list[UUID] = Field(default_factory=list)

    text = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
    bodies = [json.dumps({"at": 1, "uid": uid, "also": [text]}).encode() for uid in (text, text.upper(), text[:-1])]
    decoded = decode(Identified, *bodies)
    assert decoded.table["uid"].to_pylist() == [text, text]
    assert decoded.table["also"].to_pylist() == [[text], [text]]
    assert [(r.reason, r.path) for r in decoded.rejections] == [(Reason.WRONG_TYPE, "uid")]
