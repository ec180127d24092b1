"""Reading tables: PyIceberg plans the files, with columns and partitions pruned; DuckDB scans the Parquet.

Columns are found by Iceberg's field ids, so that a column that was added later is null in older files. Where an event
type names an `id`, later copies are dropped here, the same way as a worker drops them (DESIGN §2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import duckdb
import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    EqualTo,
    GreaterThanOrEqual,
    LessThan,
    Or,
)
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.manifest import ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table

from batch.catalog import Identifier, find, load, open_catalog
from batch.duck import FILES_MAX_ROWS, connect, literal
from batch.given import (
    check_columns,
    given_batches,
    given_files,
    given_table,
    parquet_schema,
    select,
    select_rows,
)
from batch.settings import BatchSettings
from batch.tables import BROKER_TIME, events_table
from features.expression import quote
from features.kernel import Kernel, Query
from schemas.errors import DataError
from schemas.event import EventSpec, log_schema
from schemas.types import duckdb_type, from_arrow

LOCAL_SCHEMES = ("", "file")
PARTITION = "kafka_partition"
OFFSET = "kafka_offset"
EVERYTHING = AlwaysTrue()


@dataclass(frozen=True)
class Span:
    """Which events are wanted, in event time: since (inside) and until (outside), in µs; None is without end."""

    since_us: int | None = None
    until_us: int | None = None


def identifier_of(spec: EventSpec) -> Identifier:
    """The Iceberg table that holds the events: their log, or the `table=` itself."""
    return events_table(spec.topic) if spec.topic is not None else given_table(spec)


def pin_of(spec: EventSpec) -> str:
    """The name under which the events' table is pinned to a snapshot: `events.<topic>`, or the `table=`'s own."""
    return ".".join(identifier_of(spec))


class Scanner:
    """Reads the tables of one catalog. Not to be shared between threads; what it answers lives as long as it does."""

    def __init__(self, settings: BatchSettings, *, threads: int | None = None, memory_limit: str | None = None) -> None:
        self.catalog: Catalog = open_catalog(settings)
        self._settings = settings
        self._threads = threads
        self._memory_limit = memory_limit
        self._databases: list[duckdb.DuckDBPyConnection] = []

    def close(self) -> None:
        """Frees the memory of all databases."""
        for database in self._databases:
            database.close()

    def kernel(self, specs: Iterable[EventSpec]) -> Kernel:
        """A kernel that may read the files of these events."""
        roots: set[str | None] = set()
        for spec in specs:
            if spec.path is not None:
                roots |= {str(Path(file).parent) for file in given_files(spec)}
            elif (table := find(self.catalog, identifier_of(spec))) is not None:
                roots.add(local_path(table.location()))
        return Kernel(
            threads=self._threads or self._settings.threads,
            memory_limit=self._memory_limit or self._settings.memory_limit,
            spill=self._settings.spill,
            directories=sorted(root for root in roots if root is not None),
        )

    def events(
        self,
        spec: EventSpec,
        columns: Iterable[str] | None = None,
        span: Span = Span(),
        *,
        snapshot_id: int | None = None,
    ) -> Query | pa.RecordBatchReader | None:
        """The events of a topic (default: all columns of `log_schema`), copies dropped; None where nothing is landed.

        As files that `kernel` may read, where they are local. `span` leaves out files and rows of another time.
        """
        if spec.topic is None:
            return self._given(spec, columns, span, snapshot_id)
        table = find(self.catalog, identifier_of(spec))
        if table is None or table.current_snapshot() is None:
            return None
        schema = log_schema(spec)
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        # A copy may stand in a file of another event time than the first one: then no file can be left out.
        pruned = EVERYTHING if spec.id is not None else _span_filter(spec.time, span)
        read = wanted if spec.id is None else _with(wanted, schema, [spec.id, PARTITION, OFFSET, BROKER_TIME])
        source = self.relation(table, read, pruned, snapshot_id=snapshot_id)
        if source is None:
            return None
        names = ", ".join(quote(field.name) for field in wanted)
        text = f"SELECT {names} FROM {_deduplicated(spec, 'files')}{_in_span(spec.time, span)}"
        return source.reader(text) if source.is_remote else Query(f"WITH files AS ({source.select}) {text}")

    def given_log(self, spec: EventSpec, snapshot_id: int | None, start: int) -> pa.RecordBatchReader | None:
        """The events of `path=` and `table=` from an offset on, all columns of `log_schema`, by offset."""
        names = log_schema(spec).names
        text = f"SELECT {', '.join(map(quote, names))} FROM {_deduplicated(spec, 'files')}"
        return self._given_reader(
            spec, names, snapshot_id, f"SELECT * FROM ({text}) WHERE {OFFSET} >= {start} ORDER BY {OFFSET}"
        )

    def _given(
        self, spec: EventSpec, columns: Iterable[str] | None, span: Span, snapshot_id: int | None
    ) -> Query | pa.RecordBatchReader | None:
        """The events of `path=` and `table=`; as a stream where DuckDB can't read the files."""
        names = log_schema(spec).names if columns is None else list(columns)
        needed = [*names, *([spec.id, PARTITION, OFFSET, BROKER_TIME] if spec.id is not None else []), spec.time]
        chosen = ", ".join(map(quote, names))
        query = f"SELECT {chosen} FROM {_deduplicated(spec, 'files')}{_in_span(spec.time, span)}"
        files = self._files_of(spec, snapshot_id)
        if files is None:
            return self._given_reader(spec, needed, snapshot_id, query)
        return Query(f"WITH files AS ({select(spec, dict.fromkeys(needed), files)}) {query}") if files else None

    def _given_reader(
        self, spec: EventSpec, columns: Iterable[str], snapshot_id: int | None, query: str
    ) -> pa.RecordBatchReader | None:
        """A query over `files`, which are the events of `path=` and `table=` with these columns."""
        files = self._files_of(spec, snapshot_id)
        if files is None:
            table = load(self.catalog, identifier_of(spec))
            tasks = sorted(_plan(table, pa.schema([]), EVERYTHING, snapshot_id), key=lambda task: task.file.file_path)
            database = self._database([])
            database.register("given", given_batches(spec, table, tasks))
            rows = select_rows(spec, dict.fromkeys(columns), "given")
        elif files:
            database = self._database(sorted({str(Path(file).parent) for file in files}))
            rows = select(spec, dict.fromkeys(columns), files)
        else:
            return None
        return database.sql(f"WITH files AS ({rows}) {query}").to_arrow_reader(FILES_MAX_ROWS)

    def _files_of(self, spec: EventSpec, snapshot_id: int | None) -> list[str] | None:
        """The files of `path=` and `table=`, by name; None where one is elsewhere or has rows deleted from it."""
        if spec.path is not None:
            files = given_files(spec)
            check_columns(spec, parquet_schema(files[0]), files[0])
            return files
        table = load(self.catalog, identifier_of(spec))
        check_columns(spec, schema_to_pyarrow(table.schema(), include_field_ids=False), ".".join(table.name()))
        there = local_paths(list(_plan(table, pa.schema([]), EVERYTHING, snapshot_id)))
        return None if there is None else sorted(there)

    def log(
        self,
        spec_schema: pa.Schema,
        table: Table,
        starts: Mapping[int, int],
        ends: Mapping[int, int],
        *,
        without_copies: EventSpec | None = None,
    ) -> pa.RecordBatchReader | None:
        """The rows start ≤ offset < end of each partition in `ends`, by partition and offset; None for no file.

        `without_copies`: the event type whose copies are dropped; all rows are then read, since an earlier copy may lie
        below the starts.
        """
        pieces: list[BooleanExpression] = [
            And(
                EqualTo(term=PARTITION, value=partition),
                And(GreaterThanOrEqual(term=OFFSET, value=starts.get(partition, 0)), LessThan(term=OFFSET, value=end)),
            )
            for partition, end in ends.items()
            if end > starts.get(partition, 0)
        ]
        if not pieces:
            return None
        pruned = pieces[0] if len(pieces) == 1 else Or(*pieces)
        rows = "files"
        if without_copies is not None and without_copies.id is not None:
            pruned, rows = EVERYTHING, _deduplicated(without_copies, "files")
        source = self.relation(table, spec_schema, pruned)
        if source is None:
            return None
        conditions = " OR ".join(
            f"({PARTITION} = {p} AND {OFFSET} >= {starts.get(p, 0)} AND {OFFSET} < {end})" for p, end in ends.items()
        )
        names = ", ".join(quote(field.name) for field in spec_schema)
        return source.reader(f"SELECT {names} FROM {rows} WHERE {conditions} ORDER BY {PARTITION}, {OFFSET}")

    def relation(
        self,
        table: Table,
        schema: pa.Schema,
        row_filter: BooleanExpression = EVERYTHING,
        *,
        snapshot_id: int | None = None,
    ) -> Relation | None:
        """The rows of the files that may hold what the filter wants, as the relation `files`; None for no file."""
        tasks = list(_plan(table, schema, row_filter, snapshot_id))
        return self.files(table, schema, tasks) if tasks else None

    def files(self, table: Table, schema: pa.Schema, tasks: Sequence[FileScanTask]) -> Relation:
        """The rows of these files of a table, as the relation `files`."""
        paths = local_paths(tasks)
        if paths is None:
            database = self._database([])
            scan = ArrowScan(table.metadata, table.io, table.schema().select(*schema.names), EVERYTHING)
            plain = pa.schema([field.with_nullable(True) for field in schema])
            # PyIceberg's batches differ in their kinds of strings; what DuckDB is told must be what comes.
            batches = (batch.select(schema.names).cast(plain) for batch in scan.to_record_batches(tasks))
            database.register("remote", pa.RecordBatchReader.from_batches(plain, batches))
            return Relation(database, "SELECT * FROM remote", is_remote=True)
        database = self._database([local_path(table.location()) or "/"])
        return Relation(database, f"SELECT * FROM {parquet(table.schema(), schema, paths)}")

    def _database(self, directories: Sequence[str]) -> duckdb.DuckDBPyConnection:
        database = connect(self._settings, directories, threads=self._threads, memory_limit=self._memory_limit)
        self._databases.append(database)
        return database


@dataclass(frozen=True)
class Relation:
    """Rows that a query may read under the name `files`."""

    database: duckdb.DuckDBPyConnection
    select: str
    is_remote: bool = False

    def reader(self, text: str) -> pa.RecordBatchReader:
        """The answer to a query over `files`, in batches."""
        return self.database.sql(f"WITH files AS ({self.select}) {text}").to_arrow_reader(FILES_MAX_ROWS)

    def table(self, text: str) -> pa.Table:
        """The answer to a query over `files`."""
        return self.database.sql(f"WITH files AS ({self.select}) {text}").to_arrow_table()


def parquet(table_schema: Schema, wanted: pa.Schema, paths: Sequence[str]) -> str:
    """DuckDB's read of Parquet files by Iceberg's field ids; a column that a file lacks is null."""
    columns = ", ".join(
        f"{table_schema.find_field(field.name).field_id}: {{name: {literal(field.name)}, "
        f"type: {literal(duckdb_column_type(field.type))}, default_value: NULL}}"
        for field in wanted
    )
    files = ", ".join(literal(path) for path in paths)
    return f"read_parquet([{files}], schema = MAP {{{columns}}}, hive_partitioning = false)"


def duckdb_column_type(type_: pa.DataType) -> str:
    """DuckDB's word for a column of a table; tables of others may be narrower than headrace's own types."""
    if type_ in _NARROW:
        return _NARROW[type_]
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return "TIMESTAMP WITH TIME ZONE"
    return duckdb_type(from_arrow(type_))


_NARROW = {pa.int32(): "INTEGER", pa.float32(): "FLOAT"}


def arrow_schema_of(table: Table) -> pa.Schema:
    """The table's columns in headrace's own Arrow types."""
    return schema_to_pyarrow(table.schema(), include_field_ids=False)


def local_path(location: str) -> str | None:
    """The path of a file URL; None for a place that DuckDB can't read without an extension."""
    parsed = urlparse(location)
    return unquote(parsed.path) if parsed.scheme in LOCAL_SCHEMES and not parsed.netloc else None


def local_paths(tasks: Sequence[FileScanTask]) -> list[str] | None:
    """The files on this machine, as DuckDB can read them; None where one is elsewhere or has rows deleted from it."""
    paths = [local_path(task.file.file_path) for task in tasks]
    if any(path is None for path in paths) or any(task.delete_files for task in tasks):
        return None
    return [path for path in paths if path is not None]


def files_of(table: Table, manifest: ManifestFile) -> list[str]:
    """The data files that a manifest names."""
    return [entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)]


def instant_text(instant_us: int) -> str:
    """An instant as PyIceberg's filters take it."""
    return str(np.datetime64(instant_us, "us"))


def _plan(
    table: Table, schema: pa.Schema, row_filter: BooleanExpression, snapshot_id: int | None
) -> Iterable[FileScanTask]:
    if snapshot_id is not None and table.snapshot_by_id(snapshot_id) is None:
        raise DataError(
            "the table has no such snapshot",
            where=".".join(table.name()),
            got=str(snapshot_id),
            hint="it has expired, or belongs to another table",
        )
    unknown = [field.name for field in schema if field.name not in table.schema().column_names]
    if unknown:
        raise DataError(
            "the table lacks columns", where=".".join(table.name()), got=", ".join(unknown), hint="run headrace apply"
        )
    return table.scan(row_filter, snapshot_id=snapshot_id).plan_files()


def _span_filter(time: str, span: Span) -> BooleanExpression:
    found: BooleanExpression = EVERYTHING
    if span.since_us is not None:
        found = And(found, GreaterThanOrEqual(term=time, value=instant_text(span.since_us)))
    if span.until_us is not None:
        found = And(found, LessThan(term=time, value=instant_text(span.until_us)))
    return found


def _in_span(time: str, span: Span) -> str:
    bounds = [(">=", span.since_us), ("<", span.until_us)]
    conditions = [f"{quote(time)} {sign} make_timestamp({bound})" for sign, bound in bounds if bound is not None]
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _deduplicated(spec: EventSpec, relation: str) -> str:
    if spec.id is None:
        return relation
    id_, offset, stamp = quote(spec.id), quote(OFFSET), quote(BROKER_TIME)
    return (
        f"(SELECT *, max({stamp}) OVER (PARTITION BY {quote(PARTITION)}, {id_} ORDER BY {offset}"
        f" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS earlier_copy FROM {relation}"
        f" QUALIFY {id_} IS NULL OR earlier_copy IS NULL"
        f" OR earlier_copy < {stamp} - to_microseconds({spec.dedupe_within_us}))"
    )


def _with(wanted: pa.Schema, schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    missing = dict.fromkeys(name for name in names if name not in wanted.names)
    return pa.schema([*wanted, *(schema.field(name) for name in missing)])
