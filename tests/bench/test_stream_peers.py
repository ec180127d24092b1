"""Other engines on the same topic, cores, broker and Redis, beside the worker. `pytest -m bench -s`.

faust-streaming is an extra of headrace. PyFlink has an environment of its own, which HEADRACE_TEST_FLINK names
(`make flink` makes it): its dependencies and headrace's are not to be had together.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from headrace.local.jars import FLINK as CONNECTOR
from tests.bench.freshness import PROBE, Freshness, freshness, noise
from tests.bench.stream_work import EVENTS, Bench, fold_rate, used, workers
from tests.bench.test_stream import say

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1_800)]

PEERS = Path(__file__).with_name("peers")
FLINK = Path(os.environ.get("HEADRACE_TEST_FLINK", ".venv-flink"))
WITHOUT_FLINK = pytest.mark.skipif(
    not (FLINK / "bin" / "python").exists(), reason=f"PyFlink is not installed in {FLINK}; `make flink` installs it"
)
CORES = os.cpu_count() or 1
FAUST_EVENTS = min(EVENTS, 100_000)
HOP_MS, LONG_HOP_MS = 300_000, 3_600_000
FLINK_STARTS_S = 120.0


class Measured(NamedTuple):
    rate: float
    resident_mib: float


def test_faust_take(kafka: str, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(kafka, redis_url, 1)
    bench.fill(EVENTS)
    # Whoever comes first would otherwise share its core with a JVM that still compiles the broker.
    bench.bare_rate(EVENTS)
    rate, _ = bench.worker_rate()
    what = _what(bench) | {"events": int(FAUST_EVENTS * 0.9)}
    run = subprocess.run(
        [sys.executable, PEERS / "faust_take.py", json.dumps(what)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    faust = json.loads(run.stdout.strip().splitlines()[-1])["rate"]
    _clean(bench)
    say(capsys, [f"worker {rate:,.0f} events/s; faust-streaming take() {faust:,.0f}: {rate / faust:.1f} × (target 15)"])
    assert rate >= 15 * faust


@WITHOUT_FLINK
def test_flink(kafka: str, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    ours = {count: _workers(kafka, redis_url, count) for count in (1, CORES)}
    theirs = {
        "one tile size": _flink(kafka, redis_url, [HOP_MS]),
        "the view's two tile sizes": _flink(kafka, redis_url, [HOP_MS, LONG_HOP_MS]),
    }
    best = max(ours.values())
    lines = [
        f"{count} worker(s): {each.rate:,.0f} events/s, {each.resident_mib:,.0f} MiB with Redis"
        for count, each in ours.items()
    ]
    lines += [
        f"PyFlink, parallelism {CORES}, {name}: {each.rate:,.0f} events/s, {each.resident_mib:,.0f} MiB with Redis:"
        f" {best.rate / each.rate:.2f} × (target 1.8)"
        for name, each in theirs.items()
    ]
    say(capsys, lines)
    assert best.resident_mib < min(each.resident_mib for each in theirs.values())
    assert best.rate >= 1.8 * theirs["the view's two tile sizes"].rate


@WITHOUT_FLINK
@pytest.mark.parametrize("rate", [100, 1_000])
def test_flinks_freshness(kafka: str, redis_url: str, rate: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Tuned for it: no mini-batches, buffers of 1 ms, Python bundles of 10 ms."""
    bench = Bench(kafka, redis_url, 1)
    key = f"{bench.project}:{PROBE}"

    def count() -> int:
        return sum(struct.unpack_from("<q", tile)[0] for tile in bench.redis.hgetall(key).values())

    what = _flink_what(bench, [HOP_MS]) | {"bounded": False}
    with (
        noise(kafka, bench.topic, rate),
        _running([FLINK / "bin" / "python", PEERS / "flink_job.py", json.dumps(what)]),
    ):
        deadline = time.monotonic() + FLINK_STARTS_S
        while not bench.redis.exists(f"{bench.project}:first"):
            assert time.monotonic() < deadline, "Flink does not start in time"
            time.sleep(0.1)
        found: Freshness = freshness(kafka, bench.topic, rate, count)
    _clean(bench)
    say(capsys, [f"PyFlink at {rate} events/s: fresh after p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms"])


def _workers(kafka: str, redis_url: str, count: int) -> Measured:
    bench = Bench(kafka, redis_url, 1)
    bench.fill(EVENTS)
    with workers(bench, count) as started:
        rate = fold_rate(bench, started, EVENTS)
        resident = sum(each.resident_mib for each in started.used()) + _redis_mib(bench)
    _clean(bench)
    return Measured(rate, resident)


def _flink(kafka: str, redis_url: str, hops_ms: Sequence[int]) -> Measured:
    """From its first write to its last: the start of its JVM, and the events of the first bundle, are for free."""
    bench = Bench(kafka, redis_url, 1)
    bench.fill(EVENTS)
    peak = 0.0
    what = _flink_what(bench, hops_ms) | {"bounded": True}
    with _running([FLINK / "bin" / "python", PEERS / "flink_job.py", json.dumps(what)]) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_resident_mib, _family(process.pid))) + _redis_mib(bench))
            time.sleep(0.5)
        assert process.returncode == 0, "Flink's job failed"
    first, last = (float(bench.redis.get(f"{bench.project}:{name}") or 0) for name in ("first", "last"))
    _clean(bench)
    return Measured(EVENTS / (last - first), peak)


def _what(bench: Bench) -> dict[str, object]:
    address = urlsplit(bench.redis_url)
    return {
        "kafka": bench.kafka,
        "topic": bench.topic,
        "prefix": bench.project,
        "redis": [address.hostname, address.port],
    }


def _flink_what(bench: Bench, hops_ms: Sequence[int]) -> Mapping[str, object]:
    jars = [str(jar) for jar in sorted(CONNECTOR.folder.glob("*.jar"))]
    return _what(bench) | {"jars": jars, "parallelism": CORES, "mode": "thread", "hops_ms": list(hops_ms)}


@contextmanager
def _running(command: Sequence[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        for pid in reversed(_family(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait()


def _family(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        # Threads come and go.
        with suppress(OSError):
            for child in task.read_text().split():
                found += _family(int(child))
    return found


def _resident_mib(pid: int) -> float:
    with suppress(OSError):
        return used(pid).resident_mib
    return 0.0


def _redis_mib(bench: Bench) -> float:
    return used(bench.redis.info("server")["process_id"]).resident_mib


def _clean(bench: Bench) -> None:
    bench.clean()
    for key in bench.redis.scan_iter(f"{bench.project}:*", count=5_000):
        bench.redis.unlink(key)
