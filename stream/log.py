"""A log on Kafka for those who must not wait: messages are buffered, and written in the background."""

from __future__ import annotations

import logging

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.errors import NotReady
from schemas.settings import ConnectionSettings
from stream.clients import client_config

BUFFER_MESSAGES_MAX = 100_000
BUFFER_KIB_MAX = 65_536
LINGER_MS = 50
"""Nobody reads the log within this time; larger batches cost the broker less."""
FLUSH_TIMEOUT_S = 10.0
DELIVERY_TIMEOUT_MS = 60_000

log = logging.getLogger(__name__)


class KafkaLog:
    """Appends messages to topics; bounded in memory. `lost` counts what the broker did not take within a minute."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.lost = 0
        self._producer = Producer(
            {
                **client_config(settings),
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": LINGER_MS,
                "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
                "queue.buffering.max.messages": BUFFER_MESSAGES_MAX,
                "queue.buffering.max.kbytes": BUFFER_KIB_MAX,
            }
        )

    def append(self, topic: str, key: bytes, value: bytes) -> None:
        """Buffers a message. Raises BufferError where the buffer is full, NotReady where the client takes nothing."""
        self._producer.poll(0)
        try:
            self._producer.produce(topic, value, key, on_delivery=self._delivered)
        except KafkaException as error:
            raise NotReady("a message can't be logged", where=f"topic {topic}", got=error.args[0].str()) from error

    def flush(self) -> int:
        """Waits, for at most FLUSH_TIMEOUT_S, until everything is written; answers how many messages are not."""
        return int(self._producer.flush(FLUSH_TIMEOUT_S))

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.lost += 1
            if self.lost == 1:
                log.warning("a message for topic %s was lost: %s", message.topic(), error.str())
