"""The last message of a partition: what a topic itself says of how far its writer had come."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.errors import DeliveryError, NotReady
from schemas.settings import ConnectionSettings
from stream.topics import unreachable

TIMEOUT_S = 30.0
BACK_MAX = 10_000
"""So many offsets before the end are looked at: the markers of transactions stand among the messages."""

log = logging.getLogger(__name__)


def last_headers(settings: ConnectionSettings, topic: str, partitions: Sequence[int], header: str) -> dict[int, str]:
    """The header of the last committed message of each partition; one that never had a message is left out.

    Raises NotReady where Kafka does not answer, DeliveryError where a partition's last message isn't found.
    """
    consumer = Consumer(
        {
            **settings.kafka_config(),
            "group.id": f"{settings.project}.tail",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "logger": log,
        }
    )
    try:
        found = {partition: _last(consumer, TopicPartition(topic, partition), header) for partition in partitions}
    except KafkaException as error:
        raise unreachable(error) from error
    finally:
        consumer.close()
    return {partition: value for partition, value in found.items() if value is not None}


def _last(consumer: Consumer, place: TopicPartition, header: str) -> str | None:
    low, high = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
    if high == 0:
        return None
    start = max(low, high - BACK_MAX)
    consumer.assign([TopicPartition(place.topic, place.partition, start)])
    found: str | None = None
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        for message in consumer.consume(1_000, 0.5):
            error = message.error()
            if error is None:
                value = dict(message.headers() or []).get(header)
                found = found if value is None else _text(value)
            elif error.code() == KafkaError._PARTITION_EOF:
                # From the very first offset on: what stands there was never committed.
                if found is None and start > 0:
                    raise DeliveryError(
                        "the last message of a partition isn't there any more",
                        where=f"{place.topic}/{place.partition}",
                        got=f"offsets {low} to {high} without one",
                        hint="give the topic a longer retention, and restore the group's offsets by Kafka's own tools",
                    )
                return found
    raise NotReady("the end of a partition can't be read", where=f"{place.topic}/{place.partition}", got="no answer")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
