"""A micro-batch: the events that stand between two offsets of some partitions, and how far it moves each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.deltas import int64_of

Ints: TypeAlias = npt.NDArray[np.int64]
Place: TypeAlias = tuple[str, int]
"""A topic and one of its partitions."""


class Move(NamedTuple):
    """From which offset to which a partition moves, and the newest good event below either. start = end: none."""

    start: int
    end: int
    newest_before_us: int
    newest_us: int


class MicroBatch(NamedTuple):
    """Good events by topic (`log_schema`), each partition's by ascending offset, and the moves of their partitions.

    Every good event between start and end of a move is in its table; an event of no move is not to be folded.
    """

    tables: Mapping[str, pa.Table]
    moves: Mapping[Place, Move]

    def only(self, places: set[Place]) -> MicroBatch:
        """The part of some partitions."""
        if places >= self.moves.keys():
            return self
        moves = {place: move for place, move in self.moves.items() if place in places}
        tables = {topic: _of_partitions(topic, table, moves) for topic, table in self.tables.items()}
        return MicroBatch({topic: table for topic, table in tables.items() if len(table)}, moves)

    def only_topics(self, topics: Collection[str]) -> MicroBatch:
        """The part of some topics."""
        return MicroBatch(
            {topic: table for topic, table in self.tables.items() if topic in topics},
            {place: move for place, move in self.moves.items() if place[0] in topics},
        )

    def halves(self, times: Mapping[str, str]) -> tuple[MicroBatch, MicroBatch]:
        """The same events as two batches, one behind the other; `times` names the topics' time columns.

        Raises ValueError for fewer than two events.
        """
        total = sum(map(len, self.tables.values()))
        if total < 2:
            raise ValueError(f"a batch of {total} events has no halves")
        early, late = _split(self.tables, total // 2)
        ends: dict[Place, tuple[int, int]] = {}
        for topic, table in early.items():
            for partition, offset, newest in _last_of_partitions(table, times[topic]):
                ends[topic, partition] = (offset + 1, newest)
        first, second = {}, {}
        for place, move in self.moves.items():
            end, newest = ends.get(place, (move.start, move.newest_before_us))
            middle = max(newest, move.newest_before_us)
            first[place] = Move(move.start, end, move.newest_before_us, middle)
            second[place] = Move(end, move.end, middle, move.newest_us)
        return MicroBatch(early, first), MicroBatch(late, second)


def partitions_in(partitions: Ints) -> list[int]:
    """The distinct ones; a partition is −1 or more, and there are few."""
    found: list[int] = (np.flatnonzero(np.bincount(partitions + 1)) - 1).tolist()
    return found


def ends_of(partitions: Ints, offsets: Ints) -> dict[int, int]:
    """The offset behind the last one, by partition."""
    return {partition: int(offsets[partitions == partition].max()) + 1 for partition in partitions_in(partitions)}


def newest_of_partitions(table: pa.Table, time: str) -> dict[int, int]:
    """The newest event of each partition of a table, in µs."""
    return {partition: newest for partition, _, newest in _last_of_partitions(table, time)}


def _of_partitions(topic: str, table: pa.Table, moves: Mapping[Place, Move]) -> pa.Table:
    partitions = [partition for name, partition in moves if name == topic]
    return table.filter(pa.array(np.isin(table["kafka_partition"].to_numpy(), partitions)))


def _split(tables: Mapping[str, pa.Table], first: int) -> tuple[dict[str, pa.Table], dict[str, pa.Table]]:
    """The first so many rows, and the rest."""
    early, late = {}, {}
    for topic, table in tables.items():
        count = min(first, len(table))
        first -= count
        if count:
            early[topic] = table.slice(0, count)
        if count < len(table):
            late[topic] = table.slice(count)
    return early, late


def _last_of_partitions(table: pa.Table, time: str) -> Iterator[tuple[int, int, int]]:
    """Partition, greatest offset, newest event."""
    partitions = table["kafka_partition"].to_numpy()
    offsets, times = table["kafka_offset"].to_numpy(), int64_of(table[time])
    for partition in partitions_in(partitions):
        chosen = partitions == partition
        yield partition, int(offsets[chosen].max()), int(times[chosen].max())
