"""Topics as headrace makes them, how far workers are, and the log for those who must not wait."""

from __future__ import annotations

import time

import msgspec
import pytest
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from schemas.errors import HeadraceError
from stream.log import KafkaLog
from stream.status import standings
from stream.topics import admin_client, describe_topics, ensure_topics
from tests.contract.stream.clicks import clicks
from tests.contract.stream.rig import PARTITIONS, Rig


@pytest.fixture
def rig(kafka: str, redis_url: str) -> Rig:
    return Rig(kafka, redis_url)


def test_topics_are_made_once_with_the_brokers_timestamps(rig: Rig) -> None:
    reports: list[str] = []
    assert ensure_topics(rig.settings, rig.definitions, reports.append) == []
    assert reports == []
    admin = admin_client(rig.settings)
    found = describe_topics(admin, [rig.topic, rig.settings.rejects_topic, "no_such_topic"])
    assert found.keys() == {rig.topic, rig.settings.rejects_topic}
    assert found[rig.topic].partitions == tuple(range(PARTITIONS))
    assert len({topic.id for topic in found.values()}) == 2
    (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, rig.topic)]).values()
    assert future.result()["message.timestamp.type"].value == "LogAppendTime"


def test_an_existing_topic_with_producers_timestamps_is_reported_and_kept(rig: Rig) -> None:
    admin = admin_client(rig.settings)
    other = f"{rig.topic}_old"
    for future in admin.create_topics([NewTopic(other, 2, 1)]).values():
        future.result()
    while not describe_topics(admin, [other]):
        time.sleep(0.05)
    event = msgspec.structs.replace(rig.definitions.events["Click"], topic=other)
    definitions = msgspec.structs.replace(rig.definitions, events={"Click": event})
    reports: list[str] = []
    ensure_topics(rig.settings, definitions, reports.append)
    assert len(reports) == 1
    assert other in reports[0]
    assert "producers' timestamps" in reports[0]


def test_a_worker_without_its_topics_says_what_makes_them(rig: Rig) -> None:
    admin = admin_client(rig.settings)
    for future in admin.delete_topics([rig.topic]).values():
        future.result()
    with pytest.raises(HeadraceError, match="headrace apply"):
        rig.work()


def test_standings_tell_lag_and_age(rig: Rig) -> None:
    rig.produce(clicks(100))
    assert sum(each.lag for each in standings(rig.settings, rig.definitions)) == 100
    rig.work()
    assert all((each.lag, each.age_s) == (0, 0) for each in standings(rig.settings, rig.definitions))
    rig.produce(clicks(10, users=1))
    (behind,) = [each for each in standings(rig.settings, rig.definitions) if each.lag]
    assert behind.lag == 10
    assert 0 <= behind.age_s < 60


def test_a_log_takes_what_it_can_and_counts_the_rest(rig: Rig) -> None:
    log = KafkaLog(rig.settings)
    for n in range(1_000):
        log.append(rig.topic, b"%d" % n, b"value")
    assert log.flush() == 0
    assert len(rig.log()) == 1_000
    assert log.lost == 0
