"""Rejects replayed on the real Kafka: exactly once, whoever asks how often, and whenever it dies."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pydantic import Field

from schemas.decode import Batch, Decoder
from schemas.errors import DeliveryError
from schemas.event import Event
from schemas.rejection import Rejection
from schemas.settings import ConnectionSettings
from stream import replay
from stream.replay import REPLAY_HEADER, Replay, place_of

PARTITIONS = 2


class Logged(NamedTuple):
    partition: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


class Rig(NamedTuple):
    settings: ConnectionSettings
    topic: str

    def event(self, at_most: int) -> type[Event]:
        """The schema; `at_most` is what was too narrow in it."""

        class Reading(Event, topic=self.topic, time="at", key=["sensor"]):
            at: datetime
            sensor: str
            value: Annotated[int, Field(le=at_most)]

        return Reading

    def produce(self, values: list[int]) -> None:
        producer = Producer(self.settings.kafka_config())
        for number, value in enumerate(values):
            body = f'{{"at": {int(time.time())}, "sensor": "s{number}", "value": {value}}}'.encode()
            headers = [("trace", b"\x00\xff")]
            producer.produce(self.topic, body, f"s{number}".encode(), number % PARTITIONS, headers=headers)
        producer.flush(30)

    def messages(self) -> list[object]:
        consumer = Consumer(self.settings.kafka_config() | {"group.id": self.topic, "enable.partition.eof": True})
        consumer.assign([TopicPartition(self.topic, partition, 0) for partition in range(PARTITIONS)])
        found, ends = [], 0
        while ends < PARTITIONS:
            for message in consumer.consume(1_000, 1.0):
                error = message.error()
                ends += error is not None and error.code() == KafkaError._PARTITION_EOF
                found += [message] if error is None else []
        consumer.close()
        return found

    def log(self) -> list[Logged]:
        return [Logged(m.partition(), m.key(), m.value(), m.headers() or []) for m in self.messages()]  # type: ignore[attr-defined]

    def rejections(self, at_most: int) -> list[Rejection]:
        return Decoder(self.event(at_most)).decode(Batch.of(self.topic, self.messages())).rejections  # type: ignore[arg-type]

    def replay(self, at_most: int, rejections: list[Rejection], **options: bool) -> replay.ReplayReport:
        with Replay(self.settings, {self.topic: self.event(at_most)}, **options) as running:
            running.send(rejections)
        return running.report


@pytest.fixture
def rig(kafka: str, unique: Callable[[str], str]) -> Rig:
    settings = ConnectionSettings(kafka_bootstrap=kafka, project=unique("p"))
    topic = unique("readings")
    admin = AdminClient(dict(settings.kafka_config()))
    config = {"message.timestamp.type": "LogAppendTime"}
    admin.create_topics([NewTopic(topic, PARTITIONS, config=config)])[topic].result()
    return Rig(settings, topic)


def test_a_reject_is_replayed_once_after_the_schema_was_mended(rig: Rig) -> None:
    rig.produce([1, 20, 3, 4, 50])
    rejections = rig.rejections(at_most=10)
    before = rig.log()
    assert len(rejections) == 2

    dry = rig.replay(30, rejections, dry_run=True)
    assert (dry.replayed, dry.still_rejected) == (Counter({rig.topic: 1}), Counter(bad_value=1))
    assert rig.log() == before

    first = rig.replay(30, rejections)
    assert (first.replayed, first.still_rejected, first.before) == (Counter({rig.topic: 1}), Counter(bad_value=1), 0)
    again = rig.replay(30, rejections)
    assert (again.replayed, again.still_rejected, again.before) == (Counter(), Counter(bad_value=1), 1)
    later = rig.replay(100, rejections)
    assert (later.replayed, later.before) == (Counter({rig.topic: 1}), 1)

    sent = [message for message in rig.log() if dict(message.headers).get(REPLAY_HEADER)]
    assert len(sent) == 2
    for message in sent:
        rejection = next(r for r in rejections if place_of(r).encode() == dict(message.headers)[REPLAY_HEADER])
        assert (message.partition, message.key, message.value) == (rejection.partition, rejection.key, rejection.value)
        assert message.headers[0] == ("trace", b"\x00\xff")
    decoded = Decoder(rig.event(100)).decode(Batch.of(rig.topic, rig.messages()))  # type: ignore[arg-type]
    assert Counter(decoded.table["sensor"].to_pylist()) == Counter({"s0": 1, "s1": 2, "s2": 1, "s3": 1, "s4": 2})


def test_what_is_not_to_be_sent(rig: Rig) -> None:
    rig.produce([20])
    (rejection,) = rig.rejections(at_most=10)

    imported = msgspec.structs.replace(rejection, partition=-1)
    elsewhere = msgspec.structs.replace(rejection, topic="nowhere")
    report = rig.replay(30, [imported, elsewhere, rejection, rejection])
    assert (report.elsewhere, report.before, report.replayed) == (2, 1, Counter({rig.topic: 1}))
    gone = msgspec.structs.replace(rejection, partition=7)
    with pytest.raises(
        DeliveryError, match=f"{rig.topic}/7: a reject's partition isn't there any more; got 2 partitions"
    ):
        rig.replay(30, [gone])


def _replay_and_die(rig: Rig, rejections: list[Rejection], step: int) -> None:
    """Dies by os._exit at the n-th of its produces and commits."""
    left = step

    def dying(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(9)
            result = method(*arguments, **keywords)
            if left == 1 and method.__name__ == "commit_transaction":
                os._exit(9)  # committed, and nobody was told
            return result

        return call

    class Dying(Producer):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            self.produce = dying(super().produce)
            self.commit_transaction = dying(super().commit_transaction)

    replay.Producer = Dying  # type: ignore[misc]
    replay.TRANSACTION_MESSAGES_MAX = 2  # type: ignore[misc]
    rig.replay(1_000, rejections)
    os._exit(0)


def test_whenever_it_dies_the_next_one_sends_the_rest_once(rig: Rig) -> None:
    rig.produce([100] * 6)
    rejections = rig.rejections(at_most=10)
    spawn = multiprocessing.get_context("spawn")
    exits = []
    for step in (1, 3, 5, 6, 8):  # in the first transaction, before and behind its commit, in the second
        process = spawn.Process(target=_replay_and_die, args=(rig, rejections, step))
        process.start()
        process.join(60)
        exits.append(process.exitcode)
    assert 9 in exits
    rig.replay(1_000, rejections)
    sent = Counter(dict(message.headers).get(REPLAY_HEADER) for message in rig.log())
    assert sent == Counter({None: 6} | {place_of(each).encode(): 1 for each in rejections})


def test_two_at_once_are_one_after_the_other(rig: Rig) -> None:
    rig.produce([100] * 4)
    rejections = rig.rejections(at_most=10)
    with Replay(rig.settings, {rig.topic: rig.event(1_000)}) as first:
        first.send(rejections[:2])
        second = rig.replay(1_000, rejections)
        with pytest.raises(DeliveryError, match="another replay has taken over"):
            first.send(rejections[2:])
    assert (second.before, second.replayed) == (2, Counter({rig.topic: 2}))
    sent = Counter(dict(message.headers).get(REPLAY_HEADER) for message in rig.log())
    assert sent == Counter({None: 4} | {place_of(each).encode(): 1 for each in rejections})
