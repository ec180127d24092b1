"""Feast's online store over the online read: `online_store: {type: serving.feast.online.HeadraceOnlineStore}`.

headrace's own views are read as the server reads them, without Feast's own preparation; plain Feast views live beside
them in rows of their own (serving/feast/rows.py). A request that mixes both, or asks for on-demand views, takes Feast's
way, view by view. Better than Feast's Redis store: a TTL holds online, a missing entity is NOT_FOUND, rows of the same
instant are written, teardown touches its own project alone.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from feast import Entity, FeatureService, FeatureView, RepoConfig, utils
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.repo_config import FeastConfigBaseModel
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr

from features.applied import applied_version, load_applied
from features.plan import Definitions
from schemas.errors import RequestError
from schemas.row import NO_EVENT
from serving.cluster import open_redis
from serving.connection import Redis
from serving.entities import EPOCH
from serving.feast import rows
from serving.feast.values import from_columns, from_proto, to_protos
from serving.feast.wire import stamps_bytes, vector_bytes
from serving.read import Reader
from serving.settings import ServingSettings
from serving.vectors import Status, Vectors

Columns = Mapping[str, Sequence[Any]]
Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
ReadRow = tuple[datetime | None, dict[str, Value] | None]


class HeadraceOnlineStoreConfig(FeastConfigBaseModel):
    """`redis_url` and `home` are those of headrace's settings; `home` is where feature_store.yaml stands."""

    type: Literal["serving.feast.online.HeadraceOnlineStore"] = "serving.feast.online.HeadraceOnlineStore"
    redis_url: SecretStr | None = None
    home: str | None = None


@dataclass
class _State:
    """What one configuration has opened."""

    redis: Redis
    registry_url: str | None
    """The SQL registry's database; None: the project has another registry, and so no views of headrace's."""
    version: int = 0
    looked_at: float = float("-inf")
    reader: Reader | None = None


class HeadraceOnlineStore(OnlineStore):
    """Both kinds of views; may be shared by threads."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str, str], _State] = {}
        self._lock = threading.Lock()

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: list[dict[str, Any]] | Mapping[str, Sequence[Any] | RepeatedValue],
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        reader = self._reader(config)
        what = None if reader is None else _ours(reader.definitions, features)
        if reader is None or what is None:
            return super().get_online_features(
                config,
                features,
                entity_rows,
                registry,
                project,
                full_feature_names,
                include_feature_view_version_metadata,
            )
        vectors = reader.read(what, entity_columns(entity_rows))
        return OnlineResponse(answer_proto(vectors, full_feature_names, include_feature_view_version_metadata))

    async def get_online_features_async(self, *args: Any, **kwargs: Any) -> OnlineResponse:
        return await asyncio.to_thread(self.get_online_features, *args, **kwargs)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        reader = self._reader(config)
        names = requested_features or [field.name for field in table.features]
        if reader is not None and table.name in reader.definitions.views:
            return _read_rows(reader, table.name, entity_keys, names)
        return [
            (None, None) if too_old else (instant, values)
            for instant, values, too_old in self._plain_rows(config, table, entity_keys, names)
        ]

    async def online_read_async(self, *args: Any, **kwargs: Any) -> list[ReadRow]:
        return await asyncio.to_thread(self.online_read, *args, **kwargs)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Written], progress: Callable[[int], Any] | None
    ) -> None:
        reader = self._reader(config)
        if reader is not None:
            refuse_own_view(reader.definitions, table.name)
        prefix = rows.prefix(config.project, table.name)
        # Of several rows of one entity in a batch the last of the newest counts, in Redis as in Feast's other stores.
        written = [
            rows.Row(
                prefix + _serialized(config, key),
                rows.instant_us(event),
                0 if created is None else rows.instant_us(created),
                {name: value.SerializeToString() for name, value in values.items()},
            )
            for key, values, event, created in data
        ]
        redis = self._state(config).redis
        for start in range(0, len(written), rows.WRITE_ROWS):
            part = written[start : start + rows.WRITE_ROWS]
            rows.write(redis, part, _ttl(table))
            if progress is not None:
                progress(len(part))

    async def online_write_batch_async(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self.online_write_batch, *args, **kwargs)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        rows.delete(self._state(config).redis, config.project, [table.name for table in tables_to_delete])

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        state = self._state(config)
        rows.delete(state.redis, config.project, [table.name for table in tables])
        reader = self._reader(config)
        for table in tables if reader is not None else ():
            plan = reader.definitions.views.get(table.name) if reader is not None else None
            if plan is not None:
                rows.unlink(state.redis, b"h{%s.*" % plan.storage_id.encode())

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, list[Value]],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Feast's own, with the two statuses that it leaves out: NULL_VALUE and OUTSIDE_MAX_AGE."""
        for table, names in grouped_refs:
            entities, places, count = utils._get_unique_entities(table, join_key_values, entity_name_to_join_key_map)
            keys = utils._get_entity_key_protos(entities)
            reader = self._reader(config)
            old: list[bool]
            read: list[ReadRow]
            if reader is not None and table.name in reader.definitions.views:
                read, old = _read_rows(reader, table.name, keys, names), [False] * len(keys)
            else:
                found = self._plain_rows(config, table, keys, names)
                # Of a row that is too old only its instant is told.
                read, old = [(i, None if o else v) for i, v, o in found], [o for _, _, o in found]
            utils._populate_response_from_feature_data(
                names,
                read,
                places,
                online_features_response,
                full_feature_names,
                table,
                count,
                include_feature_view_version_metadata,
            )
            for vector in online_features_response.results[-len(names) :] if names else ():
                for row, targets in enumerate(places):
                    for target in targets:
                        if old[row]:
                            vector.statuses[target] = FieldStatus.OUTSIDE_MAX_AGE
                        elif vector.statuses[target] == FieldStatus.PRESENT and _is_null(vector.values[target]):
                            vector.statuses[target] = FieldStatus.NULL_VALUE

    async def _read_features_per_fv_async(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self._read_features_per_fv, *args, **kwargs)

    def _plain_rows(
        self, config: RepoConfig, table: FeatureView, entity_keys: Sequence[EntityKey], names: Sequence[str]
    ) -> list[tuple[datetime | None, dict[str, Value] | None, bool]]:
        """For each entity: the row's instant, its values, and whether it is older than the view's TTL."""
        prefix = rows.prefix(config.project, table.name)
        keys = [prefix + _serialized(config, key) for key in entity_keys]
        ttl = _ttl(table)
        oldest = None if not ttl else rows.instant_us(datetime.now(UTC) - ttl)
        answer: list[tuple[datetime | None, dict[str, Value] | None, bool]] = []
        for found in rows.read(self._state(config).redis, keys, names):
            if found is None:
                answer.append((None, None, False))
            else:
                values = {name: Value.FromString(value) for name, value in found.values.items()}
                too_old = oldest is not None and found.event_us < oldest
                answer.append((_utc(found.event_us), {name: values.get(name, Value()) for name in names}, too_old))
        return answer

    def _state(self, config: RepoConfig) -> _State:
        online = config.online_store
        assert isinstance(online, HeadraceOnlineStoreConfig)
        secret = "" if online.redis_url is None else online.redis_url.get_secret_value()
        home = online.home or str(config.repo_path or "")
        kept = (config.project, home, secret)
        with self._lock:
            if kept not in self._states:
                given: dict[str, Any] = {"home": Path(home)} if home else {}
                if secret:
                    given["redis_url"] = online.redis_url
                # Feast's project names are freer than headrace's, and nothing here depends on them.
                settings = ServingSettings(**given)
                redis = open_redis(settings.redis_address(), timeout_s=settings.redis_timeout_s)
                registry = config.registry
                url = str(registry.path) if registry.registry_type == "sql" else None
                self._states[kept] = _State(redis, url)
            return self._states[kept]

    def _reader(self, config: RepoConfig) -> Reader | None:
        """The reader of what is applied now; None where headrace has applied nothing in this project."""
        state = self._state(config)
        now = time.monotonic()
        if state.registry_url is not None and now - state.looked_at > LOOK_EVERY_S:
            with self._lock:
                state.looked_at = now
                version = applied_version(state.registry_url, config.project)
                if version != state.version:
                    definitions = load_applied(state.registry_url, config.project)
                    state.reader = None if definitions is None else Reader(state.redis, definitions)
                    state.version = version
        return state.reader


LOOK_EVERY_S = 1.0
"""How soon a process takes up what `apply` has changed."""


def refuse_own_view(definitions: Definitions, view: str) -> None:
    """Raises RequestError for a view that workers keep: what is written to it would be wrong with the next event."""
    plan = definitions.views.get(view)
    if plan is None and view not in definitions.derived:
        return
    sources = [] if plan is None else [source.event.log_name for source in plan.sources]
    raise RequestError(
        "headrace computes this view from its events; it can't be written to",
        where=view,
        got="a write",
        hint=f"produce an event to {' or '.join(sources)}" if sources else "it is derived when it is read",
    )


def _ours(definitions: Definitions, features: list[str] | FeatureService) -> str | list[str] | None:
    """What the reader is asked for; None where a view is not headrace's."""
    if isinstance(features, FeatureService):
        if features.name in definitions.services:
            return str(features.name)
        features = [f"{p.name}:{field.name}" for p in features.feature_view_projections for field in p.features]
    views = {reference.partition(":")[0] for reference in features}
    known = all(view in definitions.views or view in definitions.derived for view in views)
    return list(features) if known and features else None


def entity_columns(
    entity_rows: list[dict[str, Any]] | Mapping[str, Sequence[Any] | RepeatedValue],
) -> dict[str, list[Any]]:
    """A request's entities, as Feast's SDK or its messages have them, as columns of Python values."""
    if isinstance(entity_rows, list):
        names = list(entity_rows[0]) if entity_rows else []
        if any(list(row) != names and set(row) != set(names) for row in entity_rows):
            raise ValueError("All entity_rows must have the same keys.")
        return {name: from_columns(row[name] for row in entity_rows) for name in names}
    return {
        name: from_columns(values.val if isinstance(values, RepeatedValue) else values)
        for name, values in entity_rows.items()
    }


def answer_proto(vectors: Vectors, full_feature_names: bool, versions: bool = False) -> GetOnlineFeaturesResponse:
    """Feast's message of an answer. Raises RequestError where short names are not unique."""
    reading = vectors.reading
    names = reading.full_names if full_feature_names else reading.short_names
    proto = GetOnlineFeaturesResponse()
    proto.metadata.feature_names.val.extend([*vectors.entities, *names])
    if versions:
        for view in dict.fromkeys(output.view for output in reading.outputs):
            proto.metadata.feature_view_metadata.add(name=view)
    never = [Timestamp()] * vectors.count
    types = {key.name: key.type for key in reading.join_keys}
    for name, values in vectors.entities.items():
        proto.results.add(
            values=_key_protos(types.get(name, "string"), values),
            statuses=[FieldStatus.PRESENT] * vectors.count,
            event_timestamps=never,
        )
    unknown = stamps_bytes([NO_EVENT] * vectors.count)
    stamps = [stamps_bytes(view.newest_us.tolist()) for view in vectors.views]
    for output, column in zip(reading.outputs, vectors.columns, strict=True):
        stamp = unknown if output.derived else stamps[output.source]
        statuses = vectors.statuses_of(output, column)
        proto.results.add().MergeFromString(vector_bytes(output.type, column, statuses, stamp))
    return proto


def _key_protos(type_name: str, values: Sequence[Any]) -> list[Value]:
    field = {"int64": "int64_val", "bool": "bool_val"}.get(type_name, "string_val")
    return [Value() if value is None else Value(**{field: value}) for value in values]


def _read_rows(reader: Reader, view: str, keys: Sequence[EntityKey], names: Sequence[str]) -> list[ReadRow]:
    if not keys:
        return []
    columns: dict[str, list[Any]] = {name: [] for name in keys[0].join_keys}
    for key in keys:
        for name, value in zip(key.join_keys, key.entity_values, strict=True):
            columns[name].append(from_proto(value))
    vectors = reader.read([f"{view}:{name}" for name in names], columns)
    protos = [
        to_protos(output.type, column) for output, column in zip(vectors.reading.outputs, vectors.columns, strict=True)
    ]
    answer: list[ReadRow] = []
    for entity in range(vectors.count):
        newest = int(vectors.views[0].newest_us[entity])
        values = {
            output.feature: column[entity]
            for output, column, statuses in zip(vectors.reading.outputs, protos, vectors.statuses, strict=True)
            if statuses[entity] != Status.NOT_FOUND
        }
        answer.append((None if newest == NO_EVENT else _utc(newest), values or None))
    return answer


def _ttl(table: FeatureView) -> timedelta | None:
    """A view's TTL; on-demand views, which Feast materialises too, have none."""
    ttl: timedelta | None = getattr(table, "ttl", None)
    return ttl or None


def _serialized(config: RepoConfig, key: EntityKey) -> bytes:
    version = config.entity_key_serialization_version
    serialized: bytes = serialize_entity_key(key, entity_key_serialization_version=version)
    return serialized


def _utc(instant_us: int) -> datetime:
    return (EPOCH + timedelta(microseconds=instant_us)).replace(tzinfo=UTC)


def _is_null(value: Value) -> bool:
    return value.WhichOneof("val") in (None, "null_val")
