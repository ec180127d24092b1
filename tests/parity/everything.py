"""Every aggregation over every kind of window as one project, and a log for it: what each runner and engine is given.

Where test_aggregations.py and test_language.py generate views and call the fold and the read themselves, here real
processes do the work, so that everything is declared once: each case over all of `WINDOWS`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import orjson
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features import Calendar, Count, FeatureService, FeatureView, LatestView, Mean, Sum, Union
from features.plan import Definitions
from features.planner import compile_definitions
from schemas.event import Event
from tests import oracle
from tests.oracle import Spec
from tests.parity import world
from tests.parity.declared import LIFETIME, Feature, Over, feature, sensor, us, window
from tests.parity.test_aggregations import CASES, near_a_mean, small
from tests.parity.test_language import FIELDS, NESTED, Other, few_words, lagged, scaled
from tests.parity.world import START_US, VALUES, histories, instant

WINDOWS: list[Over] = [
    LIFETIME,
    *map(window, ("1h", "6h", "12h", "3d", "12d")),
    *(window(*each) for each in (("50m", "7m"), ("7m", "1h"), ("30h", "7h"), ("5d", "9d"), ("3h", "1d"))),
    *(window(*each) for each in (("10m", None, "1m"), ("3h", "5m", "30h"), ("2d", "3h", "1h"))),
]
NEW_YORK_BACK_US = 1_699_160_400_000_000
"""2023-11-05T05:00Z, an hour before the clocks go back."""
ZONES = ("America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
HISTORIES = 6
"""Of each kind, two sensors each."""
CALM = {"x": near_a_mean, "n": st.one_of(small, st.just(7)), "s": few_words}
"""Inputs for features whose accuracy is stated relative to their spread, and that meet again."""
SERVICE = "all"


class Expected(NamedTuple):
    """A view's features with the oracle's words for them; for a LatestView its ttl instead."""

    features: dict[str, Feature]
    ttl_us: int | None = None
    fields: tuple[str, ...] = ()


class Logged(NamedTuple):
    """An event as it is to be produced, and as the oracle knows it: `source` 0 is Reading, 1 is Other."""

    sensor: str | None
    event: oracle.Event


class Everything(NamedTuple):
    """The project, and what is expected of each view."""

    definitions: Definitions
    expected: dict[str, Expected]


def events_on(readings: str, others: str) -> dict[str, type[Event]]:
    """The event types on topics of their own."""

    class Reading(world.Reading, topic=readings, time="at", key=["sensor"]):
        """A row with a column of every type."""

    class Another(Other, topic=others, time="happened", key=["device"]):
        """Another event of the same sensors."""

    return {"Reading": Reading, "Another": Another}


def declare(project: str, readings: str, others: str) -> Everything:
    """Every case as a view, and one service over all of them."""
    types = events_on(readings, others)
    reading = types["Reading"]
    views: list[FeatureView] = []
    expected: dict[str, Expected] = {}

    def add(name: str, features: dict[str, Feature], source: Any = reading, **more: Any) -> None:
        declared = {key: each.declared for key, each in features.items()}
        views.append(FeatureView(name, entity=sensor, source=source, features=declared, shards=2, **more))
        expected[name] = Expected(features)

    for name, case in CASES.items():
        made = [make(over) for make in case.makes for over in WINDOWS]
        add(name, {f"f{number}": each for number, each in enumerate(made)})
    for name, (_, makes) in NESTED.items():
        made = [feature(kind, column, over, **options) for kind, column, options in makes for over in WINDOWS]
        add(name.replace(" ", "_"), {f"f{number}": each for number, each in enumerate(made)})
    add("lags", _lags())
    for zone in ZONES:
        add(zone.replace("/", "_").lower(), _calendars(zone))
    add("computed", _computed())
    read = {
        reading: {"sensor": "sensor", "x": "x", "s": "s"},
        types["Another"]: {"sensor": "device", "x": "-y", "s": "s"},
    }
    two = {"sum": ("Sum", "x", {}), "last": ("Last", "s", {}), "lasts": ("LastK", "x", {"k": 3})}
    features = {
        f"{name}_{number}": feature(kind, column, over, **options)
        for name, (kind, column, options) in two.items()
        for number, over in enumerate(WINDOWS)
    }
    add("both", features, Union(read), where="x IS NOT NULL OR s IS NOT NULL")
    for name, ttl in (("newest", None), ("newest_of_an_hour", "1h")):
        views.append(LatestView(name, entity=sensor, source=reading, fields=FIELDS, ttl=ttl, shards=2))
        expected[name] = Expected({}, None if ttl is None else us(ttl), FIELDS)
    everything = FeatureService(SERVICE, views, clock="event")
    return Everything(compile_definitions(project, [*views, everything]), expected)


def loaded(readings: str, others: str) -> dict[str, type[Event]]:
    """What a task in another process loads: the event types, and the udfs that the views call."""
    declare("loaded", readings, others)
    return events_on(readings, others)


def _lags() -> dict[str, Feature]:
    chosen = {}
    for number, over in enumerate(WINDOWS):
        each = {
            "sum": feature("Sum", "x", over),
            "min": feature("Min", "n", over),
            "last": feature("Last", "s", over),
            "list": feature("LastK", "s", over, k=2),
            "decayed": feature("DecayedSum", "x", over, half_life="6h"),
        }
        for name, of in each.items():
            chosen[f"{name}_{number}"] = of
            chosen[f"{name}_{number}_before"] = lagged(f"{name}_{number}", of, ("7m", "1h", "30h")[number % 3])
    return chosen


def _calendars(zone: str) -> dict[str, Feature]:
    chosen = {}
    for unit in ("hour", "day", "week", "month"):
        for ago in range(3):
            over = Calendar(unit, tz=zone, ago=ago)
            chosen[f"{unit}_{ago}_sum"] = Feature(Sum("x", over=over), Spec("Sum", "x", calendar=(unit, zone, ago)))
            chosen[f"{unit}_{ago}_n"] = Feature(Count(over=over), Spec("Count", None, calendar=(unit, zone, ago)))
    return chosen


def _computed() -> dict[str, Feature]:
    """Of calm sensors alone: see `expected_value`."""
    return {
        "sum": Feature(Sum(scaled), Spec("Sum", "scaled")),
        "mean": Feature(Mean(scaled, over="6h"), Spec("Mean", "scaled", us("6h"))),
    }


def generated_log() -> list[Logged]:
    """Generated histories, one after the other; the same in every run."""
    log: list[Logged] = []
    for kind, values in (("wild", {}), ("calm", CALM)):
        for number in range(HISTORIES):
            around = (START_US, NEW_YORK_BACK_US)[number % 2]
            history = _example(histories(sorted(VALUES), values, events_max=18, around_us=around, sources=2), number)
            for name, event in history:
                key = None if name is None else f"{kind}{number}{name}"
                log.append(Logged(key, event._replace(row=_computed_row(event.row))))
    return placed(log)


def _example(histories_: st.SearchStrategy[Any], number: int) -> Any:
    """One of the longer histories that Hypothesis generates."""
    found: list[Any] = []

    @settings(
        max_examples=20,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(histories_)
    def collect(history: Any) -> None:
        found.append(history)

    collect()
    return sorted(found, key=len)[-1 - number]


def _computed_row(row: dict[str, Any]) -> dict[str, Any]:
    x, n = row["x"], row["n"]
    return row | {"scaled": None if x is None or n is None or n == 7 else float(x) * float(n) + 0.0}


def placed(log: Sequence[Logged]) -> list[Logged]:
    """With the offsets that the events get when they are produced in this order to topics without events."""
    ends: dict[tuple[int, int], int] = {}
    result = []
    for key, event in log:
        place = (event.source, event.partition)
        result.append(Logged(key, event._replace(offset=ends.setdefault(place, 0))))
        ends[place] += 1
    return result


def message(logged: Logged) -> bytes:
    """The event as JSON."""
    row, at = logged.event.row, instant(logged.event.t).isoformat()
    if logged.event.source == 1:
        body = {"happened": at, "device": logged.sensor, "y": row["x"], "s": row["s"]}
    else:
        body = {name: row[name] for name in VALUES} | {"at": at, "sensor": logged.sensor}
    return orjson.dumps({name: _plain(value) for name, value in body.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, date | datetime) else value


def expected_rows(
    everything: Everything, log: Sequence[Logged], view: str, queries: Sequence[tuple[str, int]]
) -> list[dict[str, Any]]:
    """What the oracle says of each (sensor, instant); without what is not promised for the sensor's values.

    Approximate features hold relative to the spread of their inputs, and a udf in Arrow refuses integers that a double
    does not hold: both are asked of calm sensors alone.
    """
    of = everything.expected[view]
    by_sensor: dict[str | None, list[oracle.Event]] = {}
    for key, event in log:
        if view == "both" or event.source == 0:
            row = event.row
            if event.source == 1 and row["x"] is not None:
                row = row | {"x": 0.0 - row["x"]}
            if view != "both" or row["x"] is not None or row["s"] is not None:
                by_sensor.setdefault(key, []).append(event._replace(row=row))
    answers = []
    for key, q in queries:
        events = by_sensor.get(key, [])
        if of.fields:
            newest = oracle.latest(events, q, of.ttl_us) or {}
            answers.append({name: newest.get(name) for name in of.fields})
            continue
        promised = {n: e for n, e in of.features.items() if key.startswith("calm") or _is_exact(view, e)}
        answers.append({name: oracle.value(each.spec, events, q) for name, each in promised.items()})
    return answers


def _is_exact(view: str, each: Feature) -> bool:
    return view != "computed" and each.spec.kind not in oracle.APPROXIMATE
