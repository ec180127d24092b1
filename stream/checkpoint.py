"""How far each shard of a view has folded each partition: as Redis says, and as a worker assumes it. DESIGN §5."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from features.plan import ViewPlan
from schemas.errors import DeliveryError
from schemas.row import NO_EVENT, Checkpoint
from stream.batch import Ints, MicroBatch, Move, Place
from stream.history import IMPORTED

NO_ENTRY = -1
"""The offset of a partition that a shard has no entry for; its events start at 0."""
NO_TOPIC = bytes(16)
"""The topic id of what never stood in Kafka."""
EXPECTATION = struct.Struct("<Ii16sqqq")
"""source | partition | topic id | offset it must have | offset | newest: the format of merge.lua."""


class Positions:
    """The offsets and newest events of one view's shards, for the partitions that one reader feeds it.

    `topic_ids` names the topics as they are now, and for tables and files (by the log's name) what they hold now. A
    partition's offsets are by shard, NO_ENTRY where there is none.
    """

    def __init__(self, plan: ViewPlan, topic_ids: Mapping[str, bytes]) -> None:
        self.plan = plan
        self.sources = {n: source.event.log_name for n, source in enumerate(plan.sources)}
        self._given = {source.event.log_name for source in plan.sources if source.event.topic is None}
        self._topic_ids = topic_ids
        self._offsets: dict[tuple[int, int], Ints] = {}
        self._newest: dict[tuple[int, int], Ints] = {}

    def adopt(self, checkpoints: Sequence[Checkpoint | None]) -> None:
        """Takes what Redis says. Raises DeliveryError for the checkpoint of a topic that was made anew since."""
        self._offsets.clear()
        self._newest.clear()
        for shard, checkpoint in enumerate(checkpoints):
            for position in checkpoint.positions if checkpoint is not None else ():
                self._check_topic(position.source, position.partition, position.topic_id)
                entry = (position.source, position.partition)
                self._row(self._offsets, entry, NO_ENTRY)[shard] = position.offset
                self._row(self._newest, entry, NO_EVENT)[shard] = position.newest_us

    def copy(self) -> Positions:
        """The same as of now."""
        other = Positions(self.plan, self._topic_ids)
        other._offsets = {entry: offsets.copy() for entry, offsets in self._offsets.items()}
        other._newest = {entry: newest.copy() for entry, newest in self._newest.items()}
        return other

    def offsets(self, entry: tuple[int, int]) -> Ints:
        """A (source, partition)'s offset in each shard; not to be written to."""
        return self._row(self._offsets, entry, NO_ENTRY)

    def entries(self, place: Place) -> list[tuple[int, int]]:
        """The (source, partition) entries that a partition of a topic has: one for each source that reads it."""
        topic, partition = place
        return [(source, partition) for source, name in self.sources.items() if name == topic]

    def start(self, place: Place) -> int:
        """The offset below which every shard has folded the partition."""
        return int(min(np.maximum(self.offsets(entry), 0).min() for entry in self.entries(place)))

    def newest_at_start(self, place: Place) -> int:
        """The newest good event below `start`."""
        start = self.start(place)
        known = NO_EVENT
        for entry in self.entries(place):
            at_start = np.maximum(self.offsets(entry), 0) == start
            # Of shards at one offset each says the same; one without an entry says nothing.
            known = max(known, int(self._row(self._newest, entry, NO_EVENT)[at_start].max()))
        return known

    def is_new(self, place: Place) -> bool:
        """True where no shard has an entry for the partition."""
        return all((self.offsets(entry) == NO_ENTRY).all() for entry in self.entries(place))

    def greatest(self, place: Place) -> int:
        """The offset below which some shard has folded the partition; 0 where none has."""
        return int(max(max(self.offsets(entry).max(), 0) for entry in self.entries(place)))

    def is_behind(self, other: Positions, place: Place) -> bool:
        """True where some shard stands lower than `other` has it: Redis was emptied or rolled back."""
        return any(bool((self.offsets(entry) < other.offsets(entry)).any()) for entry in self.entries(place))

    def floors(self, batch: MicroBatch) -> list[dict[int, Ints] | None] | None:
        """For each source the floors of the partitions in which some shard has folded part of the batch already."""
        result: list[dict[int, Ints] | None] = [None] * len(self.plan.sources)
        for place, move in batch.moves.items():
            for source, partition in self.entries(place):
                offsets = self.offsets((source, partition))
                if int(offsets.max()) > move.start:
                    floors = result[source] = result[source] or {}
                    floors[partition] = offsets
        return result if any(result) else None

    def behind(self, moves: Mapping[Place, Move]) -> Ints:
        """The shards that stand below the end of some move."""
        mask = np.zeros(self.plan.shards, np.bool_)
        for place, move in moves.items():
            for entry in self.entries(place):
                mask |= self.offsets(entry) < move.end
        return np.flatnonzero(mask)

    def expectations(self, shard: int, moves: Mapping[Place, Move]) -> bytes:
        """What the shard must have stored, and what it then stores; a partition in which it is that far is left out."""
        parts = []
        for place, move in moves.items():
            identity = self._topic_id(*place)
            for entry in self.entries(place):
                offset = int(self.offsets(entry)[shard])
                if offset < move.end:
                    parts.append(EXPECTATION.pack(*entry, identity, offset, move.end, move.newest_us))
        return b"".join(parts)

    def assume(self, shards: Iterable[int], moves: Mapping[Place, Move]) -> None:
        """Takes the moves as done for these shards."""
        index = np.fromiter(shards, np.int64)
        for place, move in moves.items():
            for entry in self.entries(place):
                offsets = self._row(self._offsets, entry, NO_ENTRY)
                moved = index[offsets[index] < move.end]
                offsets[moved] = move.end
                self._row(self._newest, entry, NO_EVENT)[moved] = move.newest_us

    def _row(self, rows: dict[tuple[int, int], Ints], entry: tuple[int, int], absent: int) -> Ints:
        if entry not in rows:
            rows[entry] = np.full(self.plan.shards, absent, np.int64)
        return rows[entry]

    def _topic_id(self, topic: str, partition: int) -> bytes:
        return NO_TOPIC if partition == IMPORTED and topic not in self._given else self._topic_ids[topic]

    def _check_topic(self, source: int, partition: int, identity: bytes) -> None:
        topic = self.sources.get(source)
        if topic is None or topic not in self._topic_ids or identity == self._topic_id(topic, partition):
            return
        raise DeliveryError(
            "the topic was made anew: its offsets are not those of the checkpoint",
            where=f"view {self.plan.name!r}, topic {topic}, partition {partition}",
            got=f"topic id {self._topic_id(topic, partition).hex()} where {identity.hex()} was folded",
            hint=f"run `headrace rebuild {self.plan.name}` to begin with the new topic",
        )
