"""The worker's speed beside a bare `consume()` loop of the same run, and how fresh Redis is. `pytest -m bench -s`.

Every figure is a ratio or comes with the machine's cores: read them together.
"""

from __future__ import annotations

import os
import statistics
import struct

import pytest
import redis

from schemas.row import row_redis_key, shard_of
from tests.bench.freshness import PROBE, freshness, noise
from tests.bench.stream_work import EVENTS, Bench, workers

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

FULL_LOAD = 50_000


def test_throughput_beside_a_bare_consume_loop(kafka: str, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines, ratios = [], []
    for views, target in ((1, 0.4), (4, 0.2)):
        bench = Bench(kafka, redis_url, views)
        bench.fill(EVENTS)
        bare = bench.bare_rate(EVENTS)
        before = bench.redis.info("cpu")["used_cpu_user"]
        rate, cpu = bench.worker_rate()
        again = bench.bare_rate(EVENTS)
        redis_us = (bench.redis.info("cpu")["used_cpu_user"] - before) / EVENTS * 1e6
        ratio = rate / statistics.mean((bare, again))
        ratios.append(ratio / target)
        lines.append(
            f"{views} view(s): {rate:>9,.0f} events/s; bare loop {bare:,.0f} before, {again:,.0f} after;"
            f" ratio {ratio:.2f} (target {target}); worker {cpu:.1f} and Redis {redis_us:.1f} µs of CPU an event"
        )
        bench.clean()
    say(capsys, lines)
    assert min(ratios) >= 1


@pytest.mark.parametrize("rate", [100, 1_000, FULL_LOAD])
def test_freshness(kafka: str, redis_url: str, rate: int, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(kafka, redis_url, 0)
    plan = bench.definitions.views["seen"]
    row = row_redis_key(plan.storage_id, shard_of(PROBE, plan.shards), PROBE)
    with workers(bench, 1) as started:
        started.gate.set()
        with noise(kafka, bench.topic, rate):
            found = freshness(kafka, bench.topic, rate, lambda: _count(bench.redis, row))
    targets = "targets 8 and 25" if rate <= 1_000 else "load, no target"
    say(capsys, [f"{rate:>6} events/s: fresh after p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms ({targets})"])
    bench.clean()
    assert rate > 1_000 or (found.p50_ms < 8 and found.p99_ms < 25)


def _count(client: redis.Redis, row: bytes) -> int:
    """The count in the head of the row's only resolution."""
    head = client.getrange(row, 32, 39)
    return struct.unpack("<q", head)[0] if len(head) == 8 else 0


def say(capsys: pytest.CaptureFixture[str], lines: list[str]) -> None:
    """Prints a table beside pytest's own words."""
    with capsys.disabled():
        print(f"\n  {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for line in lines:
            print(f"  {line}")
