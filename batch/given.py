"""Event types that come from a table of somebody else's or from Parquet files: `table=`, `path=`.

They have no broker: their partition is −1, an event's offset is its row's place (files by name), and it arrived at its
own instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.table import FileScanTask, Table

from batch.catalog import Identifier
from batch.duck import literal
from batch.offsets import IMPORTED
from features.expression import quote
from schemas.errors import DataError
from schemas.event import EventSpec
from schemas.types import TypeNotSupported, duckdb_type, from_arrow

OFFSET = "kafka_offset"
FILE_SHIFT = 1 << 36
"""Offsets of one file: more rows than any file has; the 2**27 files before it leave room in 63 bits."""


def given_files(spec: EventSpec) -> list[str]:
    """The Parquet files of `path=` (a file, a folder or a pattern; relative to where the process runs), by name.

    Raises DataError where there is none.
    """
    place = Path(str(spec.path))
    if place.is_file():
        return [str(place.resolve())]
    # A pattern is looked for from the last folder that is written out.
    fixed = next((parent for parent in [place, *place.parents] if not any(c in str(parent) for c in "*?[")), Path())
    pattern = "**/*.parquet" if fixed == place else str(place.relative_to(fixed))
    found = sorted(str(each.resolve()) for each in fixed.glob(pattern) if each.is_file())
    if not found:
        raise DataError("there are no such files", where=spec.name, got=repr(spec.path), hint=f"in {Path.cwd()}")
    return found


def given_table(spec: EventSpec) -> Identifier:
    """The Iceberg table of `table=`: its namespace and name, with a dot between them."""
    namespace, dot, name = str(spec.table).rpartition(".")
    if not dot:
        raise DataError(
            "table= names a namespace and a table", where=spec.name, got=repr(spec.table), hint='write "lake.planes"'
        )
    return (namespace, name)


def check_columns(spec: EventSpec, schema: pa.Schema, where: str) -> None:
    """Raises DataError where columns are missing or are of types that don't become the declared ones."""
    for column in spec.columns:
        if column.name not in schema.names:
            raise DataError(
                f"{spec.name} declares a column that isn't there",
                where=where,
                got=f"no {column.name!r}",
                hint=f"there are: {', '.join(schema.names)}",
            )
        try:
            given = from_arrow(schema.field(column.name).type)
        except TypeNotSupported as error:
            raise DataError("a column has a type that headrace does not keep", where=where, got=str(error)) from None
        wider = {("int64", "float64"), ("date", "timestamp")}
        if given != column.type and (given, column.type) not in wider:
            raise DataError(
                f"{spec.name}.{column.name} is declared as {column.type}", where=where, got=given, hint="declare it so"
            )


def select(spec: EventSpec, columns: Iterable[str], files: Sequence[str]) -> str:
    """SQL for the events of files as a topic's would look."""
    # Comparing file names, row by row, costs as much as reading a column.
    numbers = f"list_position([{', '.join(map(literal, files))}], filename) - 1" if len(files) > 1 else "0::BIGINT"
    return _select(spec, columns, read_parquet(files), f"({numbers}) * {FILE_SHIFT} + file_row_number")


def select_rows(spec: EventSpec, columns: Iterable[str], relation: str) -> str:
    """The same for rows of `given_batches`."""
    return _select(spec, columns, relation, quote(OFFSET))


def given_batches(spec: EventSpec, table: Table, tasks: Sequence[FileScanTask]) -> pa.RecordBatchReader:
    """The events of an Iceberg table's files, wherever they are, without deleted rows; each with its offset."""
    names = [column.name for column in spec.columns]
    own = schema_to_pyarrow(table.schema(), include_field_ids=False)
    schema = pa.schema([*(own.field(name).with_nullable(True) for name in names), pa.field(OFFSET, pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        scan = ArrowScan(table.metadata, table.io, table.schema().select(*names), AlwaysTrue())
        for number, task in enumerate(tasks):
            row = number * FILE_SHIFT
            for batch in scan.to_record_batches([task]):
                offsets = pa.array(np.arange(row, row + len(batch)))
                # PyIceberg's batches differ in their kinds of strings; what DuckDB is told must be what comes.
                columns = [batch.column(name) for name in names]
                plain = pa.RecordBatch.from_arrays([*columns, offsets], names=[*names, OFFSET])
                yield plain.cast(schema)
                row += len(batch)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _select(spec: EventSpec, columns: Iterable[str], relation: str, offset: str) -> str:
    types = {column.name: column.type for column in spec.columns}
    log = {
        "kafka_partition": f"{IMPORTED}::INTEGER",
        OFFSET: offset,
        "kafka_timestamp": f"CAST({quote(spec.time)} AS TIMESTAMP)",
        "kafka_key": "NULL::BLOB",
    }
    chosen = [
        f"{log[name]} AS {quote(name)}"
        if name in log
        else f"CAST({quote(name)} AS {duckdb_type(types[name])}) AS {quote(name)}"
        for name in columns
    ]
    return f"SELECT {', '.join(chosen)} FROM {relation} WHERE {quote(spec.time)} IS NOT NULL"


def parquet_schema(file: str) -> pa.Schema:
    """The columns of a Parquet file. Raises DataError where it is none."""
    try:
        return pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError("the file can't be read", where=file, got=str(error).split("\n", 1)[0]) from error


def read_parquet(files: Sequence[str]) -> str:
    """DuckDB's read of files, with `filename` and `file_row_number`."""
    names = ", ".join(map(literal, files))
    return f"read_parquet([{names}], union_by_name = true, filename = true, file_row_number = true)"
