"""Event types that come from a table of somebody else's or from Parquet files: `table=`, `path=`.

They have no broker: their partition is −1, an event's offset is its row's place (files by name), and it arrived at its
own instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batch.catalog import Identifier
from batch.duck import literal
from batch.offsets import IMPORTED
from features.expression import quote
from schemas.errors import DataError
from schemas.event import EventSpec
from schemas.types import TypeNotSupported, duckdb_type, from_arrow

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
    types = {column.name: column.type for column in spec.columns}
    # Comparing file names, row by row, costs as much as reading a column.
    numbers = f"list_position([{', '.join(map(literal, files))}], filename) - 1" if len(files) > 1 else "0::BIGINT"
    log = {
        "kafka_partition": f"{IMPORTED}::INTEGER",
        "kafka_offset": f"({numbers}) * {FILE_SHIFT} + file_row_number",
        "kafka_timestamp": f"CAST({quote(spec.time)} AS TIMESTAMP)",
        "kafka_key": "NULL::BLOB",
    }
    chosen = [
        f"{log[name]} AS {quote(name)}"
        if name in log
        else f"CAST({quote(name)} AS {duckdb_type(types[name])}) AS {quote(name)}"
        for name in columns
    ]
    return f"SELECT {', '.join(chosen)} FROM {read_parquet(files)} WHERE {quote(spec.time)} IS NOT NULL"


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
