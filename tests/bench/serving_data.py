"""What the serving benches read: five views of ten features over dense keys, folded by the real kernel and script."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from features import Count, Entity, FeatureService, FeatureView, Last, Max, Mean, Min, Sum
from features.plan import Definitions
from features.planner import compile_definitions
from schemas.event import Event

KEYS = 200
VIEWS = 5
ENTITIES = 100


class Trip(Event, topic="trips", time="ended_at", key=["driver"]):
    """One trip of a driver; a view reads one of its five columns."""

    ended_at: datetime
    driver: str
    x0: float
    x1: float
    x2: float
    x3: float
    x4: float


driver = Entity("driver", join_key="driver")


def windowed(number: int) -> FeatureView:
    """Ten features over 1 h and 24 h."""
    x = f"x{number}"
    features = {}
    for over in ("1h", "24h"):
        features |= {
            f"count{number}_{over}": Count(over=over),
            f"sum{number}_{over}": Sum(x, over=over),
            f"mean{number}_{over}": Mean(x, over=over),
            f"min{number}_{over}": Min(x, over=over),
            f"max{number}_{over}": Max(x, over=over),
        }
    return FeatureView(f"windowed{number}", entity=driver, source=Trip, features=features)


def latest(number: int) -> FeatureView:
    """Ten latest values."""
    x = f"x{number}"
    features = {f"last{number}_{k}": Last(f"{x} + {k}") for k in range(10)}
    return FeatureView(f"latest{number}", entity=driver, source=Trip, features=features)


def three_windows() -> FeatureView:
    """Ten features over 1 h, 24 h and 7 d."""
    features: dict[str, Any] = {}
    for over in ("1h", "24h", "7d"):
        features |= {
            f"count_{over}": Count(over=over),
            f"mean_{over}": Mean("x0", over=over),
            f"max_{over}": Max("x0", over=over),
        }
    return FeatureView("three", entity=driver, source=Trip, features=features | {"min_7d": Min("x0", over="7d")})


def definitions(project: str) -> Definitions:
    """All of it; services `ten` (one view), `windows` and `values` (50 features), `three`."""
    windows, values, three = [windowed(n) for n in range(VIEWS)], [latest(n) for n in range(VIEWS)], three_windows()
    return compile_definitions(
        project,
        [
            *windows,
            *values,
            three,
            FeatureService("ten", [windows[0]]),
            FeatureService("ten_latest", [values[0]]),
            FeatureService("windows", windows),
            FeatureService("values", values),
            FeatureService("three", [three]),
        ],
    )


def key(number: int) -> str:
    return f"driver-{number:05d}"


def trips(days: float, every_min: float) -> list[dict[str, Any]]:
    """Every key has an event in every tile of its windows."""
    chance = random.Random(7)
    now = datetime.now(UTC).replace(tzinfo=None)
    events = []
    for step in range(int(days * 24 * 60 / every_min)):
        at = now - timedelta(minutes=step * every_min)
        for number in range(KEYS):
            values = {f"x{n}": chance.uniform(-100, 100) for n in range(VIEWS)}
            events.append({"ended_at": at - timedelta(seconds=chance.random() * 30), "driver": key(number)} | values)
    events.sort(key=lambda event: event["ended_at"])
    return events
