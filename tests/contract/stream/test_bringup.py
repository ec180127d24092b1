"""Views that are new or far behind come up beside the others, from the history and from Kafka, at an exact offset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa
import pytest
from confluent_kafka import TopicPartition

from schemas.decode import Batch, Decoder
from schemas.errors import DeliveryError
from stream.capabilities import Capability
from stream.history import IMPORTED
from stream.topics import admin_client
from tests.contract.stream.clicks import clicks
from tests.contract.stream.rig import Logged, Rig, declare
from tests.contract.stream.runners import needs
from tests.contract.stream.test_delivery import LoggedMessage

pytestmark = pytest.mark.timeout(400)


class ListHistory:
    """A history of what a log held: events below `ends`."""

    def __init__(self, rig: Rig, log: Sequence[Logged], ends: Mapping[int, int]) -> None:
        self._ends = dict(ends)
        below = [LoggedMessage(message) for message in log if message.offset < ends.get(message.partition, 0)]
        self._table = Decoder(rig.events["Click"]).decode(Batch.of(rig.topic, below)).table
        self.rows_read = 0

    def offsets(self, topic: str) -> Mapping[int, int]:
        return self._ends

    def read(self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[pa.Table]:
        for partition, end in ends.items():
            offsets = self._table["kafka_offset"].to_numpy()
            mask = (self._table["kafka_partition"].to_numpy() == partition) & (offsets < end)
            chosen = self._table.filter(pa.array(mask & (offsets >= starts[partition])))
            for at in range(0, len(chosen), 700):
                self.rows_read += len(chosen.slice(at, 700))
                yield chosen.slice(at, 700)


def test_a_new_view_comes_up_beside_a_running_one(rig: Rig, new_rig: Callable[..., Rig]) -> None:
    needs(rig.runner, Capability.BESIDE)
    rig.produce(clicks(4_000))
    rig.work()
    both = new_rig(views=2, name=rig.name)
    with both.background(batch_events_max=100) as worker:
        worker.wait_for(lambda report: bool(report.bringing_up))
        both.produce(clicks(500, seed=1))
        worker.wait_for(lambda report: report.caught_up and report.is_ready)
        both.produce(clicks(500, seed=2))
        worker.wait_for(lambda report: report.caught_up)
    both.work()
    log = both.log()
    for view in both.definitions.views.values():
        both.check_drained(log, view)


def test_caught_up_waits_for_a_new_view(rig: Rig, new_rig: Callable[..., Rig]) -> None:
    rig.produce(clicks(3_000))
    rig.work()
    both = new_rig(views=2, name=rig.name)
    both.work(batch_events_max=100)
    for view in both.definitions.views.values():
        both.check_drained(both.log(), view)


def test_a_bring_up_that_is_stopped_goes_on_later(rig: Rig, new_rig: Callable[..., Rig]) -> None:
    rig.produce(clicks(6_000))
    rig.work()
    both = new_rig(views=2, name=rig.name)
    with both.background(batch_events_max=50) as worker:
        worker.wait_for(lambda report: any(each.position > 100 for each in report.bringing_up))
    log = both.log()
    both.check_invariant(log, both.definitions.views["clicks_1"])
    both.work()
    both.check_drained(log, both.definitions.views["clicks_1"])


def test_redis_is_rebuilt_from_the_history_and_goes_on_with_kafka_at_the_offset(rig: Rig) -> None:
    rig.produce(clicks(3_000, bad_every=50))
    log = rig.log()
    landed = _ends(log)
    history = ListHistory(rig, log, landed)
    _delete_records(rig, landed)
    rig.produce(clicks(1_000, seed=1, bad_every=50))
    log += [message for message in rig.log() if message not in log]
    rig.work(history=history, batch_events_max=200, rejects_share_max=1.0)
    assert history.rows_read == len(history._table)
    rig.check_drained(sorted(log))


def test_a_history_that_ends_in_the_middle(rig: Rig) -> None:
    rig.produce(clicks(3_000))
    log = rig.log()
    history = ListHistory(rig, log, {p: end // 2 for p, end in _ends(log).items()})
    rig.work(history=history, batch_events_max=100)
    assert history.rows_read == len(history._table)
    rig.check_drained(log)


def test_copies_are_dropped_over_history_and_kafka_alike(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(dedupe=True)
    needs(rig.runner, Capability.COPIES)
    rig.produce(clicks(1_000, seed=1))
    rig.produce(clicks(500, seed=1))
    landed = _ends(rig.log())
    rig.produce(clicks(1_000, seed=1))
    rig.produce(clicks(1_000, seed=2))
    log = rig.log()
    rig.work(history=ListHistory(rig, log, landed), batch_events_max=100)
    rig.check_drained(log)


def test_deleted_events_that_no_history_holds_are_refused(rig: Rig) -> None:
    rig.produce(clicks(1_000))
    log = rig.log()
    _delete_records(rig, {p: end // 2 for p, end in _ends(log).items()})
    with pytest.raises(DeliveryError, match="no history holds them"):
        rig.work()
    assert rig.dump() == {}
    rig.work(from_earliest=True)
    assert sum(rig.check_invariant(rig.log()) for _ in range(1)) == len(rig.log())


def test_a_checkpoint_below_the_earliest_offset_is_refused(rig: Rig) -> None:
    rig.produce(clicks(1_000))
    rig.work()
    rig.produce(clicks(1_000, seed=1))
    _delete_records(rig, {p: end - 1 for p, end in _ends(rig.log()).items()})
    before = rig.dump()
    with pytest.raises(DeliveryError, match="no history holds them"):
        rig.work(from_earliest=True)
    assert rig.dump() == before


def test_imported_events_are_folded_from_the_history(rig: Rig) -> None:
    rig.produce(clicks(400))
    log = rig.log()
    before = [message._replace(partition=IMPORTED, offset=n) for n, message in enumerate(log[:150])]
    history = ListHistory(rig, before, {IMPORTED: 150})
    rig.work(history=history)
    assert rig.check_invariant(sorted(before + log)) == 550
    longer = [message._replace(partition=IMPORTED, offset=n) for n, message in enumerate(log[:170])]
    rig.work(history=ListHistory(rig, longer, {IMPORTED: 170}))
    assert rig.check_invariant(sorted(longer + log)) == 570


def test_a_view_of_another_meaning_has_rows_of_its_own(rig: Rig) -> None:
    rig.produce(clicks(500))
    rig.work()
    definitions, _ = declare(rig.name, rig.topic, False, 4, 1)
    with rig.background() as old, rig.background(definitions=definitions) as new:
        rig.produce(clicks(500, seed=1))
        old.wait_for(lambda report: report.caught_up)
        new.wait_for(lambda report: report.caught_up)
    rig.work()
    rig.work(definitions=definitions)
    log = rig.log()
    rig.check_drained(log)
    rig.check_drained(log, definitions.views["clicks_0"])


def _ends(log: Sequence[Logged]) -> dict[int, int]:
    ends: dict[int, int] = {}
    for message in log:
        ends[message.partition] = max(ends.get(message.partition, 0), message.offset + 1)
    return ends


def _delete_records(rig: Rig, below: Mapping[int, int]) -> None:
    """What retention does."""
    partitions = [TopicPartition(rig.topic, partition, offset) for partition, offset in below.items()]
    admin = admin_client(rig.settings)  # it must outlive its answers
    for future in admin.delete_records(partitions).values():
        future.result()
