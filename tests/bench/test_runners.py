"""The runners beside each other, in one run: events a second, memory, freshness. Spark where it is installed."""

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

EVENTS = int(os.environ.get("HEADRACE_TEST_BENCH_EVENTS", "40000"))
SAMPLES = 30
pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]


class Measured(NamedTuple):
    events_a_second: float
    resident_mb: float
    fresh_p50_ms: float
    fresh_p95_ms: float


def test_the_runners_beside_each_other(kafka: str, redis_url: str, tmp_path: Path) -> None:
    names = ["confluent", "faust"] + (["spark"] if importlib.util.find_spec("pyspark") else [])
    measured: dict[str, Measured] = {}
    print(f"\n{'runner':10} {'events/s':>10} {'of default':>10} {'resident':>9} {'fresh p50':>10} {'p95':>8}")
    for name in names:
        each = measured[name] = measure(Rig(kafka, redis_url, runner=name), tmp_path / f"{name}.log")
        base = measured["confluent"].events_a_second
        print(
            f"{name:10} {each.events_a_second:10,.0f} {each.events_a_second / base:10.2f} {each.resident_mb:6,.0f} MB"
            f" {each.fresh_p50_ms:7,.0f} ms {each.fresh_p95_ms:5,.0f} ms"
        )
    assert measured["faust"].events_a_second > 200


def measure(rig: Rig, log: Path) -> Measured:
    """Freshness and memory of a running worker, then the rate at which it folds what came at once."""
    with WorkerProcess(rig, log) as worker:
        producer = Producer({"bootstrap.servers": rig.kafka, "linger.ms": 0})
        fresh = [visible_after_ms(rig, producer, number) for number in range(-3, SAMPLES)][3:]
        before = folded(rig)
        rig.produce(clicks(EVENTS, seed=1))
        start = time.monotonic()
        while folded(rig) < before + EVENTS:
            assert time.monotonic() < start + 300, "not in time"
            time.sleep(0.02)
        rate = EVENTS / (time.monotonic() - start)
        resident = resident_mb(worker.process.pid)
    fresh.sort()
    return Measured(rate, resident, statistics.median(fresh), fresh[int(len(fresh) * 0.95)])


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
