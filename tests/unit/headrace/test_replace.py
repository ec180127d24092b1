"""A view's new meaning takes over from its old one, and a view is folded anew: on a real Kafka and a real Redis."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from confluent_kafka import Producer

from headrace.definitions.apply import apply, plan
from headrace.definitions.replace import rebuild
from headrace.settings import settings_for
from headrace.wiring import open_project
from schemas.errors import NotReady
from schemas.settings import ConnectionSettings
from serving.connection import Redis
from serving.read import Reader
from serving.resp import Address
from stream.settings import StreamSettings
from stream.worker import run_worker

DEFINITIONS = """\
from datetime import datetime
from features import Count, Entity, FeatureService, FeatureView, Sum
from schemas import Event

class Trip(Event, topic="TOPIC", time="at", key=["rider"]):
    at: datetime
    rider: int
    fare: float

rider = Entity("rider", join_key="rider")
rides = FeatureView("rides", entity=rider, source=Trip, features={"total": EXPRESSION})
model = FeatureService("model", [rides], clock="event")
"""
RIDERS = 20
TRIPS = 200


@pytest.fixture
def settings(
    tmp_path: Path, kafka: str, redis_url: str, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> ConnectionSettings:
    monkeypatch.setattr("headrace.definitions.replace.TAKE_OVER_S", 0.1)
    (tmp_path / "defs").mkdir()
    made = ConnectionSettings(
        home=tmp_path / "home",
        project=unique("shop"),
        definitions=tmp_path / "defs",
        kafka_bootstrap=kafka,
        redis_url=redis_url,
    )
    declare(made, 'Sum("fare")')
    apply(made, plan(made), lambda line: None)
    produce(made, range(TRIPS))
    work(made)
    return made


def declare(settings: ConnectionSettings, expression: str) -> None:
    text = DEFINITIONS.replace("TOPIC", f"{settings.project}.trips").replace("EXPRESSION", expression)
    (settings.definitions / "shop.py").write_text(text)


def produce(settings: ConnectionSettings, numbers: range) -> None:
    producer = Producer(settings.kafka_config())
    for number in numbers:
        trip = {"at": 1_600_000_000 + number, "rider": number % RIDERS, "fare": 1.5}
        producer.produce(f"{settings.project}.trips", json.dumps(trip), key=str(number % RIDERS))
    assert producer.flush(30) == 0


def work(settings: ConnectionSettings) -> None:
    project = open_project(settings)
    run_worker(
        project.definitions,
        project.events,
        settings_for(StreamSettings, settings),
        history=None,
        until_caught_up=True,
        stop=threading.Event(),
    )


def totals(settings: ConnectionSettings) -> list[object]:
    reader = Reader(Redis(Address.of(settings.redis_address()), timeout_s=5), open_project(settings).definitions)
    try:
        return reader.read("model", {"rider": list(range(RIDERS))}).to_dict()["total"]
    finally:
        reader.close()


def keys_of(settings: ConnectionSettings) -> set[str]:
    """The storage ids that have keys in Redis, of this project's views, old and new."""
    client = redis.Redis.from_url(settings.redis_address())
    return {key.decode()[2:14] for key in client.scan_iter("h{*")}


def test_a_replaced_view_takes_over_whole_and_its_old_rows_go(settings: ConnectionSettings) -> None:
    assert totals(settings) == [15.0] * RIDERS
    old = open_project(settings).definitions.views["rides"].storage_id
    declare(settings, "Count()")

    apply(settings, plan(settings, ["rides"]), lambda line: None)

    assert totals(settings) == [TRIPS // RIDERS] * RIDERS
    new = open_project(settings).definitions.views["rides"].storage_id
    assert new in keys_of(settings)
    assert old not in keys_of(settings)
    produce(settings, range(TRIPS, TRIPS + RIDERS))
    work(settings)
    assert totals(settings) == [TRIPS // RIDERS + 1] * RIDERS


def test_the_old_view_answers_until_the_new_one_is_there(settings: ConnectionSettings) -> None:
    declare(settings, "Count()")
    seen: list[list[object]] = []

    def look(line: str) -> None:
        if line.startswith("folding"):
            seen.append(totals_of_applied(settings))

    apply(settings, plan(settings, ["rides"]), look)

    assert seen
    assert all(values == [15.0] * RIDERS for values in seen)


def totals_of_applied(settings: ConnectionSettings) -> list[object]:
    from headrace.wiring import applied_definitions

    reader = Reader(Redis(Address.of(settings.redis_address()), timeout_s=5), applied_definitions(settings))
    try:
        return reader.read("model", {"rider": list(range(RIDERS))}).to_dict()["total"]
    finally:
        reader.close()


def test_a_view_is_folded_anew(settings: ConnectionSettings) -> None:
    project = open_project(settings)
    client = redis.Redis.from_url(settings.redis_address())
    view = project.definitions.views["rides"]
    row = next(iter(client.scan_iter(f"h{{{view.storage_id}.*}}:*")))
    client.set(row, client.get(row)[:-8] + b"damaged!")

    rebuild(settings, project.definitions, project.events, "rides", lambda line: None)

    assert totals(settings) == [15.0] * RIDERS


def test_a_removed_views_rows_go(settings: ConnectionSettings) -> None:
    old = open_project(settings).definitions.views["rides"].storage_id
    text = (settings.definitions / "shop.py").read_text().replace('"rides"', '"trips"')
    (settings.definitions / "shop.py").write_text(text)
    apply(settings, plan(settings), lambda line: None)
    assert old not in keys_of(settings)
    with pytest.raises(NotReady):
        totals(settings)
