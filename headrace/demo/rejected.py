"""Are the broken messages, and they alone, among the rejects: each with its reason, its place and its bytes?"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, TopicPartition

from headrace.demo.produce import BrokenMessage
from schemas.errors import NotReady
from schemas.rejection import Rejection, decode_rejection
from schemas.settings import ConnectionSettings
from stream.topics import admin_client, describe_topics, ranges

READ_TIMEOUT_S = 20.0
Reject = tuple[str, str, int, int, bytes | None, bytes | None]
"""Reason, topic, partition, offset, key, value."""
QUERY = "SELECT reason, topic, kafka_partition, kafka_offset, key, value FROM rejects"


def expected(broken: Iterable[BrokenMessage]) -> set[Reject]:
    """What must be found."""
    return {(str(b.breakage.reason), b.topic, b.partition, b.offset, b.key, b.value) for b in broken}


def in_table(rows: pa.Table) -> list[Reject]:
    """What the answer to QUERY holds."""
    return list(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def on_topic(settings: ConnectionSettings) -> list[Reject]:
    """What the rejects topic holds, from its beginning to its end as of now. Raises NotReady where Kafka is silent."""
    name = settings.rejects_topic
    admin = admin_client(settings)
    partitions = describe_topics(admin, [name])[name].partitions
    held = ranges(admin, [(name, partition) for partition in partitions])
    # Not by counting: the marks of transactions have offsets, too.
    left: set[int | None] = {partition for (_, partition), range_ in held.items() if range_.end > range_.earliest}
    options = {"group.id": "headrace.demo", "enable.auto.commit": "false", "enable.partition.eof": "true"}
    consumer = Consumer(settings.kafka_config() | options)
    found: list[Reject] = []
    try:
        consumer.assign([TopicPartition(name, p, range_.earliest) for (_, p), range_ in held.items()])
        while left:
            message = consumer.poll(READ_TIMEOUT_S)
            if message is None:
                raise NotReady(f"the end of {name} did not arrive", got=f"nothing within {READ_TIMEOUT_S:.0f} s")
            error = message.error()
            if error is None:
                found.append(_reject(decode_rejection(message.value() or b"")))
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition())
    finally:
        consumer.close()
    return found


def matching(found: list[Reject], wanted: set[Reject]) -> int:
    """How many are as they must be; anything beside them counts against it, and so does a copy."""
    return len(wanted & set(found)) - len(set(found) - wanted) - (len(found) - len(set(found)))


def _reject(each: Rejection) -> Reject:
    return str(each.reason), each.topic, each.partition, each.offset, each.key, each.value
