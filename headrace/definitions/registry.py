"""Feast's registry: what is declared, written so that Feast's SDK, command line and UI show and use it.

Objects of ours carry the tag `headrace`; only those are ever changed or removed here, so plain Feast objects of the
same project stay as they are. Derived views stand as plain feature views with their plan in a tag: nothing in the
registry is pickled.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import msgspec
from feast import Entity, FeatureService, FeatureView, Field
from feast.data_format import AvroFormat, JsonFormat, ProtoFormat, StreamFormat
from feast.data_source import DataSource, KafkaSource
from feast.feature_view import DUMMY_ENTITY
from feast.infra.registry.sql import SqlRegistry, SqlRegistryConfig

from batch.feast.source import HeadraceSource
from features.plan import Definitions, DerivedPlan, ServicePlan, ViewPlan
from headrace.definitions.feast_types import feast_type, value_type
from schemas.errors import ConfigError
from schemas.event import EventSpec
from schemas.settings import ConnectionSettings

STORE_FILE = "feature_store.yaml"
TAG = "headrace"
"""On every object of ours: its kind. `headrace.plan` holds a view's plan, `headrace.fingerprint` its meaning."""

STORE = """\
# Written by `headrace apply`; changes are lost.
project: {project}
provider: local
registry:
  registry_type: sql
  path: {registry}
  cache_ttl_seconds: 60
online_store:
  type: serving.feast.online.HeadraceOnlineStore
offline_store:
  type: batch.feast.offline.HeadraceOfflineStore
entity_key_serialization_version: 3
"""


def write_registry(settings: ConnectionSettings, definitions: Definitions) -> None:
    """Make the registry show exactly these definitions, and HEADRACE_HOME a Feast repository.

    Raises ConfigError where a name belongs to a Feast object that isn't ours.
    """
    config = SqlRegistryConfig(path=settings.registry_address(), cache_ttl_seconds=0)
    _write(SqlRegistry(config, settings.project, settings.home), settings, definitions)
    write_store_file(settings)


def write_store_file(settings: ConnectionSettings) -> None:
    """The `feature_store.yaml` by which any process finds the project. No secret is written into it."""
    registry = "${HEADRACE_REGISTRY_URL}" if settings.registry_url else settings.registry_address()
    text = STORE.format(project=settings.project, registry=json.dumps(registry))
    file = settings.home / STORE_FILE
    if not file.exists() or file.read_text() != text:
        settings.home.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(".new")
        scratch.write_text(text)
        scratch.replace(file)


def _write(registry: SqlRegistry, settings: ConnectionSettings, definitions: Definitions) -> None:
    project = settings.project
    entities = {name: _entity(definitions, name) for name in definitions.entities}
    sources = {spec.name: _source(settings, spec) for spec in definitions.events.values()}
    views = {
        **{view.name: _view(view, entities, sources) for view in definitions.views.values()},
        **{view.name: _derived(view, definitions, entities) for view in definitions.derived.values()},
    }
    services = {service.name: _service(service, views) for service in definitions.services.values()}
    batch_sources = [s.batch_source for s in sources.values() if isinstance(s, KafkaSource) and s.batch_source]
    all_sources = {source.name: source for source in [*sources.values(), *batch_sources]}
    _refuse_foreign(registry, project, entities, views, services, all_sources)

    registry.apply_entity(DUMMY_ENTITY, project)
    for entity in entities.values():
        registry.apply_entity(entity, project)
    for source in all_sources.values():
        registry.apply_data_source(source, project)
    for view in views.values():
        registry.apply_feature_view(view, project)
    for service in services.values():
        registry.apply_feature_service(service, project)
    _remove_others(registry, project, entities, views, services, all_sources)


def _entity(definitions: Definitions, name: str) -> Entity:
    plan = definitions.entities[name]
    return Entity(
        name=name,
        join_keys=[plan.join_key],
        value_type=value_type(plan.type),
        description=plan.description,
        owner=plan.owner,
        tags={**plan.tags, TAG: "entity"},
    )


def _source(settings: ConnectionSettings, spec: EventSpec) -> DataSource:
    """The event log as a batch source, and before it, where there is one, the topic as a stream source."""
    namespace, table = _place(spec)
    log = HeadraceSource(
        name=f"events.{spec.log_name}" if spec.topic else spec.log_name,
        table=table,
        namespace=namespace,
        timestamp_field=spec.time,
        description=spec.description,
        tags={TAG: "event"},
    )
    if spec.topic is None:
        return log
    return KafkaSource(
        name=spec.topic,
        timestamp_field=spec.time,
        message_format=_format(spec),
        kafka_bootstrap_servers=settings.kafka_config()["bootstrap.servers"],
        topic=spec.topic,
        batch_source=log,
        description=spec.description,
        tags={TAG: "event"},
    )


def _place(spec: EventSpec) -> tuple[str, str]:
    """Namespace and table: of the event log, of a table that is somebody else's, or of none, where it is a file."""
    if spec.table is not None:
        namespace, _, table = spec.table.rpartition(".")
        return namespace, table
    return ("events" if spec.topic is not None else "files"), spec.log_name


def _format(spec: EventSpec) -> StreamFormat:
    columns = ", ".join(f"{column.name} {column.type}" for column in spec.columns)
    if spec.format == "avro":
        return AvroFormat(schema_json=columns)
    if spec.format == "protobuf":
        return ProtoFormat(class_path=spec.name)
    return JsonFormat(schema_json=columns)


def _view(view: ViewPlan, entities: dict[str, Entity], sources: dict[str, DataSource]) -> FeatureView:
    # Not `online` in Feast's sense: workers keep it, so Feast's materialize has nothing to copy into it.
    return FeatureView(
        name=view.name,
        entities=[entities[name] for name in view.entities],
        schema=[Field(name=key.name, dtype=feast_type(key.type)) for key in view.keys]
        + [Field(name=f.name, dtype=feast_type(f.type), description=f.declared) for f in view.features],
        # Feast knows one source a view; of a Union the others stand in the plan.
        source=sources[view.sources[0].event.name],
        ttl=_ttl(view),
        online=False,
        description=view.description,
        owner=view.owner,
        tags=_tags("view", view),
    )


def _ttl(view: ViewPlan) -> timedelta:
    """How old a latest value may be; windows have no such thing, which Feast calls 0."""
    return timedelta(microseconds=max((feature.parameters.get("ttl_us", 0) for feature in view.features), default=0))


def _derived(view: DerivedPlan, definitions: Definitions, entities: dict[str, Entity]) -> FeatureView:
    inputs = [definitions.views[name] for name in view.inputs]
    keys = {key.name: key for plan in inputs for key in plan.keys}
    names = dict.fromkeys(name for plan in inputs for name in plan.entities)
    return FeatureView(
        name=view.name,
        entities=[entities[name] for name in names],
        schema=[Field(name=key.name, dtype=feast_type(key.type)) for key in keys.values()]
        + [Field(name=f.name, dtype=feast_type(f.type), description=f.sql) for f in view.features],
        ttl=timedelta(0),
        online=False,
        description=view.description,
        owner=view.owner,
        tags={**_tags("derived view", view), "headrace.inputs": ", ".join(view.inputs)},
    )


def _tags(kind: str, view: ViewPlan | DerivedPlan) -> dict[str, str]:
    plan = msgspec.json.encode(view, order="deterministic").decode()
    return {**view.tags, TAG: kind, "headrace.fingerprint": view.fingerprint, "headrace.plan": plan}


def _service(service: ServicePlan, views: dict[str, FeatureView]) -> FeatureService:
    return FeatureService(
        name=service.name,
        features=[views[selection.view][list(selection.features)] for selection in service.selections],
        description=service.description,
        owner=service.owner,
        tags={**service.tags, TAG: "service", "headrace.plan": json.dumps(msgspec.to_builtins(service))},
    )


def _listed(registry: SqlRegistry, project: str) -> dict[str, list[Any]]:
    """What the registry holds, by kind, in the order in which it can be removed."""
    return {
        "service": registry.list_feature_services(project),
        "view": registry.list_all_feature_views(project),
        "entity": registry.list_entities(project),
        "data source": registry.list_data_sources(project),
    }


def _refuse_foreign(registry: SqlRegistry, project: str, *wanted: dict[str, Any]) -> None:
    ours = {"entity": wanted[0], "view": wanted[1], "service": wanted[2], "data source": wanted[3]}
    for kind, objects in _listed(registry, project).items():
        for each in objects:
            if each.name in ours[kind] and TAG not in each.tags:
                raise ConfigError(
                    f"Feast's registry has a {kind} of that name which headrace did not write",
                    where=each.name,
                    got=f"project {project!r}",
                    hint="rename one of them, or use another HEADRACE_PROJECT",
                )


def _remove_others(registry: SqlRegistry, project: str, *wanted: dict[str, Any]) -> None:
    """Objects of ours that are declared no longer; what refers to something goes before it."""
    ours = {"entity": wanted[0], "view": wanted[1], "service": wanted[2], "data source": wanted[3]}
    remove = {
        "service": registry.delete_feature_service,
        "view": registry.delete_feature_view,
        "entity": registry.delete_entity,
        "data source": registry.delete_data_source,
    }
    for kind, objects in _listed(registry, project).items():
        for each in objects:
            if TAG in each.tags and each.name not in ours[kind]:
                remove[kind](each.name, project)
