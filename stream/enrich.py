"""Events with what a view answered at their own instants, onto a topic of their own, each exactly once. DESIGN §3.

One Kafka transaction holds a micro-batch's enriched events and the offsets up to which its events are done: a crash
leaves both or neither, and a worker that lost its partitions to another can't commit. Where the store knows events at
or after an event's instant already, it can't answer for it: the columns are null, `<view>_answer` says so, and it is
counted.
"""

from __future__ import annotations

import base64
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
from confluent_kafka import KafkaException, Producer, TopicPartition

from features.plan import Definitions
from schemas.enriched import LATE, ONLINE, Deployment, answer_column
from schemas.errors import DeliveryError
from schemas.event import Event, EventSpec
from schemas.row import NO_EVENT
from stream.batch import MicroBatch, Place
from stream.deployments import enriched_events, match_partitions, read_deployments, source_topic
from stream.intake import Intake
from stream.patience import Patience, Stopped
from stream.rejects import Rejects
from stream.settings import StreamSettings
from stream.source import Source
from stream.tail import last_headers
from stream.topics import admin_client
from stream.warmup import read_from

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

POLL_S = 0.1
TIMEOUT_S = 30.0
TRANSACTION_S = 10.0
"""After this long the broker gives up a transaction whose worker died: until then its readers wait."""
BATCH_EVENTS_MAX = 2_000
"""Events of a transaction: few enough to be over in a moment, while readers of the topic wait."""
MESSAGE_BYTES_MAX = 8 << 20
COMMITS_TRIED_MAX = 5
OFFSET_HEADER = "headrace-enriched-offset"
"""The offset of the event that an enriched one was made of; its partition is the same."""

log = logging.getLogger(__name__)


class Answers(NamedTuple):
    """What a view answers for some entities: a column a feature; `late` where it can't answer for the instant."""

    columns: Sequence[pa.Array]
    late: Bools


class Lookup(Protocol):
    """The online store. Raises NotReady where it can't answer yet: it is asked again."""

    def __call__(self, view: str, features: Sequence[str], keys: Mapping[str, list[Any]], instants_us: Ints) -> Answers:
        """The features of the entities with these join keys, each at its own instant."""


class Step(StrEnum):
    """Where a transaction is; a crash after any of them leaves each event enriched once."""

    PRODUCED = "produced"
    COMMITTED = "committed"


WRITTEN: Counter[str] = Counter()
LATE_COUNTS: Counter[str] = Counter()
"""What this process has written, by enriched topic, and how many of these events were late: for its metrics."""


class Enricher:
    """One worker of the group `{project}.enrich.{topic}`, for one enriched event type.

    `run` returns when `stop` is set, or with `until_caught_up` when every event of its partitions is written. Raises
    DeliveryError rather than skip or double an event.
    """

    def __init__(
        self,
        definitions: Definitions,
        spec: EventSpec,
        events: Mapping[str, type[Event]],
        settings: StreamSettings,
        lookup: Lookup,
        *,
        until_caught_up: bool,
        stop: threading.Event,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> None:
        assert spec.enriched is not None, f"{spec.name} is no enriched event"
        self.written = self.late = 0
        self._settings = settings
        self._definitions = definitions
        self._topic = str(spec.topic)
        self._enrichment = spec.enriched
        self._view = definitions.views[spec.enriched.view]
        self._time = spec.time
        self._columns = [column.name for column in definitions.events[spec.enriched.event].columns]
        self._lookup = lookup
        self._until_caught_up = until_caught_up
        self._stop = stop
        self._on_step = on_step
        self._from = source_topic(definitions, spec)
        self._group = f"{settings.project}.enrich.{self._topic}"
        self._rejects = Rejects(settings) if _rejects_for(definitions, spec) else None
        self._intake = Intake({self._from: events[spec.enriched.event]}, self._rejects, settings.schema_registry)
        self._source = Source(settings.model_copy(update={"batch_events_max": BATCH_EVENTS_MAX}), group=self._group)
        self._patience = Patience(stop, settings.retry_max_s, self._source.wait)
        self._placed: set[Place] = set()
        self._ended: set[Place] = set()
        self._deployment: Deployment | None = None
        self._producer: Producer | None = None

    @property
    def waiting_for(self) -> str:
        """Why nothing is written; empty: it is."""
        return self._patience.waiting_for or self._source.waiting_for

    def run(self) -> None:
        """Works; see the class."""
        try:
            self._patience.until_done(self._begin)
            self._source.subscribe([self._from])
            while not self._stop.is_set() and not self._is_done():
                self._step()
        except Stopped:
            pass
        finally:
            self._source.close()
            if self._rejects is not None:
                self._rejects.close()

    def _begin(self) -> None:
        match_partitions(admin_client(self._settings), self._definitions)
        found = read_deployments(self._settings)
        if self._topic not in found:
            raise DeliveryError(
                "it was not decided from where on events are enriched",
                where=f"topic {self._topic}",
                hint="run `headrace apply`, which decides it",
            )
        self._deployment = found[self._topic]

    def _is_done(self) -> bool:
        given = self._source.given
        return self._until_caught_up and self._source.joined and self._placed == given and self._ended >= given

    def _step(self) -> None:
        self._take_away()
        self._place(self._source.given - self._placed)
        fetched = self._source.fetch(POLL_S)
        batch = self._patience.until_done(lambda: self._intake.take(fetched))
        if self._rejects is not None:
            self._patience.until_done(self._rejects.flush)
        if batch.moves:
            self._write(batch)
        self._ended |= fetched.ends.keys() & self._placed

    def _take_away(self) -> None:
        taken, self._source.taken = self._source.taken, set()
        for place in taken & self._placed:
            self._intake.end(place)
        self._placed -= taken
        self._ended -= taken

    def _place(self, places: set[Place]) -> None:
        """Reads these partitions from where they are done."""
        if not places:
            return
        starts = self._patience.until_done(lambda: self._starts(places))
        for place, start in starts.items():
            self._intake.begin(place, start, NO_EVENT)
        back = self._patience.until_done(lambda: read_from(self._source, self._intake, self._settings, starts))
        self._source.read({place: start for place, start in back.items() if place in self._source.given})
        self._placed |= places & self._source.given
        self._ended -= places

    def _starts(self, places: Iterable[Place]) -> dict[Place, int]:
        """As committed; of a group that Kafka has forgotten as the last event says; else from the deployment on."""
        committed = self._source.committed(places)
        unknown = [place for place in places if committed[place] < 0]
        last = last_headers(self._settings, self._topic, [p for _, p in unknown], OFFSET_HEADER) if unknown else {}
        assert self._deployment is not None, "a deployment is read first"
        starts = dict(committed)
        for topic, partition in unknown:
            starts[topic, partition] = (
                int(last[partition]) + 1 if partition in last else self._deployment.starts.get(partition, 0)
            )
        return starts

    def _write(self, batch: MicroBatch) -> None:
        table = batch.tables.get(self._from)
        values: list[bytes] = []
        late = np.zeros(0, np.bool_)
        if table is not None:
            values, late = self._enriched(table)
        # While the store was waited for, partitions may have gone to another worker: it writes what is left out here.
        moves = {place: move.end for place, move in batch.moves.items() if place in self._source.given}
        if not moves:
            return
        mine = np.zeros(len(values), np.bool_)
        if table is not None:
            mine = np.isin(table["kafka_partition"].to_numpy(), [partition for _, partition in moves])
        try:
            self._transaction(table, values, mine, moves)
        except KafkaException as error:
            self._give_up(error)
            return
        self.written += int(mine.sum())
        self.late += int((mine & late).sum())
        WRITTEN[self._topic] += int(mine.sum())
        LATE_COUNTS[self._topic] += int((mine & late).sum())

    def _enriched(self, table: pa.Table) -> tuple[list[bytes], Bools]:
        """The message of each event, and whether it came too late to be known."""
        keys = {key.name: table[key.name].to_pylist() for key in self._view.keys}
        instants = table[self._time].cast(pa.int64()).to_numpy()
        features = self._enrichment.features
        answers = self._patience.until_done(lambda: self._lookup(self._view.name, features, keys, instants))
        rows = table.select(self._columns)
        for feature, column in zip(features, answers.columns, strict=True):
            rows = rows.append_column(f"{self._view.name}__{feature}", column)
        how = pa.array(np.where(answers.late, LATE, ONLINE))
        rows = rows.append_column(answer_column(self._view.name), how)
        return [message_of(row) for row in rows.to_pylist(maps_as_pydicts="strict")], answers.late

    def _transaction(
        self, table: pa.Table | None, values: list[bytes], mine: Bools, moves: Mapping[Place, int]
    ) -> None:
        producer = self._open_producer()
        producer.begin_transaction()
        if table is not None:
            columns = (table[name].to_pylist() for name in ("kafka_partition", "kafka_offset", "kafka_key"))
            for value, wanted, partition, offset, key in zip(values, mine.tolist(), *columns, strict=True):
                if wanted:
                    headers: list[tuple[str, str | bytes | None]] = [(OFFSET_HEADER, str(offset).encode())]
                    producer.produce(self._topic, value, key, partition, headers=headers)
                    producer.poll(0)
        offsets = [TopicPartition(*place, end) for place, end in moves.items()]
        producer.send_offsets_to_transaction(offsets, self._source.membership(), TIMEOUT_S)
        producer.flush(TIMEOUT_S)
        self._on_step(Step.PRODUCED)
        _commit(producer)
        self._on_step(Step.COMMITTED)

    def _give_up(self, error: KafkaException) -> None:
        """Nothing of the transaction counts: its partitions, where they are still ours, are read again."""
        reason = error.args[0]
        log.warning("a transaction of %s was given up: %s", self._topic, reason.str())
        if self._producer is not None and reason.txn_requires_abort():
            try:
                self._producer.abort_transaction(TIMEOUT_S)
            except KafkaException:
                self._producer = None
        else:
            # Fenced, or the broker's answer was lost: the next producer finds out what became of it.
            self._producer = None
        self._source.rest(self._placed)
        self._placed.clear()
        self._source.wait(POLL_S)

    def _open_producer(self) -> Producer:
        if self._producer is None:
            producer = Producer(
                {
                    **self._settings.kafka_config(),
                    "transactional.id": f"{self._group}.{uuid.uuid4().hex}",
                    "transaction.timeout.ms": int(TRANSACTION_S * 1_000),
                    "message.max.bytes": MESSAGE_BYTES_MAX,
                    "compression.type": "lz4",
                    "linger.ms": 2,
                    "logger": log,
                }
            )
            producer.init_transactions(TIMEOUT_S)
            self._producer = producer
        return self._producer


def _rejects_for(definitions: Definitions, spec: EventSpec) -> bool:
    """Whether this writer is the one that rejects its topic's bad messages: the first of those, where no view reads it.

    Readers of one topic begin at different offsets, and a rejection below another reader's would pass for written.
    """
    topic = source_topic(definitions, spec)
    if any(source.event.topic == topic for view in definitions.views.values() for source in view.sources):
        return False
    others = [each.name for each in enriched_events(definitions) if source_topic(definitions, each) == topic]
    return spec.name == min(others)


def message_of(row: Mapping[str, Any]) -> bytes:
    """An enriched event as JSON, as schemas/decode.py reads it: doubles bit for bit, instants to the microsecond."""
    return orjson.dumps(row, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value))


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
    raise DeliveryError(
        "Kafka does not say whether a transaction was committed", hint="start the worker again: it finds out"
    )
