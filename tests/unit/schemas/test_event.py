from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from schemas.errors import DefinitionError
from schemas.event import Column, Event, arrow_schema, log_schema


def declare(**keywords: Any) -> type[Event]:
    """An event type with columns `at`, `maybe_at`, `x`, `name` and `tags`, declared with the given keywords."""
    namespace = {
        "__module__": __name__,
        "__annotations__": {
            "at": datetime,
            "maybe_at": datetime | None,
            "x": float | None,
            "name": str,
            "tags": list[str],
        },
    }
    return type(Event)("Trial", (Event,), namespace, **keywords)


def test_a_spec_holds_what_was_declared() -> None:
    class Payment(Event, topic="payments", time="at", key=["card"], id="payment_id", dedupe_within="10m"):
        """A card payment."""

        at: datetime
        payment_id: str
        card: str
        amount: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
        currency: Literal["EUR", "USD"]
        tags: list[str] | None = None
        booked_on: date | None = None

    spec = Payment.spec()
    assert (spec.name, spec.topic, spec.time, spec.key, spec.id) == (
        "Payment",
        "payments",
        "at",
        ("card",),
        "payment_id",
    )
    assert (spec.dedupe_within_us, spec.max_future_us) == (600_000_000, 300_000_000)
    assert spec.description == "A card payment."
    assert spec.columns == (
        Column("at", "timestamp", False),
        Column("payment_id", "string", False),
        Column("card", "string", False),
        Column("amount", "decimal(12,2)", False),
        Column("currency", "string", False),
        Column("tags", "list<string>", True),
        Column("booked_on", "date", True),
    )
    assert log_schema(spec).names == [*arrow_schema(spec).names, *("kafka_" + n for n in _LOG)]


_LOG = ("partition", "offset", "timestamp", "key")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"topic": "t"}, "names the column of its instant"),
        ({"topic": "t", "time": "when"}, "time= names a column; got 'when'; there are: at, maybe_at, x, name, tags"),
        ({"topic": "t", "time": "x"}, "a datetime that is never None; got 'x' of type float64"),
        ({"topic": "t", "time": "maybe_at"}, "never None; got 'maybe_at' of type timestamp | None"),
        ({"time": "at"}, "stands on one topic=, in one table= or at one path=; got none"),
        ({"topic": "t", "table": "lake.t", "time": "at"}, "got topic='t', table='lake.t'"),
        ({"topic": "no spaces", "time": "at"}, "topic= is a name"),
        ({"topic": "..", "time": "at"}, "topic= is a name"),
        ({"topic": "t", "time": "at", "id": "tags"}, "an id is one value; got 'tags' of type list<string>"),
        ({"topic": "t", "time": "at", "key": ["nmae"]}, "key= names a column; got 'nmae'"),
        ({"topic": "t", "time": "at", "id": "nope"}, "id= names a column"),
        ({"topic": "t", "time": "at", "max_future": "soon"}, "max_future= is a duration; got 'soon'"),
        ({"topic": "t", "time": "at", "partitions": 4}, "unknown keyword of an event; got partitions"),
        ({"topic": "t", "time": "at", "format": "xml"}, "format= is one of"),
    ],
)
def test_a_declaration_that_cant_mean_anything_is_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        declare(**keywords)
    assert message in str(refused.value)
    assert "Trial" in str(refused.value)


def test_columns_have_types_that_headrace_keeps() -> None:
    with pytest.raises(DefinitionError, match="z: a column has a type that headrace keeps; got .*complex"):

        class Bad(Event, topic="t", time="at"):
            at: datetime
            z: Annotated[complex, "unused"] = 0j

    with pytest.raises(DefinitionError, match="a letter first"):

        class Reserved(Event, topic="t", time="at"):
            at: datetime
            kafka_offset: int


def test_a_class_without_a_place_is_no_event_type_yet() -> None:
    class Base(Event):
        at: datetime

    with pytest.raises(DefinitionError, match="says where its events stand"):
        Base.spec()

    class Concrete(Base, topic="t", time="at"):
        x: float

    assert [column.name for column in Concrete.spec().columns] == ["at", "x"]
