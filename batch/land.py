"""The lander: Kafka to the Iceberg event log, each event once, whoever else lands and whenever it dies.

A topic's rejects are committed before its events. A crash between the two is harmless: the events' offsets say where to
go on, and rejects below the rejects table's own offsets are dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Protocol, cast

from confluent_kafka import Message as KafkaMessage
from pyiceberg.catalog import Catalog

from batch.append import OnStep, Piece, append_once, check_topic
from batch.catalog import Identifier, load, open_catalog
from batch.enriched import Histories
from batch.land_report import LandReport, Progress
from batch.maintain import maintain
from batch.monitor import open_monitor
from batch.offsets import offsets_of
from batch.settings import BatchSettings
from batch.tables import REJECTS, ensure_tables, events_table, served_table
from batch.topic_log import Topic, TopicLog
from features.plan import Definitions
from features.served import decode_served, served_schema, served_topic
from schemas.decode import Batch, Decoded, Decoder, Message
from schemas.errors import DataError, DeliveryError
from schemas.event import Event
from schemas.rejection import rejections_table

POLL_S = 0.2
REPORT_EVERY_S = 1.0
LOOK_FOR_PARTITIONS_S = 30.0
"""How soon a partition that was added is landed."""


class _Decode(Protocol):
    def __call__(self, batch: Batch) -> Decoded: ...


def run_lander(
    definitions: Definitions,
    events: Mapping[str, type[Event]],
    settings: BatchSettings,
    *,
    until_caught_up: bool,
    stop: threading.Event,
    progress: Progress = lambda _: None,
    on_step: OnStep = lambda _: None,
) -> LandReport:
    """Lands all event topics and all logs of served vectors until `stop` is set, or what was there is landed.

    `events`: the event types by name (`definitions.events`). Raises DeliveryError rather than skip or double an event,
    NotReady where the schema registry can't be reached: what isn't landed then is landed by the next run.
    """
    report = LandReport()
    monitor = open_monitor(settings, report)
    log = TopicLog(settings)

    def tell(changed: LandReport) -> None:
        if monitor is not None:
            monitor.alive()
        progress(changed)

    try:
        ensure_tables(settings, definitions, lambda _: None)
        _Lander(definitions, events, settings, log, report, tell, on_step).run(until_caught_up, stop)
        return report
    finally:
        log.close()
        if monitor is not None:
            monitor.close()


class _Lander:
    def __init__(
        self,
        definitions: Definitions,
        events: Mapping[str, type[Event]],
        settings: BatchSettings,
        log: TopicLog,
        report: LandReport,
        progress: Progress,
        on_step: OnStep,
    ) -> None:
        self._settings = settings
        self._definitions = definitions
        self._log = log
        self._progress = progress
        self._report = report
        catalog = open_catalog(settings)
        rejects = _Target(catalog, REJECTS, on_step)
        self._histories = Histories(definitions, settings)
        self._topics: dict[str, _Landing] = {}
        self._next_report = 0.0
        for spec in definitions.events.values():
            if spec.topic is not None:
                target = _Target(catalog, events_table(spec.topic), on_step)
                decoder = Decoder(events[spec.name], settings.schema_registry)
                self._topics[spec.topic] = _Landing(spec.topic, target, rejects, decoder.decode)
        for service in definitions.services.values():
            topic = served_topic(service.name)
            target = _Target(catalog, served_table(service.name), on_step)
            decode = partial(decode_served, schema=served_schema(definitions, service))
            self._topics[topic] = _Landing(topic, target, rejects, decode)

    def run(self, until_caught_up: bool, stop: threading.Event) -> None:
        self._assign()
        look_again = time.monotonic() + LOOK_FOR_PARTITIONS_S
        upkeep = time.monotonic() + self._settings.maintain_seconds
        while not stop.is_set():
            is_idle = True
            for message in self._log.poll(POLL_S, self._settings.land_rows_max):
                self._topics[str(message.topic())].take(message)
                is_idle = False
            self._stand()
            caught_up = until_caught_up and all(landing.caught_up for landing in self._topics.values())
            for landing in self._topics.values():
                if caught_up or landing.due(self._settings):
                    self._land(landing)
            if caught_up:
                self._recompute()
                return
            if is_idle and time.monotonic() > upkeep:
                # What lands in small files is merged when nobody waits; meanwhile Kafka keeps what comes.
                maintain(self._settings, self._definitions)
                upkeep = time.monotonic() + self._settings.maintain_seconds
            if time.monotonic() > look_again:
                self._assign()
                self._recompute()
                look_again = time.monotonic() + LOOK_FOR_PARTITIONS_S
        for landing in self._topics.values():
            self._land(landing)

    def _stand(self) -> None:
        """What whoever watches sees between commits."""
        for landing in self._topics.values():
            self._report.since[landing.topic] = landing.since
            for partition, landed in landing.landed.items():
                self._report.places[landing.topic, partition] = (landed, self._log.known_end(landing.topic, partition))
        self._report.waiting_for = self._log.waiting_for
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + REPORT_EVERY_S
            self._progress(self._report)

    def _recompute(self) -> None:
        """The history of enriched events, as soon as what it is made of is landed."""
        for topic, count in self._histories.recompute().items():
            self._report.rows[topic] = self._report.rows.get(topic, 0) + count
            self._progress(self._report)

    def _assign(self) -> None:
        """Begins to read every partition that isn't read yet, from where its table stands."""
        found = self._log.topics(list(self._topics))
        positions: dict[tuple[str, int], int] = {}
        for name, topic in found.items():
            new = self._topics[name].begin(topic, self._log)
            positions |= {(name, partition): offset for partition, offset in new.items()}
        if positions:
            self._log.read_from(positions)

    def _land(self, landing: _Landing) -> None:
        began = time.monotonic()
        landed = landing.land()
        if landed is not None:
            rows, rejected = landed
            self._report.rows[landing.topic] = self._report.rows.get(landing.topic, 0) + rows
            self._report.rejected += rejected
            self._report.commits += 1
            self._report.commit_s += time.monotonic() - began
            self._stand()
            self._progress(self._report)


class _Target:
    """A table that rows are appended to."""

    def __init__(self, catalog: Catalog, identifier: Identifier, on_step: OnStep) -> None:
        self.table = load(catalog, identifier)
        self._on_step = on_step

    def append(self, piece: Piece) -> int:
        return append_once(self.table, piece, self._on_step)


class _Landing:
    """One topic on its way into its table: what was read and isn't committed yet."""

    def __init__(self, topic: str, events: _Target, rejects: _Target, decode: _Decode) -> None:
        self.topic = topic
        self._events = events
        self._rejects = rejects
        self._decode = decode
        self._topic_id: str | None = None
        self._messages: list[Message] = []
        self._bytes = 0
        self.since = 0.0
        self._starts: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._behind: dict[int, int] = {}
        """Partitions that haven't reached the end that they had when reading began, with that end."""

    @property
    def caught_up(self) -> bool:
        return not self._behind

    @property
    def landed(self) -> Mapping[int, int]:
        """By partition the offset below which all is committed."""
        return self._starts if self._messages else self._next

    def begin(self, topic: Topic, log: TopicLog) -> dict[int, int]:
        """Where to read the partitions that are new to this process. Raises DeliveryError where that isn't possible."""
        self._events.table.refresh()
        landed = offsets_of(self._events.table)
        check_topic(self.topic, landed, topic.id)
        self._topic_id = topic.id
        positions = {}
        for partition in topic.partitions:
            if partition not in self._next:
                low, high = log.bounds(self.topic, partition)
                start = _start(f"{self.topic}/{partition}", landed.of(self.topic), partition, low, high)
                self._starts[partition] = self._next[partition] = positions[partition] = start
                if high > start:
                    self._behind[partition] = high
        return positions

    def take(self, message: KafkaMessage) -> None:
        partition, offset = message.partition(), message.offset()
        if partition is None or offset is None:
            raise DataError("a message has a place in its topic", where=self.topic, got="none")
        if message.error() is not None:
            # The end of the partition: beyond a transaction's marker, where there is one.
            self._next[partition] = max(self._next[partition], offset)
            self._behind.pop(partition, None)
            return
        if not self._messages:
            self.since = time.monotonic()
        self._messages.append(cast(Message, message))
        self._bytes += len(message)
        self._next[partition] = offset + 1
        if offset + 1 >= self._behind.get(partition, 0):
            self._behind.pop(partition, None)

    def due(self, settings: BatchSettings) -> bool:
        full = len(self._messages) >= settings.land_rows_max or self._bytes >= settings.land_bytes_max
        return full or (bool(self._messages) and time.monotonic() - self.since >= settings.land_seconds)

    def land(self) -> tuple[int, int] | None:
        """Commits what was read: rows and rejections that this process added; None where there was nothing."""
        if not self._messages:
            return None
        decoded = self._decode(Batch.of(self.topic, self._messages))
        rejected = 0
        if decoded.rejections:
            # Without `starts`: stretches without a rejection leave no offset in the table of rejects.
            rejects = rejections_table(decoded.rejections)
            rejected = self._rejects.append(Piece(self.topic, self._topic_id, rejects, {}, dict(self._next)))
        piece = Piece(self.topic, self._topic_id, decoded.table, dict(self._starts), dict(self._next))
        rows = self._events.append(piece)
        self._messages.clear()
        self._bytes, self.since = 0, 0.0
        self._starts = dict(self._next)
        return rows, rejected


def _start(where: str, landed: Mapping[int, int], partition: int, low: int, high: int) -> int:
    # A topic that was never landed begins with what Kafka still has; a partition that came later at 0.
    if not any(known >= 0 for known in landed):
        return low
    start = landed.get(partition, 0)
    if start < low:
        raise DeliveryError(
            "Kafka has deleted events that were never landed",
            where=where,
            got=f"landed up to {start}, the log starts at {low}",
            hint="bring them back with headrace import, or accept the gap as the runbook says",
        )
    if start > high:
        raise DeliveryError(
            "the table holds more than Kafka has",
            where=where,
            got=f"landed up to {start}, the log ends at {high}",
            hint="the topic lost data or belongs to another cluster; see the runbook",
        )
    return start
