"""What the stream's benches fold: JSON of 100 bytes, 100,000 Zipf-like keys, four aggregates over two windows."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from multiprocessing.synchronize import Event as Gate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from features import Count, Entity, FeatureView, Max, Min, Sum
from features.plan import Definitions
from features.planner import compile_definitions
from schemas.event import Event
from schemas.row import Checkpoint, checkpoint_redis_key
from stream.batch import Place
from stream.intake import Fetched
from stream.runners.confluent import ConfluentRunner
from stream.settings import StreamSettings
from stream.source import Source
from stream.topics import ensure_topics
from stream.worker import rare_collections, run_worker

EVENTS = int(os.environ.get("HEADRACE_TEST_BENCH_EVENTS", "1000000"))
KEYS = 100_000
PARTITIONS = 4
NEARLY = 0.99
"""Of the events: the last shards' checkpoints are moved by the clock, not by events."""


def declare(project: str, topic: str, views: int) -> tuple[Definitions, dict[str, type[Event]]]:
    """`views` of the bench's four aggregates; 0: one view of one lifetime count, to see freshness by."""

    class Click(Event, topic=topic, time="at", key=["user"]):
        at: datetime
        user: str
        amount: float
        n: int

    user = Entity("user", join_key="user")
    features = {
        "clicks": Count(over="1h"),
        "amount": Sum("amount", over="1h"),
        "least": Min("amount", over="24h"),
        "greatest": Max("amount", over="24h"),
    }
    declared = [FeatureView(f"v{n}", entity=user, source=Click, features=features) for n in range(views)]
    declared.append(FeatureView("seen", entity=user, source=Click, features={"n": Count()})) if not views else None
    return compile_definitions(project, declared), {"Click": Click}


class Bench:
    """A project with a topic of its own."""

    def __init__(self, kafka: str, redis_url: str, views: int) -> None:
        self.kafka, self.redis_url, self.views = kafka, redis_url, views
        self.project = "b" + uuid.uuid4().hex[:8]
        self.topic = f"clicks_{self.project}"
        self.definitions, self.events = declare(self.project, self.topic, views)
        self.settings = StreamSettings(kafka_bootstrap=kafka, redis_url=redis_url, project=self.project)
        self.redis = redis.Redis.from_url(redis_url)
        ensure_topics(self.settings, self.definitions)

    def fill(self, count: int) -> None:
        """Events of the last ten minutes."""
        chance = np.random.default_rng(1)
        weights = 1 / np.arange(1, KEYS + 1)
        keys = chance.choice(KEYS, count, p=weights / weights.sum()).tolist()
        amounts = chance.random(count).tolist()
        now = int(time.time() * 1_000)
        options = {"bootstrap.servers": self.kafka, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000}
        producer = Producer(options)
        for n, (key, amount) in enumerate(zip(keys, amounts, strict=True)):
            at = now - 600_000 + n * 600_000 // count
            value = b'{"at":%d,"user":"u%06d","amount":%.6f,"n":%d,"pad":"%s"}' % (at, key, amount * 100, n, b"x" * 24)
            producer.produce(self.topic, value, b"u%06d" % key)
            if n % 50_000 == 0:
                producer.poll(0)
        producer.flush()

    def bare_rate(self, count: int) -> float:
        """Events a second of a loop that does nothing but consume() and value()."""
        config = {"bootstrap.servers": self.kafka, "group.id": uuid.uuid4().hex, "enable.auto.commit": False}
        consumer = Consumer(config)
        consumer.assign([TopicPartition(self.topic, partition, 0) for partition in range(PARTITIONS)])
        got, began = 0, 0.0
        while got < count:
            messages = consumer.consume(50_000, 0.1)
            began = began or (time.perf_counter() if messages else 0.0)
            for message in messages:
                message.value()
            got += len(messages)
        rate = got / (time.perf_counter() - began)
        consumer.close()
        return rate

    def worker_rate(self) -> tuple[float, float]:
        """Events a second of a worker in this process, start and end included, and its CPU µs an event."""
        began, cpu = time.perf_counter(), time.process_time()
        report = run_worker(
            self.definitions, self.events, self.settings, history=None, until_caught_up=True, stop=threading.Event()
        )
        seconds = time.perf_counter() - began
        return report.events / seconds, (time.process_time() - cpu) / report.events * 1e6

    def folded(self) -> float:
        """Offsets that are folded, over all partitions, on the average of the first view's shards."""
        plan = next(iter(self.definitions.views.values()))
        keys = [checkpoint_redis_key(plan.storage_id, shard) for shard in range(plan.shards)]
        pipeline = self.redis.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
        found = [Checkpoint.decode(data) for data in pipeline.execute() if data is not None]
        return sum(position.offset for each in found for position in each.positions) / plan.shards

    def clean(self) -> None:
        """Takes out of Redis what the views left."""
        for view in self.definitions.views.values():
            for key in self.redis.scan_iter(f"h{{{view.storage_id}.*", count=5_000):
                self.redis.unlink(key)


class Used(NamedTuple):
    """CPU seconds and resident MiB of a process."""

    cpu_s: float
    resident_mib: float


def used(pid: int) -> Used:
    """What a process has used; all its threads, not its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Used(ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20)


class _GatedSource(Source):
    """Reads nothing until the gate opens, so that workers share the partitions before the first event."""

    def __init__(self, settings: StreamSettings, gate: Gate) -> None:
        super().__init__(settings, group=f"{settings.project}.stream")
        self._gate = gate
        self._waiting: dict[Place, int] = {}

    def read(self, starts: Mapping[Place, int]) -> None:
        if self._gate.is_set():
            super().read(starts)
        else:
            self._waiting |= starts

    def fetch(self, timeout_s: float) -> Fetched:
        if self._gate.is_set() and self._waiting:
            starts, self._waiting = self._waiting, {}
            super().read({place: start for place, start in starts.items() if place in self.given})
        return super().fetch(timeout_s)


class Workers:
    """Worker processes that share the bench's partitions and wait at the gate."""

    def __init__(self, bench: Bench, count: int) -> None:
        processes = multiprocessing.get_context("spawn")
        self.gate, self._stop = processes.Event(), processes.Event()
        self._ready = processes.Semaphore(0)
        what = (bench.kafka, bench.redis_url, bench.project, bench.topic, bench.views, count)
        self.processes = [
            processes.Process(target=_work, args=(*what, self.gate, self._stop, self._ready)) for _ in range(count)
        ]
        for each in self.processes:
            each.start()
        for _ in self.processes:
            assert self._ready.acquire(timeout=60), "the workers don't share the partitions in time"

    def used(self) -> list[Used]:
        return [used(each.pid or 0) for each in self.processes]

    def stop(self) -> None:
        self._stop.set()
        for each in self.processes:
            each.join()


@contextmanager
def workers(bench: Bench, count: int) -> Iterator[Workers]:
    """Stopped at the end."""
    started = Workers(bench, count)
    try:
        yield started
    finally:
        started.gate.set()
        started.stop()


def _work(
    kafka: str,
    redis_url: str,
    project: str,
    topic: str,
    views: int,
    count: int,
    gate: Gate,
    stop: threading.Event,
    ready: threading.Semaphore,
) -> None:
    definitions, events = declare(project, topic, views)
    settings = StreamSettings(kafka_bootstrap=kafka, redis_url=redis_url, project=project)
    told = threading.Event()

    def tell(partitions: int) -> None:
        if partitions * count == PARTITIONS and not told.is_set():
            told.set()
            ready.release()

    runner = ConfluentRunner(
        definitions,
        events,
        settings,
        history=None,
        until_caught_up=False,
        stop=stop,
        progress=lambda report: tell(report.partitions),
        open_feed=lambda settings: _GatedSource(settings, gate),
    )
    with rare_collections():
        runner.run()


def fold_rate(bench: Bench, workers: Workers, count: int) -> float:
    """Opens the gate; events a second until nearly all are folded."""
    began = time.perf_counter()
    workers.gate.set()
    while bench.folded() < NEARLY * count:
        time.sleep(0.05)
    return NEARLY * count / (time.perf_counter() - began)
