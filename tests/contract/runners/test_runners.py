"""Every runner leaves the same: the fold of the log, each event once, whatever happens to it on the way.

A gap is one of stream/capabilities.py's, and shows here as the error that it is declared to be.
"""

from __future__ import annotations

import collections
import importlib.util
import threading
import time
from pathlib import Path

import pytest

from schemas.errors import ConfigError, DeliveryError
from schemas.rejection import Reason
from stream.capabilities import CAPABILITIES, Capability
from stream.topics import admin_client, describe_topics
from tests.contract.stream.clicks import BAD, clicks
from tests.contract.stream.rig import Rig
from tests.contract.stream.worker_process import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
START_S = 120.0
"""Spark's JVM and Python take a while on a machine that has other work."""

WITHOUT_SPARK = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None,
    reason="pyspark is not installed; `make spark` installs it and runs these",
)
RUNNERS = [
    pytest.param("confluent"),
    pytest.param("faust"),
    pytest.param("spark", marks=[pytest.mark.spark, WITHOUT_SPARK]),
]


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def rig(kafka: str, redis_url: str, runner: str) -> Rig:
    return Rig(kafka, redis_url, runner=runner)


def needs(runner: str, capability: Capability) -> None:
    if not CAPABILITIES[runner].can(capability):
        pytest.skip(f"{runner}: {CAPABILITIES[runner].lacks[capability]}")


def test_rows_are_the_fold_of_the_log_and_drain_again_without_a_change(rig: Rig) -> None:
    rig.produce(clicks(3_000))
    assert rig.work().events == 3_000
    rig.check_drained(rig.log())
    before = rig.dump()
    report = rig.work()
    assert (report.events, report.refused) == (0, 0)
    assert rig.dump() == before


def test_bad_input_goes_to_the_rejects_and_good_events_beside_it_are_folded(rig: Rig) -> None:
    rig.produce(clicks(1_000, bad_every=10))
    report = rig.work(rejects_share_max=1.0)
    log = rig.log()
    rig.check_drained(log)
    bad = {(m.partition, m.offset): m.value for m in log if m.value in BAD}
    rejections = rig.rejections()
    assert len(bad) == len(rejections) == report.rejected_total == 100
    assert {(r.partition, r.offset): r.value or b"" for r in rejections} == bad
    reasons = collections.Counter(rejection.reason for rejection in rejections)
    assert reasons == report.rejected
    assert set(reasons) >= {Reason.UNDECODABLE, Reason.MISSING_FIELD, Reason.WRONG_TYPE, Reason.BAD_TIME, Reason.FUTURE}


def test_a_worker_goes_on_where_the_last_one_stopped(rig: Rig) -> None:
    rig.produce(clicks(5_000))
    with rig.background(batch_events_max=200) as worker:
        worker.wait_for(lambda report: report.events >= 500, START_S)
    log = rig.log()
    rig.check_invariant(log)
    rig.work()
    rig.check_drained(log)


def test_events_that_come_while_it_works_are_folded(rig: Rig) -> None:
    with rig.background() as worker:
        for seed in range(3):
            rig.produce(clicks(300, seed=seed))
            worker.wait_for(lambda report, seed=seed: report.events >= 300 * (seed + 1), START_S)
    rig.work()
    rig.check_drained(rig.log())


def test_a_worker_killed_in_the_middle(rig: Rig, tmp_path: Path) -> None:
    rig.produce(clicks(6_000))
    log = rig.log()
    for _ in range(2):
        with WorkerProcess(rig, tmp_path / "worker.log", batch_events_max=300) as worker:
            _wait_for_rows(rig)
            time.sleep(0.5)
            worker.kill()
        rig.check_invariant(log)
    rig.work(session_timeout_ms=6_000)
    rig.check_drained(log)


def test_one_runner_takes_over_from_another(rig: Rig, runner: str) -> None:
    rig.produce(clicks(1_000))
    rig.work()
    for other in ("confluent", runner):
        rig.runner = other
        rig.produce(clicks(500, seed=len(other)))
        assert rig.work().events == 500
    rig.check_drained(rig.log())


def test_two_workers_share_the_partitions(rig: Rig, runner: str) -> None:
    needs(runner, Capability.SHARES)
    rig.produce(clicks(1_000))
    with rig.background(batch_events_max=200) as one, rig.background(batch_events_max=200) as two:
        one.wait_for(lambda report: report.partitions == 2)
        two.wait_for(lambda report: report.partitions == 2)
        rig.produce(clicks(1_000, seed=1))
        two.stop()
        one.wait_for(lambda report: report.partitions == 4)
        rig.produce(clicks(500, seed=2))
        one.wait_for(lambda report: report.caught_up)
        rig.check_invariant(rig.log())
    rig.work()
    rig.check_drained(rig.log())


def test_redis_emptied_and_rolled_back_under_a_running_worker(rig: Rig) -> None:
    rig.produce(clicks(1_000))
    rig.work()
    old = rig.dump()
    with rig.background():
        rig.produce(clicks(500, seed=1, users=5_000))
        _wait_until_drained(rig)
        for key in rig.dump():
            rig.redis.delete(key)
        for key, value in old.items():
            rig.redis.restore(key, 0, value)
        rig.produce(clicks(300, seed=2))
        _wait_until_drained(rig)
        rig.check_drained(rig.log())
        for key in rig.dump():
            rig.redis.delete(key)
        rig.produce(clicks(200, seed=3))
        _wait_until_drained(rig)
    rig.check_drained(rig.log())


def test_copies_of_an_id_are_folded_once_also_over_a_restart(kafka: str, redis_url: str, runner: str) -> None:
    rig = Rig(kafka, redis_url, dedupe=True, runner=runner)
    rig.produce(clicks(500, seed=1))
    if not CAPABILITIES[runner].can(Capability.COPIES):
        with pytest.raises(ConfigError, match="does not drop copies"):
            rig.work()
        return
    assert rig.work().copies == 0
    rig.produce(clicks(500, seed=1))
    rig.produce(clicks(500, seed=2))
    report = rig.work()
    assert (report.events, report.copies) == (500, 500)
    rig.check_drained(rig.log())


def test_a_topic_made_anew_is_refused(rig: Rig) -> None:
    rig.produce(clicks(100))
    rig.work()
    admin = admin_client(rig.settings)
    for future in admin.delete_topics([rig.topic]).values():
        future.result()
    while rig.topic in describe_topics(admin, [rig.topic]):
        time.sleep(0.05)
    Rig.__post_init__(rig)
    rig.produce(clicks(200))
    with pytest.raises(DeliveryError, match="made anew"):
        rig.work()


def test_an_empty_topic_is_caught_up_and_a_stop_before_anything_is_no_error(rig: Rig) -> None:
    assert rig.work().events == 0
    stop = threading.Event()
    stop.set()
    assert rig.work(stop=stop).events == 0


def test_a_runner_that_does_not_exist(rig: Rig) -> None:
    rig.runner = "flink"
    with pytest.raises(ConfigError, match="there are: confluent, faust, spark"):
        rig.work()


def _wait_for_rows(rig: Rig, timeout_s: float = START_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not rig.redis.exists(b"h{%s.0}" % rig.view.storage_id.encode()):
        assert time.monotonic() < deadline, "no checkpoint in time"
        time.sleep(0.05)


def _wait_until_drained(rig: Rig, timeout_s: float = START_S) -> None:
    """Until every shard stands where the log ends: then nothing is under way."""
    ends = collections.Counter({message.partition: 0 for message in rig.log()})
    for message in rig.log():
        ends[message.partition] = max(ends[message.partition], message.offset + 1)
    deadline = time.monotonic() + timeout_s
    while True:
        checkpoints = [rig.checkpoint(shard) for shard in range(rig.view.shards)]
        stands = [{p.partition: p.offset for p in c.positions} if c else {} for c in checkpoints]
        if all(stand == dict(ends) for stand in stands):
            return
        assert time.monotonic() < deadline, (ends, stands)
        time.sleep(0.05)
