"""The lander against a real Kafka and a real warehouse: each event lands once, whatever happens."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from batch.append import Step
from batch.catalog import find, load, open_catalog
from batch.land import run_lander
from batch.land_report import LandReport
from batch.offsets import offsets_of
from batch.settings import BatchSettings
from batch.tables import REJECTS, events_table
from features import Count, Entity, FeatureView
from features.plan import Definitions
from features.planner import compile_definitions
from schemas.errors import DataError, DeliveryError
from schemas.event import Event

PARTITIONS = 3


class Log:
    """A topic with its event type, a project over it, and a warehouse."""

    def __init__(self, bootstrap: str, topic: str, home: Path) -> None:
        class Reading(Event, topic=topic, time="at", key=["sensor"]):
            at: datetime
            sensor: str
            value: float

        view = FeatureView("n", entity=Entity("sensor"), source=Reading, features={"n": Count()})
        self.topic = topic
        self.bootstrap = bootstrap
        self.home = home
        self.events: dict[str, type[Event]] = {"Reading": Reading}
        self.definitions: Definitions = compile_definitions("test", [Reading, view])
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.create()

    def create(self) -> None:
        for future in self.admin.create_topics([NewTopic(self.topic, PARTITIONS)]).values():
            future.result()

    def produce(self, count: int, start: int = 0, broken: int = 0) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5})
        for number in range(start, start + count):
            event = {"at": "2024-03-01T00:00:00Z", "sensor": f"s{number % 7}", "value": float(number)}
            producer.produce(self.topic, json.dumps(event).encode(), f"s{number % 7}".encode())
        for number in range(broken):
            producer.produce(self.topic, b"{" + str(number).encode(), b"broken")
        assert producer.flush(30) == 0

    def land(self, on_step: Callable[[Step], None] = lambda _: None, **knobs: object) -> LandReport:
        settings = self.settings(**knobs)
        return run_lander(
            self.definitions,
            self.events,
            settings,
            until_caught_up=True,
            stop=threading.Event(),
            on_step=on_step,
        )

    def settings(self, **knobs: object) -> BatchSettings:
        return BatchSettings.model_validate({"home": self.home, "kafka_bootstrap": self.bootstrap} | knobs)

    def rows(self) -> list[dict[str, object]]:
        return self.table(events_table(self.topic))

    def rejects(self) -> list[dict[str, object]]:
        return self.table(REJECTS)

    def table(self, identifier: tuple[str, str]) -> list[dict[str, object]]:
        return load(open_catalog(self.settings()), identifier).scan().to_arrow().to_pylist()

    def check(self, count: int, broken: int = 0) -> None:
        """Each event and each rejection is there once, and the newest snapshot's offsets cover them all."""
        values = Counter(row["value"] for row in self.rows())
        assert values == Counter(float(number) for number in range(count))
        assert Counter(row["value"] for row in self.rejects()) == Counter(b"{" + str(n).encode() for n in range(broken))
        places = [(row["kafka_partition"], row["kafka_offset"]) for row in self.rows() + self.rejects()]
        assert len(set(places)) == len(places) == count + broken
        offsets = offsets_of(load(open_catalog(self.settings()), events_table(self.topic))).of(self.topic)
        assert sum(offsets.values()) == count + broken


@pytest.fixture
def log(kafka: str, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Log]:
    log = Log(kafka, unique("readings"), tmp_path / "home")
    yield log
    log.admin.delete_topics([log.topic])


def test_events_and_rejects_land_once_however_often_the_lander_runs(log: Log) -> None:
    log.produce(500, broken=5)
    report = log.land()
    assert (report.rows[log.topic], report.rejected) == (500, 5)
    log.check(500, 5)
    assert log.land().commits == 0
    log.produce(200, start=500)
    assert log.land().total == 200
    log.check(700, 5)
    reasons = {(row["reason"], row["topic"], row["key"]) for row in log.rejects()}
    assert reasons == {("undecodable", log.topic, b"broken")}


class _Crash(Exception):
    pass


@pytest.mark.parametrize("crash_at", range(1, 7))
def test_a_crash_at_any_step_loses_and_doubles_nothing(log: Log, crash_at: int) -> None:
    # The rejects and then the events, in three steps each.
    log.produce(100, broken=4)
    seen: list[Step] = []

    def crash(step: Step) -> None:
        seen.append(step)
        if len(seen) == crash_at:
            raise _Crash(step)

    with pytest.raises(_Crash):
        log.land(crash)
    log.land()
    log.check(100, 4)


def test_landers_that_race_leave_one_copy(log: Log) -> None:
    log.produce(3_000, broken=30)
    reports: list[LandReport] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(3)

    def race() -> None:
        try:
            barrier.wait()
            reports.append(log.land(land_rows_max=400))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=race) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sum(report.total for report in reports) == 3_000
    assert sum(report.rejected for report in reports) == 30
    log.check(3_000, 30)


def test_a_lander_that_runs_on_lands_what_comes_and_stops_when_told(log: Log) -> None:
    log.produce(50)
    stop = threading.Event()
    settings = log.settings(land_seconds=0.2)
    running = threading.Thread(
        target=run_lander,
        args=(log.definitions, log.events, settings),
        kwargs={"until_caught_up": False, "stop": stop},
    )
    running.start()
    try:
        log.produce(50, start=50)
        _wait(lambda: _landed(log) == 100)
        log.produce(20, start=100)
    finally:
        time.sleep(0.3)
        stop.set()
        running.join(timeout=20)
    assert not running.is_alive()
    log.land()
    log.check(120)


def test_an_idle_lander_looks_after_its_tables(log: Log) -> None:
    log.produce(60)
    stop = threading.Event()
    # A commit for every five messages: a dozen small files, which an hour of idleness would merge.
    settings = log.settings(land_seconds=0.1, land_rows_max=5, maintain_seconds=2)
    running = threading.Thread(
        target=run_lander,
        args=(log.definitions, log.events, settings),
        kwargs={"until_caught_up": False, "stop": stop},
    )
    running.start()
    try:
        _wait(lambda: _landed(log) == 60 and _files(log) == 1, seconds=60)
    finally:
        stop.set()
        running.join(timeout=60)
    assert not running.is_alive()
    log.check(60)


def test_retention_past_the_landed_offset_is_refused(log: Log) -> None:
    log.produce(100)
    log.land()
    log.produce(100, start=100)
    ends = offsets_of(load(open_catalog(log.settings()), events_table(log.topic))).of(log.topic)
    gone = [TopicPartition(log.topic, p, end + 1) for p, end in ends.items()]
    for future in log.admin.delete_records(gone).values():
        future.result()
    with pytest.raises(DeliveryError, match="deleted events that were never landed"):
        log.land()


def test_a_topic_made_anew_is_refused(log: Log) -> None:
    log.produce(20)
    log.land()
    for future in log.admin.delete_topics([log.topic]).values():
        future.result()
    _wait(lambda: _created(log))
    log.produce(20)
    with pytest.raises(DeliveryError, match="made anew"):
        log.land()


def test_a_partition_added_later_lands_from_its_start(log: Log) -> None:
    log.produce(30)
    log.land()
    for future in log.admin.create_partitions([NewPartitions(log.topic, PARTITIONS + 2)]).values():
        future.result()
    _wait(lambda: len(log.admin.list_topics(log.topic).topics[log.topic].partitions) == PARTITIONS + 2)
    log.produce(200, start=30)
    log.land()
    log.check(230)


def test_a_snapshot_of_somebody_else_is_an_error(log: Log) -> None:
    log.produce(10)
    log.land()
    table = load(open_catalog(log.settings()), REJECTS)
    foreign = load(open_catalog(log.settings()), events_table(log.topic))
    with foreign.transaction() as transaction:
        transaction.update_snapshot().fast_append().commit()
    log.produce(10, start=10)
    with pytest.raises(DataError, match="names the offsets that it holds"):
        log.land()
    assert table.current_snapshot() is None


def _landed(log: Log) -> int:
    table = find(open_catalog(log.settings()), events_table(log.topic))
    return 0 if table is None else table.scan().count()


def _files(log: Log) -> int:
    return len(list(load(open_catalog(log.settings()), events_table(log.topic)).scan().plan_files()))


def _created(log: Log) -> bool:
    try:
        log.create()
    except Exception:
        return False
    return True


def _wait(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
