"""When events arrived: from an instant of the broker's clock to the offsets that had been written by then."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batch.catalog import find
from batch.limited import Limits, position
from batch.scan import OFFSET, PARTITION, Scanner
from batch.tables import BROKER_TIME, arrow_columns, events_table
from features.deltas import int64_of
from features.plan import ViewPlan
from features.ranges import Ints

WITHOUT_LIMIT = np.iinfo(np.int64).max

_Partitions = dict[int, tuple[Ints, Ints]]
"""partition -> (timestamps, never going back; offsets), by offset."""


class ArrivalTimes:
    """The broker's timestamps of the events of a log, read once a topic."""

    def __init__(self, scanner: Scanner, snapshots: Mapping[str, int]) -> None:
        self._scanner = scanner
        self._snapshots = snapshots
        self._topics: dict[str, _Partitions] = {}

    def limits(self, plan: ViewPlan, instants_us: Ints) -> Limits:
        """For each instant, what had arrived by then (its own instant included), over all sources of a view."""
        positions: list[int] = []
        columns: list[Ints] = []
        for number, source in enumerate(plan.sources):
            for partition, (times, offsets) in self._partitions(source.event.log_name).items():
                beyond = np.append(offsets, WITHOUT_LIMIT)
                positions.append(position(number, partition))
                columns.append(beyond[np.searchsorted(times, instants_us, side="right")])
        if not columns:
            return Limits(np.zeros(0, np.int64), np.zeros((1, 0), np.int64), np.zeros(len(instants_us), np.int64))
        floors, of = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        return Limits(np.array(positions, np.int64), floors, of.reshape(-1))

    def _partitions(self, log_name: str) -> _Partitions:
        if log_name not in self._topics:
            self._topics[log_name] = self._read(log_name)
        return self._topics[log_name]

    def _read(self, log_name: str) -> _Partitions:
        table = find(self._scanner.catalog, events_table(log_name))
        if table is None or table.current_snapshot() is None:
            return {}
        schema = arrow_columns(table, [PARTITION, OFFSET, BROKER_TIME])
        source = self._scanner.relation(table, schema, snapshot_id=self._snapshots.get(f"events.{log_name}"))
        if source is None:
            return {}
        rows = source.table(f"SELECT * FROM files ORDER BY {PARTITION}, {OFFSET}")
        partitions, times, offsets = (int64_of(rows[name]) for name in (PARTITION, BROKER_TIME, OFFSET))
        distinct, starts = np.unique(partitions, return_index=True)
        ends = np.append(starts[1:], len(partitions))
        # Producers' timestamps may go back; an event has not arrived before the one in front of it.
        return {
            int(p): (np.maximum.accumulate(times[start:end]), offsets[start:end])
            for p, start, end in zip(distinct, starts, ends, strict=True)
        }
