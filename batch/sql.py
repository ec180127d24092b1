"""SQL over all tables: DuckDB, locked down, over the Parquet files that Iceberg's newest snapshots name."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
from duckdb import StatementType
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from batch.catalog import Identifier, load, open_catalog
from batch.duck import connect
from batch.scan import arrow_schema_of, duckdb_column_type, local_path, local_paths, parquet
from batch.settings import BatchSettings
from batch.tables import REJECTS
from features.expression import quote
from schemas.errors import RequestError

FEAST = "feast"
"""The namespace of tables that Feast itself writes."""
ALLOWED = (StatementType.SELECT, StatementType.EXPLAIN)
"""What reads. Anything that writes is refused: DuckDB may write where it may read."""


class Session:
    """Answers queries; each one sees the newest snapshots of the tables at its start. Not to be shared by threads."""

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._catalog = open_catalog(settings)

    def tables(self) -> list[str]:
        """The names that a query may use."""
        return sorted(_name(identifier) for identifier in identifiers(self._catalog))

    def query(self, text: str) -> pa.Table:
        """The answer. Raises RequestError for a query that isn't one `SELECT`, or that DuckDB can't answer."""
        tables = [load(self._catalog, each) for each in identifiers(self._catalog) if _mentions(text, each)]
        roots = sorted({path for table in tables if (path := local_path(table.location())) is not None})
        database = connect(self._settings, roots)
        try:
            _check(database, text)
            for table in tables:
                _define(database, table)
                _also_without_namespace(database, table)
            return database.sql(text).to_arrow_table()
        except duckdb.Error as error:
            hint = f"tables are: {', '.join(self.tables()) or 'none yet; run headrace apply'}"
            raise RequestError("the query can't be answered", got=str(error).split("\n", 1)[0], hint=hint) from error
        finally:
            database.close()


def query(text: str, settings: BatchSettings) -> pa.Table:
    """The answer to one query over the tables events.<topic>, features.<view>, served.<service> and rejects."""
    return Session(settings).query(text)


def identifiers(catalog: Catalog) -> Iterator[Identifier]:
    """Every table of the catalog."""
    for namespace in catalog.list_namespaces():
        for identifier in catalog.list_tables(namespace):
            yield (".".join(identifier[:-1]), identifier[-1])


def _name(identifier: Identifier) -> str:
    if identifier == REJECTS:
        return "rejects"
    namespace, table = identifier
    return f"{namespace}.{table if table.isidentifier() else quote(table)}"


def _mentions(text: str, identifier: Identifier) -> bool:
    return identifier[1].lower() in text.lower()


def _check(database: duckdb.DuckDBPyConnection, text: str) -> None:
    statements = database.extract_statements(text)
    kinds = [statement.type for statement in statements]
    if len(kinds) != 1 or kinds[0] not in ALLOWED:
        raise RequestError(
            "a query is one statement that reads",
            got=", ".join(kind.name for kind in kinds) or "nothing",
            hint="write SELECT …",
        )


def _also_without_namespace(database: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Feast's own tables are known by their bare names too: that is how a query in a Feast repository writes them."""
    namespace, name = table.name()
    if namespace == FEAST:
        database.execute(f"CREATE VIEW {quote(name)} AS SELECT * FROM {quote(namespace)}.{quote(name)}")


def _define(database: duckdb.DuckDBPyConnection, table: Table) -> None:
    namespace, name = table.name()
    place = quote(name)
    if (namespace, name) != REJECTS:
        database.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(namespace)}")
        place = f"{quote(namespace)}.{place}"
    schema = arrow_schema_of(table)
    tasks = list(table.scan().plan_files())
    paths = local_paths(tasks)
    if not tasks:
        nulls = ", ".join(f"NULL::{duckdb_column_type(field.type)} AS {quote(field.name)}" for field in schema)
        database.execute(f"CREATE VIEW {place} AS SELECT {nulls} WHERE FALSE")
    elif paths is None:
        database.register("remote", table.scan().to_arrow())
        database.execute(f"CREATE TABLE {place} AS SELECT * FROM remote")
        database.unregister("remote")
    else:
        database.execute(f"CREATE VIEW {place} AS SELECT * FROM {parquet(table.schema(), schema, paths)}")
