"""Appending to a table exactly once.

Refresh, read the offsets, drop what is landed, write, commit; and from the start where somebody else was first.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.io.pyarrow import bin_pack_arrow_table, pyarrow_to_schema, write_file
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import Table, WriteTask

from batch.offsets import Offsets, offsets_of
from features.deltas import int64_of
from features.ranges import Ints
from schemas.errors import DeliveryError

DAY_US = 86_400_000_000
FILE_BYTES_MAX = 512 << 20
"""Arrow bytes of one file: some 100 MB of Parquet."""


class Step(StrEnum):
    """Where an append is; a crash after any of them leaves the table with each row once."""

    READ = "read"
    WRITTEN = "written"
    COMMITTED = "committed"


OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Piece:
    """A stretch of a log: its rows, and by partition where it starts (inside) and ends (outside)."""

    log: str
    topic_id: str | None
    rows: pa.Table
    starts: Mapping[int, int]
    ends: Mapping[int, int]


def append_once(table: Table, piece: Piece, on_step: OnStep = lambda _: None) -> int:
    """Appends the rows that the table doesn't hold yet and advances its offsets; the number of them.

    Any number of writers may land overlapping pieces at once. Raises DeliveryError where the piece belongs to another
    topic than the table, or starts beyond what is landed.
    """
    while True:
        table.refresh()
        landed = offsets_of(table)
        check_topic(piece.log, landed, piece.topic_id)
        _check_start(piece, landed)
        if all(end <= landed.of(piece.log).get(p, -1) for p, end in piece.ends.items()):
            return 0
        rows = not_landed(piece.rows, landed.of(piece.log))
        on_step(Step.READ)
        try:
            commit(table, rows, landed.advanced(piece.log, piece.ends, piece.topic_id), on_step)
        except (CommitFailedException, CommitStateUnknownException):
            # Somebody else committed first, or the answer was lost: the table's own offsets say which.
            continue
        return len(rows)


def commit(table: Table, rows: pa.Table, offsets: Offsets, on_step: OnStep = lambda _: None) -> None:
    """One append with the offsets that hold after it. Raises CommitFailedException where the table has moved on."""
    files = list(data_files(table, rows))
    on_step(Step.WRITTEN)
    with table.transaction() as transaction:
        producer = transaction.update_snapshot(snapshot_properties=offsets.summary()).fast_append()
        for file in files:
            producer.append_data_file(file)
        producer.commit()
    on_step(Step.COMMITTED)


def append_rows(table: Table, rows: pa.Table) -> None:
    """Appends rows of a table that no log feeds, offsets or not; again where somebody else was first."""
    while True:
        table.refresh()
        try:
            commit(table, rows, Offsets())
        except CommitFailedException:
            continue
        return


def data_files(table: Table, rows: pa.Table) -> Iterator[DataFile]:
    """Writes rows as Parquet, one file (or several large ones) a day of the table's partition column.

    PyIceberg's own splitting needs pyiceberg-core for a day; the day is one division.
    """
    (field,) = table.spec().fields
    column = table.schema().find_column_name(field.source_id)
    days = int64_of(rows[column]) // DAY_US
    schema = pyarrow_to_schema(rows.schema, name_mapping=table.schema().name_mapping)
    write_id = uuid.uuid4()
    tasks = (
        WriteTask(
            write_uuid=write_id,
            task_id=number,
            schema=schema,
            record_batches=batches,
            partition_key=PartitionKey([PartitionFieldValue(field, day)], table.spec(), table.schema()),
        )
        for number, (day, batches) in enumerate(_by_day(rows, days))
    )
    yield from write_file(table.io, table.metadata, tasks)


def not_landed(rows: pa.Table, landed: Mapping[int, int]) -> pa.Table:
    """The rows at or beyond the landed offsets of their partitions."""
    if not landed or not len(rows):
        return rows
    partitions = int64_of(rows["kafka_partition"])
    distinct, index = np.unique(partitions, return_inverse=True)
    floors = np.array([landed.get(int(p), -1) for p in distinct], np.int64)
    return rows.filter(pa.array(int64_of(rows["kafka_offset"]) >= floors[index]))


def check_topic(log: str, landed: Offsets, topic_id: str | None) -> None:
    """Raises DeliveryError where the table's offsets count another topic of the same name."""
    known = landed.topic_ids.get(log)
    if known is not None and topic_id is not None and known != topic_id:
        raise DeliveryError(
            "the topic was deleted and made anew since its table was landed",
            where=log,
            got=f"topic id {topic_id} where the table counts {known}",
            hint="rename the new topic, or move the table events." + log + " away to land it from its start",
        )


def _check_start(piece: Piece, landed: Offsets) -> None:
    for partition, start in piece.starts.items():
        known = landed.of(piece.log).get(partition)
        if known is not None and start > known:
            raise DeliveryError(
                "the table went back behind what this process has read",
                where=f"{piece.log}/{partition}",
                got=f"landed up to {known}, about to land from {start}",
                hint="start the lander again: it reads from the table's own offsets",
            )


def _by_day(rows: pa.Table, days: Ints) -> Iterator[tuple[int, list[pa.RecordBatch]]]:
    for day in np.unique(days).tolist():
        chosen = rows.filter(pa.array(days == day)).combine_chunks()
        for batches in bin_pack_arrow_table(chosen, FILE_BYTES_MAX):
            yield day, batches
