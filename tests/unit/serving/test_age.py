"""How old an answer is: as old as what its topics' views have folded. Files are known whole, however old they are."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta

import orjson
import pytest

from features import Count, Entity, FeatureService, FeatureView, LatestView
from features.planner import compile_definitions
from schemas.event import Event
from serving.connection import Redis
from serving.few import Few, is_few
from serving.read import Reader
from serving.resp import Address
from serving.vectors import Status
from tests.unit.serving.online import Online, us

NOW = datetime(2026, 3, 1, 12)


class Trip(Event, topic="trips", time="at", key=["shop"]):
    at: datetime
    shop: str


class Shop(Event, path="shops.parquet", time="since", key=["shop"]):
    since: datetime
    shop: str
    area: float


@pytest.fixture
def online(redis_url: str) -> Iterator[Online]:
    shop = Entity("shop")
    trips = FeatureView("trips", entity=shop, source=Trip, features={"n": Count()})
    facts = LatestView("facts", entity=shop, source=Shop, fields=["area"])
    both = FeatureService("both", [trips, facts], max_lag="5m")
    project = f"age_{uuid.uuid4().hex[:8]}"
    online = Online(redis_url, compile_definitions(project, [Trip, Shop, trips, facts, both]))
    online.add(
        {"Trip": [{"at": NOW, "shop": "a"}], "Shop": [{"since": NOW - timedelta(days=900), "shop": "a", "area": 7.0}]}
    )
    yield online
    online.redis.flushdb()


@pytest.fixture
def reader(online: Online) -> Iterator[Reader]:
    reader = Reader(Redis(Address.of(online.url), timeout_s=5), online.definitions)
    yield reader
    reader.close()


def test_what_files_hold_makes_no_answer_old(reader: Reader) -> None:
    vectors = reader.read("both", {"shop": ["a"]}, as_of_us=us(NOW) + 1_000)
    assert vectors.ages_us.tolist() == [1_000]
    assert [int(statuses[0]) for statuses in vectors.statuses] == [Status.PRESENT] * 2
    assert reader.read(["facts:area"], {"shop": ["a"]}).ages_us.tolist() == [0]


def test_a_few_are_as_old_as_many(online: Online, reader: Reader) -> None:
    for what, least in ((("trips:n", "facts:area"), 1), (("facts:area",), 0)):
        reading = reader._readings.of(what)
        assert is_few(reading)
        few = Few(reading)
        question = few.question({"shop": ["a"]})
        assert question is not None
        answer = orjson.loads(few.answer(question, reader._redis.ask(question.payload, 1), False))
        (age,) = answer["headrace"]["ages_us"]
        (instant,) = answer["headrace"]["instants"]
        expected = us(datetime.fromisoformat(instant).replace(tzinfo=None)) - us(NOW) if least else 0
        assert age == expected
