"""Workers beside each other, and what Redis merges when nothing else is in the way. `pytest -m bench -s`."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from features.cells import record_words
from features.kernel import Kernel
from features.plan import ViewPlan
from schemas.row import NO_EVENT
from stream.intake import Intake
from stream.source import Source
from stream.store import Call
from stream.streamed import Streamed
from stream.topics import admin_client
from tests.bench.stream_work import EVENTS, PARTITIONS, Bench, fold_rate, used, workers
from tests.bench.test_stream import say

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]
TARGET = 0.8
SAMPLE = 2_000
EMPTY = (-1).to_bytes(8, "little", signed=True)


def test_scaling_over_processes(kafka: str, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(kafka, redis_url, 1)
    bench.fill(EVENTS)
    alone = redis_alone(bench)
    lines = [
        f"Redis alone merges {alone:,.0f} events/s, batches of {bench.settings.batch_events_max:,} by one connection"
    ]
    best = 0.0
    for count in (1, 2, 4):
        bench = Bench(kafka, redis_url, 1)
        bench.fill(EVENTS)
        server = bench.redis.info("server")["process_id"]
        with workers(bench, count) as started:
            before, redis_before = sum(each.cpu_s for each in started.used()), used(server).cpu_s
            began = time.perf_counter()
            rate = fold_rate(bench, started, EVENTS)
            seconds = time.perf_counter() - began
            worker_cpu = sum(each.cpu_s for each in started.used()) - before
            redis_cpu = used(server).cpu_s - redis_before
            resident = sum(each.resident_mib for each in started.used())
        best = max(best, rate / alone)
        lines.append(
            f"{count} worker(s): {rate:>9,.0f} events/s, {rate / alone:.2f} of Redis alone;"
            f" busy: Redis {redis_cpu / seconds:.2f} of a core, workers {worker_cpu / seconds:.2f};"
            f" CPU an event: worker {worker_cpu / EVENTS * 1e6:.1f} µs, Redis {redis_cpu / EVENTS * 1e6:.1f} µs;"
            f" workers {resident:,.0f} MiB"
        )
        bench.clean()
    lines.append(f"best {best:.2f} of what Redis merges alone (target {TARGET})")
    say(capsys, lines)
    assert best >= TARGET


def test_redis_memory_and_cpu(kafka: str, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """After a fold of the bench's events: bytes an entity and a tile, GB a billion features, CPU a delta."""
    bench = Bench(kafka, redis_url, 1)
    bench.fill(EVENTS)
    plan = bench.definitions.views["v0"]
    calls = list(_calls(bench))
    width = 8 * record_words(plan.cells)
    deltas = sum((len(argument) - 8) // width for call in calls for argument in call.arguments[3:])
    memory, cpu = bench.redis.info("memory")["used_memory"], _cpu_s(bench.redis)
    _merge(bench, calls)
    used_bytes = bench.redis.info("memory")["used_memory"] - memory
    cpu_us = (_cpu_s(bench.redis) - cpu) / deltas * 1e6
    rows = [key for call in calls for key in call.keys[1:]]
    entities = len(set(rows))
    sample = rows[:: max(len(rows) // SAMPLE, 1)]
    tiles = statistics.mean(_tiles(bench.redis.get(key), plan, width) for key in sample)
    features = len(plan.features)
    say(
        capsys,
        [
            f"{entities:,} entities, {features} features, records of {width} bytes, {deltas:,} deltas:",
            f"  {used_bytes / entities:,.0f} bytes an entity of {tiles:.1f} tiles, key and spare slots included:"
            f" {used_bytes / entities / tiles:,.0f} bytes a tile",
            f"  {used_bytes / entities / features:,.0f} GB per billion features",
            f"  {cpu_us:.2f} µs of Redis' CPU a delta",
        ],
    )
    bench.clean()


def _tiles(row: bytes, plan: ViewPlan, width: int) -> int:
    """Heads that are no placeholders, and slots in use (DESIGN §5)."""
    used_slots = int.from_bytes(row[16:20], "little")
    heads = [row[24 + n * width :][:8] for n in range(len(plan.resolutions))]
    return used_slots + sum(head != EMPTY for head in heads)


def _cpu_s(client: redis.Redis) -> float:
    cpu = client.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


def redis_alone(bench: Bench) -> float:
    """Events a second of the same calls, made and packed before: nothing but Redis works while they run."""
    calls = list(_calls(bench))
    seconds = _merge(bench, calls)
    bench.clean()
    return EVENTS / seconds


def _calls(bench: Bench) -> Iterator[Call]:
    """The calls of a worker that reads the topic from its beginning."""
    streamed = Streamed(bench.definitions, bench.events, admin_client(bench.settings))
    [fold] = streamed.folds().values()
    intake = Intake(streamed.events, rejects=None)
    source, kernel = Source(bench.settings, group=bench.project), Kernel()
    places = {(bench.topic, partition): 0 for partition in range(PARTITIONS)}
    for place in places:
        intake.begin(place, 0, NO_EVENT)
    source.read(places)
    try:
        while sum(intake.positions.values()) < EVENTS:
            batch = intake.take(source.fetch(1.0))
            if batch.moves:
                yield from fold.calls(kernel, batch)
    finally:
        source.close()
        kernel.close()


def _merge(bench: Bench, calls: list[Call]) -> float:
    """Seconds that Redis takes. Every call must merge."""
    client = redis.Redis.from_url(bench.redis_url)
    client.script_load(calls[0].script.text)
    connection = client.connection_pool.get_connection()
    packed = [
        b"".join(connection.pack_command("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.arguments))
        for call in calls
    ]
    began = time.perf_counter()
    sender = threading.Thread(target=lambda: [connection._sock.sendall(each) for each in packed])
    sender.start()
    answers = [connection.read_response() for _ in packed]
    seconds = time.perf_counter() - began
    sender.join()
    assert all(answer[0] == 1 for answer in answers)
    return seconds
