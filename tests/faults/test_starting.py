"""Services that are not there yet: a Redis that still loads its files, a Kafka that is down when a worker starts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.stream.clicks import clicks
from tests.contract.stream.rig import Rig
from tests.contract.stream.worker_process import WorkerProcess
from tests.faults.conftest import Services
from tests.faults.watching import ask, folded

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
Until = Callable[[Callable[[], object], float], None]
FOREIGN_KEYS = 3_000_000
"""Some seconds of loading."""


@pytest.fixture
def rig(services: Services) -> Rig:
    return Rig(services.kafka, services.redis_url)


def test_redis_is_loading(rig: Rig, services: Services, until: Until) -> None:
    """While it reads its files it answers nothing but that: the worker says so, and goes on from what it held."""
    client = services.client
    rig.produce(clicks(3_000))
    with rig.background(batch_events_max=100) as worker:
        worker.wait_for(lambda report: report.caught_up)
        client.execute_command("DEBUG", "POPULATE", FOREIGN_KEYS, "foreign", 32)
        client.bgrewriteaof()
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], 120)
        services.kill("redis")
        starting = threading.Thread(target=services.start, args=("redis",))
        starting.start()
        rig.produce(clicks(500, seed=1))
        said = worker.wait_for(lambda report: "loading" in report.waiting_for.lower())
        assert not said.is_ready
        starting.join(120)
        worker.wait_for(lambda report: report.caught_up and report.events >= 3_500 and not report.waiting_for, 120)
        rig.check_invariant(rig.log())
    rig.work()
    rig.check_drained(rig.log())


def test_a_worker_starts_while_kafka_is_down(rig: Rig, services: Services, tmp_path: Path, until: Until) -> None:
    """It waits, says so in its readiness and its log, and folds everything once Kafka is there."""
    rig.produce(clicks(1_000))
    services.kill("kafka")
    log = tmp_path / "worker.log"
    with WorkerProcess(rig, log, metrics_port=0) as worker:
        until(lambda: b"metrics, /health and /ready on" in log.read_bytes(), 60)
        address = log.read_text().split("/ready on ")[1].split()[0]
        until(lambda: "Kafka" in str(ask(address, "/ready")[1].get("why", "")), 60)
        assert ask(address, "/health")[0] == 200
        assert worker.process.poll() is None
        services.start("kafka")
        services.wait_for_kafka()
        until(lambda: folded(rig) == 1_000, 120)
    assert "no progress: Kafka" in log.read_text()
    rig.work()
    rig.check_drained(rig.log())
