"""Feast's offline store over Iceberg and Parquet.

headrace's views are computed by the one read, plain Feast views as Feast means them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from batch.feast.job import HeadraceRetrievalJob
from batch.feast.own import is_own, own_features
from batch.feast.point_in_time import ROW, TIME, Join, join, rows_of_views
from batch.feast.source import HeadraceLoggingDestination, HeadraceSource, settings_of
from batch.feast.storage import Database, append, write_file
from batch.rows import INSTANT, instants_us
from batch.sql import query
from features.expression import quote
from schemas.errors import ConfigError, DataError

DEFAULT_SPAN = timedelta(days=30)
"""How far back rows are looked for where neither rows nor a start are given and no view has a TTL: as Feast does."""


class HeadraceOfflineStoreConfig(FeastConfigBaseModel):
    """`home`: HEADRACE_HOME, where it isn't the folder of the `feature_store.yaml`."""

    type: Literal["batch.feast.offline.HeadraceOfflineStore"] = "batch.feast.offline.HeadraceOfflineStore"
    home: str | None = None


class HeadraceOfflineStore(OfflineStore):
    """The offline store; every answer is computed when its job is asked for it."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        *,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        **_: Any,
    ) -> HeadraceRetrievalJob:
        """The features at the rows' instants. `entity_df`: a frame, a query for `headrace sql`, or None for all."""
        settings = settings_of(config)
        plain = [view for view in feature_views if not is_own(view)]
        own = [view for view in feature_views if is_own(view)]
        parts = [Join.of(view, feature_refs, full_feature_names) for view in plain]
        rows, instant = _rows(config, entity_df, parts, own, start_date, end_date)
        _check_keys(rows, parts)

        def compute() -> pa.Table:
            instants = instants_us(rows, instant)
            found: dict[str, pa.ChunkedArray] = {}
            if parts:
                found |= _plain_features(config, parts, rows, instants, filter_by_created_timestamp)
            if own:
                found |= own_features(settings, own, feature_refs, rows, instants, full_feature_names)
            result = rows
            for name, column in found.items():
                result = result.append_column(name, column)
            return result

        instants = instants_us(rows, instant)
        return HeadraceRetrievalJob(
            compute,
            settings,
            full_feature_names=full_feature_names,
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in rows.column_names if name != instant],
                min_event_timestamp=_utc(instants.min()) if len(instants) else None,
                max_event_timestamp=_utc(instants.max()) if len(instants) else None,
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> HeadraceRetrievalJob:
        """Each entity's newest row between two instants, both inside; of one instant the one created last."""
        keys = ", ".join(map(quote, join_key_columns)) or "TRUE"
        order = [f"{quote(timestamp_field)} DESC"]
        if created_timestamp_column:
            order.append(f"{quote(created_timestamp_column)} DESC NULLS LAST")
        newest = f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {', '.join(order)}) = 1"
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        columns += [created_timestamp_column] if created_timestamp_column else []
        return _pull(config, data_source, columns, timestamp_field, start_date, end_date, newest)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> HeadraceRetrievalJob:
        """All rows between two instants, both inside."""
        columns = [*join_key_columns, *feature_name_columns, timestamp_field]
        columns += [created_timestamp_column] if created_timestamp_column else []
        return _pull(config, data_source, columns, timestamp_field, start_date, end_date, "")

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Appends rows to a plain view's source. Raises DataError where their columns aren't the source's."""
        source = feature_view.batch_source
        if is_own(feature_view) or source is None:
            raise ConfigError(
                "rows are written to plain Feast views only",
                where=feature_view.name,
                hint="a headrace view is computed from its events: produce to its topic, or use headrace import",
            )
        settings = settings_of(config)
        if isinstance(source, HeadraceSource):
            append(settings, source.identifier, table)
        elif isinstance(source, FileSource):
            path = Path(source.path)
            before = pq.read_table(path)
            if before.column_names != table.column_names:
                raise DataError(
                    "rows have the columns of the view's file",
                    where=str(path),
                    got=", ".join(table.column_names),
                    hint=f"they are: {', '.join(before.column_names)}",
                )
            write_file(path, pa.concat_tables([before, table.cast(before.schema)]))
        else:
            raise ConfigError("this offline store writes Iceberg tables and Parquet files", got=type(source).__name__)
        if progress is not None:
            progress(len(table))

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Appends Feast's own logs of served features to their destination."""
        rows = data if isinstance(data, pa.Table) else pq.read_table(data)
        destination = logging_config.destination
        if isinstance(destination, HeadraceLoggingDestination):
            append(settings_of(config), destination.to_data_source().identifier, rows)
        elif isinstance(destination, FileLoggingDestination):
            write_file(Path(destination.path), rows)
        else:
            raise ConfigError("logs go to an Iceberg table or to Parquet files", got=type(destination).__name__)


def _rows(
    config: RepoConfig,
    entity_df: pd.DataFrame | str | None,
    parts: Sequence[Join],
    own: Sequence[FeatureView],
    start: datetime | None,
    end: datetime | None,
) -> tuple[pa.Table, str]:
    """The rows that are asked about, and the name of their instant."""
    settings = settings_of(config)
    if isinstance(entity_df, str):
        rows = query(entity_df, settings)
        return rows, infer_event_timestamp_from_entity_df(dict(rows.slice(0, 0).to_pandas().dtypes))
    if entity_df is not None:
        rows = pa.Table.from_pandas(entity_df, preserve_index=False)
        return rows, infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
    if own or not parts:
        raise DataError(
            "headrace's views are asked about rows", got="entity_df=None", hint="give the entities and their instants"
        )
    until = _aware(end) or datetime.now(UTC)
    longest = max((part.ttl_us for part in parts), default=0)
    since = _aware(start) or until - (timedelta(microseconds=longest) if longest else DEFAULT_SPAN)
    database = Database(settings, [part.source for part in parts])
    try:
        return rows_of_views(database, parts, since, until, INSTANT), INSTANT
    finally:
        database.close()


def _plain_features(
    config: RepoConfig,
    parts: Sequence[Join],
    rows: pa.Table,
    instants: np.ndarray[Any, np.dtype[np.int64]],
    by_created: bool,
) -> dict[str, pa.ChunkedArray]:
    database = Database(settings_of(config), [part.source for part in parts])
    try:
        keys = list(dict.fromkeys(column for part in parts for column in part.keys.values()))
        asked = rows.select(keys)
        asked = asked.append_column(TIME.strip('"'), pa.array(instants))
        asked = asked.append_column(ROW.strip('"'), pa.array(np.arange(len(rows))))
        database.register("asked", asked)
        found: dict[str, pa.ChunkedArray] = {}
        for part in parts:
            if part.features:
                answer = join(database, part, "asked", by_created)
                found |= dict(zip(answer.column_names, answer.columns, strict=True))
        return found
    finally:
        database.close()


def _pull(
    config: RepoConfig,
    source: DataSource,
    columns: Sequence[str],
    timestamp_field: str,
    start: datetime | None,
    end: datetime | None,
    newest: str,
) -> HeadraceRetrievalJob:
    settings = settings_of(config)
    time = f"CAST({quote(timestamp_field)} AS TIMESTAMP WITH TIME ZONE)"
    bounds = [(">=", _aware(start)), ("<=", _aware(end))]
    conditions = [f"{time} {sign} '{bound.isoformat()}'" for sign, bound in bounds if bound is not None]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    names = ", ".join(map(quote, dict.fromkeys(columns)))

    def compute() -> pa.Table:
        database = Database(settings, [source])
        try:
            return database.query(f"SELECT {names} FROM {database.relation(source)} {where} {newest}")
        finally:
            database.close()

    return HeadraceRetrievalJob(compute, settings)


def _check_keys(rows: pa.Table, parts: Sequence[Join]) -> None:
    missing = sorted({key for part in parts for key in part.keys.values()} - set(rows.column_names))
    if missing:
        raise DataError(
            "the rows lack join keys", got=f"columns {', '.join(rows.column_names)}", hint=f"add {', '.join(missing)}"
        )


def _aware(instant: datetime | None) -> datetime | None:
    """An instant without a zone is UTC."""
    if instant is None:
        return None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _utc(instant_us: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(instant_us))
