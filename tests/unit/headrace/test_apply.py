"""`apply` against a real Kafka, real Iceberg tables and Feast's real registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from feast import Entity as FeastEntity
from feast import FeatureView as FeastView
from feast import Field, ValueType
from feast.infra.registry.sql import SqlRegistry, SqlRegistryConfig
from feast.types import Int64

from batch.catalog import open_catalog
from batch.settings import BatchSettings
from features.applied import applied_version, load_applied
from headrace.definitions import registry as registry_module
from headrace.definitions.apply import apply, plan
from headrace.definitions.registry import STORE_FILE
from schemas.errors import ChangedMeaning, ConfigError
from schemas.settings import ConnectionSettings

DEFINITIONS = """\
from datetime import datetime
from features import Count, DerivedView, Entity, FeatureService, FeatureView, Last, Mean, Request
from schemas import Event

class Trip(Event, topic="TOPIC", time="at", key=["rider"]):
    "A trip."
    at: datetime
    rider: int
    city: str
    fare: float

rider = Entity("rider", join_key="rider", description="Who rides")
city = Entity("city", join_key="city")
rides = FeatureView(
    "rides", entity=rider, source=Trip, owner="ml", description="What a rider does", tags={"team": "a"},
    features={"n": Count(over="1h"), "fare": Mean("fare", over="HOURS"), "where": Last("city")},
)
pairs = FeatureView("pairs", entities=[rider, city], source=Trip, features={"n": Count()})
ratios = DerivedView("ratios", inputs=[rides, Request(base=float)], features={"ratio": "rides.fare / base"})
model = FeatureService("model", [rides["fare", "n"], pairs, ratios], log=1.0, owner="ml")
"""


@pytest.fixture
def settings(tmp_path: Path, kafka: str, unique: Callable[[str], str]) -> ConnectionSettings:
    (tmp_path / "defs").mkdir()
    made = ConnectionSettings(
        home=tmp_path / "home", project=unique("shop"), definitions=tmp_path / "defs", kafka_bootstrap=kafka
    )
    declare(made, DEFINITIONS)
    return made


def declare(settings: ConnectionSettings, text: str, hours: str = "1h") -> None:
    topic = f"{settings.project}.trips"
    (settings.definitions / "shop.py").write_text(text.replace("TOPIC", topic).replace("HOURS", hours))


def make_it_so(settings: ConnectionSettings, *replace: str) -> None:
    apply(settings, plan(settings, replace), lambda line: None)


def feast_registry(settings: ConnectionSettings) -> SqlRegistry:
    config = SqlRegistryConfig(path=settings.registry_address(), cache_ttl_seconds=0)
    return SqlRegistry(config, settings.project, settings.home)


def test_apply_makes_topics_tables_and_feasts_objects(settings: ConnectionSettings, kafka: str) -> None:
    make_it_so(settings)

    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics
    topic = f"{settings.project}.trips"
    assert {topic, f"{settings.project}.rejects", "served.model"} <= topics.keys()
    catalog = open_catalog(BatchSettings(home=settings.home))
    assert ("events", topic) in catalog.list_tables("events")

    registry, project = feast_registry(settings), settings.project
    rides = registry.get_feature_view("rides", project)
    assert (rides.owner, rides.description, rides.tags["team"]) == ("ml", "What a rider does", "a")
    assert [(f.name, str(f.dtype)) for f in rides.features] == [
        ("n", "Int64"),
        ("fare", "Float64"),
        ("where", "String"),
    ]
    assert [(f.name, str(f.dtype)) for f in rides.entity_columns] == [("rider", "Int64")]
    assert rides.stream_source is not None
    assert (rides.stream_source.name, rides.batch_source.name) == (topic, f"events.{topic}")
    assert registry.get_entity("rider", project).value_type == ValueType.INT64
    assert registry.get_feature_view("pairs", project).entities == ["rider", "city"]
    ratios = registry.get_feature_view("ratios", project)
    assert json.loads(ratios.tags["headrace.plan"])["features"][0]["name"] == "ratio"
    service = registry.get_feature_service("model", project)
    assert [(p.name, [f.name for f in p.features]) for p in service.feature_view_projections] == [
        ("rides", ["fare", "n"]),
        ("pairs", ["n"]),
        ("ratios", ["ratio"]),
    ]
    assert load_applied(settings.registry_address(), project) == plan(settings).declared


def test_apply_again_changes_nothing(settings: ConnectionSettings) -> None:
    make_it_so(settings)
    before = feast_registry(settings).get_feature_view("rides", settings.project).last_updated_timestamp
    assert not plan(settings).diff
    make_it_so(settings)
    assert feast_registry(settings).get_feature_view("rides", settings.project).last_updated_timestamp == before
    assert applied_version(settings.registry_address(), settings.project) == 1


def test_a_changed_meaning_is_refused_and_replaced_on_request(settings: ConnectionSettings) -> None:
    make_it_so(settings)
    declare(settings, DEFINITIONS, hours="2h")
    with pytest.raises(ChangedMeaning, match="--replace rides"):
        make_it_so(settings)
    assert applied_version(settings.registry_address(), settings.project) == 1


def test_what_is_no_longer_declared_leaves_feasts_registry(settings: ConnectionSettings) -> None:
    make_it_so(settings)
    less = DEFINITIONS.replace('[rides["fare", "n"], pairs, ratios]', "[rides]")
    less = "\n".join(line for line in less.splitlines() if not line.startswith(("pairs =", "ratios =", "city =")))
    declare(settings, less)
    make_it_so(settings)

    registry, project = feast_registry(settings), settings.project
    assert [view.name for view in registry.list_all_feature_views(project)] == ["rides"]
    assert {entity.name for entity in registry.list_entities(project)} == {"__dummy", "rider"}


def test_a_crash_before_the_end_is_repaired_by_the_next_apply(
    settings: ConnectionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(SqlRegistry, "apply_feature_service", _crash)
        with pytest.raises(KeyboardInterrupt):
            make_it_so(settings)
    assert load_applied(settings.registry_address(), settings.project) is None
    assert plan(settings).diff

    make_it_so(settings)

    assert feast_registry(settings).get_feature_service("model", settings.project)
    assert not plan(settings).diff


def _crash(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_plain_feast_objects_stay_and_their_names_are_respected(settings: ConnectionSettings) -> None:
    settings.home.mkdir()
    registry, project = feast_registry(settings), settings.project
    driver = FeastEntity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
    registry.apply_entity(driver, project)
    registry.apply_feature_view(
        FeastView(name="plain", entities=[driver], schema=[Field(name="trips", dtype=Int64)]), project
    )
    make_it_so(settings)
    assert feast_registry(settings).get_feature_view("plain", project)

    declare(settings, DEFINITIONS.replace('"pairs"', '"plain"'))
    with pytest.raises(ConfigError, match="plain.*a view of that name"):
        make_it_so(settings)


def test_no_secret_is_written_into_the_store_file(settings: ConnectionSettings) -> None:
    with_password = settings.model_copy(update={"registry_url": "x"}).model_validate(
        {
            **settings.model_dump(),
            "registry_url": "postgresql://me:hunter2@db/x",
            "redis_url": "redis://:hunter2@host:1/0",
        }
    )
    with_password.home.mkdir()
    registry_module.write_store_file(with_password)
    text = (settings.home / STORE_FILE).read_text()
    assert "hunter2" not in text
    assert "${HEADRACE_REGISTRY_URL}" in text
