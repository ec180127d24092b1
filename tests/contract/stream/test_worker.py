"""Every runner against the real Kafka and Redis: what it leaves is the fold of the log, each event once.

A gap is one of stream/capabilities.py's: a test skips for the reason given there, or shows the error that it declares.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable

import pytest

from schemas.errors import ConfigError, DataError
from schemas.rejection import Reason
from stream.capabilities import CAPABILITIES, Capability
from tests.contract.stream.clicks import BAD, clicks
from tests.contract.stream.rig import Rig
from tests.contract.stream.runners import needs

pytestmark = pytest.mark.timeout(400)


def test_rows_are_the_fold_of_the_log(rig: Rig) -> None:
    rig.produce(clicks(5_000))
    report = rig.work()
    assert (report.events, report.caught_up) == (5_000, True)
    rig.check_drained(rig.log())


def test_a_drained_topic_drains_again_without_a_change(rig: Rig) -> None:
    rig.produce(clicks(500))
    rig.work()
    before = rig.dump()
    report = rig.work()
    assert (report.events, report.refused) == (0, 0)
    assert rig.dump() == before


def test_an_empty_topic_is_caught_up_at_once(rig: Rig) -> None:
    assert rig.work().events == 0


def test_several_views_share_one_reading(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(views=3)
    rig.produce(clicks(1_000))
    assert rig.work().events == 1_000
    log = rig.log()
    for view in rig.definitions.views.values():
        rig.check_drained(log, view)


def test_bad_input_goes_to_the_rejects_and_good_events_beside_it_are_folded(rig: Rig) -> None:
    rig.produce(clicks(2_000, bad_every=10))
    report = rig.work(rejects_share_max=1.0)
    log = rig.log()
    rig.check_drained(log)
    bad = {(m.partition, m.offset): m.value for m in log if m.value in BAD}
    rejections = rig.rejections()
    assert len(bad) == len(rejections) == report.rejected_total == 200
    assert {(r.partition, r.offset): r.value or b"" for r in rejections} == bad
    reasons = collections.Counter(rejection.reason for rejection in rejections)
    assert reasons == report.rejected
    assert set(reasons) >= {Reason.UNDECODABLE, Reason.MISSING_FIELD, Reason.WRONG_TYPE, Reason.BAD_TIME, Reason.FUTURE}


def test_a_worker_goes_on_where_the_last_one_stopped(rig: Rig) -> None:
    rig.produce(clicks(6_000))
    with rig.background(batch_events_max=200) as worker:
        worker.wait_for(lambda report: report.events >= 600)
    log = rig.log()
    rig.check_invariant(log)
    rig.work()
    rig.check_drained(log)


def test_events_that_come_while_it_works_are_folded(rig: Rig) -> None:
    with rig.background() as worker:
        for seed in range(5):
            rig.produce(clicks(300, seed=seed))
            worker.wait_for(lambda report, seed=seed: report.events >= 300 * (seed + 1))
            worker.wait_for(lambda report: report.caught_up)
        rig.wait_until_drained()
    rig.check_drained(rig.log())


def test_one_runner_takes_over_from_another(rig: Rig) -> None:
    runner = rig.runner
    rig.produce(clicks(1_000))
    rig.work()
    for number, other in enumerate(("confluent", runner)):
        rig.runner = other
        rig.produce(clicks(500, seed=number + 1))
        assert rig.work().events == 500
    rig.check_drained(rig.log())


def test_two_workers_share_the_partitions(rig: Rig) -> None:
    needs(rig.runner, Capability.SHARES)
    rig.produce(clicks(3_000))
    with rig.background(batch_events_max=200) as one, rig.background(batch_events_max=200) as two:
        one.wait_for(lambda report: report.partitions == 2)
        two.wait_for(lambda report: report.partitions == 2)
        rig.produce(clicks(3_000, seed=1))
        two.stop()
        one.wait_for(lambda report: report.partitions == 4)
        rig.produce(clicks(1_000, seed=2))
        one.wait_for(lambda report: report.caught_up)
        rig.check_invariant(rig.log())
    rig.work()
    rig.check_drained(rig.log())


def test_a_shard_with_more_rows_than_a_call_takes_is_split_by_offset(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(shards=1)
    rig.produce(clicks(9_000, users=100_000))
    rig.work()
    rig.check_drained(rig.log())


def test_copies_of_an_id_are_folded_once_also_over_a_restart(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(dedupe=True)
    rig.produce(clicks(1_000, seed=1))
    if not CAPABILITIES[rig.runner].can(Capability.COPIES):
        with pytest.raises(ConfigError, match="does not drop copies"):
            rig.work()
        return
    assert rig.work().copies == 0
    rig.produce(clicks(1_000, seed=1))
    rig.produce(clicks(1_000, seed=2))
    report = rig.work()
    assert (report.events, report.copies) == (1_000, 1_000)
    rig.check_drained(rig.log())


def test_a_topic_of_nothing_but_rejects_stops_the_worker(rig: Rig) -> None:
    rig.produce(clicks(3_000, bad_every=1))
    with pytest.raises(DataError, match="too many messages are rejected"):
        rig.work()
    assert rig.check_invariant(rig.log()) == 0


def test_a_stop_before_anything_is_no_error(rig: Rig) -> None:
    stop = threading.Event()
    stop.set()
    assert rig.work(stop=stop).events == 0


def test_a_runner_that_does_not_exist(rig: Rig) -> None:
    rig.runner = "flink"
    with pytest.raises(ConfigError, match="there are: confluent, faust, spark"):
        rig.work()


def test_a_new_view_reads_old_bad_messages_again_and_rejects_none_of_them_twice(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig()
    rig.produce(clicks(300, bad_every=10))
    assert rig.work(rejects_share_max=1.0).rejected_total == 30
    fresh = new_rig(name=rig.name, views=2)
    assert fresh.work(rejects_share_max=1.0).rejected_total == 0
    fresh.produce(clicks(100, bad_every=10))
    assert fresh.work(rejects_share_max=1.0).rejected_total == 10
    places = [(r.partition, r.offset) for r in rig.rejections()]
    assert len(places) == len(set(places)) == 40
    for view in fresh.definitions.views.values():
        fresh.check_drained(fresh.log(), view)
