"""The runners beside each other, in one run: start, events a second, memory, freshness. Spark where it is installed."""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer

from schemas.row import row_redis_key, shard_of
from tests.bench.processes import resident_mb
from tests.contract.stream.clicks import clicks
from tests.contract.stream.rig import Rig
from tests.contract.stream.worker_process import WorkerProcess

SHARE = float(os.environ.get("HEADRACE_TEST_BENCH_SHARE", "1"))
EVENTS = {"confluent": 1_000_000, "faust": 300_000, "spark": 1_000_000}
"""What stands on the topic when the worker starts: many micro-batches, so that the first of them does not count."""
SAMPLES = 50
pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]


class Measured(NamedTuple):
    start_s: float
    events_a_second: float
    resident_mb: float
    fresh_p50_ms: float
    fresh_p95_ms: float


def test_the_runners_beside_each_other(
    kafka: str, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["confluent", "faust"] + (["spark"] if importlib.util.find_spec("pyspark") else [])
    measured: dict[str, Measured] = {}
    for name in names:
        events = int(EVENTS[name] * SHARE)
        each = measured[name] = measure(Rig(kafka, redis_url, runner=name), tmp_path / f"{name}.log", events)
        share = each.events_a_second / measured["confluent"].events_a_second
        with capsys.disabled():
            print(
                f"\n{name:9} first row after {each.start_s:4.1f} s, {each.events_a_second:9,.0f} events/s of {events:,}"
                f" ({share:.2f} of the default), {each.resident_mb:6,.0f} MB, fresh p50 {each.fresh_p50_ms:6,.0f} ms,"
                f" p95 {each.fresh_p95_ms:6,.0f} ms",
                end="",
            )
    assert measured["faust"].events_a_second > 200


def measure(rig: Rig, log: Path, events: int) -> Measured:
    """The rate from the first merge to the last of what stood on the topic; then freshness and memory."""
    rig.produce(clicks(events, seed=1))
    launched = time.monotonic()
    with WorkerProcess(rig, log) as worker:
        while not (first := folded(rig)):
            assert time.monotonic() < launched + 120, log.read_text()[-2_000:]
            time.sleep(0.01)
        begun = time.monotonic()
        while (last := folded(rig)) < events:
            assert time.monotonic() < begun + 300, f"{last} of {events}"
            time.sleep(0.02)
        ended = time.monotonic()
        producer = Producer({"bootstrap.servers": rig.kafka, "linger.ms": 0})
        fresh = [visible_after_ms(rig, producer, number) for number in range(-3, SAMPLES)][3:]
        resident = resident_mb(worker.process.pid)
    fresh.sort()
    rate = (events - first) / max(ended - begun, 0.02)
    return Measured(begun - launched, rate, resident, statistics.median(fresh), fresh[int(len(fresh) * 0.95)])


def visible_after_ms(rig: Rig, producer: Producer, number: int) -> float:
    """From handing an event to the producer until Redis has its row."""
    user = f"fresh{number}"
    at = datetime.now(UTC).isoformat()
    value = f'{{"at": "{at}", "user": "{user}", "id": "x", "amount": 1.0, "word": null}}'
    key = row_redis_key(rig.view.storage_id, shard_of(user, rig.view.shards), user)
    start = time.perf_counter()
    producer.produce(rig.topic, value.encode(), user.encode())
    producer.flush()
    while not rig.redis.exists(key):
        assert time.perf_counter() < start + 400, "not in time"
        time.sleep(0.001)
    took = (time.perf_counter() - start) * 1_000
    time.sleep(0.05)
    return took


def folded(rig: Rig) -> int:
    """Events below the checkpoint that is furthest behind."""
    checkpoints = [rig.checkpoint(shard) for shard in range(rig.view.shards)]
    return min(sum(p.offset for p in each.positions) if each else 0 for each in checkpoints)
