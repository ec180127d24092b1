"""What a broken or hostile producer can send harms nothing beside it, and costs about what it weighs."""

import json
import time
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from pydantic import field_validator

from schemas import columns
from schemas.decode import Batch, Decoded, Decoder
from schemas.event import Event
from schemas.rejection import DETAIL_CHARACTERS_MAX, MESSAGE_BYTES_MAX, Reason
from tests.unit.schemas.test_decode import FakeMessage

EVENTS = 50_000


class Wide(Event, topic="t", time="at"):
    at: datetime
    xs: list[int]
    ys: list[float] | None = None


def body(**fields: Any) -> bytes:
    return json.dumps({"at": 1_600_000_000, "xs": [1, 2]} | fields).encode()


def decode(event: type[Event], values: list[bytes | None]) -> Decoded:
    messages = [FakeMessage(value, offset) for offset, value in enumerate(values)]
    return Decoder(event).decode(Batch.of("t", messages))


def test_one_event_that_fits_no_column_does_not_make_the_others_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = 0

    class CountingArrow:
        def __getattr__(self, name: str) -> Any:
            return getattr(pa, name)

        def array(self, *arguments: Any, **keywords: Any) -> Any:
            nonlocal arrays
            arrays += 1
            return pa.array(*arguments, **keywords)

    monkeypatch.setattr(columns, "pa", CountingArrow())
    values: list[bytes | None] = [body()] * EVENTS
    values[EVENTS // 3] = body(xs=[2**80])
    decoded = decode(Wide, values)
    assert len(decoded.table) == EVENTS - 1
    assert [(r.offset, r.reason, r.path) for r in decoded.rejections] == [(EVENTS // 3, Reason.BAD_VALUE, "xs")]
    assert arrays < 60


def test_many_events_that_fit_no_column() -> None:
    decoded = decode(Wide, [body(xs=[2**80]) if n % 3 else body(xs=[n]) for n in range(300)])
    assert decoded.table["xs"].to_pylist() == [[n] for n in range(0, 300, 3)]
    assert [r.offset for r in decoded.rejections] == [n for n in range(300) if n % 3]


@pytest.mark.parametrize(
    "value",
    [
        b'{"at": 1, "xs": [], "deep": ' + b"[" * 300_000 + b"]" * 300_000 + b"}",
        b'{"at": 1, "xs": ' + b"[" * 300_000,
        b'{"deep": ' * 50_000,
        b"9" * MESSAGE_BYTES_MAX,
        b'"' + b"\\" * (MESSAGE_BYTES_MAX - 2),
        b"\x00" * MESSAGE_BYTES_MAX,
        b'{"at": 1, "xs": [], "s": "\\ud800"}',
    ],
)
def test_what_is_no_json_is_undecodable(value: bytes) -> None:
    decoded = decode(Wide, [body(), value, body()])
    assert decoded.table["kafka_offset"].to_pylist() == [0, 2]
    (rejection,) = decoded.rejections
    assert (rejection.reason, rejection.value) == (Reason.UNDECODABLE, value)
    assert len(rejection.detail) <= DETAIL_CHARACTERS_MAX


def test_a_message_has_a_size_that_is_read() -> None:
    padding = MESSAGE_BYTES_MAX - len(body(pad=""))
    decoded = decode(Wide, [body(pad="x" * padding), body(pad="x" * (padding + 1)), None, body(), b"junk"])
    assert decoded.table["kafka_offset"].to_pylist() == [0, 3]
    assert [(r.offset, r.reason) for r in decoded.rejections] == [
        (1, Reason.TOO_LARGE),
        (2, Reason.EMPTY),
        (4, Reason.UNDECODABLE),
    ]
    assert f"has {MESSAGE_BYTES_MAX + 1} bytes" in decoded.rejections[0].detail


def test_a_batch_of_nothing_but_bad_messages_and_an_empty_one() -> None:
    assert len(decode(Wide, [None, b"", b"junk"]).rejections) == 3
    assert (len(decode(Wide, []).table), decode(Wide, []).rejections) == (0, [])


def test_a_megabyte_of_mistakes_is_one_mistake() -> None:
    huge = body(ys=[""] * 250_000)
    started = time.process_time()
    decoded = decode(Wide, [huge] * 5)
    # Describing each of the 250,000 takes half a second a message.
    assert time.process_time() - started < 1.0
    assert {(r.reason, r.path) for r in decoded.rejections} == {(Reason.WRONG_TYPE, "ys[0]")}


def test_of_a_key_that_stands_twice_the_last_value_counts() -> None:
    decoded = decode(
        Wide,
        [
            b'{"at": 1600000000, "xs": [1], "xs": [2]}',
            b'{"at": 1600000000, "xs": "bad", "xs": [3]}',
            b'{"at": 1600000000, "xs": [4], "xs": "bad"}',
        ],
    )
    assert decoded.table["xs"].to_pylist() == [[2], [3]]
    assert [(r.offset, r.reason, r.path) for r in decoded.rejections] == [(2, Reason.WRONG_TYPE, "xs")]


def test_a_validator_that_fails_in_its_own_way_refuses_the_message() -> None:
    class Careless(Event, topic="t", time="at"):
        at: datetime
        kind: str

        @field_validator("kind")
        @classmethod
        def _known(cls, value: str) -> str:
            return {"a": "A"}[value]

    decoded = decode(Careless, [b'{"at": 1600000000, "kind": "b"}', b'{"at": 1600000000, "kind": "a"}'])
    assert decoded.table["kind"].to_pylist() == ["A"]
    (rejection,) = decoded.rejections
    assert (rejection.reason, rejection.detail) == (
        Reason.BAD_VALUE,
        "a validator of the schema raised KeyError: 'b'",
    )
