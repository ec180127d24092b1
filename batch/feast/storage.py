"""Reading and writing what Feast's sources name: Iceberg tables, and Parquet files beside them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import FileSource
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from pyiceberg.table import Table
from pyiceberg.types import DoubleType, LongType

from batch.catalog import Identifier, find, load, one_at_a_time, open_catalog
from batch.duck import connect, literal
from batch.feast.source import HeadraceSource
from batch.scan import duckdb_column_type, local_path, local_paths
from batch.settings import BatchSettings
from features.expression import quote
from schemas.errors import ConfigError, DataError

WIDENING: dict[tuple[pa.DataType, pa.DataType], DoubleType | LongType] = {
    (pa.float32(), pa.float64()): DoubleType(),
    (pa.int32(), pa.int64()): LongType(),
}
"""A column of the first type becomes the other when such rows come: nothing of them is lost then."""


class Database:
    """DuckDB over some data sources: `relation(source)` stands in a FROM clause."""

    def __init__(self, settings: BatchSettings, sources: Sequence[DataSource]) -> None:
        self._tables = {s: load(open_catalog(settings), s.identifier) for s in sources if isinstance(s, HeadraceSource)}
        roots = [local_path(table.location()) for table in self._tables.values()]
        folders = [str(_folder(settings, s)) for s in sources if isinstance(s, FileSource)]
        self._settings = settings
        self.connection = connect(settings, [*(root for root in roots if root is not None), *folders])

    def close(self) -> None:
        """Frees the memory."""
        self.connection.close()

    def relation(self, source: DataSource) -> str:
        """The rows of a source. Raises ConfigError for a kind that this store doesn't read."""
        if isinstance(source, HeadraceSource):
            return self._table(self._tables[source])
        if isinstance(source, FileSource):
            path = _path(self._settings, source)
            return f"read_parquet({literal(str(path / '**/*.parquet') if path.is_dir() else str(path))})"
        raise ConfigError(
            "this offline store reads Iceberg tables and Parquet files",
            where=source.name,
            got=type(source).__name__,
            hint="use batch.feast.source.HeadraceSource or Feast's FileSource",
        )

    def mapped(self, source: DataSource) -> str:
        """The rows of a source, its columns renamed as its field mapping says, where they are there."""
        relation = self.relation(source)
        there = {row[0] for row in self.connection.sql(f"DESCRIBE SELECT * FROM {relation}").fetchall()}
        renamed = [f"{quote(old)} AS {quote(new)}" for old, new in source.field_mapping.items() if old in there]
        return f"(SELECT * RENAME ({', '.join(renamed)}) FROM {relation})" if renamed else relation

    def register(self, name: str, rows: pa.Table) -> None:
        """Makes Arrow rows a relation of that name."""
        self.connection.register(name, rows)

    def query(self, text: str) -> pa.Table:
        """The answer in Arrow."""
        try:
            return self.connection.sql(text).to_arrow_table()
        except duckdb.Error as error:
            raise DataError("the sources can't be joined", got=str(error).split("\n", 1)[0]) from error

    def _table(self, table: Table) -> str:
        tasks = list(table.scan().plan_files())
        if not tasks:
            nulls = ", ".join(
                f"NULL::{_type(field.type)} AS {quote(field.name)}" for field in table.schema().as_arrow()
            )
            return f"(SELECT {nulls} WHERE FALSE)"
        paths = local_paths(tasks)
        if paths is None:
            name = f"table_{len(self._tables)}_{uuid.uuid4().hex}"
            self.register(name, table.scan().to_arrow())
            return name
        files = ", ".join(literal(path) for path in paths)
        return f"read_parquet([{files}], union_by_name = true, hive_partitioning = false)"


def append(settings: BatchSettings, identifier: Identifier, rows: pa.Table) -> None:
    """Appends rows to a table of Feast's, which is created if it is missing and grows by new columns."""
    table = _ensure(settings, identifier, _storable(rows))
    while True:
        try:
            table.append(_fitting(_storable(rows), table))
        except CommitFailedException:
            table.refresh()
            continue
        return


def save(settings: BatchSettings, source: DataSource, rows: pa.Table, allow_overwrite: bool) -> None:
    """Writes a saved dataset. Raises SavedDatasetLocationAlreadyExists where there is one that may not be replaced."""
    if isinstance(source, HeadraceSource):
        catalog = open_catalog(settings)
        if find(catalog, source.identifier) is not None:
            if not allow_overwrite:
                raise SavedDatasetLocationAlreadyExists(source.table)
            catalog.drop_table(source.identifier)
        append(settings, source.identifier, rows)
    elif isinstance(source, FileSource):
        path = _path(settings, source)
        if path.exists() and any(path.iterdir() if path.is_dir() else [path]) and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(str(path))
        write_file(path, rows)
    else:
        raise ConfigError("a saved dataset is an Iceberg table or a Parquet file", got=type(source).__name__)


def write_file(path: Path, rows: pa.Table) -> None:
    """Writes a Parquet file, or one more into a folder."""
    if path.suffix != ".parquet":
        path.mkdir(parents=True, exist_ok=True)
        path = path / f"{uuid.uuid4().hex}.parquet"
    pq.write_table(rows, path)


def _ensure(settings: BatchSettings, identifier: Identifier, rows: pa.Table) -> Table:
    catalog = open_catalog(settings)
    with one_at_a_time(settings):
        catalog.create_namespace_if_not_exists(identifier[:-1])
        try:
            return catalog.create_table(identifier, _all_nullable(rows.schema))
        except TableAlreadyExistsError:
            table = catalog.load_table(identifier)
    known = {field.name: field.type for field in table.schema().as_arrow()}
    missing = [field for field in rows.schema if field.name not in known]
    wider = [field for field in rows.schema if (known.get(field.name), field.type) in WIDENING]
    if missing or wider:
        with table.update_schema() as update:
            update.union_by_name(pa.schema(missing))
            for field in wider:
                update.update_column(field.name, WIDENING[known[field.name], field.type])
    return table


def _storable(rows: pa.Table) -> pa.Table:
    """Rows in types that Iceberg has: microseconds, signed integers, no dictionaries."""
    columns = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        wanted = _storable_type(field.type)
        columns.append(column if wanted == field.type else column.cast(wanted, safe=False))
    names = rows.column_names
    return pa.table(dict(zip(names, columns, strict=True)))


def _storable_type(type_: pa.DataType) -> pa.DataType:
    for holds, storable in _STORABLE:
        if holds(type_):
            return storable(type_)
    return type_


_STORABLE: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], pa.DataType]], ...] = (
    (pa.types.is_timestamp, lambda t: pa.timestamp("us", tz="UTC" if t.tz else None)),
    (pa.types.is_null, lambda t: pa.string()),
    (pa.types.is_dictionary, lambda t: _storable_type(t.value_type)),
    (pa.types.is_unsigned_integer, lambda t: pa.int64()),
    (lambda t: pa.types.is_int8(t) or pa.types.is_int16(t), lambda t: pa.int32()),
    (lambda t: pa.types.is_list(t) or pa.types.is_large_list(t), lambda t: pa.list_(_storable_type(t.value_type))),
)


def _fitting(rows: pa.Table, table: Table) -> pa.Table:
    """Rows in the types of an existing table. Raises DataError where they don't convert."""
    arrow = table.schema().as_arrow()
    columns = {}
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        try:
            wanted = arrow.field(name).type
            # Nulls alone come as text, which becomes neither a number nor a struct.
            columns[name] = pa.nulls(len(column), wanted) if column.null_count == len(column) else column.cast(wanted)
        except pa.ArrowException as error:
            raise DataError(
                "a column of a table keeps its type",
                where=f"{'.'.join(table.name())}.{name}",
                got=f"{column.type} ({error})",
                hint=f"the table's columns are: {', '.join(arrow.names)}",
            ) from None
    return pa.table(columns)


def _all_nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in schema])


def _type(type_: pa.DataType) -> str:
    return "VARCHAR" if pa.types.is_struct(type_) else duckdb_column_type(type_)


def _path(settings: BatchSettings, source: FileSource) -> Path:
    path = Path(source.path)
    return path if path.is_absolute() else settings.home / path


def _folder(settings: BatchSettings, source: FileSource) -> Path:
    path = _path(settings, source).resolve()
    return path if path.is_dir() else path.parent
