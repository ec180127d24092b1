"""History from before Kafka: files into the event log, as partition −1 with a running offset.

Each file is one commit, and is known by the hash of its bytes: importing it again, whatever its name, changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from batch.append import data_files
from batch.catalog import open_catalog
from batch.files import messages
from batch.offsets import IMPORTED, Offsets, offsets_of
from batch.settings import BatchSettings
from batch.tables import BROKER_TIME, REJECTS, ensure_table, events_table
from schemas.decode import Batch, Decoded, Decoder
from schemas.errors import DataError
from schemas.event import Event, log_schema
from schemas.rejection import REJECTS_SCHEMA, Rejection, rejections_table

IMPORT = "headrace.import."
"""Property of a table: with a file's hash, when it was imported."""


@dataclass
class ImportReport:
    """What an import did."""

    rows: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    known_before: list[Path] = field(default_factory=list)
    """Files whose bytes had been imported already."""


Progress = Callable[[ImportReport], None]


def import_history(
    events: Mapping[str, type[Event]],
    event: str,
    files: Sequence[Path],
    settings: BatchSettings,
    *,
    progress: Progress = lambda _: None,
) -> ImportReport:
    """Lands the rows of files as events of a type; what its schema refuses goes to the table of rejects.

    Raises DataError for an unknown event type, one without a topic, and a file that can't be read.
    """
    type_ = _event_type(events, event)
    spec = type_.spec()
    catalog = open_catalog(settings)
    table = ensure_table(catalog, events_table(spec.log_name), log_schema(spec), BROKER_TIME)
    rejects = ensure_table(catalog, REJECTS, REJECTS_SCHEMA, BROKER_TIME)
    report = ImportReport()
    for path in files:
        identity = _hash(path)
        if _is_imported(table, identity):
            report.known_before.append(path)
        else:
            decoded = _decoded(path, type_)
            # The rejects first: a crash in between repeats the file, and they are known by its hash too.
            refused = _rejects_with_file(decoded.rejections, path)
            _append(rejects, spec.log_name, rejections_table(refused), identity, len(refused))
            _append(table, spec.log_name, decoded.table, identity, len(decoded.table) + len(refused))
            report.rows += len(decoded.table)
            report.rejections += refused
        progress(report)
    return report


def _append(table: Table, log: str, rows: pa.Table, identity: str, numbers: int) -> None:
    while True:
        table.refresh()
        if not len(rows) or _is_imported(table, identity):
            return
        landed = offsets_of(table)
        start = landed.of(log).get(IMPORTED, 0)
        offsets = landed.advanced(log, {IMPORTED: start + numbers})
        try:
            _commit(table, _from_offset(rows, start), offsets, identity)
        except CommitFailedException:
            continue
        return


def _commit(table: Table, rows: pa.Table, offsets: Offsets, identity: str) -> None:
    summary = offsets.summary() | {"headrace.imported": identity}
    files = list(data_files(table, rows))
    with table.transaction() as transaction:
        transaction.set_properties({f"{IMPORT}{identity}": datetime.now(UTC).isoformat()})
        producer = transaction.update_snapshot(snapshot_properties=summary).fast_append()
        for file in files:
            producer.append_data_file(file)
        producer.commit()


def _decoded(path: Path, event: type[Event]) -> Decoded:
    """A whole file: its rows count from offset 0, and carry their own instants as the broker's."""
    decoder = Decoder(_in_json(event))
    spec = decoder.spec
    now_us = int(datetime.now(UTC).timestamp() * 1_000_000)
    tables, rejections = [log_schema(spec).empty_table()], []
    start = 0
    for values in messages(path, spec):
        count = len(values)
        offsets = np.arange(start, start + count)
        stamps = np.full(count, now_us)
        batch = Batch(
            spec.log_name, list(values), [None] * count, np.full(count, IMPORTED), offsets, stamps, [_Row()] * count
        )
        decoded = decoder.decode(batch)
        tables.append(decoded.table)
        rejections += decoded.rejections
        start += count
    rows = pa.concat_tables(tables)
    index = rows.column_names.index(BROKER_TIME)
    return Decoded(rows.set_column(index, log_schema(spec).field(BROKER_TIME), rows[spec.time]), rejections)


class _Row:
    """A row of a file where a message is expected: nothing of Kafka's own."""

    def value(self) -> bytes | None:
        return None

    def key(self) -> bytes | None:
        return None

    def partition(self) -> int | None:
        return IMPORTED

    def offset(self) -> int | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, 0

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None


def _in_json(event: type[Event]) -> type[Event]:
    """The same event type, read from JSON: files are no messages of the topic's format."""
    spec = event.spec()
    if spec.format == "json":
        return event
    twin = type(event.__name__, (event,), {"__module__": event.__module__})
    twin.__event_spec__ = msgspec.structs.replace(spec, format="json")  # type: ignore[attr-defined]
    return twin


def _from_offset(rows: pa.Table, start: int) -> pa.Table:
    name = "kafka_offset"
    moved = pa.array(rows[name].to_numpy() + start)
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), moved)


def _rejects_with_file(rejections: Sequence[Rejection], path: Path) -> list[Rejection]:
    return [msgspec.structs.replace(each, headers=[("file", path.name.encode())]) for each in rejections]


def _is_imported(table: Table, identity: str) -> bool:
    return f"{IMPORT}{identity}" in table.properties


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError("the file can't be read", where=str(path), got=str(error)) from error


def _event_type(events: Mapping[str, type[Event]], name: str) -> type[Event]:
    if name not in events:
        raise DataError("no such event type", got=repr(name), hint=f"there are: {', '.join(events)}")
    if events[name].spec().topic is None:
        raise DataError(
            "history is imported into a topic's log", where=name, got="an event type of a table or of files"
        )
    if (enriched := events[name].spec().enriched) is not None:
        raise DataError(
            "enriched events are written by headrace alone",
            where=name,
            got=f"history of {enriched.event} with what {enriched.view} answered",
            hint=f"import history of {enriched.event}: the lander enriches it",
        )
    return events[name]
