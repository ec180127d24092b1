"""Messages -> a micro-batch: decoded once a topic for all views, copies dropped, what is bad put to the rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from schemas.decode import Batch, Decoder
from schemas.event import Event
from schemas.registry import Registry
from schemas.rejection import Rejection
from schemas.row import NO_EVENT
from stream.batch import MicroBatch, Move, Place, ends_of, newest_of_partitions
from stream.dedupe import Copies
from stream.rejects import Rejects


class Fetched(NamedTuple):
    """Messages by topic, each partition's by ascending offset; the ends of partitions that are read to their end."""

    batches: Mapping[str, Batch]
    ends: Mapping[Place, int]


class Intake:
    """What one reader knows of the partitions it reads: how far it is, the newest good event, the ids seen.

    `rejects` is None for a reader of offsets that another one reads, or has read, too. `registry` has the schemas of
    messages in Avro and Protobuf.
    """

    def __init__(
        self, events: Mapping[str, type[Event]], rejects: Rejects | None, registry: Registry | None = None
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.positions: dict[Place, int] = {}
        self.taken_us: dict[Place, int] = {}
        """When the broker took the newest message that was read of each partition."""
        self._newest: dict[Place, int] = {}
        self._rejects = rejects
        self._decoders = {topic: Decoder(event, registry) for topic, event in events.items()}
        self._copies = {topic: Copies(event.spec()) for topic, event in events.items() if event.spec().id is not None}

    def begin(self, place: Place, start: int, newest_us: int) -> None:
        """Events from `start` on are to be folded; those below it, if they come, only say which ids there were."""
        self.positions[place] = start
        self._newest[place] = newest_us
        if place[0] in self._copies:
            self._copies[place[0]].forget(place[1])

    def end(self, place: Place) -> None:
        """The partition is read no more."""
        self.positions.pop(place, None)
        self._newest.pop(place, None)
        self.taken_us.pop(place, None)
        if place[0] in self._copies:
            self._copies[place[0]].forget(place[1])

    def take(self, fetched: Fetched) -> MicroBatch:
        """The batch of these messages. Its rejections are put, but not flushed.

        Raises NotReady, having taken nothing, where a schema of them can't be asked for now: call again.
        """
        tables: dict[str, pa.Table] = {}
        moves: dict[Place, Move] = {}
        read = {topic: self._decoders[topic].decode(batch) for topic, batch in fetched.batches.items()}
        for topic, decoded in read.items():
            self._reject(topic, decoded.rejections)
            batch = fetched.batches[topic]
            ends = ends_of(batch.partitions, batch.offsets)
            for partition in ends:
                self.taken_us[topic, partition] = int(batch.timestamps_us[batch.partitions == partition].max())
            table, moved = self.take_table(topic, decoded.table, ends)
            moves |= moved
            if len(table):
                tables[topic] = table
        for place, end in fetched.ends.items():
            if place in moves:
                moves[place] = moves[place]._replace(end=max(end, moves[place].end))
                self.positions[place] = moves[place].end
            else:
                moves |= self.skip_to({place: end})
        return MicroBatch(tables, moves)

    def take_table(self, topic: str, table: pa.Table, ends: Mapping[int, int]) -> tuple[pa.Table, dict[Place, Move]]:
        """Decoded events up to `ends` by partition: those to fold, and the moves."""
        if topic in self._copies and len(table):
            decoded = len(table)
            table = self._copies[topic].without_copies(table)
            self.counts["copies"] += decoded - len(table)
        table = self._from_positions(topic, table, ends)
        newest = newest_of_partitions(table, self._decoders[topic].spec.time) if len(table) else {}
        self.counts["events"] += len(table)
        return table, self._moved({(topic, partition): end for partition, end in ends.items()}, newest)

    def skip_to(self, ends: Mapping[Place, int]) -> dict[Place, Move]:
        """The moves over offsets at which no good event stands."""
        return self._moved(ends, {})

    def standing(self, place: Place) -> Move:
        """Where the partition is, as a move over nothing."""
        position, newest = self.positions[place], self._newest[place]
        return Move(position, position, newest, newest)

    def dedupe_within_us(self, topic: str) -> int:
        """How far back a topic's ids are needed; 0 where it has none."""
        return self._decoders[topic].spec.dedupe_within_us if topic in self._copies else 0

    def _reject(self, topic: str, rejections: Sequence[Rejection]) -> None:
        if self._rejects is not None and rejections:
            self._rejects.put([each for each in rejections if each.offset >= self.positions[topic, each.partition]])

    def _moved(self, ends: Mapping[Place, int], newest: Mapping[int, int]) -> dict[Place, Move]:
        moves = {}
        for place, end in ends.items():
            start, before = self.positions[place], self._newest[place]
            if end > start:
                after = max(before, newest.get(place[1], NO_EVENT))
                moves[place] = Move(start, end, before, after)
                self.positions[place], self._newest[place] = end, after
        return moves

    def _from_positions(self, topic: str, table: pa.Table, ends: Mapping[int, int]) -> pa.Table:
        offsets, partitions = table["kafka_offset"].to_numpy(), table["kafka_partition"].to_numpy()
        keep = np.ones(len(table), np.bool_)
        for partition in ends:
            keep &= (partitions != partition) | (offsets >= self.positions[topic, partition])
        return table if keep.all() else table.filter(pa.array(keep))
