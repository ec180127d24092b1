"""What a table holds of each log, as offsets in the summary of every snapshot.

    headrace.offsets    {"flights": {"0": 1200, "1": 1180, "-1": 50000}}    log -> partition -> the next offset to land
    headrace.topic-ids  {"flights": "4lQpnLsmTZOrH4L5zBxdHw"}               the topic that those offsets count

Partition −1 is history from before the log (`headrace import`). The newest snapshot always carries the whole map, so
the rows of a snapshot are exactly the log below its offsets; one without it was written by somebody else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from schemas.errors import DataError

OFFSETS = "headrace.offsets"
TOPIC_IDS = "headrace.topic-ids"
IMPORTED = -1
"""The partition of imported history."""


@dataclass(frozen=True)
class Offsets:
    """The next offset to land of each log and partition, and the topic ids that they belong to."""

    next: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    topic_ids: Mapping[str, str] = field(default_factory=dict)

    def of(self, log: str) -> Mapping[int, int]:
        """The partitions of one log; a partition that was never landed is absent."""
        return self.next.get(log, {})

    def advanced(self, log: str, positions: Mapping[int, int], topic_id: str | None = None) -> Offsets:
        """The map with a log's partitions further on; no partition ever goes back."""
        before = self.of(log)
        merged = {**before, **{p: max(offset, before.get(p, 0)) for p, offset in positions.items()}}
        ids = dict(self.topic_ids)
        if topic_id is not None:
            ids[log] = topic_id
        return Offsets({**self.next, log: merged}, ids)

    def summary(self) -> dict[str, str]:
        """As properties of a snapshot's summary."""
        return {
            OFFSETS: json.dumps(
                {log: {str(p): n for p, n in sorted(m.items())} for log, m in sorted(self.next.items())}
            ),
            TOPIC_IDS: json.dumps(dict(sorted(self.topic_ids.items()))),
        }


def offsets_of(table: Table, snapshot_id: int | None = None) -> Offsets:
    """The map of a snapshot (default: the newest; a table without any holds nothing).

    Raises DataError where the snapshot has no map: going on would land rows twice or skip them.
    """
    snapshot = table.current_snapshot() if snapshot_id is None else table.snapshot_by_id(snapshot_id)
    if snapshot is None and snapshot_id is None:
        return Offsets()
    name = ".".join(table.name())
    if snapshot is None:
        known = ", ".join(str(each.snapshot_id) for each in table.snapshots()[-5:])
        raise DataError(
            "the table has no such snapshot", where=name, got=str(snapshot_id), hint=f"the newest are: {known}"
        )
    return _parse(name, snapshot)


def _parse(name: str, snapshot: Snapshot) -> Offsets:
    properties = {} if snapshot.summary is None else snapshot.summary.additional_properties
    if OFFSETS not in properties:
        raise DataError(
            "a snapshot names the offsets that it holds",
            where=name,
            got=f"snapshot {snapshot.snapshot_id} without {OFFSETS}",
            hint="another program wrote it: roll the table back to the snapshot before it",
        )
    raw = json.loads(properties[OFFSETS])
    return Offsets(
        {log: {int(p): n for p, n in partitions.items()} for log, partitions in raw.items()},
        json.loads(properties.get(TOPIC_IDS, "{}")),
    )
