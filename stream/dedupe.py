"""Copies by id: an event goes if its id stands at a lower offset of its partition, little enough before. DESIGN §2.

The broker's timestamps decide, so what is a copy is a function of the log alone.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pyarrow as pa

from features.deltas import int64_of
from schemas.event import EventSpec


class Copies:
    """The ids of one topic's last `dedupe_within`, by partition: each with the broker's timestamp of its last copy."""

    def __init__(self, spec: EventSpec) -> None:
        if spec.id is None:
            raise ValueError(f"{spec.name} has no id")
        self._id = spec.id
        self._within_us = spec.dedupe_within_us
        self._seen: dict[int, dict[Hashable, int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    def forget(self, partition: int) -> None:
        """Drops a partition's ids: before it is read again from further back."""
        self._seen.pop(partition, None)

    def without_copies(self, table: pa.Table) -> pa.Table:
        """The events that are no copies; each partition's come by ascending offset. All their ids are remembered."""
        ids = table[self._id].to_pylist()
        partitions = table["kafka_partition"].to_pylist()
        times = int64_of(table["kafka_timestamp"]).tolist()
        first = np.ones(len(ids), np.bool_)
        for row, (identity, partition, time_us) in enumerate(zip(ids, partitions, times, strict=True)):
            if identity is None:
                continue
            seen = self._seen.setdefault(partition, {})
            # Taken out and put in again: the dict stays in the order of the timestamps.
            last = seen.pop(identity, None)
            if last is not None and time_us - last <= self._within_us:
                first[row] = False
            seen[identity] = time_us if last is None else max(last, time_us)
        self._evict(dict(zip(partitions, times, strict=True)))
        return table if first.all() else table.filter(pa.array(first))

    def _evict(self, last: dict[int, int]) -> None:
        for partition, time_us in last.items():
            seen = self._seen.get(partition, {})
            old = []
            for identity, seen_us in seen.items():
                if time_us - seen_us <= self._within_us:
                    break
                old.append(identity)
            for identity in old:
                del seen[identity]
