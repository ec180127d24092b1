"""The broker's timestamp of single messages."""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas.errors import NotReady
from schemas.settings import ConnectionSettings
from stream.batch import Place
from stream.clients import client_config

TIMEOUT_S = 10.0


def timestamps_ms(settings: ConnectionSettings, offsets: Mapping[Place, int]) -> dict[Place, int | None]:
    """That of the first message at or behind each offset, in ms; None where there is none yet.

    Raises NotReady where Kafka does not answer.
    """
    if not offsets:
        return {}
    found: dict[Place, int | None] = {}
    consumer = Consumer(
        {
            **client_config(settings),
            "group.id": f"{settings.project}.stream.probe",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "queued.max.messages.kbytes": 1_024,
        }
    )
    try:
        consumer.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
        deadline = time.monotonic() + TIMEOUT_S
        while len(found) < len(offsets):
            message = consumer.poll(max(deadline - time.monotonic(), 0))
            if message is None:
                raise NotReady("Kafka does not answer", got=f"nothing within {TIMEOUT_S:.0f} s")
            place = (message.topic() or "", message.partition() or 0)
            error = message.error()
            if error is None:
                found.setdefault(place, message.timestamp()[1])
            elif error.code() == KafkaError._PARTITION_EOF:
                found.setdefault(place, None)
    finally:
        consumer.close()
    return found
