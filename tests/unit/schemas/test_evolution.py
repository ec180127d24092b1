"""Old and new producers at once: added, removed, renamed and widened fields, and a value of an enum that is new."""

from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from schemas.decode import Batch, Decoded, Decoder
from schemas.event import Event
from schemas.registry import Registry
from schemas.rejection import Reason
from tests.unit.schemas.orders import FORMATS, NEW, NEWEST, OLD, Producer, expected_row, order, tolerant_order
from tests.unit.schemas.test_decode import FakeMessage

AT = datetime(2023, 11, 14, 22)


@pytest.fixture(params=FORMATS)
def format_(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def registry(unique: Callable[[str], str]) -> Registry:
    return Registry(f"mock://{unique('registry')}")


def decode(event: type[Event], format_: str, registry: Registry, producers: list[Producer]) -> Decoded:
    """What the n-th producer has written as order n."""
    values = [producer.message(format_, registry, AT, number) for number, producer in enumerate(producers)]
    messages = [FakeMessage(value, offset) for offset, value in enumerate(values)]
    return Decoder(event, registry).decode(Batch.of("orders", messages))


def test_old_and_new_producers_on_one_topic(format_: str, registry: Registry) -> None:
    decoded = decode(order("orders", format_), format_, registry, [OLD, NEW, NEW, OLD, OLD, NEW])
    assert not decoded.rejections
    rows = decoded.table.drop(["at", *(name for name in decoded.table.column_names if name.startswith("kafka_"))])
    assert rows.to_pylist() == [expected_row(n, is_new=n in (1, 2, 5)) for n in range(6)]


def test_an_unknown_enum_value_is_a_rejection_and_nothing_else_is(format_: str, registry: Registry) -> None:
    decoded = decode(order("orders", format_), format_, registry, [OLD, NEWEST, NEW])
    assert decoded.table["kafka_offset"].to_pylist() == [0, 2]
    assert [(r.reason, r.path, r.offset) for r in decoded.rejections] == [(Reason.BAD_VALUE, "channel", 1)]


def test_a_schema_may_have_a_place_for_unknown_enum_values(format_: str, registry: Registry) -> None:
    decoded = decode(tolerant_order("orders", format_), format_, registry, [OLD, NEWEST, NEW])
    assert not decoded.rejections
    assert decoded.table["channel"].to_pylist() == ["web", "other", "shop"]


def test_narrowing_is_seen(format_: str, registry: Registry) -> None:
    """The class of yesterday and the producer of today: a fraction is no integer, a name that is gone is missing."""

    class Yesterday(Event, topic="orders", time="at", format=format_):
        at: datetime
        amount: int

    class Named(Event, topic="orders", time="at", format=format_):
        at: datetime
        customer: str

    (rejection,) = decode(Yesterday, format_, registry, [NEW]).rejections
    assert (rejection.reason, rejection.path) == (Reason.WRONG_TYPE, "amount")
    (rejection,) = decode(Named, format_, registry, [NEW]).rejections
    assert (rejection.reason, rejection.path) == (Reason.MISSING_FIELD, "customer")
