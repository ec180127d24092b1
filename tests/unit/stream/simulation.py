"""A log, a Redis and workers in one process, moved step by step: whatever order chance chooses can be found again.

The workers' protocol is the real code (stream/apply.py, checkpoint.py, fold.py, placement.py). Faked are the log, Redis
(the semantics of merge.lua over dicts, call by call, with copies to roll back to) and the kernel's SQL. `broken` names
steps of the protocol that are left out: the simulation must then find a state that is wrong.
"""

from __future__ import annotations

import copy
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from features.deltas import Deltas
from features.few import few_deltas
from features.plan import Cell, CellKind, Input, Resolution, Source, ViewPlan
from schemas.event import Column, EventSpec
from schemas.row import NO_EVENT, Checkpoint, Position, checkpoint_redis_key, row_redis_key, shard_of
from stream.apply import Applier
from stream.batch import MicroBatch, Move, Place
from stream.checkpoint import EXPECTATION, NO_ENTRY, Positions
from stream.fold import ViewFold
from stream.patience import Patience
from stream.placement import place_partition
from stream.store import Answer, Call, StoreUnavailable
from stream.topics import Range

TOPIC, TOPIC_ID = "clicks", bytes(range(16))
PARTITIONS, SHARDS = 2, 3
ENTITIES = "abcdef"
RECORD = struct.Struct("<qqQqq")
"""Tile key | count | sum, low and high | count of values."""

STEPS = {
    "compare": "the script compares the checkpoint with the offsets that the worker assumed",
    "atomic": "rows and checkpoint change in one step",
    "generation": "a row of another generation is absent",
    "random generation": "a new checkpoint has a generation that was never there before",
    "reread": "after a lost answer the checkpoints say what is missing, nothing is sent again blindly",
    "floors": "what a shard has folded is dropped from a batch that is read again",
    "went back": "a checkpoint below what Redis had for certain makes the partition be read again from there",
    "both offsets": "a call moves every partition of its batch, not only that of its rows",
}
"""The steps that can be left out; each leads to a wrong state that the simulation finds."""


class Logged(NamedTuple):
    entity: str
    value: int


class Crash(Exception):
    """The worker's process ends here."""


@dataclass
class FakeRedis:
    """Rows as {tile: (count, sum)} under a generation, beside encoded checkpoints."""

    broken: frozenset[str] = frozenset()
    rows: dict[bytes, tuple[bytes, dict[int, tuple[int, int]]]] = field(default_factory=dict)
    checkpoints: dict[bytes, bytes] = field(default_factory=dict)
    copies: list[Any] = field(default_factory=list)
    between: Callable[[], None] = lambda: None
    """Called between the rows of a script that is not atomic: what interrupts its worker may come there."""

    def keep_a_copy(self) -> None:
        self.copies = [*self.copies[-3:], copy.deepcopy((self.rows, self.checkpoints))]

    def roll_back(self, number: int) -> None:
        if self.copies:
            self.rows, self.checkpoints = copy.deepcopy(self.copies[number % len(self.copies)])

    def empty(self) -> None:
        self.rows, self.checkpoints = {}, {}

    def forget_checkpoints(self) -> None:
        """What `rebuild` does: rows stay."""
        self.checkpoints = {}

    def run(self, call: Call) -> Answer:
        """merge.lua, in plain words."""
        key, stored = call.keys[0], self.checkpoints.get(call.keys[0])
        checkpoint = Checkpoint.decode(stored) if stored else Checkpoint(call.arguments[0], ())
        if "random generation" in self.broken:
            checkpoint = checkpoint._replace(generation=b"the same")
        positions = {position[:2]: position for position in checkpoint.positions}
        for source, partition, topic_id, expected, offset, newest in EXPECTATION.iter_unpack(call.arguments[1]):
            known = positions.get((source, partition))
            if "compare" not in self.broken and (known.offset if known else NO_ENTRY) != expected:
                return Answer(False, 0)
            positions[source, partition] = Position(source, partition, topic_id, offset, newest)
        after = Checkpoint(checkpoint.generation, tuple(positions.values())).encode()
        if "atomic" in self.broken:
            self.checkpoints[key] = after
        for row, delta in zip(call.keys[1:], call.arguments[3:], strict=True):
            generation, tiles = self.rows.get(row, (b"", {}))
            if generation != checkpoint.generation and "generation" not in self.broken:
                tiles = {}
            merged = dict(tiles)
            for tile, count, low, high, _ in RECORD.iter_unpack(delta[8:]):
                old = merged.get(tile, (0, 0))
                merged[tile] = (old[0] + count, old[1] + (high << 64) + low)
            self.rows[row] = (checkpoint.generation, merged)
            if "atomic" in self.broken:
                self.between()
        self.checkpoints[key] = after
        return Answer(True, 0)


@dataclass
class Interruption:
    """What happens to the next calls of a worker: after so many of them, this."""

    after: int
    action: Callable[[], None]


class FakeStore:
    """A worker's connection to the FakeRedis, which can be interrupted between any two calls."""

    def __init__(self, redis: FakeRedis) -> None:
        self.redis = redis
        self.interruption: Interruption | None = None
        self._last: tuple[Sequence[Call], list[Answer]] = ((), [])

    def checkpoints(self, plan: ViewPlan) -> list[Checkpoint | None]:
        found = [self.redis.checkpoints.get(checkpoint_redis_key(plan.storage_id, s)) for s in range(plan.shards)]
        return [None if data is None else Checkpoint.decode(data) for data in found]

    def run(self, calls: Sequence[Call]) -> list[Answer]:
        answers = []
        for call in calls:
            self._tick()
            self.redis.between = self._tick
            answers.append(self.redis.run(call))
        self._tick()
        return answers

    def _tick(self) -> None:
        if self.interruption is not None:
            self.interruption.after -= 1
            if self.interruption.after < 0:
                action, self.interruption = self.interruption.action, None
                action()


class SimKernel:
    """What the kernel makes of the simulation's events."""

    def fold(
        self, plan: ViewPlan, tables: Sequence[pa.Table | None], floors: Sequence[Mapping[int, Any] | None] | None
    ) -> Deltas:
        (table,) = tables
        assert table is not None
        keys = table["key"].to_pylist()
        keep = np.ones(len(keys), np.bool_)
        for partition, floor in ((floors or [None])[0] or {}).items():
            shards = np.array([shard_of(key, plan.shards) for key in keys])
            below = table["kafka_offset"].to_numpy() < floor[shards]
            keep &= ~((table["kafka_partition"].to_numpy() == partition) & below)
        return few_deltas(plan, table.filter(pa.array(keep)), {"counted": int(keep.sum())})


class LazySender:
    """In place of the sending thread: the calls run when somebody asks for the answers."""

    def submit(self, run: Callable[[list[Call]], list[Answer]], calls: list[Call]) -> Future[list[Answer]]:
        class Lazy(Future):  # type: ignore[type-arg]
            def result(self, timeout: float | None = None) -> list[Answer]:
                return run(calls)

        return Lazy()

    def shutdown(self, wait: bool = True) -> None:
        """Nothing to end."""


def make_plan() -> ViewPlan:
    columns = (Column("key", "string", False), Column("t", "timestamp", False), Column("x0", "int64", True))
    spec = EventSpec("Click", TOPIC, None, None, "t", ("key",), columns, None, 0, 0, "")
    return ViewPlan(
        name="view",
        fingerprint="f" * 32,
        storage_id="0123456789ab",
        entities=("entity",),
        keys=(columns[0],),
        sources=(Source(spec),),
        where=None,
        inputs=(Input("x0", "int64"),),
        cells=(Cell(CellKind.COUNT, -1), Cell(CellKind.SUM_INT, 0), Cell(CellKind.COUNT, 0)),
        resolutions=(Resolution(0, 0),),
        features=(),
        shards=SHARDS,
    )


PLAN = make_plan()


class World:
    """The log, Redis, who has which partition, and the workers, some of which have not heard of it yet."""

    def __init__(self, broken: frozenset[str] = frozenset()) -> None:
        self.broken = broken
        self.log: list[list[Logged]] = [[] for _ in range(PARTITIONS)]
        self.redis = FakeRedis(broken)
        self.owners = dict.fromkeys(range(PARTITIONS), 0)
        self.workers = [SimWorker(self, number) for number in range(3)]

    def crash(self, number: int) -> None:
        self.workers[number] = SimWorker(self, number)

    def check(self) -> None:
        """Invariant I."""
        for shard in range(SHARDS):
            data = self.redis.checkpoints.get(checkpoint_redis_key(PLAN.storage_id, shard))
            checkpoint = Checkpoint.decode(data) if data else None
            offsets = {position.partition: position.offset for position in checkpoint.positions} if checkpoint else {}
            expected: dict[str, tuple[int, int]] = {}
            for partition, events in enumerate(self.log):
                for event in events[: offsets.get(partition, 0)]:
                    if shard_of(event.entity, SHARDS) == shard:
                        count, total = expected.get(event.entity, (0, 0))
                        expected[event.entity] = (count + 1, total + event.value)
            for entity in ENTITIES:
                if shard_of(entity, SHARDS) == shard:
                    generation, tiles = self.redis.rows.get(row_redis_key(PLAN.storage_id, shard, entity), (b"", {}))
                    alive = checkpoint is not None and generation == checkpoint.generation
                    stored = next(iter(tiles.values()), None) if alive else None
                    assert stored == expected.get(entity), (shard, entity, offsets)

    def drain(self) -> None:
        """Everybody hears who has what, and works on until nothing is left."""
        for worker in self.workers:
            worker.store.interruption = None
            worker.learn()
        for _ in range(100):
            for worker in self.workers:
                worker.step(100, in_background=False)
                worker.advance()
                worker.look()
            if self._is_drained():
                return
        raise AssertionError("it does not drain")

    def _is_drained(self) -> bool:
        for shard in range(SHARDS):
            data = self.redis.checkpoints.get(checkpoint_redis_key(PLAN.storage_id, shard))
            offsets = {p.partition: p.offset for p in Checkpoint.decode(data).positions} if data else {}
            if any(offsets.get(partition, 0) < len(events) for partition, events in enumerate(self.log)):
                return False
        return True


class SimWorker:
    """What a runner does between its client and the applier."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.given: set[Place] = set()
        self.positions: dict[Place, int] = {}
        self.store = FakeStore(world.redis)
        fold = ViewFold(PLAN, _Positions(PLAN, {TOPIC: TOPIC_ID}, world.broken), expires=False)
        patience = Patience(threading.Event(), 0, lambda seconds: None)
        kind = _BlindApplier if "reread" in world.broken else Applier
        self.applier = kind({"view": fold}, self.store, SimKernel(), patience, lambda place: place in self.given)  # type: ignore[arg-type]
        self.applier.close()
        self.applier._sender = LazySender()  # type: ignore[assignment]
        self.learn()

    def learn(self) -> None:
        """Hears from the group what it has."""
        mine = {(TOPIC, p) for p, owner in self.world.owners.items() if owner == self.number}
        for place in self.given - mine:
            self.applier.leave(place)
            self.positions.pop(place, None)
        self.given = mine

    def step(self, events_max: int, *, in_background: bool) -> None:
        """Reads some events of each partition and folds them."""
        self._place((self.given - self.positions.keys()) | (self.applier.lost & self.given))
        rows: list[tuple[str, int, int, int]] = []
        moves: dict[Place, Move] = {}
        for place, start in self.positions.items():
            events = self.world.log[place[1]][start : start + events_max]
            if events:
                rows += [(each.entity, each.value, place[1], start + n) for n, each in enumerate(events)]
                moves[place] = Move(start, start + len(events), NO_EVENT, NO_EVENT)
                self.positions[place] = start + len(events)
        if moves:
            self.applier.apply(MicroBatch({TOPIC: _table(rows)}, moves), at_once=not in_background)
        else:
            self.applier.settle()

    def advance(self) -> None:
        self.applier.advance({p: Move(at, at, NO_EVENT, NO_EVENT) for p, at in self.positions.items()})

    def look(self) -> None:
        """What a runner does every few seconds: finds a Redis that went back, where no event comes to be refused."""
        self.applier.refresh()

    def _place(self, places: set[Place]) -> None:
        if not places:
            return
        for place in places:
            self.applier.leave(place)
        views = self.applier.refresh()
        for place in places & self.given:
            held = Range(0, len(self.world.log[place[1]]))
            found = place_partition(place, views, held, 0, batch_events_max=1 << 40, from_earliest=False)
            self.applier.join("view", place)
            self.positions[place] = found.start


class _Positions(Positions):
    """The real ones, but for the steps that are left out."""

    def __init__(self, plan: ViewPlan, topic_ids: Mapping[str, bytes], broken: frozenset[str]) -> None:
        super().__init__(plan, topic_ids)
        self._broken = broken

    def copy(self) -> Positions:
        other = _Positions(self.plan, self._topic_ids, self._broken)
        other._offsets = {entry: offsets.copy() for entry, offsets in self._offsets.items()}
        other._newest = {entry: newest.copy() for entry, newest in self._newest.items()}
        return other

    def is_behind(self, other: Positions, place: Place) -> bool:
        return "went back" not in self._broken and super().is_behind(other, place)

    def floors(self, batch: MicroBatch) -> Any:
        return None if "floors" in self._broken else super().floors(batch)

    def expectations(self, shard: int, moves: Mapping[Place, Move]) -> bytes:
        if "both offsets" in self._broken:
            moves = dict(list(moves.items())[:1])
        return super().expectations(shard, moves)


class _BlindApplier(Applier):
    """Sends again what was not answered, without looking at the checkpoints."""

    def _redo(self, flight: Any) -> None:
        for name, fold in self.folds.items():
            fold.positions = flight.before[name]
            for call in self._calls(name, fold, flight.batch, flight.advance):
                self._without_compare(call)

    def _without_compare(self, call: Call) -> None:
        redis = self._store.redis  # type: ignore[attr-defined]
        before, redis.broken = redis.broken, redis.broken | {"compare"}
        redis.run(call)
        redis.broken = before


def _table(rows: Sequence[tuple[str, int, int, int]]) -> pa.Table:
    keys, values, partitions, offsets = zip(*rows, strict=True)
    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "t": pa.array([0] * len(keys), pa.int64()),
            "x0": pa.array(values, pa.int64()),
            "kafka_partition": pa.array(partitions, pa.int32()),
            "kafka_offset": pa.array(offsets, pa.int64()),
        }
    )


def lost() -> None:
    raise StoreUnavailable("the connection broke", got="the simulation")


def crash() -> None:
    raise Crash
