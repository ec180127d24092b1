"""The rows that values are asked for: join keys, request columns and an instant each; from Arrow, pandas or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from features.plan import Definitions, ServicePlan
from features.ranges import Ints
from features.service import feature_columns, join_key_columns, request_columns
from schemas.errors import DataError
from schemas.event import Column
from schemas.types import TypeNotSupported, arrow_type, from_arrow

INSTANT = "event_timestamp"
"""The column with each row's instant, as Feast names it."""


def read_rows(rows: pa.Table | str | Path | Any) -> pa.Table:
    """The rows as Arrow: a table as it is, a pandas frame, or a Parquet, CSV or Arrow file by its ending.

    Raises DataError for anything else and for a file that can't be read.
    """
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, str | Path):
        return _read_file(Path(rows))
    if hasattr(rows, "__arrow_c_stream__"):
        return pa.table(rows)
    if type(rows).__module__.partition(".")[0] == "pandas":
        return pa.Table.from_pandas(rows, preserve_index=False)
    raise DataError(
        "rows come as a Parquet, CSV or Arrow file, an Arrow table or a data frame", got=type(rows).__name__
    )


def check_rows(definitions: Definitions, service: ServicePlan, rows: pa.Table) -> pa.Table:
    """The rows with join keys and request columns in their declared types; other columns as they are.

    Raises DataError for a column that is missing, of a type that doesn't convert without loss, or named like a feature.
    """
    for column in [*join_key_columns(definitions, service), *request_columns(definitions, service)]:
        rows = _converted(rows, column, f"service {service.name!r}")
    taken = [column.name for column in feature_columns(definitions, service) if column.name in rows.column_names]
    if taken:
        raise DataError("the rows have columns named like features", got=", ".join(taken), hint="rename or drop them")
    return rows


def instants_us(rows: pa.Table, name: str = INSTANT) -> Ints:
    """The instants of the rows in µs UTC; one with a zone is converted, one without is UTC.

    Raises DataError where the column is missing, no instant, or null somewhere.
    """
    if name not in rows.column_names:
        raise DataError(
            "the rows have no instants", got=f"columns {', '.join(rows.column_names)}", hint=f"add a column {name!r}"
        )
    column = _plain(rows[name])
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _parsed(column, name)
    if pa.types.is_date(column.type) or pa.types.is_null(column.type):
        column = pc.cast(column, pa.timestamp("us"))
    if not pa.types.is_timestamp(column.type):
        raise DataError(f"{name} holds instants", got=str(column.type), hint="give timestamps (without a zone: UTC)")
    if column.null_count:
        row = int(np.flatnonzero(pc.is_null(column).to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{name} is null", got=f"null in row {row}", hint="every row needs its instant")
    return _microseconds(column)


def _read_file(path: Path) -> pa.Table:
    readers = {
        ".parquet": pyarrow.parquet.read_table,
        ".csv": pyarrow.csv.read_csv,
        ".arrow": _read_arrow,
        ".feather": _read_arrow,
    }
    if path.suffix.lower() not in readers:
        raise DataError("rows come as .parquet, .csv, .arrow or .feather", got=str(path))
    try:
        return readers[path.suffix.lower()](path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            "the file of rows can't be read",
            where=str(path),
            got=str(error).split("\n", 1)[0],
            hint=f"see that it is a whole {path.suffix} file, or write it anew",
        ) from error


def _read_arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _converted(rows: pa.Table, column: Column, needed_by: str) -> pa.Table:
    if column.name not in rows.column_names:
        raise DataError(
            f"{needed_by} needs the column {column.name!r}",
            got=f"columns {', '.join(rows.column_names)}",
            hint=f"add it, of type {column.type}",
        )
    index = rows.column_names.index(column.name)
    given = _plain(rows.column(index))
    wanted = arrow_type(column.type)
    try:
        converted = _cast(given, wanted, column.type)
    except (pa.ArrowException, TypeNotSupported) as error:
        raise DataError(
            f"the column {column.name!r} is of type {column.type}",
            got=f"{given.type} ({str(error).split(chr(10), 1)[0]})",
            hint="convert it in the rows",
        ) from None
    return rows.set_column(index, pa.field(column.name, wanted), converted)


def _cast(given: pa.ChunkedArray, wanted: pa.DataType, type_name: str) -> pa.ChunkedArray:
    if given.type == wanted or pa.types.is_null(given.type):
        return given.cast(wanted)
    if pa.types.is_timestamp(given.type) and pa.types.is_timestamp(wanted):
        return pa.chunked_array([pa.array(_microseconds_or_null(given), pa.int64()).cast(wanted)])
    # Numbers convert to numbers without loss; text is never guessed to be a number, nor a number text.
    numbers = ("int64", "float64")
    if from_arrow(given.type) != type_name and not (type_name in numbers and from_arrow(given.type) in numbers):
        raise TypeNotSupported(f"{from_arrow(given.type)} for {type_name}")
    return given.cast(wanted)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _parsed(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    try:
        return pc.cast(column, pa.timestamp("us", tz="UTC"))
    except pa.ArrowException:
        pass
    try:
        return pc.cast(column, pa.timestamp("us"))
    except pa.ArrowException as error:
        raise DataError(f"{name} holds instants", got=str(error).split("\n", 1)[0], hint="ISO 8601") from None


def _microseconds(column: pa.ChunkedArray) -> Ints:
    """Nanoseconds are floored, so that an instant never moves behind an event that lies before it."""
    numbers = column.combine_chunks().view(pa.int64()).to_numpy(zero_copy_only=False)
    scale = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}[column.type.unit]
    result: Ints = numbers * scale[0] // scale[1]
    return result


def _microseconds_or_null(column: pa.ChunkedArray) -> pa.Array:
    valid = pc.is_valid(column).combine_chunks().to_numpy(zero_copy_only=False)
    filled = pc.fill_null(column, pa.scalar(0, pa.int64()).cast(column.type))
    return pa.array(_microseconds(filled), mask=~valid)
