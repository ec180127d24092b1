"""The read of a few entities in plain Python equals the one read, and its JSON is the other way's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.merge import read_rows
from features.plan import ServicePlan
from serving.assemble import answer_json
from serving.few import FEW, Few, _View, is_few
from serving.read import Question, Reader
from serving.reading import ViewRead
from tests.unit.serving.online import Online, us
from tests.unit.serving.test_quick import CUSTOMERS, EVENTS, GENERATION, SHOP, online_rows
from tests.unit.serving.test_read import NOW, ORDERS, order

PLAN = SHOP.views["spending"]
LATEST = SHOP.views["newest"]
NAMES = tuple(
    feature.name for feature in PLAN.features if feature.finish.value != "stddev" and feature.type != "timestamp"
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(EVENTS, min_size=1, max_size=3), st.integers(1, 50 * 3_600_000_000) | st.just(3_600_000_000), st.booleans()
)
def test_a_loop_reads_what_read_rows_reads(batches: list[list[dict[str, Any]]], later: int, latest: bool) -> None:
    plan, names = (LATEST, ("amount", "items", "paid")) if latest else (PLAN, NAMES)
    found = online_rows(plan, batches)
    rows = [found.get(name) for name in CUSTOMERS]
    instant = us(NOW) + later
    expected = read_rows(plan, rows, [GENERATION] * 4, np.full(4, instant), names)
    view = _View(ViewRead(plan, names))
    for entity, row in enumerate(rows):
        values = view.values(row, instant)
        for name, value, column in zip(names, values, expected, strict=True):
            wanted = column.to_list()[entity]
            assert (type(value), orjson.dumps(value)) == (type(wanted), orjson.dumps(wanted)), name


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("customers", [["ann"], ["nobody"], ["ann", "bob", "nobody", "cleo", "ann", "x"]])
def test_its_answer_is_the_other_ways_answer(online: Online, reader: Reader, customers: list[str], full: bool) -> None:
    online.add({"Order": ORDERS})
    references = tuple(f"spending:{name}" for name in NAMES) + (() if not full else ("visits:orders", "visits:amount"))
    reading = reader._readings.of(references)
    assert is_few(reading)
    columns = {"customer": customers, "shop": [1] * len(customers), "unknown": [None] * len(customers)}
    few = Few(reading)
    question = few.question(columns)
    assert question is not None
    answer = orjson.loads(few.answer(question, reader._redis.ask(question.payload, 1), full))
    other = Question(reading, columns)
    vectors = other.answer(reader._redis.ask(other.payload, 1), None, reader._derive, reader._redis)
    wanted = orjson.loads(answer_json(vectors, full))
    for late in (answer, wanted):
        assert len(late["headrace"].pop("instants")) == len(late["headrace"].pop("ages_us")) == len(customers)
    assert answer == wanted


def test_a_latest_value_says_why_it_is_missing(online: Online, reader: Reader) -> None:
    online.add({"Order": [order("dan", 10, None, ordered_at=datetime.now(UTC).replace(tzinfo=None)), *ORDERS]})
    reading = reader._readings.of(("newest:amount", "newest:items", "newest:paid"))
    columns = {"customer": ["ann", "dan", "nobody"]}
    few = Few(reading)
    question = few.question(columns)
    assert question is not None
    answer = orjson.loads(few.answer(question, reader._redis.ask(question.payload, 1), False))
    assert answer["results"][1]["statuses"] == ["OUTSIDE_MAX_AGE", "NULL_VALUE", "NOT_FOUND"]
    assert answer["results"][2]["values"] == [None, 2, None]
    vectors = reader.read(["newest:amount", "newest:items", "newest:paid"], columns)
    wanted = orjson.loads(answer_json(vectors))
    assert answer["results"] == wanted["results"]


def test_what_is_not_for_this_way_says_so(online: Online, reader: Reader) -> None:
    readings = reader._readings
    assert not is_few(readings.of("live"))
    assert not is_few(readings.of("fresh"))
    assert not is_few(readings.of(("spending:amount_stddev",)))
    assert not is_few(readings.of(("coupons:last_coupon",)))
    few = Few(readings.of(("spending:orders",)))
    assert few.question({"customer": ["a"] * (FEW + 1)}) is None
    assert few.question({"customer": [None]}) is None
    assert few.question({"customer": []}) is None


def test_the_event_clock_is_the_other_ways(online: Online, reader: Reader) -> None:
    online.add({"Order": ORDERS})
    plan = ServicePlan(name="s", selections=(), log=0.0, clock="event", max_lag_us=None)
    reading = reader._readings.of(("spending:orders_1h",))
    object.__setattr__(reading, "service", plan)
    few = Few(reading)
    question = few.question({"customer": ["cleo"]})
    assert question is not None
    answer = orjson.loads(few.answer(question, reader._redis.ask(question.payload, 1), False))
    assert answer["headrace"] == {"instants": ["2026-03-01T11:55:00.000001Z"], "ages_us": [1]}
