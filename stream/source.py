"""Kafka's side of a reader: which partitions it has, from which offsets, and batches of their messages."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.decode import Batch
from schemas.errors import DeliveryError, NotReady
from stream.batch import Place, partitions_in
from stream.clients import client_config
from stream.columns import Columns, rows_of
from stream.intake import Fetched
from stream.settings import StreamSettings

OFFSETS_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 5.0
CHUNK_MESSAGES = 2_048
"""Messages that are taken from the client at once: as many as stay in the processor's cache while columns are made."""
PASSING = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
)
"""Errors that the client gets over by itself: they are reasons for waiting, not for ending."""

log = logging.getLogger(__name__)


class Source:
    """A consumer. With `subscribe` the group gives and takes partitions; without, `read` alone says what is read.

    What the group gave is in `given`, what it took since the last look in `taken`; a partition is read only from where
    `read` says. `waiting_for` says why the broker gives nothing, if it said so.
    """

    def __init__(self, settings: StreamSettings, *, group: str) -> None:
        self.given: set[Place] = set()
        self.taken: set[Place] = set()
        self.joined = False
        self.waiting_for = ""
        self._reading: dict[Place, int] = {}
        self._events_max = settings.batch_events_max
        self._kept: list[Message] = []
        self._consumer = Consumer(
            {
                **client_config(settings),
                "group.id": group,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": settings.session_timeout_ms,
                "heartbeat.interval.ms": max(settings.session_timeout_ms // 4, 300),
                "max.poll.interval.ms": max(settings.poll_interval_max_ms, settings.session_timeout_ms),
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # An offset that is gone is refused, never replaced by another one.
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": settings.fetch_buffer_kib,
                "fetch.queue.backoff.ms": 10,
                # The end of a partition shows in an empty answer; messages never wait for this.
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 100,
                "reconnect.backoff.max.ms": 1_000,
                "error_cb": self._take_client_error,
                # Partitions that are added are found this soon.
                "topic.metadata.refresh.interval.ms": 10_000,
            },
        )

    def subscribe(self, topics: Sequence[str]) -> None:
        """Joins the group; what it gives is found in `given` after a later `fetch`."""
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def close(self) -> None:
        """Leaves the group. Where no broker hears of it, it isn't waited for: the session's end says the same."""
        closing = threading.Thread(target=self._consumer.close, name="close", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)

    @property
    def reading(self) -> set[Place]:
        """The partitions that are being read."""
        return set(self._reading)

    def read(self, starts: Mapping[Place, int]) -> None:
        """Reads these partitions from these offsets on, whatever was read of them before."""
        self.rest(starts)
        self._consumer.incremental_assign([TopicPartition(*place, start) for place, start in starts.items()])
        self._reading |= starts

    def rest(self, places: Iterable[Place]) -> None:
        """Stops reading these partitions; they stay given."""
        resting = [place for place in places if place in self._reading]
        for place in resting:
            del self._reading[place]
        if resting:
            self._consumer.incremental_unassign([TopicPartition(*place) for place in resting])

    def fetch(self, timeout_s: float) -> Fetched:
        """What has come, at most `batch_events_max` messages. Waits for the first one, never for company.

        Raises DeliveryError for an offset that Kafka no longer has, and whatever else the client can't get over.
        """
        columns: dict[str, Columns] = {}
        ends: dict[Place, int] = {}
        messages, self._kept = self._kept, []
        messages = messages or self._consumer.consume(CHUNK_MESSAGES, 0)
        if not messages and timeout_s > 0:
            messages = self._consumer.consume(1, timeout_s)
        count = 0
        while messages:
            count += len(messages)
            self._sort(messages, columns, ends)
            room = self._events_max - count
            messages = self._consumer.consume(min(room, CHUNK_MESSAGES), 0) if room > 0 else []
        if columns:
            self.waiting_for = ""
        batches = {topic: self._wanted(found.batch()) for topic, found in columns.items()}
        return Fetched({topic: batch for topic, batch in batches.items() if len(batch)}, ends)

    def wait(self, seconds: float) -> None:
        """Lets time pass while nothing is taken in: the group goes on to see this member as alive."""
        paused = [TopicPartition(*place) for place in self._reading]
        self._consumer.pause(paused)
        try:
            self._kept += self._consumer.consume(1, seconds)
        finally:
            self._consumer.resume([place for place in paused if (place.topic, place.partition) in self._reading])

    def offsets_at(self, times_ms: Mapping[Place, int]) -> dict[Place, int]:
        """The first offset of each partition whose broker's timestamp is not before the time; the end if there is none.

        Raises NotReady where Kafka does not answer.
        """
        wanted = [TopicPartition(*place, time_ms) for place, time_ms in times_ms.items()]
        try:
            answers = self._consumer.offsets_for_times(wanted, timeout=OFFSETS_TIMEOUT_S)
            return {
                (each.topic, each.partition): each.offset
                if each.offset >= 0
                else self._consumer.get_watermark_offsets(each, timeout=OFFSETS_TIMEOUT_S)[1]
                for each in answers
            }
        except KafkaException as error:
            raise NotReady("Kafka does not answer", got=error.args[0].str()) from error

    def commit(self, positions: Mapping[Place, int]) -> None:
        """Tells the group how far this worker is: for lag monitors only, nothing reads it back."""
        offsets = [TopicPartition(*place, offset) for place, offset in positions.items() if place in self.given]
        if offsets:
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def committed(self, places: Iterable[Place]) -> dict[Place, int]:
        """The group's offset of each partition, those of open transactions awaited; negative where it has none.

        Raises NotReady where Kafka does not answer.
        """
        try:
            found = self._consumer.committed([TopicPartition(*place) for place in places], timeout=OFFSETS_TIMEOUT_S)
        except KafkaException as error:
            raise NotReady("Kafka does not answer", got=error.args[0].str()) from error
        if failed := [each.error for each in found if each.error is not None]:
            raise NotReady("Kafka does not tell a group's offsets", got=failed[0].str())
        return {(each.topic, each.partition): each.offset for each in found}

    def membership(self) -> Any:
        """What a transaction over the group's offsets names: a member that was left behind can't commit them."""
        return self._consumer.consumer_group_metadata()

    def _sort(self, messages: list[Message], columns: dict[str, Columns], ends: dict[Place, int]) -> None:
        errors = list(map(Message.error, messages))
        failed = [n for n, error in enumerate(errors) if error is not None]
        if failed:
            for n in failed:
                self._take_error(cast(KafkaError, errors[n]), messages[n], ends)
            messages = [message for error, message in zip(errors, messages, strict=True) if error is None]
        topics = list(map(Message.topic, messages))
        distinct = set(topics)
        for topic in distinct:
            mine = messages
            if len(distinct) > 1:
                mine = [message for name, message in zip(topics, messages, strict=True) if name == topic]
            columns.setdefault(topic or "", Columns(topic or "")).add(mine)

    def _wanted(self, batch: Batch) -> Batch:
        """Without what was fetched before a rebalance or a new start and comes now."""
        stale = np.zeros(len(batch), np.bool_)
        for partition in partitions_in(batch.partitions):
            place, mine = (batch.topic, partition), batch.partitions == partition
            start = self._reading.get(place)
            offsets = batch.offsets[mine]
            if start is None or int(offsets.min()) < start:
                stale |= mine & (True if start is None else batch.offsets < start)
            if start is not None:
                self._reading[place] = max(start, int(offsets.max()) + 1)
        return rows_of(batch, np.flatnonzero(~stale)) if stale.any() else batch

    def _take_error(self, error: KafkaError, message: Message, ends: dict[Place, int]) -> None:
        code = error.code()
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        place = (topic or "", -1 if partition is None else partition)
        if code == KafkaError._PARTITION_EOF:
            if place in self._reading and offset is not None and offset >= self._reading[place]:
                ends[place] = offset
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            if place in self._reading:
                raise DeliveryError(
                    "Kafka has not got the offset that comes next",
                    where=f"{place[0]}/{place[1]}",
                    got=f"offset {self._reading[place]}: {error.str()}",
                    hint="its retention deleted events that were never folded, or the topic was made anew; "
                    "with the events landed in Iceberg, start the worker again",
                )
        elif code in PASSING or error.retriable():
            self.waiting_for = f"Kafka: {error.str()}"
        else:
            raise DeliveryError("Kafka's client can't go on", where=f"{place[0]}/{place[1]}", got=error.str())

    def _take_client_error(self, error: KafkaError) -> None:
        """Of the client as a whole: no broker is reachable, say. The next message, or whoever asks Kafka, clears it."""
        if not error.fatal():
            self.waiting_for = f"Kafka: {error.str()}"

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.joined = True
        self.given |= {(each.topic, each.partition) for each in partitions}
        # Nothing is read before its checkpoints are: an empty assignment keeps the client from choosing offsets itself.
        consumer.incremental_assign([])

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = {(each.topic, each.partition) for each in partitions}
        self.given -= places
        self.taken |= places
        if places & self._reading.keys():
            self.rest(places)
        else:
            # Said here, or the client takes away what it was never given to read, and fails.
            consumer.incremental_unassign([])

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._kept = []
        self._on_revoke(consumer, partitions)
