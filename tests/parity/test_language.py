"""Maps, lists, lags, calendars, latest values, unions and udfs: offline = online = oracle."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from features import Calendar, Count, FeatureView, Lag, LatestView, Mean, Sum, Union, udf
from features.kernel import Kernel
from schemas.event import Event, log_schema
from tests import oracle
from tests.oracle import Spec
from tests.parity.compare import History, check
from tests.parity.declared import LIFETIME, WHERES, Feature, Over, feature, sensor, us, view, windows
from tests.parity.executors import Online, offline
from tests.parity.world import SENSORS, START_US, Reading, histories, instant, log_table

# Generated cases by the hundred: a busy machine may take its time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
batches = st.lists(st.integers(1, 8), max_size=2)
aheads = st.lists(st.sampled_from([1, 7, MINUTE_US, 5 * MINUTE_US, HOUR_US, 26 * HOUR_US]), min_size=2, max_size=4)
few_words = st.sampled_from(["a", "b", "ab", "ä"])

NESTED: dict[str, tuple[str, list[tuple[str, str | None, dict[str, Any]]]]] = {
    "by": (
        "x s room n",
        [
            ("Sum", "x", {"by": "s"}),
            ("Count", None, {"by": "room"}),
            ("Count", "x", {"by": "s", "where": WHERES[0]}),
            ("Count", None, {"by": "s", "where": WHERES[0]}),
            ("Last", "n", {"by": "s"}),
            ("Mean", "x", {"by": "room"}),
        ],
    ),
    "by of variable size": (
        "s room n",
        [
            ("Last", "s", {"by": "room"}),
            ("Max", "s", {"by": "n"}),
            ("LastK", "s", {"by": "room", "k": 2}),
            ("CountDistinct", "s", {"by": "room", "limit": 3}),
            ("Quantile", "n", {"by": "s", "p": 0.5}),
        ],
    ),
    "vectors": ("vector", [(kind, "vector", {}) for kind in ("Sum", "Mean", "Min", "Max", "Last", "Count")]),
    "flattened": (
        "tags",
        [
            ("CountDistinct", "tags", {"limit": 3}),
            ("LastK", "tags", {"k": 3}),
            ("LastK", "tags", {"k": 2, "distinct": True}),
            ("TopK", "tags", {"k": 2}),
            ("MostFrequent", "tags", {"k": 2}),
            ("First", "tags", {}),
        ],
    ),
    "maps": ("weights", [("Sum", "weights", {}), ("Max", "weights", {}), ("Count", "weights", {})]),
    "maps by": ("weights vector room", [("Sum", "weights", {"by": "room"}), ("Min", "vector", {"by": "room"})]),
}


@pytest.mark.parametrize("name", NESTED)
def test_maps_and_lists(name: str, kernel: Kernel, client: redis.Redis, cases: Counter[str]) -> None:
    columns, makes = NESTED[name]

    @given(
        over=windows,
        history=histories(columns.split(), {"s": few_words, "n": st.integers(-1, 1)}),
        batches=batches,
        ahead=aheads,
    )
    def run(over: Over, history: History, batches: list[int], ahead: list[int]) -> None:
        chosen = {
            f"f{i}_{j}": feature(kind, column, each, **options)
            for i, (kind, column, options) in enumerate(makes)
            for j, each in enumerate((over, LIFETIME))
        }
        check(kernel, client, view(chosen).plan, chosen, history, batches, ahead, cases)

    run()


def lagged(name: str, of: Feature, lag: str) -> Feature:
    hop_us = of.spec.hop if of.spec.size_us is not None else replace(of.spec, size_us=us(lag)).hop
    spec = replace(
        of.spec,
        ending_us=of.spec.ending_us + us(lag),
        hop_us=hop_us,
        options=of.spec.options | {"lag_us": us(lag)},
    )
    return Feature(Lag(name, lag), spec)


@given(
    over=st.one_of(windows, st.just(LIFETIME), st.just(LIFETIME)),
    lag=st.sampled_from(["7m", "1h", "30h"]),
    history=histories(["x", "s", "n"], {"x": st.floats(-9, 9)}),
    batches=batches,
    ahead=aheads,
)
def test_a_lag_is_the_feature_with_its_window_ending_earlier(
    over: Over,
    lag: str,
    history: History,
    batches: list[int],
    ahead: list[int],
    kernel: Kernel,
    client: redis.Redis,
    cases: Counter[str],
) -> None:
    chosen = {
        "sum": feature("Sum", "x", over),
        "min": feature("Min", "n", over),
        "last": feature("Last", "s", over),
        "list": feature("LastK", "s", over, k=2),
        "decayed": feature("DecayedSum", "x", over, half_life="6h"),
    }
    chosen |= {f"{name}_before": lagged(name, each, lag) for name, each in chosen.items()}
    check(kernel, client, view(chosen).plan, chosen, history, batches, ahead, cases)


NEW_YORK_BACK_US = 1_699_160_400_000_000  # 2023-11-05T05:00Z, an hour before the clocks go back
NEW_YORK_ON_US = 1_678_600_800_000_000  # 2023-03-12T06:00Z, an hour before they go forward


@pytest.mark.parametrize("around_us", [NEW_YORK_BACK_US, NEW_YORK_ON_US])
@pytest.mark.parametrize("tz", ["America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"])
def test_calendars(tz: str, around_us: int, kernel: Kernel, client: redis.Redis, cases: Counter[str]) -> None:
    @given(
        ago=st.integers(0, 2),
        history=histories(["x", "s"], around_us=around_us, events_max=15),
        batches=batches,
        ahead=aheads,
    )
    def run(ago: int, history: History, batches: list[int], ahead: list[int]) -> None:
        chosen = {}
        for unit in ("hour", "day", "week", "month"):
            over = Calendar(unit, tz=tz, ago=ago)
            chosen[f"{unit}_sum"] = Feature(Sum("x", over=over), Spec("Sum", "x", calendar=(unit, tz, ago)))
            chosen[f"{unit}_n"] = Feature(Count(over=over), Spec("Count", None, calendar=(unit, tz, ago)))
        check(kernel, client, view(chosen).plan, chosen, history, batches, ahead, cases)

    run()


FIELDS = ("x", "n", "s", "flag", "day", "seen", "price", "tags", "vector", "weights")


@pytest.mark.parametrize("ttl", [None, "1h"])
def test_latest_values(ttl: str | None, kernel: Kernel, client: redis.Redis, cases: Counter[str]) -> None:
    plan = LatestView("newest", entity=sensor, source=Reading, fields=FIELDS, ttl=ttl, shards=2).plan

    @given(history=histories(FIELDS), batches=batches, ahead=aheads)
    def run(history: History, batches: list[int], ahead: list[int]) -> None:
        def expected(key: str, q: int) -> dict[str, Any]:
            events = [event for name, event in history if name == key]
            row = oracle.latest(events, q, None if ttl is None else us(ttl)) or {}
            return {name: row.get(name) for name in FIELDS}

        queries = [(key, event.t + d) for key in SENSORS for _, event in history[::3] for d in (0, 1, HOUR_US)]
        for (key, q), answer in zip(queries, offline(kernel, plan, [log_table(history)], queries), strict=True):
            assert plain(answer) == expected(key, q)
        online = Online(client, kernel, plan)
        folded = 0
        for size in [*batches, len(history)]:
            online.fold([log_table(history[folded : folded + size])])
            folded += size
        newest = max((event.t for _, event in history), default=START_US)
        for ahead_us in ahead:
            for key, answer in zip(SENSORS, online.read(SENSORS, newest + ahead_us), strict=True):
                assert plain(answer) == expected(key, newest + ahead_us)
        online.drop()
        cases["histories"] += 1
        cases["values offline"] += len(queries) * len(FIELDS)
        cases["values online"] += len(ahead) * len(SENSORS) * len(FIELDS)

    run()


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """A map of Arrow, a list of pairs, as a dict."""
    return {name: dict(v) if name == "weights" and v is not None else v for name, v in answer.items()}


class Other(Event, topic="others", time="happened", key=["device"]):
    """Another event of the same sensors: what Reading calls x is −y here."""

    happened: datetime
    device: str | None
    y: float | None
    s: str | None


@given(history=histories(["x", "s"], sources=2), batches=batches, ahead=aheads, over=windows)
def test_a_union_reads_several_events_as_one(
    history: History,
    batches: list[int],
    ahead: list[int],
    over: Over,
    kernel: Kernel,
    client: redis.Redis,
    cases: Counter[str],
) -> None:
    chosen = {
        "sum": feature("Sum", "x", over),
        "last": feature("Last", "s", over),
        "lasts": feature("LastK", "x", over, k=3),
    }
    source = Union(
        {
            Reading: {"sensor": "sensor", "x": "x", "s": "s"},
            Other: {"sensor": "device", "x": "-y", "s": "s"},
        }
    )
    both = FeatureView(
        "both",
        entity=sensor,
        source=source,
        features={name: each.declared for name, each in chosen.items()},
        where="x IS NOT NULL OR s IS NOT NULL",
        shards=2,
    )

    def tables(part: History) -> list[pa.Table]:
        return [log_table([each for each in part if each[1].source == 0]), others(part)]

    check(kernel, client, both.plan, chosen, history, batches, ahead, cases, tables)


def others(part: History) -> pa.Table:
    rows = [
        {
            "happened": instant(event.t),
            "device": name,
            "y": None if event.row["x"] is None else -event.row["x"],
            "s": event.row["s"],
            "kafka_partition": event.partition,
            "kafka_offset": event.offset,
            "kafka_timestamp": instant(event.t),
            "kafka_key": None,
        }
        for name, event in part
        if event.source == 1
    ]
    return pa.Table.from_pylist(rows, log_schema(Other.spec()))


@udf(returns=float)
def scaled(x: pa.Array, n: pa.Array) -> pa.Array:
    """x · n, in Python; fails for a row whose n is 7, as Python does."""
    if pc.any(pc.equal(n, 7)).as_py():
        raise ValueError("no sevens")
    return pc.multiply(x, n.cast(pa.float64()))


@given(
    history=histories(["x", "n"], {"x": st.floats(-9, 9), "n": st.sampled_from([0, 2, 7])}),
    batches=batches,
    ahead=aheads,
)
def test_a_udf_stands_where_an_expression_may(
    history: History, batches: list[int], ahead: list[int], kernel: Kernel, client: redis.Redis, cases: Counter[str]
) -> None:
    computed = [(name, event._replace(row=event.row | {"scaled": _scaled(event.row)})) for name, event in history]
    chosen = {
        "sum": Feature(Sum(scaled), Spec("Sum", "scaled")),
        "mean": Feature(Mean(scaled, over="6h"), Spec("Mean", "scaled", us("6h"))),
    }
    check(kernel, client, view(chosen).plan, chosen, computed, batches, ahead, cases)


def _scaled(row: dict[str, Any]) -> float | None:
    if row["x"] is None or row["n"] is None or row["n"] == 7:
        return None
    return float(row["x"] * float(row["n"])) + 0.0
