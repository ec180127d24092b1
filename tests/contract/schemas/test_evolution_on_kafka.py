"""Producers of three generations write to one topic at once, from threads that share only the registry's folder."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.decode import Batch, Decoder
from schemas.rejection import Reason
from schemas.settings import ConnectionSettings
from tests.unit.schemas.orders import FORMATS, NEW, NEWEST, OLD, Producer, expected_row, order

EACH = 100
GENERATIONS = (OLD, NEW, NEWEST)


@pytest.mark.parametrize("format_", FORMATS)
def test_three_generations_at_once(kafka: str, unique: Callable[[str], str], tmp_path: Path, format_: str) -> None:
    settings = ConnectionSettings(kafka_bootstrap=kafka, schema_registry_url=f"file://{tmp_path}/registry")
    topic = unique("orders")
    admin = AdminClient(dict(settings.kafka_config()))
    admin.create_topics([NewTopic(topic, 2)])[topic].result()
    threads = [
        threading.Thread(target=produce, args=(settings, topic, format_, producer, generation))
        for generation, producer in enumerate(GENERATIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    decoder = Decoder(order(topic, format_), settings.schema_registry)
    rows, rejections = [], []
    for messages in consume(settings, topic, len(GENERATIONS) * EACH):
        decoded = decoder.decode(Batch.of(topic, messages))
        rows += decoded.table.to_pylist()
        rejections += decoded.rejections

    found = {row["buyer"]: row for row in rows}
    assert len(found) == len(rows) == 2 * EACH
    for number in range(2 * EACH):
        expected = expected_row(number, is_new=number >= EACH)
        assert {name: found[f"buyer {number}"][name] for name in expected} == expected
    assert [(r.reason, r.path) for r in rejections] == [(Reason.BAD_VALUE, "channel")] * EACH


def produce(settings: ConnectionSettings, topic: str, format_: str, producer: Producer, generation: int) -> None:
    registry = ConnectionSettings(schema_registry_url=settings.schema_registry_url).schema_registry
    assert registry is not None
    kafka = KafkaProducer(settings.kafka_config())
    for number in range(generation * EACH, (generation + 1) * EACH):
        at = datetime.now(UTC).replace(tzinfo=None)
        kafka.produce(topic, producer.message(format_, registry, at, number), str(number).encode())
    kafka.flush(30)


def consume(settings: ConnectionSettings, topic: str, count: int) -> list[list[Message]]:
    consumer = Consumer(settings.kafka_config() | {"group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    batches: list[list[Message]] = []
    while sum(map(len, batches)) < count:
        messages = [message for message in consumer.consume(50, 1.0) if message.error() is None]
        if messages:
            batches.append(messages)
    consumer.close()
    return batches
