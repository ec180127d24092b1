"""Crashes, zombies, lost replies, a Redis that goes back: Invariant I holds, and what is drained is complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from features.kernel import Kernel
from schemas.decode import Batch
from schemas.errors import ConfigError, DeliveryError
from stream.apply import Applier
from stream.batch import MicroBatch
from stream.checkpoint import Positions
from stream.fold import ViewFold
from stream.intake import Intake
from stream.patience import Patience
from stream.store import Answer, Call, Store, StoreUnavailable
from stream.topics import admin_client, describe_topics
from tests.contract.stream.clicks import clicks
from tests.contract.stream.rig import Logged, Rig, wait_until
from tests.contract.stream.worker_process import WorkerProcess

pytestmark = pytest.mark.timeout(400)


def test_a_worker_killed_in_the_middle(rig: Rig, tmp_path: Path) -> None:
    rig.produce(clicks(6_000))
    log = rig.log()
    for _ in range(3):
        with WorkerProcess(rig, tmp_path / "worker.log", batch_events_max=100) as worker:
            rig.wait_for_rows()
            time.sleep(0.3)
            worker.kill()
        rig.check_invariant(log)
    rig.work()
    rig.check_drained(log)


def test_a_zombie_is_refused_and_changes_nothing(rig: Rig) -> None:
    """It read the checkpoints, slept, and comes back with a batch that another worker has folded meanwhile."""
    rig.produce(clicks(500))
    zombie = _Hand(rig)
    zombie.begin()
    rig.work()
    before = rig.dump()
    zombie.fold_log()
    assert rig.dump() == before
    assert zombie.applier.counts["refused"] == 0  # once refused it read the checkpoints, and nothing was missing
    rig.check_drained(rig.log())


def test_a_zombie_with_half_of_the_news(rig: Rig) -> None:
    """What the other one has not folded yet, the zombie may fold: it is right either way."""
    rig.produce(clicks(500))
    zombie = _Hand(rig)
    zombie.begin()
    with rig.background(batch_events_max=50) as worker:
        worker.wait_for(lambda report: report.events > 100)
    zombie.fold_log()
    rig.check_invariant(rig.log())
    rig.work()
    rig.check_drained(rig.log())


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_a_reply_lost_after_the_script_ran(rig: Rig, lost: int) -> None:
    rig.produce(clicks(2_000))
    hand = _Hand(rig, _LossyStore.open(rig.settings))
    assert isinstance(hand.store, _LossyStore)
    hand.store.lose = lost
    hand.begin()
    hand.fold_log(pieces=10)
    assert hand.store.lose == 0
    rig.check_invariant(rig.log())
    rig.work()
    rig.check_drained(rig.log())


def test_redis_emptied_under_a_running_worker(rig: Rig) -> None:
    rig.produce(clicks(3_000))
    with rig.background():
        rig.wait_until_drained()
        for key in rig.dump():
            rig.redis.delete(key)
        rig.produce(clicks(500, seed=1))
        rig.wait_until_drained()
    rig.check_drained(rig.log())


def test_redis_rolled_back_to_an_older_snapshot(rig: Rig) -> None:
    rig.produce(clicks(3_000))
    rig.work()
    old = rig.dump()
    rig.produce(clicks(2_000, seed=1, users=5_000))
    with rig.background():
        rig.wait_until_drained()
        for key in rig.dump():
            rig.redis.delete(key)
        for key, value in old.items():
            rig.redis.restore(key, 0, value)
        rig.check_invariant(rig.log())
        rig.produce(clicks(500, seed=2))
        rig.wait_until_drained()
    rig.check_drained(rig.log())


def test_a_shard_that_lost_its_checkpoint_alone(rig: Rig) -> None:
    """Its rows carry another generation than the checkpoint that will be made: they count as absent."""
    rig.produce(clicks(1_000))
    rig.work()
    rig.redis.delete(b"h{%s.3}" % rig.view.storage_id.encode())
    rig.work()
    rig.check_drained(rig.log())


def test_a_checkpoint_above_the_end_is_refused(rig: Rig) -> None:
    rig.produce(clicks(100))
    rig.work()
    checkpoint = rig.checkpoint(0)
    assert checkpoint is not None
    ahead = checkpoint._replace(positions=tuple(p._replace(offset=p.offset + 1_000) for p in checkpoint.positions))
    rig.redis.set(b"h{%s.0}" % rig.view.storage_id.encode(), ahead.encode())
    with pytest.raises(DeliveryError, match="above the end"):
        rig.work()


def test_a_topic_made_anew_is_refused(rig: Rig) -> None:
    rig.produce(clicks(100))
    rig.work()
    admin = admin_client(rig.settings)
    for future in admin.delete_topics([rig.topic]).values():
        future.result()
    wait_until(lambda: rig.topic not in describe_topics(admin, [rig.topic]))
    Rig.__post_init__(rig)
    rig.produce(clicks(200))
    with pytest.raises(DeliveryError, match="made anew"):
        rig.work()


def test_a_redis_that_may_evict_is_refused(rig: Rig) -> None:
    rig.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigError, match="never evict"):
            rig.work()
    finally:
        rig.redis.config_set("maxmemory-policy", "noeviction")


class _LossyStore(Store):
    """Loses the replies of some pipelines, once the scripts have run."""

    lose = 0

    def run(self, calls: Sequence[Call]) -> list[Answer]:
        answers = super().run(calls)
        if self.lose:
            self.lose -= 1
            raise StoreUnavailable("the connection broke", got="a test")
        return answers


class _Hand:
    """A worker's parts, moved by hand."""

    def __init__(self, rig: Rig, store: Store | None = None) -> None:
        self.rig = rig
        self.store = store or Store.open(rig.settings)
        topics = describe_topics(admin_client(rig.settings), [rig.topic])
        folds = {
            name: ViewFold(plan, Positions(plan, {rig.topic: topics[rig.topic].id}), expires=True)
            for name, plan in rig.definitions.views.items()
        }
        patience = Patience(threading.Event(), 1.0, time.sleep)
        self.applier = Applier(folds, self.store, Kernel(), patience)
        self.intake = Intake({rig.topic: rig.events["Click"]}, rejects=None)

    def begin(self) -> None:
        views = self.applier.refresh()
        for partition in range(4):
            place = (self.rig.topic, partition)
            for name, view in views.items():
                self.applier.join(name, place)
                self.intake.begin(place, view.start(place), view.newest_at_start(place))

    def fold_log(self, pieces: int = 1) -> None:
        messages = [LoggedMessage(message) for message in self.rig.log()]
        size = -(-len(messages) // pieces)
        for at in range(0, len(messages), size):
            part = messages[at : at + size]
            decoded = self.intake._decoders[self.rig.topic].decode(Batch.of(self.rig.topic, part))
            ends = {m.partition(): m.offset() + 1 for m in part}
            table, moves = self.intake.take_table(self.rig.topic, decoded.table, ends)
            self.applier.apply(MicroBatch({self.rig.topic: table} if len(table) else {}, moves))
        self.applier.settle()


class LoggedMessage:
    """A message of the log, as a Kafka client would give it."""

    def __init__(self, logged: Logged) -> None:
        self._logged = logged

    def partition(self) -> int:
        return self._logged.partition

    def offset(self) -> int:
        return self._logged.offset

    def timestamp(self) -> tuple[int, int]:
        return 2, self._logged.timestamp_us // 1_000

    def value(self) -> bytes:
        return self._logged.value

    def key(self) -> None:
        return None

    def headers(self) -> None:
        return None
