"""Kafka as the lander reads it: topics, their ids, and messages from given offsets on.

No consumer group takes part: where to read from is the tables' own knowledge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from batch.settings import BatchSettings
from schemas.errors import DeliveryError, NotReady

METADATA_TIMEOUT_S = 20.0
CONSUME_MAX = 20_000
QUEUED_KBYTES = 64 << 10
"""What librdkafka fetches ahead, of all partitions together."""


@dataclass(frozen=True)
class Topic:
    """A topic as the broker knows it."""

    name: str
    id: str
    partitions: tuple[int, ...]


class TopicLog:
    """Reads topics from given offsets. Not to be shared between threads; `close` it."""

    def __init__(self, settings: BatchSettings) -> None:
        self.waiting_for = ""
        """Why nothing comes, if the client said so."""
        connection = settings.kafka_config()
        self._admin = AdminClient(dict(connection))
        self._consumer = Consumer(
            connection
            | {
                "group.id": f"{settings.project}.land",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": QUEUED_KBYTES,
                "error_cb": self._take_error,
            }
        )

    def close(self) -> None:
        """Leaves the broker; nothing is committed to it."""
        self._consumer.close()

    def topics(self, names: list[str]) -> dict[str, Topic]:
        """The topics that exist. Raises NotReady where the broker does not answer."""
        found: dict[str, Topic] = {}
        if not names:
            return found
        try:
            answers = self._admin.describe_topics(TopicCollection(names), request_timeout=METADATA_TIMEOUT_S)
            for name, answer in answers.items():
                try:
                    described = answer.result()
                except KafkaException as error:
                    if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                        continue
                    raise
                found[name] = Topic(name, str(described.topic_id), tuple(p.id for p in described.partitions))
        except KafkaException as error:
            raise _no_answer(error) from error
        return found

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset that is there and the one after the last."""
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), METADATA_TIMEOUT_S)
        except KafkaException as error:
            raise _no_answer(error) from error
        return low, high

    def known_end(self, topic: str, partition: int) -> int:
        """The end as the last fetch told it: nothing is asked. −1 before the first."""
        return int(self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)[1])

    def read_from(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Begins to read these partitions, beside those that are read already."""
        self._consumer.incremental_assign([TopicPartition(t, p, offset) for (t, p), offset in positions.items()])

    def poll(self, timeout_s: float, messages_max: int) -> Iterator[Message]:
        """What has come: messages, and for a partition at its end one whose `error()` is _PARTITION_EOF.

        Raises DeliveryError where the broker has deleted what was to be read next.
        """
        for message in self._consumer.consume(min(CONSUME_MAX, messages_max), timeout_s):
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                self.waiting_for = ""
                yield message
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise DeliveryError(
                    "Kafka no longer has the next offset to land",
                    where=f"{message.topic()}/{message.partition()}",
                    got=str(error.str()),
                    hint="retention has deleted events that were never landed; see the runbook",
                )
            elif error.fatal() or not error.retriable():
                raise KafkaException(error)
            else:
                self._take_error(error)

    def _take_error(self, error: KafkaError) -> None:
        """The client gets over it by itself; until a message comes, this is why none does."""
        if not error.fatal():
            self.waiting_for = f"Kafka: {error.str()}"


def _no_answer(error: KafkaException) -> NotReady:
    return NotReady("Kafka does not answer", got=str(error.args[0]), hint="check `headrace status`")
