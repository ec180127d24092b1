"""Every aggregation over every kind of window, by every runner and every engine of training sets: all are the oracle.

One log on a real Kafka, with everything declared over it. Each runner folds it into Redis for a project of its own; the
lander lands it, and each engine computes a training set of it.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import redis
from confluent_kafka import Producer

from batch.land import run_lander
from batch.settings import BatchSettings
from batch.tables import ensure_tables
from batch.training import training_set
from stream.settings import StreamSettings
from stream.topics import ensure_topics
from stream.worker import run_worker
from tests.contract.stream.runners import MARKS, RUNNERS
from tests.parity.compare import same
from tests.parity.everything import (
    SERVICE,
    Everything,
    Logged,
    declare,
    events_on,
    expected_rows,
    generated_log,
    loaded,
    message,
)
from tests.parity.executors import stored
from tests.parity.world import EPOCH

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

MINUTE_US = 60_000_000
AHEAD_US = (1, 5 * MINUTE_US, 60 * MINUTE_US, 26 * 60 * MINUTE_US)
ENGINES = [pytest.param("local"), pytest.param("spark", marks=MARKS["spark"])]


class World(NamedTuple):
    """The log on Kafka, and the topics that it stands on."""

    kafka: str
    readings: str
    others: str
    log: list[Logged]
    asked: dict[tuple[str, tuple[tuple[str, int], ...]], list[dict[str, Any]]]
    """What the oracle was asked already, of a view and these (sensor, instant): it says the same of every runner."""

    def expected(self, everything: Everything, view: str, queries: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        """The oracle's answers."""
        question = (view, tuple(queries))
        if question not in self.asked:
            self.asked[question] = expected_rows(everything, self.log, view, queries)
        return self.asked[question]

    @property
    def newest(self) -> dict[str, int]:
        """The newest event of each sensor."""
        found: dict[str, int] = {}
        for key, event in self.log:
            if key is not None:
                found[key] = max(found.get(key, event.t), event.t)
        return found


@pytest.fixture(scope="module")
def world(kafka: str) -> World:
    suffix = uuid.uuid4().hex[:10]
    made = World(kafka, f"readings_{suffix}", f"others_{suffix}", generated_log(), {})
    everything = declare("parity", made.readings, made.others)
    ensure_topics(StreamSettings(kafka_bootstrap=kafka, redis_url="redis://nowhere"), everything.definitions)
    producer = Producer({"bootstrap.servers": kafka})
    for each in made.log:
        topic = (made.readings, made.others)[each.event.source]
        producer.produce(topic, message(each), partition=each.event.partition)
    producer.flush()
    return made


@pytest.mark.parametrize("runner", RUNNERS)
def test_online(runner: str, world: World, redis_url: str, cases: Counter[str]) -> None:
    everything = declare(f"p{uuid.uuid4().hex[:10]}", world.readings, world.others)
    project = everything.definitions.project
    settings = StreamSettings(kafka_bootstrap=world.kafka, redis_url=redis_url, project=project)
    ensure_topics(settings, everything.definitions)
    load = partial(loaded, world.readings, world.others)
    report = run_worker(
        everything.definitions,
        load(),
        settings,
        history=None,
        until_caught_up=True,
        stop=threading.Event(),
        runner=runner,
        load=load,
    )
    assert (report.events, report.rejected_total) == (len(world.log), 0)
    queries = [(key, t + ahead) for key, t in world.newest.items() for ahead in AHEAD_US]
    client = redis.Redis.from_url(redis_url)
    for view in everything.expected:
        plan = everything.definitions.views[view]
        answers = stored(client, plan, plan.storage_id, [key for key, _ in queries], [q for _, q in queries])
        cases[f"values online, {runner}"] += compare(everything, world, view, queries, answers)
    client.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_training_sets(engine: str, world: World, landed: BatchSettings, cases: Counter[str]) -> None:
    everything = declare(landed.project, world.readings, world.others)
    instants = {(key, event.t + d) for key, event in world.log[::5] for d in (0, 1) if key is not None} | {
        (key, t + ahead) for key, t in world.newest.items() for ahead in AHEAD_US
    }
    queries = sorted(instants)
    rows = pa.table(
        {
            "sensor": [key for key, _ in queries],
            "event_timestamp": pa.array([EPOCH + timedelta(microseconds=q) for _, q in queries], pa.timestamp("us")),
        }
    )
    if engine == "local":
        table = training_set(everything.definitions, SERVICE, rows, landed)
    else:
        from batch.spark import spark_training_set
        from schemas.spark import session

        prepare = partial(loaded, world.readings, world.others)
        spark = session(landed)
        table = spark_training_set(spark, everything.definitions, SERVICE, rows, landed, prepare=prepare)
    for view in everything.expected:
        names = [f.name for f in everything.definitions.views[view].features]
        answers = table.select([f"{view}__{name}" for name in names]).rename_columns(names).to_pylist()
        cases[f"values offline, {engine}"] += compare(everything, world, view, queries, answers)


@pytest.fixture(scope="module")
def landed(world: World, tmp_path_factory: pytest.TempPathFactory) -> BatchSettings:
    project = "landed"
    everything = declare(project, world.readings, world.others)
    settings = BatchSettings(
        home=tmp_path_factory.mktemp("landed"),
        kafka_bootstrap=world.kafka,
        redis_url="redis://nowhere",
        project=project,
    )
    ensure_tables(settings, everything.definitions, lambda line: None)
    types = events_on(world.readings, world.others)
    run_lander(everything.definitions, types, settings, until_caught_up=True, stop=threading.Event())
    return settings


def compare(
    everything: Everything,
    world: World,
    view: str,
    queries: Sequence[tuple[str, int]],
    answers: Sequence[dict[str, Any]],
) -> int:
    """Asserts that the answers are the oracle's; how many values that were."""
    of = everything.expected[view]
    plan = everything.definitions.views[view]
    values = 0
    for (key, q), answer, want in zip(queries, answers, world.expected(everything, view, queries), strict=True):
        at = f"{view} of {key} at {q}"
        if of.fields:
            plain = {n: dict(v) if n == "weights" and v is not None else v for n, v in answer.items()}
            assert plain == want, at
        else:
            same(plan, {name: each for name, each in of.features.items() if name in want}, answer, want, at)
        values += len(want)
    return values
