"""A worker and a lander whose schema registry is away: nothing is rejected, nothing skipped, and then all is there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer

from batch.land import run_lander
from batch.settings import BatchSettings
from features import Count, Entity, FeatureView
from features.planner import compile_definitions
from schemas import registry as registry_module
from schemas.errors import NotReady
from schemas.event import Event
from schemas.registry import Registry
from stream.settings import StreamSettings
from stream.topics import ensure_topics
from stream.worker import run_worker
from tests.unit.schemas.test_registry import FakeServer
from tests.unit.schemas.writers import MICROS, avro

EVENTS = 20
FIELDS = {"at": MICROS, "card": "string"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    waits = {"retries.wait.ms": 1, "retries.max.wait.ms": 1}
    monkeypatch.setattr(registry_module, "CLIENT_DEFAULTS", registry_module.CLIENT_DEFAULTS | waits)
    server = FakeServer()
    server.answer = (503, b"")
    yield server
    server.close()


def test_nothing_is_lost_while_the_registry_is_away(
    kafka: str, redis_url: str, unique: Callable[[str], str], tmp_path: Path, server: FakeServer
) -> None:
    class Payment(Event, topic=unique("payments"), time="at", key=["card"], format="avro"):
        at: datetime
        card: str

    name, topic = unique("p"), str(Payment.spec().topic)
    view = FeatureView("spent", entity=Entity("card", join_key="card"), source=Payment, features={"n": Count()})
    definitions = compile_definitions(name, [Payment, view])
    common = {
        "home": tmp_path,
        "project": name,
        "kafka_bootstrap": kafka,
        "redis_url": redis_url,
        "schema_registry_url": server.url,
    }
    stream, batch = StreamSettings(**common), BatchSettings(**common)  # type: ignore[arg-type]
    ensure_topics(stream, definitions)
    elsewhere, producer = Registry(f"mock://{name}"), Producer(stream.kafka_config())
    for _ in range(EVENTS):
        producer.produce(topic, avro(elsewhere, FIELDS, {"at": datetime.now(UTC), "card": "c"}), b"c")
    producer.flush(30)

    events, stop, reports = {"Payment": Payment}, threading.Event(), []
    worker = threading.Thread(
        target=lambda: reports.append(
            run_worker(definitions, events, stream, history=None, until_caught_up=True, stop=stop)
        )
    )
    worker.start()
    while len(server.asked) < 5:
        time.sleep(0.1)
    assert worker.is_alive()
    with pytest.raises(NotReady, match="the schema registry can't be reached"):
        run_lander(definitions, events, batch, until_caught_up=True, stop=stop)

    schema = elsewhere.schema(1, "avro")
    assert schema is not None
    server.answer = (200, json.dumps({"schema": schema.text}).encode())
    worker.join(60)
    (report,) = reports
    assert (report.events, report.rejected_total) == (EVENTS, 0)
    landed = run_lander(definitions, events, batch, until_caught_up=True, stop=stop)
    assert (landed.rows[topic], landed.rejected) == (EVENTS, 0)
