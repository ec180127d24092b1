"""What a worker needs of the event log in Iceberg: a restore from it is an ordinary fold. DESIGN §5.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import pyarrow as pa

IMPORTED = -1
"""The partition of events from before Kafka; its offsets are a running number."""


class History(Protocol):
    """The good events of a topic that are landed. Reads are of the newest snapshot at the time of the call."""

    def offsets(self, topic: str) -> Mapping[int, int]:
        """{partition: offset}: every good event of the partition below the offset is held. Empty: nothing is landed.

        Imported events, where there are any, are partition IMPORTED.
        """

    def read(self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[pa.Table]:
        """The events start ≤ offset < end of each partition in `ends`, in `log_schema`, in tables of bounded size.

        The rows of one partition come by ascending offset; how partitions alternate does not matter.
        """
