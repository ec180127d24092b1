"""When events arrived: from an instant of the broker's clock to the offsets that had been written by then."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batch.catalog import find
from batch.limited import Limits, position
from batch.offsets import IMPORTED
from batch.scan import OFFSET, PARTITION, Scanner, identifier_of, pin_of
from batch.tables import BROKER_TIME, arrow_columns
from features.deltas import int64_of
from features.plan import ViewPlan
from features.ranges import Ints
from schemas.event import EventSpec

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
            if source.event.topic is None:
                # Given rows arrived at their own instants: those before a query's are known.
                positions.append(position(number, IMPORTED))
                columns.append(np.full(len(instants_us), WITHOUT_LIMIT))
                continue
            for partition, (times, offsets) in self._partitions(source.event).items():
                beyond = np.append(offsets, WITHOUT_LIMIT)
                positions.append(position(number, partition))
                columns.append(beyond[np.searchsorted(times, instants_us, side="right")])
        if not columns:
            return Limits(np.zeros(0, np.int64), np.zeros((1, 0), np.int64), np.zeros(len(instants_us), np.int64))
        floors, of = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        return Limits(np.array(positions, np.int64), floors, of.reshape(-1))

    def _partitions(self, spec: EventSpec) -> _Partitions:
        if spec.log_name not in self._topics:
            self._topics[spec.log_name] = self._read(spec)
        return self._topics[spec.log_name]

    def _read(self, spec: EventSpec) -> _Partitions:
        table = find(self._scanner.catalog, identifier_of(spec))
        if table is None or table.current_snapshot() is None:
            return {}
        schema = arrow_columns(table, [PARTITION, OFFSET, BROKER_TIME])
        source = self._scanner.relation(table, schema, snapshot_id=self._snapshots.get(pin_of(spec)))
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
