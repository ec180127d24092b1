"""Point-in-time joins of plain Feast views, with Feast's own meaning: inclusive at both ends (DESIGN §2 is half-open).

A row gets the newest feature row of its entity at or before its instant that isn't older than the view's TTL; of
feature rows of one instant the one that was created last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView

from batch.feast.storage import Database
from features.expression import quote
from schemas.errors import ConfigError

ROW, TIME, CREATED = '"headrace row"', '"headrace time"', '"headrace created"'
"""Columns of ours; no column of a user has a space in it."""


@dataclass(frozen=True)
class Join:
    """One view's part of a training set: join keys (the source's column -> the rows'), features (theirs -> ours)."""

    source: DataSource
    keys: dict[str, str]
    features: dict[str, str]
    ttl_us: int

    @classmethod
    def of(cls, view: FeatureView, refs: Sequence[str], full_feature_names: bool) -> Join:
        """What the references ask of a view."""
        if view.batch_source is None:
            raise ConfigError("the view has no batch source", where=view.name, hint="give it one, then apply")
        prefix = view.projection.name_to_use()  # type: ignore[no-untyped-call]
        wanted = [ref.split(":", 1)[1] for ref in refs if ref.startswith(f"{prefix}:")]
        name = view.projection.name_alias or view.name
        keys = view.projection.join_key_map or {column.name: column.name for column in view.entity_columns}
        return cls(
            source=view.batch_source,
            keys={key: column for key, column in keys.items() if key != DUMMY_ENTITY_ID},
            features={f: f"{name}__{f}" if full_feature_names else f for f in wanted},
            ttl_us=int((view.ttl or timedelta(0)) / timedelta(microseconds=1)),
        )


def join(database: Database, part: Join, rows: str, by_created: bool) -> pa.Table:
    """The features of one view for the relation `rows` (keys, ROW, TIME in µs), in the order of ROW.

    `by_created`: only feature rows that had been created by the row's instant.
    """
    on = [f"e.{quote(column)} = f.{quote(key)}" for key, column in part.keys.items()]
    fresh = f"f.{TIME} >= e.{TIME} - {part.ttl_us}" if part.ttl_us else "TRUE"
    if by_created and part.source.created_timestamp_column:
        conditions = " AND ".join([*on, f"f.{TIME} <= e.{TIME}", f"f.{CREATED} <= e.{TIME}", fresh])
        features = _features(database, part, every_version=True)
        found = (
            f"SELECT e.{ROW}, arg_max(f, [f.{TIME}, f.{CREATED}]) AS f FROM {rows} e JOIN {features} f"
            f" ON {conditions} GROUP BY e.{ROW}"
        )
        names = ", ".join(f"found.f.{quote(old)} AS {quote(new)}" for old, new in part.features.items())
        return database.query(f"SELECT {names} FROM {rows} e LEFT JOIN ({found}) found USING ({ROW}) ORDER BY {ROW}")
    features = _features(database, part, every_version=False)
    conditions = " AND ".join([*on, f"e.{TIME} >= f.{TIME}"])
    names = ", ".join(
        f"CASE WHEN {fresh} THEN f.{quote(old)} END AS {quote(new)}" for old, new in part.features.items()
    )
    return database.query(f"SELECT {names} FROM {rows} e ASOF LEFT JOIN {features} f ON {conditions} ORDER BY e.{ROW}")


def rows_of_views(database: Database, parts: Sequence[Join], start: datetime, end: datetime, instant: str) -> pa.Table:
    """The entities and instants that the views' sources have between two instants, each once."""
    selects = []
    for part in parts:
        time = f"CAST({quote(part.source.timestamp_field)} AS TIMESTAMP WITH TIME ZONE)"
        keys = ", ".join(f"{quote(key)} AS {quote(column)}" for key, column in part.keys.items())
        columns = f"{keys + ', ' if keys else ''}{time} AS {quote(instant)}"
        selects.append(
            f"SELECT DISTINCT {columns} FROM {database.mapped(part.source)}"
            f" WHERE {time} BETWEEN '{start.isoformat()}' AND '{end.isoformat()}'"
        )
    union = " UNION BY NAME ".join(selects)
    return database.query(f"SELECT DISTINCT * FROM ({union}) ORDER BY ALL")


def _features(database: Database, part: Join, *, every_version: bool) -> str:
    """The source's rows; of those of one entity and instant the one created last, or every one."""
    source = part.source
    columns = [quote(name) for name in dict.fromkeys([*part.keys, *part.features])]
    columns.append(f"{_microseconds(source.timestamp_field)} AS {TIME}")
    keys = ", ".join([*(quote(key) for key in part.keys), TIME])
    if not source.created_timestamp_column:
        return f"(SELECT {', '.join(columns)} FROM {database.mapped(source)})"
    columns.append(f"{_microseconds(source.created_timestamp_column)} AS {CREATED}")
    if every_version:
        return f"(SELECT {', '.join(columns)} FROM {database.mapped(source)})"
    # The window stands around the projection: inside, TIME would mean the rows' column of that name, by a lateral join.
    newest = f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {CREATED} DESC NULLS LAST) = 1"
    return f"(SELECT * FROM (SELECT {', '.join(columns)} FROM {database.mapped(source)}) {newest})"


def _microseconds(column: str) -> str:
    return f"epoch_us(CAST({quote(column)} AS TIMESTAMP WITH TIME ZONE))"
