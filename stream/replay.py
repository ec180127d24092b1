"""Rejects sent once more, after the schema was mended: each exactly once, however often it is asked for and it dies.

A reject's original bytes go to the end of its topic, to the partition they came from, with their old place in a header.
In the same Kafka transaction a marker goes to the compacted topic `<project>.replayed`; a reject with a marker isn't
sent again. Whoever replays next fences who did before: two at once are one after the other.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # named without being exported

from schemas.decode import Batch, Decoder
from schemas.errors import ConfigError, DeliveryError, NotReady
from schemas.event import Event
from schemas.rejection import Rejection
from schemas.settings import ConnectionSettings
from stream.clients import client_config
from stream.topics import admin_client, describe_topics

REPLAY_HEADER = "headrace-replay-of"
TIMEOUT_S = 30.0
TRANSACTION_S = 20.0
TRANSACTION_MESSAGES_MAX = 500
"""Few enough to be sent in a moment: while a transaction is open, readers of its topics wait."""
MESSAGE_BYTES_MAX = 8 << 20
COMMITS_TRIED_MAX = 5
_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
    }
)


@dataclass
class ReplayReport:
    """What became of the rejects that were looked at."""

    replayed: Counter[str] = field(default_factory=Counter)
    """By topic."""
    still_rejected: Counter[str] = field(default_factory=Counter)
    """By the reason that they have now: not sent."""
    before: int = 0
    """Had been replayed already."""
    elsewhere: int = 0
    """Of a topic that no event stands on, or imported from a file: not to be sent."""


class Marker(msgspec.Struct, frozen=True):
    """The value of a marker; its key is `place_of` the reject."""

    replayed_at_ms: int
    reason: str


class Replay:
    """A context in which rejects are replayed. `events` are the event types by topic, as they are now.

    With `dry_run` nothing is sent: the report says what would be. Raises NotReady where Kafka or the schema registry
    does not answer, DeliveryError where another replay has taken over: what was committed stays, the rest is as before.
    """

    def __init__(
        self, settings: ConnectionSettings, events: Mapping[str, type[Event]], *, dry_run: bool = False
    ) -> None:
        self.report = ReplayReport()
        self._settings = settings
        self._markers = f"{settings.project}.replayed"
        self._decoders = {topic: Decoder(event, settings.schema_registry) for topic, event in events.items()}
        self._dry_run = dry_run
        self._done: set[str] = set()
        self._producer: Producer | None = None
        self._in_transaction = False
        self._partitions: dict[str, int] = {}

    def __enter__(self) -> Replay:
        admin = admin_client(self._settings)
        if not self._dry_run:
            self._make_topic(admin)
            self._producer = self._open_producer()
        if describe_topics(admin, [self._markers]):
            # Behind the fence: whatever was under way is decided, and nobody adds to it.
            self._done = set(self._read_markers())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._producer is not None and self._in_transaction:
            # Until it is aborted nobody reads on behind it; the broker itself does so after TRANSACTION_S.
            with suppress(KafkaException):
                self._producer.abort_transaction(TIMEOUT_S)
        self._producer = None

    def send(self, rejections: Sequence[Rejection]) -> None:
        """Replays those that are events now and haven't been replayed."""
        new: dict[str, Rejection] = {}
        for each in rejections:
            if each.topic not in self._decoders or each.partition < 0:
                self.report.elsewhere += 1
            elif (place := place_of(each)) in self._done or place in new:
                self.report.before += 1
            else:
                new[place] = each
        good = list(self._good(list(new.values())))
        for start in range(0, len(good), TRANSACTION_MESSAGES_MAX):
            some = good[start : start + TRANSACTION_MESSAGES_MAX]
            if self._producer is not None:
                self._send(self._producer, some)
            self._done |= {place_of(each) for each in some}
            self.report.replayed.update(each.topic for each in some)

    def _good(self, rejections: Sequence[Rejection]) -> Iterator[Rejection]:
        now_ms = int(time.time() * 1_000)
        for topic in sorted({each.topic for each in rejections}):
            mine = [each for each in rejections if each.topic == topic]
            decoded = self._decoders[topic].decode(
                Batch.of(topic, [_Again(each, number, now_ms) for number, each in enumerate(mine)])
            )
            self.report.still_rejected.update(str(each.reason) for each in decoded.rejections)
            for number in decoded.table["kafka_offset"].to_pylist():
                yield mine[number]

    def _send(self, producer: Producer, rejections: Sequence[Rejection]) -> None:
        now_ms = int(time.time() * 1_000)
        partitions = [self._partition(producer, each) for each in rejections]
        try:
            producer.begin_transaction()
            self._in_transaction = True
            for each, partition in zip(rejections, partitions, strict=True):
                place = place_of(each)
                headers: list[tuple[str, str | bytes | None]] = [*each.headers, (REPLAY_HEADER, place.encode())]
                producer.produce(each.topic, each.value, each.key, partition, headers=headers)
                marker = msgspec.json.encode(Marker(now_ms, str(each.reason)))
                producer.produce(self._markers, marker, place.encode())
                producer.poll(0)
            _commit(producer)
            self._in_transaction = False
        except KafkaException as error:
            raise _explained(error.args[0]) from error

    def _partition(self, producer: Producer, rejection: Rejection) -> int:
        topic = rejection.topic
        if topic not in self._partitions:
            self._partitions[topic] = len(producer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions)
        if rejection.partition >= self._partitions[topic]:
            raise DeliveryError(
                "a reject's partition isn't there any more",
                where=f"{topic}/{rejection.partition}",
                got=f"{self._partitions[topic]} partitions",
                hint="the topic was made anew: its rejects can't be replayed in the order of their keys",
            )
        return rejection.partition

    def _open_producer(self) -> Producer:
        producer = Producer(
            {
                **client_config(self._settings),
                "transactional.id": self._markers,
                "transaction.timeout.ms": int(TRANSACTION_S * 1_000),
                "message.max.bytes": MESSAGE_BYTES_MAX,
            }
        )
        try:
            producer.init_transactions(TIMEOUT_S)
        except KafkaException as error:
            raise _explained(error.args[0]) from error
        return producer

    def _make_topic(self, admin: AdminClient) -> None:
        topic = NewTopic(self._markers, num_partitions=1, replication_factor=-1, config={"cleanup.policy": "compact"})
        try:
            admin.create_topics([topic], request_timeout=TIMEOUT_S)[self._markers].result()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            if reason.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise ConfigError(
                    "Kafka refuses to make a topic",
                    where=self._markers,
                    got=reason.str(),
                    hint="make it, compacted and with one partition, or allow it to be made",
                ) from error
            raise _explained(reason) from error

    def _read_markers(self) -> Iterator[str]:
        consumer = Consumer(
            {
                **client_config(self._settings),
                "group.id": self._markers,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )
        consumer.assign([TopicPartition(self._markers, 0, 0)])
        try:
            until = time.monotonic() + TIMEOUT_S
            while time.monotonic() < until:
                for message in consumer.consume(1_000, 0.5):
                    error = message.error()
                    if error is None:
                        until = time.monotonic() + TIMEOUT_S
                        yield (message.key() or b"").decode()
                    elif error.code() == KafkaError._PARTITION_EOF:
                        return
        finally:
            consumer.close()
        raise NotReady("the markers of what was replayed can't be read", where=self._markers, got="no answer in time")


class _Again:
    """A reject as a message of its topic: `number` in place of its offset, as of now."""

    def __init__(self, rejection: Rejection, number: int, now_ms: int) -> None:
        self._rejection = rejection
        self._number = number
        self._now_ms = now_ms

    def value(self) -> bytes | None:
        return self._rejection.value

    def key(self) -> bytes | None:
        return self._rejection.key

    def partition(self) -> int | None:
        return self._rejection.partition

    def offset(self) -> int | None:
        return self._number

    def timestamp(self) -> tuple[int, int]:
        return (2, self._now_ms)

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._rejection.headers


def place_of(rejection: Rejection) -> str:
    """Where a reject stood; with its time, so that a topic made anew has other places."""
    return f"{rejection.topic}/{rejection.partition}/{rejection.offset}@{rejection.timestamp_us}"


def _commit(producer: Producer) -> None:
    for _ in range(COMMITS_TRIED_MAX):
        try:
            producer.commit_transaction(TIMEOUT_S)
        except KafkaException as error:
            # The answer was lost, not the transaction: asking again says what became of it.
            if not error.args[0].retriable():
                raise
        else:
            return
    raise NotReady("Kafka does not say whether a transaction was committed", hint="replay again: it finds out")


def _explained(error: KafkaError) -> Exception:
    if error.code() in _FENCED:
        return DeliveryError(
            "another replay has taken over",
            got=error.str(),
            hint="it goes on from here; nothing is sent twice",
        )
    if error.fatal():
        return DeliveryError("Kafka's client can't go on", got=error.str(), hint="replay again")
    return NotReady("Kafka does not answer", got=error.str(), hint="replay again: what was committed isn't sent twice")
