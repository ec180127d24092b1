"""The worker's speed beside a bare `consume()` loop of the same run, and how fresh Redis is. `pytest -m bench -s`.

JSON events of 100 bytes, 100,000 Zipf-like keys, a view of four aggregates over two windows. Every figure is a ratio or
comes with the machine's cores: read them together.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from features import Count, Entity, FeatureView, Max, Min, Sum
from features.plan import Definitions
from features.planner import compile_definitions
from schemas.event import Event
from schemas.row import checkpoint_redis_key, row_redis_key, shard_of
from stream.settings import StreamSettings
from stream.topics import ensure_topics
from stream.worker import run_worker

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

EVENTS = int(os.environ.get("HEADRACE_TEST_BENCH_EVENTS", "1000000"))
KEYS = 100_000
PARTITIONS = 4
PROBES = 200


def declare(project: str, topic: str, views: int) -> tuple[Definitions, dict[str, type[Event]]]:
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
    """A project with a topic of its own; `views` 0: one lifetime count, to see freshness by."""

    def __init__(self, kafka: str, redis_url: str, views: int) -> None:
        self.kafka, self.redis_url = kafka, redis_url
        self.project = "b" + uuid.uuid4().hex[:8]
        self.topic = f"clicks_{self.project}"
        self.definitions, self.events = declare(self.project, self.topic, views)
        self.settings = StreamSettings(kafka_bootstrap=kafka, redis_url=redis_url, project=self.project)
        self.redis = redis.Redis.from_url(redis_url)
        ensure_topics(self.settings, self.definitions)

    def fill(self, count: int) -> None:
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
        """Events a second from the first folded batch to the last, and this process's CPU µs an event."""
        began, cpu = time.perf_counter(), time.process_time()
        report = run_worker(
            self.definitions,
            self.events,
            self.settings,
            history=None,
            until_caught_up=True,
            stop=threading.Event(),
        )
        seconds = time.perf_counter() - began
        return report.events / seconds, (time.process_time() - cpu) / report.events * 1e6

    def clean(self) -> None:
        for view in self.definitions.views.values():
            for key in self.redis.scan_iter(f"h{{{view.storage_id}.*", count=5_000):
                self.redis.unlink(key)


def test_throughput_beside_a_bare_consume_loop(kafka: str, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for views, target in ((1, 0.4), (4, 0.2)):
        bench = Bench(kafka, redis_url, views)
        bench.fill(EVENTS)
        bare = bench.bare_rate(EVENTS)
        before = bench.redis.info("cpu")["used_cpu_user"]
        rate, cpu = bench.worker_rate()
        again = bench.bare_rate(EVENTS)
        redis_us = (bench.redis.info("cpu")["used_cpu_user"] - before) / EVENTS * 1e6
        ratio = rate / statistics.mean((bare, again))
        lines.append(
            f"{views} view(s): {rate:>9,.0f} events/s; bare loop {bare:,.0f} before, {again:,.0f} after;"
            f" ratio {ratio:.2f} (target {target}); worker {cpu:.1f} and Redis {redis_us:.1f} µs of CPU an event"
        )
        bench.clean()
    _say(capsys, lines)


@pytest.mark.parametrize("rate", [100, 1_000])
def test_freshness(kafka: str, redis_url: str, rate: int, capsys: pytest.CaptureFixture[str]) -> None:
    """From `produce()` to readable in Redis, of a probe among other users' events."""
    bench = Bench(kafka, redis_url, 0)
    plan = bench.definitions.views["seen"]
    # Processes of their own: they share no interpreter with the one that measures.
    processes = multiprocessing.get_context("spawn")
    stop = processes.Event()
    others = [
        processes.Process(target=_work, args=(kafka, redis_url, bench.project, bench.topic, stop)),
        processes.Process(target=_noise, args=(kafka, bench.topic, rate, stop)),
    ]
    for each in others:
        each.start()
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 0})
    shard = shard_of("probe", plan.shards)
    row = row_redis_key(plan.storage_id, shard, "probe")
    produced: list[float] = []
    try:
        _produce(producer, bench.topic, "probe")
        while not bench.redis.exists(checkpoint_redis_key(plan.storage_id, shard)) or not bench.redis.exists(row):
            time.sleep(0.01)
        seen: list[float] = []
        time.sleep(3)
        for _ in range(PROBES):
            time.sleep(max(1 / rate, 0.005))
            produced.append(time.perf_counter())
            _produce(producer, bench.topic, "probe")
            while _count(bench.redis, row) < len(produced) + 1:
                time.sleep(0.0003)
            seen.append(time.perf_counter())
    finally:
        stop.set()
        for each in others:
            each.join()
    waits = np.sort(np.array(seen) - np.array(produced)) * 1_000
    p50, p99 = np.percentile(waits, [50, 99])
    _say(capsys, [f"{rate:>5} events/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms (targets 8 and 25), {PROBES} probes"])
    bench.clean()


def _produce(producer: Producer, topic: str, user: str) -> None:
    value = b'{"at":%d,"user":"%s","amount":1.0,"n":0}' % (int(time.time() * 1_000), user.encode())
    producer.produce(topic, value, user.encode())
    producer.poll(0)


def _work(kafka: str, redis_url: str, project: str, topic: str, stop: threading.Event) -> None:
    definitions, events = declare(project, topic, 0)
    settings = StreamSettings(kafka_bootstrap=kafka, redis_url=redis_url, project=project)
    run_worker(definitions, events, settings, history=None, until_caught_up=False, stop=stop)


def _noise(kafka: str, topic: str, rate: int, stop: threading.Event) -> None:
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 0})
    began = time.perf_counter()
    for n in _numbers():
        if stop.is_set():
            return
        _produce(producer, topic, f"u{n % 997}")
        pause = began + n / rate - time.perf_counter()
        if pause > 0:
            time.sleep(pause)


def _numbers() -> Iterator[int]:
    n = 0
    while True:
        n += 1
        yield n


def _count(client: redis.Redis, row: bytes) -> int:
    """The count in the head of the row's only resolution."""
    head = client.getrange(row, 32, 39)
    return struct.unpack("<q", head)[0] if len(head) == 8 else 0


def _say(capsys: pytest.CaptureFixture[str], lines: list[str]) -> None:
    with capsys.disabled():
        print(f"\n  {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for line in lines:
            print(f"  {line}")
