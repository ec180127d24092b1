"""The event log as a worker restores from it: what is landed or given, up to which offset, in batches by offset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from batch.catalog import find, load, open_catalog
from batch.given_log import GivenLog
from batch.offsets import IMPORTED, offsets_of
from batch.scan import Scanner
from batch.settings import BatchSettings
from batch.tables import column_types, events_table
from features.plan import Definitions
from schemas.event import LOG_COLUMNS
from schemas.types import arrow_type

ROWS_MAX = 100_000
"""Rows of one table: what a worker folds at once."""


class IcebergHistory:
    """The good events of each topic that are landed; every call reads the newest snapshot."""

    def __init__(self, settings: BatchSettings, definitions: Definitions | None = None) -> None:
        self._settings = settings
        self._catalog = open_catalog(settings)
        events = () if definitions is None else definitions.events.values()
        self._given = {spec.log_name: spec for spec in events if spec.topic is None}
        self._logs: dict[str, GivenLog] = {}

    def identity(self, log: str) -> bytes:
        """What tells a table's snapshot, or a set of files, from another: 16 bytes. Looks anew."""
        self._logs[log] = GivenLog(self._settings, self._given[log])
        return self._logs[log].identity

    def offsets(self, topic: str) -> Mapping[int, int]:
        """{partition: offset}: every good event of the partition below the offset is held; −1 is imported history.

        Of `table=` and `path=` (by the log's name) as they were when `identity` was asked for last.
        """
        if topic in self._given:
            return self._given_log(topic).offsets()
        table = find(self._catalog, events_table(topic))
        return {} if table is None else offsets_of(table).of(topic)

    def read(self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[pa.Table]:
        """The events start ≤ offset < end of each partition in `ends`, in `log_schema`, by ascending offset."""
        if topic in self._given:
            yield from self._given_log(topic).read(starts.get(IMPORTED, 0))
            return
        table = load(self._catalog, events_table(topic))
        schema = _schema(column_types(table))
        scanner = Scanner(self._settings)
        try:
            reader = scanner.log(schema, table, starts, ends)
            for batch in reader or ():
                rows = pa.Table.from_batches([batch]).cast(schema)
                for start in range(0, len(rows), ROWS_MAX):
                    yield rows.slice(start, ROWS_MAX)
        finally:
            scanner.close()

    def _given_log(self, log: str) -> GivenLog:
        if log not in self._logs:
            self.identity(log)
        return self._logs[log]


def _schema(types: Mapping[str, str]) -> pa.Schema:
    """The table's columns as decoding gives them: an event's own, then the log's."""
    log = {field.name for field in LOG_COLUMNS}
    own = [pa.field(name, arrow_type(type_)) for name, type_ in types.items() if name not in log]
    return pa.schema([*own, *LOG_COLUMNS])
