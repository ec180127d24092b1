"""The SQL of a handful of plans, readable in tests/unit/features/golden/. A change of it is seen in review.

To write the files anew: HEADRACE_TEST_GOLDEN=write pytest tests/unit/features/test_golden_sql.py
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from features import (
    Calendar,
    Count,
    Entity,
    FeatureView,
    Kurtosis,
    Last,
    LatestView,
    Mean,
    Sum,
    Union,
    Window,
    sql,
)
from schemas.event import Event

GOLDEN = Path(__file__).with_name("golden")


class Departure(Event, topic="golden_departures", time="at", key=["origin"]):
    at: datetime
    origin: str
    dest: str
    delay_min: float | None


class Arrival(Event, topic="golden_arrivals", time="at", key=["dest"]):
    at: datetime
    dest: str
    delay_min: float | None


origin, dest, station = Entity("origin"), Entity("dest"), Entity("station")
VIEWS = {
    "windowed": FeatureView(
        "windowed",
        entity=origin,
        source=Departure,
        where="delay_min IS NOT NULL",
        features={
            "n": Count(over="1h"),
            "late": Count(over=Window("24h", hop="15m"), where="delay_min > 15"),
            "mean": Mean("delay_min", over="24h"),
            "last": Last("dest"),
        },
    ),
    "composite": FeatureView("composite", entities=[origin, dest], source=Departure, features={"n": Count()}),
    "union": FeatureView(
        "union",
        entity=station,
        source=Union({Departure: {"station": "origin", "sign": "1"}, Arrival: {"station": "dest", "sign": "-1"}}),
        features={"there": Sum("sign")},
    ),
    "beside": FeatureView(
        "beside",
        entity=origin,
        source=Departure,
        features={"k": Kurtosis("delay_min", over=Calendar("day", tz="America/New_York"))},
    ),
    "latest": LatestView("latest", entity=origin, source=Departure, fields=["dest", "delay_min"], ttl="7d"),
}


@pytest.mark.parametrize("name", VIEWS)
def test_the_sql_of_a_plan_is_what_was_reviewed(name: str) -> None:
    plan = VIEWS[name].plan
    events = sql.events(plan, [f"source_{n}" for n in range(len(plan.sources))])
    deltas = sql.deltas(plan, "prepared")
    text = f"-- the prepared events\n{events};\n\n-- the partial aggregates of a micro-batch\n{deltas};\n"
    file = GOLDEN / f"{name}.sql"
    if os.environ.get("HEADRACE_TEST_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.read_text() == text
