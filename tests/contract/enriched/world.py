"""Planes and flights on the real Kafka and Redis, flights enriched by what is known of their planes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from batch.enriched import keep_deployments
from batch.settings import BatchSettings
from batch.tables import ensure_tables
from features import Count, Enriched, Entity, FeatureService, FeatureView, LatestView, Max, Sum
from features.plan import Definitions
from features.planner import compile_definitions, event_types
from headrace.run.lookup import OnlineLookup
from headrace.settings import settings_for
from schemas.event import Event
from stream.deployments import deploy
from stream.enriching import work_enriching
from stream.history import History
from stream.report import WorkerReport
from stream.settings import StreamSettings
from stream.topics import ensure_topics
from stream.worker import run_worker

PARTITIONS = 4
NOW = datetime.now(UTC).replace(tzinfo=None, microsecond=0)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


@dataclass
class World:
    """A project of its own; `declared` are its definitions, `topic` that of the enriched flights."""

    kafka: str
    redis_url: str
    name: str
    home: Path
    declared: list[object] = field(init=False)

    def __post_init__(self) -> None:
        self.declare()
        options = {"session_timeout_ms": 6_000, "advance_every_s": 0.2}
        self.settings = StreamSettings(
            kafka_bootstrap=self.kafka, redis_url=self.redis_url, project=self.name, home=self.home, **options
        )
        self.batch = settings_for(BatchSettings, self.settings)
        self.definitions: Definitions = compile_definitions(self.name, self.declared)
        self.events = event_types(self.declared)

    def declare(self) -> None:
        class Plane(Event, topic=f"planes_{self.name}", time="at", key=["tailnum"]):
            at: datetime
            tailnum: str
            seats: int | None

        class Flight(Event, topic=f"flights_{self.name}", time="at", key=["origin"]):
            at: datetime
            origin: str
            tailnum: str | None
            miles: float

        plane = Entity("plane", join_key="tailnum")
        facts = LatestView("plane_facts", entity=plane, source=Plane, fields=["seats"])
        refits = FeatureView("refits", entity=plane, source=Plane, features={"n": Count(over="24h")})
        flights = Enriched(Enriched(Flight, facts), refits)
        self.topic = flights.topic
        self.first_topic = Enriched(Flight, facts).topic
        airport = Entity("airport", join_key="origin")
        seats = FeatureView(
            "seats_out",
            entity=airport,
            source=flights,
            features={
                "flights": Count(over="24h"),
                "seats": Sum("plane_facts__seats", over="24h"),
                "seat_miles": Sum("plane_facts__seats * miles", over="24h"),
                "refits": Max("refits__n", over="24h"),
                "late": Count(over="24h", where="plane_facts_answer = 'late'"),
            },
        )
        self.declared = [seats, FeatureService("airports", [seats], clock="event")]

    def apply(self) -> None:
        ensure_topics(self.settings, self.definitions)
        deployments = deploy(self.settings, self.definitions)
        ensure_tables(self.batch, self.definitions, lambda line: None)
        keep_deployments(self.batch, deployments)

    def planes(self, rows: Iterable[tuple[datetime, str, int | None]]) -> None:
        self._produce(
            f"planes_{self.name}",
            [(tail, {"at": at.isoformat(), "tailnum": tail, "seats": seats}) for at, tail, seats in rows],
        )

    def flights(self, rows: Iterable[tuple[datetime, str, str | None, float]]) -> None:
        self._produce(
            f"flights_{self.name}",
            [
                (origin, {"at": at.isoformat(), "origin": origin, "tailnum": tail, "miles": miles})
                for at, origin, tail, miles in rows
            ],
        )

    def _produce(self, topic: str, messages: Sequence[tuple[str, dict[str, object]]]) -> None:
        producer = Producer({"bootstrap.servers": self.kafka})
        for key, value in messages:
            producer.produce(topic, orjson.dumps(value), key.encode())
        producer.flush(30)

    def work(self, history: History | None = None) -> WorkerReport:
        """What `headrace stream --until-caught-up` does."""
        stop = threading.Event()
        fold = partial(run_worker, self.definitions, self.events, self.settings, history=history, until_caught_up=True)
        return work_enriching(
            self.definitions,
            self.events,
            self.settings,
            lambda stop: fold(stop=stop),
            lambda: OnlineLookup(self.settings, self.definitions),
            until_caught_up=True,
            stop=stop,
        )

    def written(self, topic: str | None = None) -> list[dict[str, Any]]:
        """What committed transactions have written to an enriched topic."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": self.name, "enable.partition.eof": True})
        consumer.assign([TopicPartition(topic or self.topic, partition, 0) for partition in range(PARTITIONS)])
        found, ends, until = [], 0, time.monotonic() + 30
        while ends < PARTITIONS and time.monotonic() < until:
            for message in consumer.consume(1_000, 0.5):
                error = message.error()
                ends += error is not None and error.code() == KafkaError._PARTITION_EOF
                found += [orjson.loads(message.value() or b"")] if error is None else []
        consumer.close()
        return found
