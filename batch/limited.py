"""Features at past instants over only a part of the log: what had been folded below given offsets.

Most queries see no event that they may not see; those are one ordinary read. For the others the events are gathered
again, a copy for each (entity, limit), without what lies beyond the limit, and read the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batch.collected import Collected
from features.finish import Values
from features.merge import read_records
from features.plan import ViewPlan
from features.ranges import Ints
from features.sql import SOURCE_SHIFT

Bools = npt.NDArray[np.bool_]

RECORDS_MAX = 4_000_000
"""Gathered events at once: some 400 MB with their inputs."""

Limit = Mapping[int, int]
"""position (source and partition) -> the first offset that may not be seen; of an absent one nothing may."""


def position(source: int, partition: int) -> int:
    """A partition of a source, as the records of a view name it."""
    return source * SOURCE_SHIFT + partition + 1


@dataclass(frozen=True)
class Limits:
    """A limit for each query: `of[i]` is a row of `floors`, whose columns are the `positions`."""

    positions: Ints
    floors: Ints
    of: Ints

    @classmethod
    def from_each(cls, limits: Sequence[Limit]) -> Limits:
        """The limits of all queries, those that are equal kept once."""
        positions = sorted({place for limit in limits for place in limit})
        rows = [tuple(limit.get(place, 0) for place in positions) for limit in limits]
        distinct = {row: number for number, row in enumerate(dict.fromkeys(rows))}
        floors = np.array(list(distinct), np.int64).reshape(len(distinct), len(positions))
        return cls(np.array(positions, np.int64), floors, np.array([distinct[row] for row in rows], np.int64))

    def take(self, index: Ints) -> Limits:
        """The limits of some queries."""
        return Limits(self.positions, self.floors, self.of[index])

    def for_positions(self, positions: Ints) -> Ints:
        """`floors` with these columns."""
        columns = {place: self.floors[:, n] for n, place in enumerate(self.positions.tolist())}
        nothing = np.zeros(len(self.floors), np.int64)
        chosen = [columns.get(place, nothing) for place in positions.tolist()]
        return np.stack(chosen, axis=1) if chosen else np.zeros((len(self.floors), 0), np.int64)


def read_limited(
    plan: ViewPlan,
    records: pa.Table,
    keys: pa.Array,
    instants: Ints,
    limits: Limits,
    features: Sequence[str],
    since: Ints,
) -> list[Values]:
    """`features.merge.read_records`, each query over the events below its limit alone.

    `since[i]`: no feature of query i depends on an event before that instant.
    """
    limited = _Limited(records, keys, instants, limits, since)
    collected = Collected(len(features), len(instants))
    plain = np.flatnonzero(~limited.sees_too_much)
    collected.put(plain, read_records(plan, records, keys.take(pa.array(plain)), instants[plain], features))
    for queries, gathered, own_keys in limited.gathered():
        collected.put(queries, read_records(plan, gathered, own_keys, instants[queries], features))
    return collected.values()


class _Limited:
    """Which events each (entity, limit) may see, and which queries that matters to."""

    def __init__(self, records: pa.Table, keys: pa.Array, instants: Ints, limits: Limits, since: Ints) -> None:
        self._records = records
        self._times = records["t"].to_numpy()
        self._offsets = records["offset"].to_numpy()
        positions, self._position_codes = np.unique(records["position"].to_numpy(), return_inverse=True)
        self._floors = limits.for_positions(positions)
        starts, ends = _entity_ranges(records, keys)
        # One group for each entity and limit.
        pairs, first, self._group = np.unique(
            np.stack([starts, limits.of]), axis=1, return_index=True, return_inverse=True
        )
        self._group = self._group.reshape(-1)
        self._start, self._end, self._limit = starts[first], ends[first], pairs[1]
        self._narrow(instants, since)
        self.sees_too_much = self._too_much()[self._group]

    def gathered(self) -> Iterator[tuple[Ints, pa.Table, pa.Array]]:
        """Queries, the events that they may see, and their keys there; of at most RECORDS_MAX events, or one group."""
        groups = np.unique(self._group[self.sees_too_much])
        sizes = np.cumsum(self._end[groups] - self._start[groups])
        for part in np.split(groups, np.flatnonzero(np.diff(sizes // RECORDS_MAX)) + 1):
            if len(part):
                yield self._gather(part)

    def _gather(self, groups: Ints) -> tuple[Ints, pa.Table, pa.Array]:
        lengths = self._end[groups] - self._start[groups]
        owners = np.repeat(groups, lengths)
        index = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        index += np.repeat(self._start[groups], lengths)
        allowed = self._allowed(index, self._limit[owners])
        events = self._records.take(pa.array(index[allowed]))
        events = events.set_column(events.column_names.index("key"), "key", pa.array(owners[allowed]))
        queries = np.flatnonzero(np.isin(self._group, groups))
        return queries, events, pa.array(self._group[queries])

    def _allowed(self, index: Ints, limit: Ints) -> Bools:
        allowed: Bools = self._offsets[index] < self._floors[limit, self._position_codes[index]]
        return allowed

    def _narrow(self, instants: Ints, since: Ints) -> None:
        """Leaves out the events of a group that no query of it can read."""
        groups = len(self._start)
        least = np.full(groups, np.iinfo(np.int64).max)
        most = np.full(groups, np.iinfo(np.int64).min)
        np.minimum.at(least, self._group, since)
        np.maximum.at(most, self._group, instants)
        for group in range(groups):
            start, end = self._start[group], self._end[group]
            times = self._times[start:end]
            self._start[group] = start + np.searchsorted(times, least[group])
            self._end[group] = start + np.searchsorted(times, most[group])

    def _too_much(self) -> Bools:
        return np.array(
            [
                not self._allowed(np.arange(start, end), np.full(end - start, limit)).all()
                for start, end, limit in zip(self._start, self._end, self._limit, strict=True)
            ],
            np.bool_,
        )


def _entity_ranges(records: pa.Table, keys: pa.Array) -> tuple[Ints, Ints]:
    """For each query the range of its entity's events; an empty one where there are none."""
    record_keys = records["key"].combine_chunks()
    entities = record_keys.unique()
    codes = pc.index_in(record_keys, entities).to_numpy(zero_copy_only=False).astype(np.int64)
    bounds = np.searchsorted(codes, np.arange(len(entities) + 1))
    found = pc.index_in(keys, entities)
    code = pc.fill_null(found, len(entities)).to_numpy(zero_copy_only=False).astype(np.int64)
    bounds = np.append(bounds, bounds[-1])
    return bounds[code], bounds[code + 1]
