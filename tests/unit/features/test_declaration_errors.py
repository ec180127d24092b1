"""Every mistake in a declaration is found where it is written: file, view, feature, the fact, the next step."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from features import (
    Calendar,
    Count,
    DecayedSum,
    DerivedView,
    Enriched,
    Entity,
    FeatureService,
    FeatureView,
    Histogram,
    Lag,
    LastK,
    LatestView,
    Max,
    Mean,
    Quantile,
    Request,
    Sum,
    Union,
    Variance,
    Window,
    udf,
)
from features.planner import compile_definitions
from schemas.errors import DefinitionError
from schemas.event import Event


class Flight(Event, topic="error_flights", time="departed_at", key=["origin"]):
    departed_at: datetime
    origin: str
    carrier: str
    tail: list[str]
    dep_delay_min: float | None


class Landing(Event, topic="error_landings", time="landed_at", key=["dest"]):
    landed_at: datetime
    dest: str


class Stored(Event, table="lake.flights", time="departed_at", key=["origin"]):
    departed_at: datetime
    origin: str


@udf(returns=float)
def doubled(delay: Any) -> Any:
    """Reads a column that no event here has."""
    return delay


airport = Entity("airport", join_key="origin")


def view(features: Any = None, **keywords: Any) -> FeatureView:
    return FeatureView(
        keywords.pop("name", "delays"),
        entity=keywords.pop("entity", airport),
        source=keywords.pop("source", Flight),
        features={"f": Count()} if features is None else features,
        **keywords,
    )


delays = view()

# What is declared; what the message must say: feature (or empty), the fact, what was got, the next step.
MISTAKES: dict[str, tuple[Callable[[], object], str, str, str, str]] = {
    "unknown column": (
        lambda: view({"f": Mean("dep_delay")}),
        "feature 'f'",
        "no such column",
        "'dep_delay'",
        "did you mean 'dep_delay_min'?",
    ),
    "unknown column in where": (
        lambda: view({"f": Count(where="carier = 'AA'")}),
        "feature 'f'",
        "no such column",
        "'carier'",
        "did you mean 'carrier'?",
    ),
    "unknown column in the view's where": (
        lambda: view(where="orgin = 'JFK'"),
        "",
        "no such column",
        "'orgin'",
        "did you mean 'origin'?",
    ),
    "wrong type": (
        lambda: view({"f": Mean("carrier")}),
        "feature 'f'",
        "Mean needs a number",
        "'carrier' of type string",
        "cast it",
    ),
    "where is no condition": (
        lambda: view({"f": Count(where="dep_delay_min + 1")}),
        "feature 'f'",
        "where= is a condition",
        "of type float64",
        "compare it",
    ),
    "does not parse": (
        lambda: view({"f": Sum("dep_delay_min +")}),
        "feature 'f'",
        "does not parse",
        "'dep_delay_min +'",
        "DuckDB says",
    ),
    "types that do not meet": (
        lambda: view({"f": Sum("carrier + 1.5 + origin[1:2] // tail")}),
        "feature 'f'",
        "the expression has no meaning",
        "tail",
        "DuckDB says",
    ),
    "an aggregate": (
        lambda: view({"f": Mean("sum(dep_delay_min)")}),
        "feature 'f'",
        "may not aggregate",
        "sum()",
        "use Sum, Mean, Count",
    ),
    "a subquery": (
        lambda: view({"f": Sum("(SELECT 1)")}),
        "feature 'f'",
        "may not contain a subquery",
        "",
        "one event at a time",
    ),
    "the clock": (
        lambda: view({"f": Sum("epoch(now())")}),
        "feature 'f'",
        "only functions of their row alone are allowed",
        "now()",
        "the clock",
    ),
    "chance": (lambda: view({"f": Sum("random()")}), "feature 'f'", "their row alone", "random()", "chance"),
    "an unknown function": (
        lambda: view({"f": Sum("absolut(dep_delay_min)")}),
        "feature 'f'",
        "no such function",
        "absolut",
        "did you mean",
    ),
    "a window that is no duration": (
        lambda: view({"f": Mean("dep_delay_min", over="6 parsecs")}),
        "",
        "a window is a duration",
        "'6 parsecs'",
        'write "90s"',
    ),
    "a window of nothing": (
        lambda: view({"f": Count(over="0s")}),
        "",
        "longer than nothing",
        "'0s'",
        'write "5m" or more',
    ),
    "a window that is a number": (
        lambda: view({"f": Count(over=6)}),  # type: ignore[arg-type]
        "",
        "over= takes a duration or a Window",
        "6",
        'write over="6h" or None',
    ),
    "a bad hop": (lambda: view({"f": Count(over=Window("6h", hop="x"))}), "", "a hop is a duration", "'x'", "write"),
    "a bad ending": (
        lambda: view({"f": Count(over=Window("6h", ending="24h"))}),
        "",
        "a window ends some time ago",
        "'24h'",
        'ending="24h ago"',
    ),
    "too many tiles": (
        lambda: view({"f": Count(over=Window("30d", hop="1m"))}),
        "",
        "at most 2,000 tiles an entity",
        "43,201",
        'give a hop of at least "30m"',
    ),
    "missing expression": (
        lambda: view({"f": Mean()}),
        "",
        "Mean needs an expression",
        "",
        'write Mean("column", over="6h")',
    ),
    "an unknown unit of a calendar": (
        lambda: view({"f": Count(over=Calendar("fortnight"))}),
        "",
        "a calendar's unit is one of hour, day, week, month",
        "'fortnight'",
        "Calendar(",
    ),
    "an unknown zone": (
        lambda: view({"f": Count(over=Calendar("day", tz="Europe/Atlantis"))}),
        "",
        "tz= is a time zone",
        "'Europe/Atlantis'",
        "America/New_York",
    ),
    "a lag of nothing that is there": (
        lambda: view({"count": Count(over="1h"), "f": Lag("cuont", "1h")}),
        "feature 'f'",
        "Lag names a feature of its view",
        "'cuont'",
        "did you mean 'count'?",
    ),
    "a lag of a calendar": (
        lambda: view({"c": Count(over=Calendar("day")), "f": Lag("c", "24h")}),
        "feature 'f'",
        "a calendar can't be lagged",
        "Lag('c', '24h')",
        "ago=1",
    ),
    "a lag of a lag": (
        lambda: view({"c": Count(over="1h"), "l": Lag("c", "1h"), "f": Lag("l", "1h")}),
        "feature 'f'",
        "a Lag can't be lagged",
        "Lag('l', '1h')",
        "lag the feature itself",
    ),
    "a k of nothing": (
        lambda: view({"f": LastK("carrier", 0)}),
        "",
        "LastK: k is a whole number from 1 to 1,000",
        "0",
        "write 5",
    ),
    "a quantile in percent": (
        lambda: view({"f": Quantile("dep_delay_min", 90)}),
        "",
        "a number from 0 to 1",
        "90",
        "write 0.9",
    ),
    "edges that fall": (
        lambda: view({"f": Histogram("dep_delay_min", [5, 1])}),
        "",
        "rising numbers",
        "[5, 1]",
        "edges=[0, 15, 60]",
    ),
    "a bad half-life": (
        lambda: view({"f": DecayedSum("dep_delay_min", half_life="soon")}),
        "",
        "half_life= is a duration",
        "'soon'",
        'write "6h"',
    ),
    "by a number with a point": (
        lambda: view({"f": Count(by="dep_delay_min")}),
        "feature 'f'",
        "by= is one of string, int64, bool, date",
        "of type float64",
        "VARCHAR",
    ),
    "a udf over an unknown column": (
        lambda: view({"f": Sum(doubled)}),
        "feature 'f'",
        "udf doubled reads a column that the source does not have",
        "'delay'",
        "there are: departed_at",
    ),
    "an event enriched by a view of other keys": (
        lambda: Enriched(Landing, delays),
        "",
        "Landing has the join keys of view 'delays'",
        "no 'origin'",
        "of type string",
    ),
    "an event of a table enriched": (
        lambda: Enriched(Stored, delays),
        "",
        "Enriched() takes an event type of a topic",
        "Stored of a table or of files",
        "read both views in a service",
    ),
    "an event enriched by what only a request knows": (
        lambda: Enriched(Flight, Request(x=int)),  # type: ignore[arg-type]
        "",
        "Enriched() takes a FeatureView or a LatestView",
        "Request(x=int64)",
        "source=Enriched(Flight, plane_facts)",
    ),
    "a udf in a derived view": (
        lambda: DerivedView("d", inputs=[delays], features={"g": doubled}),  # type: ignore[dict-item]
        "g",
        "a derived feature is SQL",
        "udf doubled",
        "call the udf in a FeatureView's feature",
    ),
    "a sum of decimals that are too wide": (
        lambda: view({"f": Sum("(dep_delay_min)::DECIMAL(30, 2)")}),
        "feature 'f'",
        "Sum takes decimals of at most 28 digits, so that no sum overflows",
        "decimal(30,2)",
        "x::DECIMAL(28, 2)",
    ),
    "a value of a decimal that is too wide": (
        lambda: view({"f": Max("(dep_delay_min)::DECIMAL(20, 2)")}),
        "feature 'f'",
        "Max keeps decimals of at most 18 digits",
        "decimal(20,2)",
        "x::DECIMAL(18, 2)",
    ),
    "a union of different columns": (
        lambda: Union({Flight: {"origin": "origin"}, Landing: {"airport": "dest"}}),
        "",
        "the events of a Union have the same columns",
        "Flight: origin; Landing: airport",
        "Union(",
    ),
    "a union of different types": (
        lambda: view(source=Union({Flight: {"origin": "origin"}, Landing: {"origin": "length(dest)"}})),
        "origin",
        "a column of a Union has one type",
        "string in Flight, int64 in Landing",
        "cast one",
    ),
    "a field that is no column": (
        lambda: LatestView("newest", entity=airport, source=Flight, fields=["carier"]),
        "field 'carier'",
        "Flight has no such column",
        "'carier'",
        "did you mean 'carrier'?",
    ),
    "a bad ttl": (
        lambda: LatestView("newest", entity=airport, source=Flight, fields=["carrier"], ttl="a year"),
        "",
        "ttl= is a duration",
        "'a year'",
        "365d",
    ),
    "no entity": (
        lambda: FeatureView("delays", source=Flight, features={"f": Count()}),
        "",
        "entity= or entities=",
        "neither",
        "Entity(",
    ),
    "entity is text": (lambda: view(entity="airport"), "", "entity= takes an Entity", "'airport'", "Entity("),
    "no column for the join key": (
        lambda: view(entity=Entity("airport")),
        "",
        "Flight has no column for the join key of entity 'airport'",
        "'airport'",
        "its columns are: departed_at, origin",
    ),
    "a join key of a type that is none": (
        lambda: view(entity=Entity("delay", join_key="dep_delay_min")),
        "",
        "a join key is one of",
        "'dep_delay_min' of type float64",
        "key by another column",
    ),
    "no features": (lambda: view({}), "", "at least one feature", "{}", "Count()"),
    "a feature that is text": (
        lambda: view({"f": "count(*)"}),
        "f",
        "a feature is an aggregation",
        "'count(*)'",
        "write Mean(",
    ),
    "a bad view name": (lambda: view(name="Delays"), "", "a name of a view", "'Delays'", "airport_delays"),
    "a bad feature name": (lambda: view({"a__b": Count()}), "", "a name of a feature", "'a__b'", "airport_delays"),
    "no event": (lambda: view(source="flights"), "", "source= is an event type", "'flights'", "source=Flight"),
    "list in Min": (
        lambda: view({"f": Variance("tail[1:]")}),
        "feature 'f'",
        "Variance needs",
        "of type list<string>",
        "",
    ),
    "a derived view over an unknown feature": (
        lambda: DerivedView("d", inputs=[delays], features={"g": "delays.ff + 1"}),
        "feature 'g'",
        "delays has no such feature",
        "'delays.ff'",
        "did you mean 'f'?",
    ),
    "a derived view over an unknown view": (
        lambda: DerivedView("d", inputs=[delays], features={"g": "delay.f + 1"}),
        "feature 'g'",
        "no such column",
        "'delay.f'",
        "did you mean 'delays'?",
    ),
    "a request column of no type": (lambda: Request(x=object), "x", "a type that headrace keeps", "object", "int64"),
    "a service over nothing": (
        lambda: FeatureService("s", []),
        "service 's'",
        "at least one feature",
        "",
        "FeatureService(",
    ),
    "a service over a feature that is none": (
        lambda: FeatureService("s", [delays["g"]]),
        "view 'delays'",
        "no such feature",
        "'g'",
        "there are: f",
    ),
    "a feature twice in a service": (
        lambda: FeatureService("s", [delays, delays["f"]]),
        "service 's'",
        "names each feature once",
        "delays:f",
        "",
    ),
    "a share above one": (
        lambda: FeatureService("s", [delays], log=2),
        "service 's'",
        "a share of entities, 0 to 1",
        "2",
        "log=0.01",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained(mistake: str) -> None:
    declare, feature, fact, got, hint = MISTAKES[mistake]
    with pytest.raises(DefinitionError) as caught:
        declare()
    message = str(caught.value)
    for part in (feature, fact, got, hint):
        assert part in message, message


@pytest.mark.parametrize("mistake", ["unknown column", "wrong type", "does not parse", "too many tiles", "no entity"])
def test_a_mistake_in_a_view_names_file_line_and_view(mistake: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        MISTAKES[mistake][0]()
    file = Path(__file__).name
    assert re.match(rf"\S*{re.escape(file)}:\d+: view 'delays': ", str(caught.value)), str(caught.value)


def test_two_views_of_one_name_are_found_with_both_places() -> None:
    with pytest.raises(DefinitionError) as caught:
        compile_definitions("p", [view(), view({"g": Count()})])
    assert "two declarations of view 'delays'" in str(caught.value)
    assert str(caught.value).count(Path(__file__).name) == 2


def test_a_service_over_a_view_that_is_not_declared() -> None:
    service = FeatureService("s", [delays])
    with pytest.raises(DefinitionError, match="no such view"):
        compile_definitions("p", [service, Flight])
