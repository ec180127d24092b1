"""The tables of a project: their names, their schemas, and how a schema grows.

    events.<topic>      an event type's columns and where each event stands in the log
    served.<service>    logged feature vectors
    features.<view>     materialized feature values
    rejects             bad input (the table headrace.rejects)

All are partitioned by the day of the broker's time, but for `features`, which is by the day of the instant. Columns are
only ever added; a changed type is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform

from batch.catalog import Identifier, find, one_at_a_time, open_catalog
from batch.settings import BatchSettings
from features.plan import Definitions
from features.served import served_schema
from schemas.errors import ChangedMeaning
from schemas.event import log_schema
from schemas.rejection import REJECTS_SCHEMA
from schemas.types import arrow_type, from_arrow

Report = Callable[[str], None]

REJECTS: Identifier = ("headrace", "rejects")
BROKER_TIME = "kafka_timestamp"
PROPERTIES = {
    # PyIceberg's own retry re-applies a conflicting append without looking again, and so doubles rows.
    "commit.retry.num-retries": "0",
    # Every commit writes the metadata anew: 100 versions are history enough to look at, and bound the folder.
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
    "write.parquet.compression-codec": "zstd",
}


def events_table(log_name: str) -> Identifier:
    """The table of a topic's events."""
    return ("events", log_name)


def served_table(service: str) -> Identifier:
    """The table of a service's logged vectors."""
    return ("served", service)


def features_table(view: str) -> Identifier:
    """The table of a view's materialized values."""
    return ("features", view)


def ensure_tables(settings: BatchSettings, definitions: Definitions, report: Report) -> None:
    """Creates the tables that are missing and adds the columns that are missing; reports each change.

    Raises ChangedMeaning where a column would change its type.
    """
    catalog = open_catalog(settings)
    with one_at_a_time(settings):
        for spec in definitions.events.values():
            if spec.topic is not None:
                ensure_table(catalog, events_table(spec.topic), log_schema(spec), BROKER_TIME, report)
        for service in definitions.services.values():
            ensure_table(catalog, served_table(service.name), served_schema(definitions, service), BROKER_TIME, report)
        ensure_table(catalog, REJECTS, REJECTS_SCHEMA, BROKER_TIME, report)


def ensure_table(
    catalog: Catalog, identifier: Identifier, schema: pa.Schema, day_of: str, report: Report = lambda _: None
) -> Table:
    """The table with at least these columns, partitioned by the day of one of them."""
    while True:
        table = find(catalog, identifier)
        if table is None:
            table = _create(catalog, identifier, schema, day_of)
            report(f"created table {'.'.join(identifier)}")
        missing = _missing(table, schema)
        if not missing:
            return table
        try:
            # A schema change makes no snapshot: the newest one stays, and with it its offsets.
            with table.update_schema() as update:
                update.union_by_name(pa.schema(missing))
        except CommitFailedException:
            continue
        report(f"table {'.'.join(identifier)}: added {', '.join(field.name for field in missing)}")


def column_types(table: Table) -> dict[str, str]:
    """The table's columns with their types as names of schemas/types.py."""
    return {field.name: from_arrow(field.type) for field in schema_to_pyarrow(table.schema())}


def arrow_columns(table: Table, names: Sequence[str] | None = None) -> pa.Schema:
    """Some of the table's columns (default: all) in headrace's own Arrow types."""
    own = {field.name: field for field in schema_to_pyarrow(table.schema(), include_field_ids=False)}
    chosen = own if names is None else names
    return pa.schema([pa.field(name, _plain(own[name].type)) for name in chosen])


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_ if pa.types.is_int32(type_) else arrow_type(from_arrow(type_))


def _create(catalog: Catalog, identifier: Identifier, schema: pa.Schema, day_of: str) -> Table:
    catalog.create_namespace_if_not_exists(identifier[:-1])
    try:
        with (
            catalog.create_table_transaction(identifier, _optional(schema), properties=PROPERTIES) as transaction,
            transaction.update_spec() as spec,
        ):
            spec.add_field(day_of, DayTransform(), f"{day_of}_day")
    except TableAlreadyExistsError:
        pass
    return catalog.load_table(identifier)


def _missing(table: Table, schema: pa.Schema) -> list[pa.Field]:
    known = column_types(table)
    for field in schema:
        if known.get(field.name, from_arrow(field.type)) != from_arrow(field.type):
            raise ChangedMeaning(
                "a column of a table keeps its type",
                where=f"{'.'.join(table.name())}.{field.name}",
                got=f"{from_arrow(field.type)} where the table holds {known[field.name]}",
                hint="give the changed column another name",
            )
    return [field.with_nullable(True) for field in schema if field.name not in known]


def _optional(schema: pa.Schema) -> pa.Schema:
    """All columns may be null: a column that is added later is null in what was there before."""
    return pa.schema([field.with_nullable(True) for field in schema])
