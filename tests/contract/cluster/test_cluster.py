"""Workers and readers on a real Redis Cluster: invariant I, while slots are moved and masters die."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from schemas.errors import NotReady
from schemas.row import checkpoint_redis_key, shard_of
from schemas.slots import slot_of
from serving.cluster import open_async, open_redis
from serving.read import AsyncReader, Derive, Reader
from tests.contract.cluster.masters import Cluster, wait_until
from tests.contract.stream.clicks import clicks
from tests.contract.stream.rig import Rig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

VIEW = "clicks_0"


@pytest.fixture
def rig(kafka: str, cluster: Cluster) -> Rig:
    return Rig(kafka, cluster.url, shards=16)


@pytest.fixture
def reader(rig: Rig, cluster: Cluster) -> Iterator[Reader]:
    opened = Reader(open_redis(cluster.url, timeout_s=10), rig.definitions)
    yield opened
    opened.close()


def test_rows_are_the_fold_of_the_log_on_all_masters(rig: Rig, cluster: Cluster) -> None:
    rig.produce(clicks(2_000))
    assert rig.work().events == 2_000
    rig.check_drained(rig.log())
    keys = [checkpoint_redis_key(rig.view.storage_id, shard) for shard in range(rig.view.shards)]
    assert len({cluster.owner(key) for key in keys}) == 3
    assert rig.work().events == 0


def test_reads_are_one_mget_a_shard_and_the_same_by_both_readers(rig: Rig, reader: Reader, cluster: Cluster) -> None:
    rig.produce(clicks(1_000))
    rig.work()
    users = {"user": [f"u{n}" for n in range(100)]}
    before = {port: _calls(cluster, port) for port in cluster.masters()}
    read = reader.read([f"{VIEW}:clicks_1h", f"{VIEW}:last_word"], users)
    after = {port: _calls(cluster, port) for port in cluster.masters()}
    shards = {shard_of(user, rig.view.shards) for user in users["user"]}
    assert sum(after.values()) - sum(before.values()) == len(shards)
    counted = read.columns[0].to_list()
    assert sum(n for n in counted if n) > 0

    async def ask() -> list[Any]:
        redis = open_async(cluster.url, timeout_s=10)
        try:
            vectors = await AsyncReader(redis, rig.definitions, Derive()).read(
                [f"{VIEW}:clicks_1h", f"{VIEW}:last_word"], users, as_of_us=int(read.instants_us[0])
            )
            return [column.to_list() for column in vectors.columns]
        finally:
            await redis.close()

    assert asyncio.run(ask()) == [column.to_list() for column in read.columns]


def test_slots_moved_while_workers_write_and_readers_read(rig: Rig, reader: Reader, cluster: Cluster) -> None:
    rig.produce(clicks(1_500))
    rig.work()
    users = {"user": [f"u{n}" for n in range(50)]}
    stop = threading.Event()
    seen: list[int] = []
    errors: list[BaseException] = []

    def read() -> None:
        while not stop.is_set():
            try:
                vectors = reader.read([f"{VIEW}:greatest"], users)
                seen.append(len(vectors.columns[0].to_list()))
            except NotReady:
                pass
            except BaseException as error:
                errors.append(error)
                return

    reading = threading.Thread(target=read)
    reading.start()
    moved = 0
    with rig.background(batch_events_max=200) as worker:
        for seed in range(1, 4):
            rig.produce(clicks(700, seed=seed, users=2_000))
            for shard in range(seed, rig.view.shards, 3):
                key = checkpoint_redis_key(rig.view.storage_id, shard)
                source = cluster.owner(key)
                target = next(port for port in cluster.masters() if port != source)
                moved += cluster.move(slot_of(key), source, target, pause_s=0.002)
        worker.wait_for(lambda report: report.events >= 2_100 and report.caught_up)
        rig.check_invariant(rig.log())
    stop.set()
    reading.join(20)
    rig.work()
    rig.check_drained(rig.log())
    assert moved > 100
    assert len(seen) > 5
    assert not errors


def test_a_master_killed_its_replica_takes_over_with_a_lost_tail(rig: Rig, reader: Reader, cluster: Cluster) -> None:
    """The replica is cut off first: what the master takes after that is lost, a rollback of a third of Redis."""
    rig.produce(clicks(1_000))
    rig.work()
    master = cluster.masters()[0]
    replica = cluster.replica_of(master)
    wait_until(lambda: _offset(cluster, master) == _offset(cluster, replica))
    with rig.background() as worker:
        worker.wait_for(lambda report: report.caught_up)
        # A replica that may not log in any more gets nothing.
        cluster.node(replica).config_set("masterauth", "no-such-password")
        cluster.node(replica).execute_command("CLIENT", "KILL", "TYPE", "master")
        rig.produce(clicks(1_500, seed=1, users=3_000))
        worker.wait_for(lambda report: report.events >= 1_500)
        cluster.kill(master)
        cluster.node(replica).execute_command("CLUSTER FAILOVER", "TAKEOVER")
        wait_until(lambda: replica in cluster.masters())
        rig.produce(clicks(300, seed=2))
        worker.wait_for(lambda report: report.events >= 1_800 and report.caught_up, 90)
    cluster.node(replica).config_set("masterauth", "")
    cluster.start(master)
    rig.work()
    rig.check_drained(rig.log())
    vectors = reader.read([f"{VIEW}:clicks_1h"], {"user": [f"u{n}" for n in range(200)]})
    assert sum(n for n in vectors.columns[0].to_list() if n) > 0


def _calls(cluster: Cluster, port: int) -> int:
    return int(cluster.node(port).info("commandstats").get("cmdstat_mget", {}).get("calls", 0))


def _offset(cluster: Cluster, port: int) -> int:
    replication = cluster.node(port).info("replication")
    return int(replication.get("master_repl_offset", 0))
