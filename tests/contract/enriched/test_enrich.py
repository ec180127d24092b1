"""Enriched events on the real Kafka, Redis and Iceberg: once each, what was known then, online = offline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka.admin import AdminClient

from batch.history import IcebergHistory
from batch.land import run_lander
from batch.training import training_set
from headrace.run.lookup import OnlineLookup
from serving.cluster import open_redis
from serving.read import Reader
from stream.enrich import LATE_COUNTS, WRITTEN, Enricher, Step
from stream.topics import ensure_topics
from stream.worker import run_worker
from tests.contract.enriched.world import World, ago

pytestmark = pytest.mark.slow
FEATURES = ["flights", "seats", "seat_miles", "refits", "late"]


@pytest.fixture
def world(kafka: str, redis_url: str, unique: Callable[[str], str], tmp_path: Path) -> World:
    return World(kafka, redis_url, unique("p"), tmp_path / "home")


def online(world: World, origins: list[str]) -> tuple[list[dict[str, object]], list[int]]:
    reader = Reader(open_redis(world.redis_url, timeout_s=10), world.definitions)
    vectors = reader.read("airports", {"origin": origins})
    reader.close()
    columns = [values.to_list() for values in vectors.columns]
    return [dict(zip(FEATURES, row, strict=True)) for row in zip(*columns, strict=True)], vectors.instants_us.tolist()


def offline(world: World, origins: list[str], instants_us: list[int]) -> list[dict[str, object]]:
    rows = pa.table({"origin": origins, "event_timestamp": pa.array(instants_us).cast(pa.timestamp("us"))})
    table = training_set(world.definitions, "airports", rows, world.batch)
    return [{name: row[f"seats_out__{name}"] for name in FEATURES} for row in table.to_pylist()]


def land(world: World) -> None:
    run_lander(world.definitions, world.events, world.batch, until_caught_up=True, stop=threading.Event())


def test_online_equals_offline(world: World) -> None:
    """The plane's row is what the store answered for the flight's instant; stream and batch read what was written."""
    world.apply()
    world.planes([(ago(60), "N1", 100), (ago(50), "N1", 120), (ago(55), "N2", None)])
    world.flights([(ago(40), "JFK", "N1", 10.5), (ago(30), "JFK", "N2", 1.0), (ago(20), "LGA", "N9", 2.0)])
    world.flights([(ago(10), "JFK", None, 3.0)])
    world.work()
    rows = sorted(world.written(), key=lambda row: str(row["at"]))
    assert [row["plane_facts__seats"] for row in rows] == [120, None, None, None]
    assert [row["refits__n"] for row in rows] == [2, 1, 0, None]
    assert {(row["plane_facts_answer"], row["refits_answer"]) for row in rows} == {("online", "online")}
    land(world)
    values, instants = online(world, ["JFK", "LGA"])
    assert values == offline(world, ["JFK", "LGA"], instants)
    assert values[0] == {"flights": 3, "seats": 120, "seat_miles": 1260.0, "refits": 2, "late": 0}


def test_what_the_store_can_not_know_is_null_and_counted(world: World) -> None:
    """plane  0---------x (known already)     flight at or before x: null and late; behind it: known."""
    world.apply()
    world.planes([(ago(60), "N1", 100), (ago(30), "N1", 120)])
    world.flights([(ago(40), "JFK", "N1", 1.0), (ago(30), "JFK", "N1", 1.0), (ago(29), "JFK", "N1", 1.0)])
    world.work()
    rows = sorted(world.written(world.first_topic), key=lambda row: str(row["at"]))
    assert [(row["plane_facts__seats"], row["plane_facts_answer"]) for row in rows] == [
        (None, "late"),
        (None, "late"),
        (120, "online"),
    ]
    assert (WRITTEN[world.first_topic], LATE_COUNTS[world.first_topic]) == (3, 2)
    assert online(world, ["JFK"])[0][0]["late"] == 2


def test_a_crash_between_producing_and_committing_leaves_each_event_once(world: World) -> None:
    world.apply()
    world.planes([(ago(60), "N1", 100)])
    world.flights([(ago(40 - n), f"A{n}", "N1", 1.0) for n in range(20)])
    spec = next(spec for spec in world.definitions.events.values() if spec.topic == world.first_topic)

    class Crash(Exception):
        pass

    def run(crash_at: Step | None) -> Enricher:
        def on_step(step: Step) -> None:
            if step is crash_at:
                raise Crash

        lookup = OnlineLookup(world.settings, world.definitions)
        enricher = Enricher(
            world.definitions,
            spec,
            world.events,
            world.settings,
            lookup,
            until_caught_up=True,
            stop=threading.Event(),
            on_step=on_step,
        )
        enricher.run()
        return enricher

    run_worker(
        world.definitions, world.events, world.settings, history=None, until_caught_up=True, stop=threading.Event()
    )
    for step in (Step.PRODUCED, Step.COMMITTED):
        with pytest.raises(Crash):
            run(step)
    run(None)
    expected = sorted(f"A{n}" for n in range(20))
    assert sorted(str(row["origin"]) for row in world.written(world.first_topic)) == expected
    # Kafka forgets a group after a week without it: the last message says how far it had come.
    group = f"{world.name}.enrich.{world.first_topic}"
    admin = AdminClient({"bootstrap.servers": world.kafka})
    admin.delete_consumer_groups([group])[group].result()
    world.flights([(ago(5), "B", "N1", 1.0)])
    run(None)
    assert sorted(str(row["origin"]) for row in world.written(world.first_topic)) == [*expected, "B"]


def test_history_is_recomputed_once_and_training_rows_say_so(world: World) -> None:
    """Flights from before the deployment come into the log with what was true then, and into the online store."""
    ensure_topics(world.settings, world.definitions)
    world.planes([(ago(300), "N1", 100), (ago(100), "N1", 120)])
    world.flights([(ago(200), "JFK", "N1", 1.0), (ago(90), "JFK", "N1", 1.0)])
    world.apply()
    world.flights([(ago(80), "LGA", "N1", 1.0)])
    world.work()
    land(world)
    land(world)
    land(world)
    world.work(IcebergHistory(world.batch))
    values, instants = online(world, ["JFK", "LGA"])
    assert values == offline(world, ["JFK", "LGA"], instants)
    assert [row["seats"] for row in values] == [220, 120]
    assert [row["flights"] for row in values] == [2, 1]
    rows = pa.table({"origin": ["JFK", "LGA"], "event_timestamp": pa.array(instants).cast(pa.timestamp("us"))})
    made = training_set(world.definitions, "airports", rows, world.batch)
    assert made["seats_out_recomputed"].to_pylist() == [True, False]
