"""Redis emptied, and Kafka no longer holding what it held: the worker folds the event log in Iceberg again.

Invariant: the views are the fold of the whole log once more, from Iceberg up to its snapshot's offset and from Kafka
from exactly there; until then serving says that it is not ready.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from batch.history import IcebergHistory
from batch.land import run_lander
from batch.settings import BatchSettings
from serving.connection import AsyncRedis
from serving.ready import not_ready_reasons
from serving.resp import Address
from stream.topics import admin_client
from tests.contract.stream.clicks import clicks
from tests.contract.stream.rig import PARTITIONS, Rig
from tests.faults.conftest import Services

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.mark.parametrize("running", [True, False])
def test_redis_is_emptied_and_kafka_holds_only_the_end(services: Services, tmp_path: Path, running: bool) -> None:
    rig = Rig(services.kafka, services.redis_url)
    settings = BatchSettings.model_validate(
        {"home": tmp_path / "batch", "kafka_bootstrap": services.kafka, "project": rig.name}
    )
    rig.produce(clicks(4_000, bad_every=100))
    run_lander(rig.definitions, rig.events, settings, until_caught_up=True, stop=threading.Event())
    landed = rig.log()
    rig.produce(clicks(2_000, seed=1))
    log = rig.log()
    history = IcebergHistory(settings)
    ends = history.offsets(rig.topic)
    assert sum(ends.values()) == len(landed) == 4_000
    if running:
        with rig.background(history=history, batch_events_max=200, rejects_share_max=1.0) as worker:
            worker.wait_for(lambda report: report.caught_up)
            _delete_below(rig, ends)
            services.client.flushall()
            assert _not_ready(rig)
            said = worker.wait_for(lambda report: bool(report.bringing_up))
            assert not said.is_ready
            worker.wait_for(lambda report: report.caught_up and not report.bringing_up)
    else:
        rig.work(history=history, rejects_share_max=1.0)
        _delete_below(rig, ends)
        services.client.flushall()
        assert _not_ready(rig)
        rig.work(history=history, batch_events_max=200, rejects_share_max=1.0)
    assert not _not_ready(rig)
    rig.check_drained(log)
    assert {message.offset >= ends[message.partition] for message in rig.log()} == {True}


def _delete_below(rig: Rig, ends: dict[int, int]) -> None:
    """What retention does: Kafka begins where the landed history ends."""
    wanted = [TopicPartition(rig.topic, partition, ends[partition]) for partition in range(PARTITIONS)]
    # A client that nobody holds is gone before it answers.
    admin = admin_client(rig.settings)
    for future in admin.delete_records(wanted).values():
        future.result()


def _not_ready(rig: Rig) -> list[str]:
    async def ask() -> list[str]:
        redis = AsyncRedis(Address.of(rig.redis_url), timeout_s=5)
        try:
            return await not_ready_reasons(redis, rig.definitions, 0.0)
        finally:
            await redis.close()

    return asyncio.run(ask())
