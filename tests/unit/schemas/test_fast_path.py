"""The fast path and pydantic are one meaning: whatever is sent, both read the same or refuse alike."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    NaiveDatetime,
    StringConstraints,
    field_validator,
)

from schemas.decode import Batch, Decoder
from schemas.event import Event
from schemas.formats.fast import fast_path
from schemas.formats.registered import Writer
from schemas.registry import Registry
from tests.unit.schemas.test_decode import FakeMessage


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 0
    HIGH = 1


def even(value: int) -> int:
    if value == 13:
        raise KeyError("a mistake of the schema's author")
    if value % 2:
        raise ValueError("odd")
    return value


def everything(format_: str) -> type[Event]:
    """A column of each kind, with a constraint of each kind."""

    class Everything(Event, topic="t", time="at", format=format_):
        at: datetime
        name: str
        flag: bool | None = None
        count: Annotated[int, Field(ge=0, lt=1_000)] = 0
        ratio: Annotated[float, Field(gt=-10)] | None = None
        step: Annotated[float, Field(multiple_of=0.1)] = 0.0
        twos: Annotated[int, Field(multiple_of=2)] = 0
        twice: Annotated[int, Field(ge=5), Field(ge=2)] = 9
        even: Annotated[int, AfterValidator(even)] = 0
        code: Annotated[str, Field(pattern=r"^[a-z]+$", max_length=4)] = "x"
        label: Annotated[str, Field(min_length=1)] | None = None
        stripped: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = "x"
        unit: Literal["C", "F"] = "C"
        digit: Literal[1, 2] = 1
        colour: Colour = Colour.RED
        level: Level | None = None
        price: Annotated[Decimal, Field(max_digits=6, decimal_places=2, ge=0)] | None = None
        cost: Annotated[Decimal, Field(decimal_places=3)] = Decimal(1)
        day: date | None = None
        then: datetime | None = None
        aware: AwareDatetime | None = None
        naive: NaiveDatetime | None = None
        uid: UUID | None = None
        until: Annotated[datetime, Field(gt=datetime(2000, 1, 1))] | None = None
        raw: bytes | None = None
        samples: list[float] | None = None
        counts: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=2)] = Field(default_factory=list)
        labels: dict[str, float] | None = None

    return Everything


def quick(format_: str) -> type[Event]:
    """The same without what denies it the fast path: a default that is made anew each time."""
    full = everything(format_)

    class Quick(full, topic="t", time="at", format=format_):  # type: ignore[misc, valid-type]
        counts: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=2)] = []  # noqa: RUF012

    return Quick


EVERYTHING = quick("json")
REGISTERED = quick("avro")
GOOD: dict[str, Any] = {"at": "2023-11-14T22:00:00", "name": "a"}

NUMBERS = st.integers(-3, 20) | st.sampled_from([999, 1000, 2**62, 2**63 - 1, 2**63, -(2**63) - 1, 2**70])
FLOATS = st.sampled_from([0.0, -0.0, 0.1, 0.3, 1.5, 1e300, -9.99, float("nan"), float("inf"), 1_700_000_000.5])
TEXTS = st.sampled_from(
    ["", " ", "a", "abc", "abc\n", "abcde", " x ", "A", "C", "F", "red", "blue", "green", "1", "1.5", "12.345", "1e2",
     "99999.99", "NaN", "Infinity", "AP8=", "AP8", "AP-_", "true", "2023-11-14", "2023-11-14T22:00:00",
     "2023-11-14 22:00:00Z", "2023-11-14T22:00:00.1234567", "2023-11-14T22:00:00+01:00", "2023-02-30", "1999-01-01",
     "1700000000", "9999-12-31T23:59:59", "0001-01-01T00:00:00", "été", "\U0001f600",
     "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "3F2504E04F8911D39A0C0305E82C3301",
     "{3f2504e0-4f89-11d3-9a0c-0305e82c3301}"]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | NUMBERS | FLOATS | TEXTS
JSON_VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(TEXTS, SCALARS, max_size=2)
NATIVE = st.sampled_from(
    [b"", b"\x00\xff", b"0123456789abcdef", UUID(int=7),
     Decimal("1.25"), Decimal("12.345"), Decimal("-1"), Decimal("1E+40"), Decimal("12345.678"),
     date(2023, 11, 14), date(1, 1, 1), datetime(2023, 11, 14, 22, 0, 0, 123456), datetime(2023, 1, 1, tzinfo=UTC),
     datetime(2023, 1, 1, tzinfo=timezone(timedelta(hours=5))), datetime(1999, 1, 1), datetime(1, 1, 1),
     datetime(9999, 12, 31, 23, 59, 59, 999999)]
)  # fmt: skip
NATIVE_VALUES = JSON_VALUES | NATIVE | st.lists(NATIVE, max_size=2)


def records(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Good records, up to two fields of each replaced."""
    names = st.sampled_from(sorted(EVERYTHING.model_fields))
    return st.lists(
        st.dictionaries(names, values, max_size=2).map(lambda fields: GOOD | fields), min_size=1, max_size=6
    )


def both_alike(decoder: Decoder, slow: Decoder, values: list[bytes]) -> None:
    batch = Batch.of("t", [FakeMessage(value, offset) for offset, value in enumerate(values)])
    slow._reader._fast = None  # type: ignore[attr-defined]
    by_pydantic, by_both = slow.decode(batch), decoder.decode(batch)
    assert by_both.table.equals(by_pydantic.table)
    assert by_both.rejections == by_pydantic.rejections
    assert len(by_both.table) + len(by_both.rejections) == len(values)


@settings(max_examples=300)
@given(records(JSON_VALUES))
def test_json(records: list[dict[str, Any]]) -> None:
    both_alike(Decoder(EVERYTHING), Decoder(EVERYTHING), [json.dumps(record).encode() for record in records])


@settings(max_examples=300)
@given(records(NATIVE_VALUES))
def test_what_avro_and_protobuf_decode_to(records: list[dict[str, Any]]) -> None:
    decoders = [Decoder(REGISTERED, Registry("mock://unused")) for _ in range(2)]
    for decoder in decoders:
        decoder._reader._writers[b"\x00\x00\x00\x00\x01"] = Writer(lambda value: dict(records[value[5]]))  # type: ignore[attr-defined]
    both_alike(decoders[0], decoders[1], [b"\x00\x00\x00\x00\x01" + bytes([n]) for n in range(len(records))])


def test_the_fast_path_is_taken() -> None:
    assert fast_path(EVERYTHING) is not None
    assert fast_path(REGISTERED) is not None


def _declare(annotations: dict[str, Any], **namespace: Any) -> type[Event]:
    body = {"__module__": __name__, "__annotations__": {"at": datetime} | annotations, **namespace}
    return type(Event)("Trial", (Event,), body, topic="t", time="at")


@pytest.mark.parametrize(
    "declare",
    [
        lambda: everything("json"),  # a default_factory
        lambda: _declare({"x": Annotated[int, BeforeValidator(int)]}),
        lambda: _declare({"x": list[date]}),
        lambda: _declare({"x": dict[int, float]}),
        lambda: _declare({"x": str}, x=Field("", validation_alias=AliasChoices("x", "y"))),
        lambda: _declare({"x": str}, model_config=ConfigDict(str_max_length=3)),
        lambda: _declare({"x": str}, model_config=ConfigDict(extra="forbid")),
        lambda: _declare({"x": str}, _x=field_validator("x")(lambda value: value)),
        lambda: _declare({"x": str}, model_post_init=lambda self, context: None),
    ],
)
def test_what_only_pydantic_can_read(declare: Callable[[], type[Event]]) -> None:
    assert fast_path(declare()) is None


def test_a_renamed_field_that_is_required_is_read_fast_by_its_newest_name() -> None:
    event = _declare({"x": str}, x=Field(validation_alias=AliasChoices("new", "old")))
    assert fast_path(event) is not None
    values = [b'{"at": 1, "new": "a"}', b'{"at": 1, "old": "b"}', b'{"at": 1, "old": "b", "new": "c"}', b'{"at": 1}']
    batch = Batch.of("t", [FakeMessage(value, offset) for offset, value in enumerate(values)])
    decoded = Decoder(event).decode(batch)
    assert decoded.table["x"].to_pylist() == ["a", "b", "c"]
    assert [(r.offset, r.path) for r in decoded.rejections] == [(3, "new")]
