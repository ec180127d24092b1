"""Faults of the stream side, for real. `pytest -m faults`.

Every test ends with the same two questions, asked of the log read back and merged in plain Python (the rig of
tests/contract/stream): at any moment, is each shard the fold of the events below its checkpoint (Invariant I)? And once
drained, is everything there, once?
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions
from pydantic import SecretStr

from schemas.row import Checkpoint
from stream.topics import admin_client
from tests.contract.stream.clicks import clicks
from tests.contract.stream.rig import Rig
from tests.contract.stream.worker_process import WorkerProcess
from tests.faults.conftest import Services
from tests.faults.proxy import BadLine
from tests.faults.watching import ask, folded

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
EMPTY = Checkpoint(bytes(8), ())
Until = Callable[[Callable[[], object], float], None]


@pytest.fixture
def rig(services: Services) -> Rig:
    return Rig(services.kafka, services.redis_url)


def test_a_worker_killed_fifty_times_under_load(rig: Rig, tmp_path: Path) -> None:
    """SIGKILL at a moment nobody chose, fifty times: Invariant I after every tenth, complete at the end."""
    for number in range(50):
        rig.produce(clicks(400, seed=number))
        with WorkerProcess(rig, tmp_path / "worker.log", batch_events_max=100) as worker:
            before = folded(rig)
            time.sleep(1.2 + number % 7 * 0.1)
            worker.kill()
        if number % 10 == 9:
            rig.check_invariant(rig.log())
            assert folded(rig) >= before
    rig.work()
    rig.check_drained(rig.log())


def test_a_zombie_comes_back(rig: Rig, tmp_path: Path, until: Until) -> None:
    """SIGSTOP past the session timeout, SIGCONT while another worker has its partitions: it does no harm."""
    rig.produce(clicks(5_000))
    with (
        WorkerProcess(rig, tmp_path / "zombie.log", batch_events_max=200) as zombie,
        WorkerProcess(rig, tmp_path / "other.log", batch_events_max=200),
    ):
        until(lambda: folded(rig) > 500, 60)
        zombie.process.send_signal(signal.SIGSTOP)
        rig.produce(clicks(2_000, seed=1))
        until(lambda: folded(rig) == 7_000, 60)
        zombie.process.send_signal(signal.SIGCONT)
        rig.produce(clicks(1_000, seed=2))
        until(lambda: folded(rig) == 8_000, 60)
        rig.check_invariant(rig.log())
    rig.work()
    rig.check_drained(rig.log())


def test_one_to_four_to_two_workers_under_load(rig: Rig, until: Until) -> None:
    """Rebalances while events come: nothing is lost or doubled, and the partitions are shared."""
    with rig.background(batch_events_max=100) as one:
        rig.produce(clicks(2_000))
        with rig.background(batch_events_max=100), rig.background(batch_events_max=100), rig.background() as four:
            rig.produce(clicks(2_000, seed=1))
            four.wait_for(lambda report: report.partitions == 1)
            rig.check_invariant(rig.log())
        with rig.background() as two:
            rig.produce(clicks(2_000, seed=2))
            two.wait_for(lambda report: report.partitions == 2)
            one.wait_for(lambda report: report.partitions == 2)
            until(lambda: folded(rig) == 6_000, 60)
    rig.work()
    rig.check_drained(rig.log())


@pytest.mark.parametrize("gently", [True, False])
def test_the_broker_is_restarted(rig: Rig, services: Services, gently: bool, until: Until) -> None:
    """The worker says that it waits, goes on by itself, and drains."""
    rig.produce(clicks(2_000))
    with rig.background(batch_events_max=300) as worker:
        worker.wait_for(lambda report: report.events > 300)
        if gently:
            services.signal("kafka", signal.SIGTERM)
            until(lambda: not _port_answers(services.kafka), 60)
        else:
            services.kill("kafka")
        worker.wait_for(lambda report: "Kafka" in report.waiting_for or report.events == 2_000)
        services.start("kafka")
        services.wait_for_kafka()
        rig.produce(clicks(1_000, seed=1))
        worker.wait_for(lambda report: report.events >= 3_000, 120)
    rig.work()
    rig.check_drained(rig.log())


def test_redis_is_killed_under_aof_everysec(rig: Rig, services: Services) -> None:
    """Up to a second of writes is gone, rows and checkpoints alike: the worker goes back and folds them again."""
    rig.produce(clicks(3_000))
    with rig.background(batch_events_max=200) as worker:
        for number in range(4):
            worker.wait_for(lambda report, n=number: report.events >= 700 * (n + 1))
            services.kill("redis")
            rig.produce(clicks(300, seed=number + 1))
            worker.wait_for(lambda report: "Redis" in report.waiting_for)
            services.start("redis")
            rig.check_invariant(rig.log())
        worker.wait_for(lambda report: report.caught_up and not report.waiting_for, 120)
    rig.work()
    rig.check_drained(rig.log())


def test_redis_comes_back_from_an_old_copy(rig: Rig, services: Services, tmp_path: Path) -> None:
    """Its rows and checkpoints are older, and agree with each other: what is missing is folded again."""
    rig.produce(clicks(2_000))
    rig.work()
    services.copy_of_redis(tmp_path / "copy")
    rig.produce(clicks(2_000, seed=1))
    with rig.background() as worker:
        worker.wait_for(lambda report: report.caught_up and report.events >= 2_000)
        services.put_redis_back(tmp_path / "copy")
        rig.check_invariant(rig.log())
        rig.produce(clicks(500, seed=2))
        worker.wait_for(lambda report: report.caught_up and report.events >= 4_500, 120)
    rig.check_drained(rig.log())


@pytest.mark.parametrize("trouble", ["memory", "read-only", "paused"])
def test_redis_refuses_to_work(rig: Rig, services: Services, trouble: str) -> None:
    """Out of memory, read-only, or silent: the worker says why it waits, no checkpoint moves, and it goes on after."""
    client = services.client
    rig.produce(clicks(1_000))
    with rig.background(redis_timeout_s=2.0, metrics_port=0) as worker:
        worker.wait_for(lambda report: report.caught_up)
        before = rig.dump()
        if trouble == "memory":
            client.config_set("maxmemory", "1mb")
        elif trouble == "read-only":
            client.replicaof("127.0.0.1", 1)
        else:
            services.signal("redis", signal.SIGSTOP)
        rig.produce(clicks(1_000, seed=1))
        said = worker.wait_for(lambda report: "Redis" in report.waiting_for)
        assert not said.is_ready
        if trouble == "memory":
            client.config_set("maxmemory", "0")
        elif trouble == "read-only":
            assert rig.dump() == before
            client.replicaof("NO", "ONE")
        else:
            services.signal("redis", signal.SIGCONT)
        worker.wait_for(lambda report: report.caught_up and report.events == 2_000 and not report.waiting_for, 120)
    rig.work()
    rig.check_drained(rig.log())


def test_a_bad_line_to_redis(rig: Rig, services: Services) -> None:
    """200 ms each way, and one chunk in twenty breaks the connection, so that answers of calls that ran are lost."""
    host, port = services.redis_url.removeprefix("redis://").removesuffix("/0").split(":")
    line = BadLine((host, int(port)), delay_s=0.2, loss=0.05)
    rig.produce(clicks(3_000))
    with rig.background(batch_events_max=100, redis_url=SecretStr(f"redis://127.0.0.1:{line.port}/0")) as worker:
        worker.wait_for(lambda report: report.caught_up and not report.waiting_for, 240)
        rig.check_invariant(rig.log())
    line.close()
    assert line.broken > 0
    rig.work()
    rig.check_drained(rig.log())


def test_a_worker_stops_in_time_while_no_broker_answers(rig: Rig, services: Services) -> None:
    """The group hears of it by the end of the session; the checkpoints are where Redis has them."""
    rig.produce(clicks(500))
    with rig.background() as worker:
        worker.wait_for(lambda report: report.caught_up)
        services.kill("kafka")
        worker.wait_for(lambda report: "Kafka" in report.waiting_for)
        began = time.monotonic()
        worker.stop()
        assert time.monotonic() - began < 30
    services.start("kafka")
    services.wait_for_kafka()
    rig.work()
    rig.check_drained(rig.log())


def test_the_rejects_topic_is_unavailable(rig: Rig, until: Until) -> None:
    """No checkpoint passes an event that is neither folded nor rejected; once the topic is there, all goes on."""
    admin = admin_client(rig.settings)
    for future in admin.delete_topics([rig.settings.rejects_topic]).values():
        future.result()
    rig.produce(clicks(500, bad_every=50))
    with rig.background() as worker:
        worker.wait_for(lambda report: "rejects topic" in report.waiting_for, 90)
        time.sleep(1)
        passed = [
            (position.partition, offset)
            for shard in range(rig.view.shards)
            for position in (rig.checkpoint(shard) or EMPTY).positions
            for offset in range(position.offset)
        ]
        assert not _bad_places(rig) & set(passed)
        Rig.__post_init__(rig)
        worker.wait_for(lambda report: report.caught_up and not report.waiting_for, 90)
    rig.work()
    rig.check_drained(rig.log())
    assert {(r.partition, r.offset) for r in rig.rejections()} == _bad_places(rig)


def test_a_partition_is_added(rig: Rig) -> None:
    """It begins at 0, and is found without a restart."""
    rig.produce(clicks(500))
    admin = admin_client(rig.settings)
    with rig.background() as worker:
        worker.wait_for(lambda report: report.caught_up)
        for future in admin.create_partitions([NewPartitions(rig.topic, 6)]).values():
            future.result()
        worker.wait_for(lambda report: report.partitions == 6, 90)
        rig.produce(clicks(1_000, seed=1))
        worker.wait_for(lambda report: report.events == 1_500 and report.caught_up)
    rig.work()
    rig.check_invariant(rig.log())


def test_the_topic_is_deleted_under_the_worker(rig: Rig) -> None:
    """The worker ends with the reason; nothing of the new topic is folded under the old one's offsets."""
    rig.produce(clicks(500))
    admin = admin_client(rig.settings)
    worker = rig.background(topic_check_every_s=0.5)
    worker.start()
    worker.wait_for(lambda report: report.caught_up)
    before = rig.dump()
    for future in admin.delete_topics([rig.topic]).values():
        future.result()
    worker.join(60)
    assert not worker.is_alive()
    assert worker.error is not None
    assert "topic" in str(worker.error)
    assert rig.dump() == before


def test_a_paused_worker_keeps_its_memory(rig: Rig, services: Services, tmp_path: Path) -> None:
    """While Redis is away a backlog grows; the worker's memory does not follow it."""
    with WorkerProcess(rig, tmp_path / "worker.log", fetch_buffer_kib=1_024, batch_events_max=1_000) as worker:
        rig.produce(clicks(2_000))
        deadline = time.monotonic() + 60
        while folded(rig) < 2_000 and time.monotonic() < deadline:
            time.sleep(0.1)
        services.signal("redis", signal.SIGSTOP)
        before = _resident_mib(worker.process.pid)
        rig.produce(clicks(150_000, seed=1))
        time.sleep(5)
        grown = _resident_mib(worker.process.pid) - before
        services.signal("redis", signal.SIGCONT)
    assert grown < 64, f"{grown} MiB"
    rig.work()
    assert rig.check_invariant(rig.log()) == 152_000


def test_ready_and_health_say_what_is(rig: Rig, services: Services, tmp_path: Path, until: Until) -> None:
    """A worker that can't make progress says why in its readiness, and stays healthy."""
    log = tmp_path / "worker.log"
    with WorkerProcess(rig, log, metrics_port=0, redis_timeout_s=2.0):
        until(lambda: b"metrics, /health and /ready on" in log.read_bytes(), 60)
        address = log.read_text().split("/ready on ")[1].split()[0]
        until(lambda: ask(address, "/ready")[0] == 200, 60)
        services.kill("redis")
        rig.produce(clicks(100))
        until(lambda: "Redis" in ask(address, "/ready")[1].get("why", ""), 60)
        assert ask(address, "/health")[0] == 200
        services.start("redis")
        until(lambda: ask(address, "/ready")[0] == 200, 60)
    rig.work()
    rig.check_drained(rig.log())


def _bad_places(rig: Rig) -> set[tuple[int, int]]:
    from tests.contract.stream.clicks import BAD

    return {(message.partition, message.offset) for message in rig.log() if message.value in BAD}


def _port_answers(address: str) -> bool:
    import socket

    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4_096 / 2**20
