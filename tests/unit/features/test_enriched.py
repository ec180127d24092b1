"""An enriched event type: its columns, its topic, and what else it brings into a project."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

import orjson
import pytest
from pydantic import Field

from features import Count, Enriched, Entity, FeatureService, FeatureView, LatestView, Max, Mean, Union
from features.planner import compile_definitions, event_types
from schemas.decode import Batch, Decoder
from schemas.event import Event
from stream.enrich import message_of
from tests.unit.schemas.test_decode import FakeMessage


class Plane(Event, topic="planes", time="seen_at", key=["tailnum"]):
    seen_at: datetime
    tailnum: str
    seats: int | None
    price: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    parts: dict[str, float]
    photo: bytes
    built: date
    routes: list[str]


class Flight(Event, topic="flights", time="departed_at", key=["origin"], max_future="1m"):
    departed_at: datetime
    origin: str
    tailnum: str | None


plane, airport = Entity("plane", join_key="tailnum"), Entity("airport", join_key="origin")
facts = LatestView("plane_facts", entity=plane, source=Plane)


def test_the_columns_are_the_events_the_views_and_how_they_came_about() -> None:
    enriched = Enriched(Flight, facts)
    spec = enriched.made.spec()
    digits = facts.plan.fingerprint[:8]
    assert (spec.name, spec.topic) == (f"Flight_plane_facts_{digits}", f"enriched.flights.plane_facts.{digits}")
    assert (spec.time, spec.key, spec.max_future_us) == ("departed_at", ("origin",), 60_000_000)
    columns = {column.name: (column.type, column.nullable) for column in spec.columns}
    assert columns["tailnum"] == ("string", True)
    assert columns["plane_facts__price"] == ("decimal(12,2)", True)
    assert columns["plane_facts__parts"] == ("map<string,float64>", True)
    assert columns["plane_facts_answer"] == ("string", False)
    assert Enriched(Flight, facts).made is enriched.made


def test_it_brings_its_event_and_its_view_along() -> None:
    view = FeatureView(
        "seats_out", entity=airport, source=Enriched(Flight, facts), features={"n": Max("plane_facts__seats")}
    )
    service = FeatureService("airports", [view])
    definitions = compile_definitions("p", [view, service])
    assert set(definitions.views) == {"seats_out", "plane_facts"}
    assert {"Flight", "Plane", view.events[0].__name__} == set(definitions.events) == set(event_types([view]))
    # An event may be enriched long after its instant: what it is enriched by must not expire meanwhile.
    assert definitions.read_by_event_clock("plane_facts")
    assert not definitions.read_by_event_clock("seats_out")


def test_another_meaning_is_another_topic() -> None:
    other = LatestView("plane_facts", entity=plane, source=Plane, ttl="30d")
    one, two = Enriched(Flight, facts), Enriched(Flight, other)
    assert one.topic != two.topic
    named = [Enriched(Flight, view, topic="mine") for view in (facts, other)]
    fingerprints = [
        FeatureView("v", entity=airport, source=each, features={"n": Count()}).plan.fingerprint for each in named
    ]
    assert fingerprints[0] != fingerprints[1]


def test_enriched_once_more_and_in_a_union() -> None:
    counts = FeatureView("arrivals", entity=airport, source=Flight, features={"n": Count(over="1h")})
    twice = Enriched(Enriched(Flight, facts), counts)
    assert twice.topic == f"{Enriched(Flight, facts).topic}.arrivals.{counts.plan.fingerprint[:8]}"
    assert "arrivals__n" in {column.name for column in twice.made.spec().columns}
    union = Union({Flight: {"origin": "origin", "n": "0"}, twice: {"origin": "origin", "n": "arrivals__n"}})
    view = FeatureView("both", entity=airport, source=union, features={"n": Mean("n", over="1h")})
    assert [event.__name__ for event in view.events] == ["Flight", twice.made.__name__]


def test_what_a_worker_writes_is_read_as_it_was() -> None:
    row: dict[str, Any] = {
        "departed_at": datetime(2024, 5, 1, 12, 0, 0, 123_456),
        "origin": "JFK",
        "tailnum": None,
        "plane_facts__seen_at": datetime(2024, 5, 1),
        "plane_facts__seats": 2**62 + 1,
        "plane_facts__price": Decimal("1234567890.12"),
        "plane_facts__parts": {"wing": 0.1 + 0.2, "tail": 5e-324},
        "plane_facts__photo": b"\x00\xff",
        "plane_facts__built": date(1999, 12, 31),
        "plane_facts__routes": ["JFK–LAX", ""],
        "plane_facts_answer": "online",
    }
    sent = FakeMessage(message_of(row), timestamp=(2, 1_720_000_000_000))
    decoded = Decoder(Enriched(Flight, facts).made).decode(Batch.of("t", [sent]))
    assert decoded.rejections == []
    (got,) = decoded.table.select(list(row)).to_pylist(maps_as_pydicts="strict")
    assert got == row


def test_a_message_is_plain_json() -> None:
    assert orjson.loads(message_of({"at": datetime(2024, 5, 1), "x": None})) == {"at": "2024-05-01T00:00:00", "x": None}
    with pytest.raises(TypeError):
        message_of({"x": object()})
