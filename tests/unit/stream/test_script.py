"""merge.lua on a real Redis against merging in plain Python (model.py)."""

from __future__ import annotations

import itertools
import struct
import uuid
from collections.abc import Sequence

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.cells import is_fixed
from features.plan import CellKind, ViewPlan
from schemas.row import NO_EVENT, Checkpoint, Position, checkpoint_redis_key, hash_redis_key, row_redis_key
from stream.checkpoint import EXPECTATION
from stream.script import has_variable_cells, merge_script
from stream.store import Call, Store
from stream.wire import SingleWire
from tests.laws.cells import SUBJECTS
from tests.unit.stream.model import ModelEvent, Tile, encode, is_expired, make_plan, read_row, tiles_of

TOPIC_ID = bytes(range(16))
GENERATION = b"gen-0001"
RESOLUTIONS = ((10, 40), (100, 300), (0, 0))


@pytest.fixture(scope="module")
def store(redis_url: str) -> Store:
    return Store(SingleWire(redis.Redis.from_url(redis_url)))


@pytest.fixture(scope="module")
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def fresh(plan: ViewPlan) -> ViewPlan:
    return msgspec.structs.replace(plan, storage_id=uuid.uuid4().hex[:12])


def expectation(expected: int, offset: int, newest: int = NO_EVENT, *, source: int = 0, partition: int = 0) -> bytes:
    return EXPECTATION.pack(source, partition, TOPIC_ID, expected, offset, newest)


def call(plan: ViewPlan, events: Sequence[ModelEvent], expectations: bytes, *, expires: bool = False) -> Call:
    """The call that a worker would make, its deltas merged in plain Python."""
    keys = [checkpoint_redis_key(plan.storage_id, 0)]
    arguments = [GENERATION, expectations, b"1" if expires else b"0"]
    for entity, tiles in sorted(tiles_of(plan, events).items()):
        newest = max(event.time_us for event in events if event.entity == entity)
        keys.append(row_redis_key(plan.storage_id, 0, entity))
        arguments.append(struct.pack("<q", newest) + b"".join(_record(plan, k, t) for k, t in sorted(tiles.items())))
        if has_variable_cells(plan):
            keys.append(hash_redis_key(plan.storage_id, 0, entity))
            arguments.append(b"".join(_value(plan, tile) for _, tile in sorted(tiles.items())))
    return Call(merge_script(plan), keys, arguments)


def _record(plan: ViewPlan, key: int, tile: Tile) -> bytes:
    words = [encode(cell.kind, state) for cell, state in zip(plan.cells, tile, strict=True) if is_fixed(cell)]
    return struct.pack("<q", key) + b"".join(words)


def _value(plan: ViewPlan, tile: Tile) -> bytes:
    return b"".join(encode(c.kind, state) for c, state in zip(plan.cells, tile, strict=True) if not is_fixed(c))


def check(client: redis.Redis, plan: ViewPlan, events: Sequence[ModelEvent]) -> None:
    for entity, tiles in tiles_of(plan, events).items():
        data = client.get(row_redis_key(plan.storage_id, 0, entity))
        row = read_row(plan, data, client.hgetall(hash_redis_key(plan.storage_id, 0, entity)))
        assert row.newest_us == max(event.time_us for event in events if event.entity == entity)
        alive = {key: tile for key, tile in tiles.items() if not is_expired(plan, key, row.newest_us)}
        stored = {key: tile for key, tile in row.tiles.items() if not is_expired(plan, key, row.newest_us)}
        assert stored == _near(plan, alive), entity


def _near(plan: ViewPlan, tiles: dict[int, Tile]) -> dict[int, tuple[object, ...]]:
    """Everything to the bit, but moments of numbers up to 1e6, whose squares hold 1e-9."""
    return {
        key: tuple(
            pytest.approx(state, rel=1e-9, abs=1e-3) if cell.kind is CellKind.MOMENTS else state
            for cell, state in zip(plan.cells, tile, strict=True)
        )
        for key, tile in tiles.items()
    }


NUMBERS = st.floats(-1e6, 1e6).map(lambda x: x + 0.0)
INTS = st.integers(-(2**63), 2**63 - 1)


def _order(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda t, p, o, value: struct.pack("<qqq", t, p, o) + value,
        st.integers(-1000, 1000),
        st.integers(1, 3),
        st.integers(0, 5),
        values,
    )


VALUES: dict[CellKind, st.SearchStrategy[tuple[object, ...]]] = {
    CellKind.COUNT: st.tuples(st.integers(0, 3)),
    CellKind.SUM_INT: st.tuples(st.integers(-(2**100), 2**100)),
    CellKind.SUM_FIXED: st.tuples(st.integers(-(2**160), 2**160)),
    CellKind.MIN_INT: st.tuples(INTS),
    CellKind.MAX_INT: st.tuples(INTS),
    CellKind.MIN_FLOAT: st.tuples(NUMBERS),
    CellKind.MAX_FLOAT: st.tuples(NUMBERS),
    CellKind.FIRST: st.tuples(
        st.integers(-1000, 1000), st.integers(1, 3), st.integers(0, 5), st.binary(min_size=8, max_size=8)
    ),
    CellKind.LAST: st.tuples(
        st.integers(-1000, 1000), st.integers(1, 3), st.integers(0, 5), st.binary(min_size=8, max_size=8)
    ),
    CellKind.MOMENTS: NUMBERS.map(lambda x: (1, x, 0.0, x, x)),
    CellKind.MIN_BYTES: st.tuples(st.one_of(st.just(b""), st.binary(max_size=4).map(lambda b: b"\x01" + b))),
    CellKind.MAX_BYTES: st.tuples(st.one_of(st.just(b""), st.binary(max_size=4).map(lambda b: b"\x01" + b))),
    CellKind.FIRST_BYTES: st.tuples(st.one_of(st.just(b""), _order(st.binary(max_size=4)))),
    CellKind.LAST_BYTES: st.tuples(st.one_of(st.just(b""), _order(st.binary(max_size=4)))),
}


@st.composite
def views_and_events(draw: st.DrawFn) -> tuple[ViewPlan, list[list[ModelEvent]]]:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6, unique=True))
    resolutions = draw(st.lists(st.sampled_from(RESOLUTIONS), min_size=1, max_size=3, unique=True))
    plan = make_plan(kinds, resolutions)
    events = draw(
        st.lists(
            st.builds(
                ModelEvent,
                st.sampled_from(["a", "b", "ä"]),
                st.integers(-1_000, 1_000),
                st.tuples(*(VALUES[kind] for kind in kinds)),
            ),
            min_size=1,
            max_size=40,
        )
    )
    events = [_distinct(kinds, event, number) for number, event in enumerate(events)]
    cuts = sorted(draw(st.lists(st.integers(0, len(events)), max_size=6)))
    return plan, [events[a:b] for a, b in itertools.pairwise([0, *cuts, len(events)]) if a < b]


def _distinct(kinds: Sequence[CellKind], event: ModelEvent, number: int) -> ModelEvent:
    """No two events stand at one offset: the order inside an entity is total."""
    tile = tuple(_at(kind, state, number) for kind, state in zip(kinds, event.tile, strict=True))
    return event._replace(tile=tile)


def _at(kind: CellKind, state: tuple[object, ...], offset: int) -> tuple[object, ...]:
    if kind in (CellKind.FIRST, CellKind.LAST):
        return (*state[:2], offset, state[3])
    if kind in (CellKind.FIRST_BYTES, CellKind.LAST_BYTES) and state[0]:
        return (state[0][:16] + struct.pack("<q", offset) + state[0][24:],)
    return state


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=views_and_events())
def test_batches_merge_as_the_model_does(
    store: Store, client: redis.Redis, case: tuple[ViewPlan, list[list[ModelEvent]]]
) -> None:
    plan, batches = fresh(case[0]), case[1]
    offset = -1
    for batch in batches:
        end = max(offset, 0) + len(batch)
        assert store.run([call(plan, batch, expectation(offset, end))])[0].merged
        offset = end
    check(client, plan, [event for batch in batches for event in batch])


COUNT = make_plan([CellKind.COUNT], ((10, 40),))


def count(entity: str, time_us: int) -> ModelEvent:
    return ModelEvent(entity, time_us, ((1,),))


def dump(client: redis.Redis, plan: ViewPlan) -> dict[bytes, bytes | None]:
    return {key: client.dump(key) for key in client.scan_iter(f"h{{{plan.storage_id}.*")}


def test_a_call_that_expects_another_offset_changes_nothing(store: Store, client: redis.Redis) -> None:
    plan = fresh(COUNT)
    store.run([call(plan, [count("a", 5)], expectation(-1, 10))])
    before = dump(client, plan)
    for expected in (-1, 0, 9, 11):
        assert not store.run([call(plan, [count("a", 6)], expectation(expected, 20))])[0].merged
    assert dump(client, plan) == before


def test_a_call_that_expects_another_topic_changes_nothing(store: Store, client: redis.Redis) -> None:
    plan = fresh(COUNT)
    store.run([call(plan, [count("a", 5)], expectation(-1, 10))])
    before = dump(client, plan)
    other = EXPECTATION.pack(0, 0, bytes(16), 10, 20, 5)
    assert not store.run([call(plan, [count("a", 6)], other)])[0].merged
    assert dump(client, plan) == before


def test_a_checkpoint_is_sorted_and_keeps_the_partitions_that_a_call_does_not_name(
    store: Store, client: redis.Redis
) -> None:
    plan = fresh(COUNT)
    store.run([call(plan, [count("a", 5)], expectation(-1, 7, 5, partition=3))])
    both = expectation(-1, 9, 4, source=1, partition=-1) + expectation(-1, 2**53 + 1, 3, partition=0)
    store.run([call(plan, [], both)])
    stored = Checkpoint.decode(client.get(checkpoint_redis_key(plan.storage_id, 0)))
    assert stored == Checkpoint(
        GENERATION,
        (Position(0, 0, TOPIC_ID, 2**53 + 1, 3), Position(0, 3, TOPIC_ID, 7, 5), Position(1, -1, TOPIC_ID, 9, 4)),
    )


def test_rows_of_another_generation_are_absent(store: Store, client: redis.Redis) -> None:
    plan = fresh(make_plan([CellKind.COUNT, CellKind.MAX_BYTES], ((10, 40),)))
    old, new = ModelEvent("a", 5, ((1,), (b"\x01z",))), ModelEvent("a", 6, ((1,), (b"\x01a",)))
    store.run([call(plan, [old], expectation(-1, 10))])
    client.set(checkpoint_redis_key(plan.storage_id, 0), b"gen-0002" + EXPECTATION.pack(0, 0, TOPIC_ID, 0, 0, 0)[:40])
    stored = Checkpoint(b"gen-0002", (Position(0, 0, TOPIC_ID, 4, 0),)).encode()
    client.set(checkpoint_redis_key(plan.storage_id, 0), stored)
    assert store.run([call(plan, [new], expectation(4, 10))])[0].merged
    check(client, plan, [new])


def test_tiles_too_old_for_any_window_are_counted_and_dropped(store: Store, client: redis.Redis) -> None:
    plan = fresh(COUNT)
    store.run([call(plan, [count("a", 1_000)], expectation(-1, 1))])
    answer = store.run([call(plan, [count("a", 900), count("a", 995)], expectation(1, 3))])[0]
    assert answer.too_late == 1
    check(client, plan, [count("a", 900), count("a", 995), count("a", 1_000)])


@pytest.mark.parametrize("expires", [True, False])
def test_rows_expire_only_where_nobody_reads_by_the_events_clock(
    store: Store, client: redis.Redis, expires: bool
) -> None:
    plan = fresh(make_plan([CellKind.COUNT], ((10_000_000, 3_600_000_000),)))
    now_us = client.time()[0] * 1_000_000
    store.run([call(plan, [count("a", now_us)], expectation(-1, 1), expires=expires)])
    ttl = client.ttl(row_redis_key(plan.storage_id, 0, "a"))
    assert 3_590 < ttl <= 3_611 if expires else ttl == -1


def test_a_damaged_row_stops_the_call_before_any_write(store: Store, client: redis.Redis) -> None:
    plan = fresh(COUNT)
    store.run([call(plan, [count("a", 5), count("b", 5)], expectation(-1, 1))])
    client.set(row_redis_key(plan.storage_id, 0, "b"), GENERATION)
    before = dump(client, plan)
    with pytest.raises(Exception, match="damaged"):
        store.run([call(plan, [count("a", 6), count("b", 6)], expectation(1, 2))])
    assert dump(client, plan) == before


def test_every_cell_kind_is_tried_here_or_by_the_laws() -> None:
    assert VALUES.keys() | SUBJECTS.keys() == set(CellKind)
