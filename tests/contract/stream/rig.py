"""A project of its own on the real Kafka and Redis, and the invariant that everything about delivery must hold.

Invariant I: at every moment the rows of each shard are the fold of the events below the shard's checkpoint. It is
checked here against the log itself, read back and merged in plain Python (tests/unit/stream/model.py).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import orjson
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from pydantic import ValidationError

from features import Count, Entity, FeatureView, Last, Max, Min, Sum
from features.plan import Definitions, ViewPlan
from features.planner import compile_definitions
from schemas.event import Event
from schemas.rejection import Rejection, decode_rejection
from schemas.row import (
    NO_EVENT,
    Checkpoint,
    checkpoint_redis_key,
    hash_redis_key,
    row_redis_key,
    shard_of,
)
from stream.history import History
from stream.report import WorkerReport
from stream.settings import StreamSettings
from stream.topics import ensure_topics
from stream.wire import open_client
from stream.worker import run_worker
from tests.unit.stream.model import ModelEvent, Row, is_expired, read_row, tiles_of

PARTITIONS = 4
START_S = 120.0
"""Spark's JVM and its Python take a while on a machine that has other work."""


class Logged(NamedTuple):
    """A message as the log holds it."""

    partition: int
    offset: int
    timestamp_us: int
    value: bytes


@dataclass
class Rig:
    """Topics, views and settings under names that nobody else uses."""

    kafka: str
    redis_url: str
    dedupe: bool = False
    shards: int = 8
    views: int = 1
    runner: str = "confluent"
    name: str = field(default_factory=lambda: "p" + uuid.uuid4().hex[:10])
    options: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.topic = f"clicks_{self.name}"
        self.definitions, self.events = declare(self.name, self.topic, self.dedupe, self.shards, self.views)
        self.settings = StreamSettings(
            kafka_bootstrap=self.kafka,
            redis_url=self.redis_url,
            project=self.name,
            **{"session_timeout_ms": 6_000, "advance_every_s": 0.2, **self.options},
        )
        self.redis = open_client(self.settings)
        ensure_topics(self.settings, self.definitions)

    @property
    def view(self) -> ViewPlan:
        return self.definitions.views["clicks_0"]

    def produce(self, values: Iterable[dict[str, object] | bytes]) -> int:
        producer = Producer({"bootstrap.servers": self.kafka, "linger.ms": 5})
        count = 0
        for value in values:
            data = value if isinstance(value, bytes) else orjson.dumps(value)
            key = value["user"].encode() if isinstance(value, dict) else b"bad"
            producer.produce(self.topic, data, key)
            count += 1
            if count % 10_000 == 0:
                producer.poll(0)
        producer.flush()
        return count

    def work(
        self,
        *,
        until_caught_up: bool = True,
        history: History | None = None,
        stop: threading.Event | None = None,
        progress: Callable[[WorkerReport], None] = lambda report: None,
        definitions: Definitions | None = None,
        **options: object,
    ) -> WorkerReport:
        return run_worker(
            definitions or self.definitions,
            self.events,
            self.settings.model_copy(update=options),
            history=history,
            until_caught_up=until_caught_up,
            stop=stop or threading.Event(),
            progress=progress,
            runner=self.runner,
            load=partial(event_types, self.name, self.topic, self.dedupe),
        )

    def background(self, **options: object) -> Background:
        return Background(self, options)

    def log(self, topic: str | None = None) -> list[Logged]:
        """All messages of the topic, by partition and offset."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka,
                "group.id": uuid.uuid4().hex,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        name = topic or self.topic
        found: list[Logged] = []
        try:
            partitions = consumer.list_topics(name, timeout=10).topics[name].partitions
            places = [TopicPartition(name, partition) for partition in partitions]
            ranges = {p.partition: consumer.get_watermark_offsets(p, timeout=10) for p in places}
            left = {p for p, (low, end) in ranges.items() if end > low}
            consumer.assign([TopicPartition(name, p, ranges[p][0]) for p in left])
            while left:
                for message in consumer.consume(10_000, 0.2):
                    if (error := message.error()) is not None:
                        assert error.code() == KafkaError._PARTITION_EOF, error
                        left.discard(message.partition())
                        continue
                    stamp = message.timestamp()[1] * 1_000
                    found.append(Logged(message.partition(), message.offset(), stamp, message.value() or b""))
        finally:
            consumer.close()
        return sorted(found)

    def rejections(self) -> list[Rejection]:
        return [decode_rejection(message.value) for message in self.log(self.settings.rejects_topic)]

    def checkpoint(self, shard: int, view: ViewPlan | None = None) -> Checkpoint | None:
        data = self.redis.get(checkpoint_redis_key((view or self.view).storage_id, shard))
        return None if data is None else Checkpoint.decode(data)

    def dump(self, view: ViewPlan | None = None) -> dict[bytes, bytes | None]:
        """All that Redis holds of a view."""
        keys = self.redis.scan_iter(f"h{{{(view or self.view).storage_id}.*")
        return {key: self.redis.dump(key) for key in keys}

    def wait_for_rows(self, timeout_s: float = START_S) -> None:
        """Until a worker has merged something."""
        wait_until(lambda: self.redis.exists(checkpoint_redis_key(self.view.storage_id, 0)), timeout_s)

    def wait_until_drained(self, timeout_s: float = START_S) -> None:
        """Until every shard of every view stands where the log ends: then nothing is under way."""
        ends = ends_of(self.log())

        def stand() -> bool:
            checkpoints = [
                self.checkpoint(shard, view) for view in self.definitions.views.values() for shard in range(view.shards)
            ]
            return all(c is not None and {p.partition: p.offset for p in c.positions} == ends for c in checkpoints)

        wait_until(stand, timeout_s)

    def check_invariant(self, log: Sequence[Logged], view: ViewPlan | None = None) -> int:
        """Compares every shard of a view with the log below its checkpoint; answers how many events that were."""
        plan = view or self.view
        events = good_events(log, self.events["Click"], self.dedupe)
        folded = 0
        for shard in range(plan.shards):
            mine = [event for event in events if shard_of(event.entity, plan.shards) == shard]
            keys = sorted({event.entity for event in mine})
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.get(checkpoint_redis_key(plan.storage_id, shard))
            for key in keys:
                pipeline.get(row_redis_key(plan.storage_id, shard, key))
                pipeline.hgetall(hash_redis_key(plan.storage_id, shard, key))
            data, *rows = pipeline.execute()
            checkpoint = None if data is None else Checkpoint.decode(data)
            offsets = {p.partition: p.offset for p in checkpoint.positions} if checkpoint else {}
            below = [event for event in mine if event.offset < offsets.get(event.partition, 0)]
            folded += len(below)
            expected = tiles_of(plan, [event.model for event in below])
            for key, row, fields in zip(keys, rows[::2], rows[1::2], strict=True):
                stored = _stored(plan, row, fields, checkpoint)
                assert (key in expected) == (stored is not None), (shard, key, offsets)
                if stored is not None:
                    alive = {k: t for k, t in expected[key].items() if not is_expired(plan, k, stored.newest_us)}
                    kept = {k: t for k, t in stored.tiles.items() if not is_expired(plan, k, stored.newest_us)}
                    assert kept == alive, (shard, key, offsets)
            self._check_newest(checkpoint, events)
        return folded

    def check_drained(self, log: Sequence[Logged], view: ViewPlan | None = None) -> None:
        """Invariant I, and nothing is left to fold."""
        plan = view or self.view
        ends = ends_of(log)
        for shard in range(plan.shards):
            checkpoint = self.checkpoint(shard, plan)
            assert checkpoint is not None, shard
            offsets = {position.partition: position.offset for position in checkpoint.positions}
            assert offsets == ends, (shard, offsets, ends)
        assert self.check_invariant(log, plan) == len(good_events(log, self.events["Click"], self.dedupe))

    @staticmethod
    def _check_newest(checkpoint: Checkpoint | None, events: Sequence[GoodEvent]) -> None:
        """`newest` counts all good events of the partition below the offset, whosever shard they are of."""
        for position in checkpoint.positions if checkpoint else ():
            times = [
                e.model.time_us for e in events if e.partition == position.partition and e.offset < position.offset
            ]
            assert position.newest_us == max(times, default=NO_EVENT), position


class GoodEvent(NamedTuple):
    partition: int
    offset: int
    entity: str
    model: ModelEvent


class Background(threading.Thread):
    """A worker in a thread of its own; leaving the `with` stops it and raises what it raised."""

    def __init__(self, rig: Rig, options: dict[str, object]) -> None:
        super().__init__(daemon=True)
        self.report: WorkerReport | None = None
        self.error: BaseException | None = None
        self._rig = rig
        self._options = {"until_caught_up": False, **options}
        self._stop_event = threading.Event()

    def run(self) -> None:
        try:
            self.report = self._rig.work(stop=self._stop_event, progress=self._take, **self._options)
        except BaseException as error:
            self.error = error

    def _take(self, report: WorkerReport) -> None:
        self.report = report

    def wait_for(self, condition: Callable[[WorkerReport], bool], timeout_s: float = START_S) -> WorkerReport:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.error is None:
            if self.report is not None and condition(self.report):
                return self.report
            time.sleep(0.02)
        if self.error is not None:
            raise self.error
        raise AssertionError(f"not within {timeout_s} s; last: {self.report}")

    def stop(self) -> None:
        self._stop_event.set()
        self.join(60)
        assert not self.is_alive()

    def __enter__(self) -> Background:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()
        if self.error is not None and raised[0] is None:
            raise self.error


def ends_of(log: Sequence[Logged]) -> dict[int, int]:
    """Where each partition ends."""
    ends = dict.fromkeys(range(PARTITIONS), 0)
    for message in log:
        ends[message.partition] = max(ends[message.partition], message.offset + 1)
    return ends


def wait_until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def event_types(project: str, topic: str, dedupe: bool) -> dict[str, type[Event]]:
    return declare(project, topic, dedupe, 8, 1)[1]


def declare(
    project: str, topic: str, dedupe: bool, shards: int, views: int
) -> tuple[Definitions, dict[str, type[Event]]]:
    keywords = {"topic": topic, "time": "at", "key": ["user"]} | ({"id": "id"} if dedupe else {})

    class Click(Event, **keywords):
        at: datetime
        user: str
        id: str
        amount: float | None
        word: str | None

    user = Entity("user", join_key="user")
    features = {
        "clicks_1h": Count(over="1h"),
        "amount_1h": Sum("amount", over="1h"),
        "least_24h": Min("amount", over="24h"),
        "greatest": Max("amount"),
        "last_word": Last("word", over="24h"),
    }
    declared = [
        FeatureView(f"clicks_{n}", entity=user, source=Click, features=features, shards=shards) for n in range(views)
    ]
    return compile_definitions(project, declared), {"Click": Click}


def good_events(log: Sequence[Logged], event: type[Event], dedupe: bool) -> list[GoodEvent]:
    """The log decoded by pydantic alone, one by one."""
    spec = event.spec()
    seen: dict[tuple[int, str], int] = {}
    result = []
    for message in log:
        try:
            click = event.model_validate_json(message.value)
        except ValidationError:
            continue
        at = click.at if click.at.tzinfo is None else click.at.astimezone(UTC).replace(tzinfo=None)
        time_us = round((at - datetime(1970, 1, 1)).total_seconds() * 1_000_000)
        if time_us - message.timestamp_us > spec.max_future_us:
            continue
        if dedupe:
            last = seen.get((message.partition, click.id))
            seen[message.partition, click.id] = message.timestamp_us
            if last is not None and message.timestamp_us - last <= spec.dedupe_within_us:
                continue
        tile = _tile(message, time_us, click.amount, click.word)
        model = ModelEvent(click.user, time_us, tile)
        result.append(GoodEvent(message.partition, message.offset, click.user, model))
    return result


def _tile(message: Logged, time_us: int, amount: float | None, word: str | None) -> tuple[tuple[object, ...], ...]:
    """The cells of one event, in the plan's order: count, sum, count, min, max, last_bytes."""
    order = b"".join(n.to_bytes(8, "little", signed=True) for n in (time_us, message.partition + 1, message.offset))
    return (
        (1,),
        (0 if amount is None else round(Fraction(amount) * 2**84),),
        (0 if amount is None else 1,),
        (float("inf") if amount is None else amount,),
        (float("-inf") if amount is None else amount,),
        (b"" if word is None else order + word.encode(),),
    )


def _stored(plan: ViewPlan, row: bytes | None, fields: dict[bytes, bytes], checkpoint: Checkpoint | None) -> Row | None:
    if row is None or checkpoint is None or row[:8] != checkpoint.generation:
        return None
    # A Cluster's client leaves the HASH of a transaction as Redis sends it.
    return read_row(
        plan, row, fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
    )
