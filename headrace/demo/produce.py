"""The timeline into Kafka: keyed, idempotent, every message acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as Acknowledged

from headrace.demo.broken import Breakage
from headrace.demo.timeline import Message, Timeline
from schemas.errors import DeliveryError
from schemas.settings import ConnectionSettings

IN_FLIGHT_MAX = 50_000
"""Messages handed over and not acknowledged: half of librdkafka's own bound, so that its queue is never full."""
FLUSH_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class BrokenMessage:
    """A message that must be rejected, at the place that Kafka gave it."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    breakage: Breakage


@dataclass
class Produced:
    """What Kafka has acknowledged."""

    messages: int = 0
    broken: list[BrokenMessage] = field(default_factory=list)


def produce(
    timeline: Timeline,
    settings: ConnectionSettings,
    produced: Produced,
    progress: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Produces everything in order, unless `stop` is set; `produced` and `progress` grow with what is acknowledged.

    Raises DeliveryError where Kafka refuses a message or does not acknowledge all of them.
    """
    # Below errors, the client remarks on every retry of a broker that has just started.
    options = {"enable.idempotence": "true", "linger.ms": "20", "log_level": "3"}
    producer = Producer(settings.kafka_config() | options)
    for slice_ in timeline.slices():
        if stop.is_set():
            return
        while len(producer) > IN_FLIGHT_MAX:
            producer.poll(0.1)
        for topic in timeline.specs:
            messages = [_message(each, produced) for each in slice_ if each.topic == topic]
            producer.produce_batch(topic, messages)
        producer.poll(0)
        progress(produced.messages)
    unacknowledged = producer.flush(FLUSH_TIMEOUT_S)
    progress(produced.messages)
    if unacknowledged or produced.messages != len(timeline):
        raise DeliveryError(
            "Kafka did not acknowledge every message of the demo",
            got=f"{produced.messages:,} of {len(timeline):,} within {FLUSH_TIMEOUT_S:.0f} s",
            hint="see `headrace status` and the broker's log",
        )


def _message(message: Message, produced: Produced) -> dict[str, Any]:
    def acknowledged(error: KafkaError | None, at: Acknowledged) -> None:
        if error is not None:
            raise DeliveryError("Kafka refused a message of the demo", where=message.topic, got=str(error))
        produced.messages += 1
        if message.breakage is not None:
            partition, offset = at.partition(), at.offset()
            produced.broken.append(
                BrokenMessage(message.topic, partition or 0, offset or 0, message.key, message.value, message.breakage)
            )

    return {"key": message.key, "value": message.value, "callback": acknowledged}
