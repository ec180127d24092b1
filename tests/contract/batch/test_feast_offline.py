"""The offline store under Feast's own SDK: plain Feast views, and headrace's beside them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.types import Float64, Int64, String

from batch.append import Piece, append_once
from batch.catalog import open_catalog
from batch.feast.source import HeadraceSource, HeadraceStorage
from batch.feast.storage import append
from batch.settings import BatchSettings
from batch.tables import BROKER_TIME, ensure_table, events_table
from features import Count, DerivedView, FeatureService, Request, Sum
from features import Entity as OurEntity
from features import FeatureView as OurView
from features.applied import save_applied
from features.planner import compile_definitions
from schemas.errors import DataError
from schemas.event import Event, log_schema

PROJECT = "shop"
START = datetime(2024, 3, 1, tzinfo=UTC)


class Sale(Event, topic="sales", time="at", key=["driver_id"]):
    at: datetime
    driver_id: int
    amount: float


def hours(number: float) -> datetime:
    return START + timedelta(hours=number)


@pytest.fixture
def settings(tmp_path: Path) -> BatchSettings:
    return BatchSettings(home=tmp_path / "home", project=PROJECT, kafka_bootstrap="localhost:1")


@pytest.fixture
def store(settings: BatchSettings) -> FeatureStore:
    settings.home.mkdir()
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"registry_type": "sql", "path": settings.registry_address()},
        online_store={"type": "sqlite", "path": str(settings.home / "online.db")},
        offline_store={"type": "batch.feast.offline.HeadraceOfflineStore"},
        entity_key_serialization_version=3,
        repo_path=settings.home,
    )
    return FeatureStore(config=config)


DRIVER = Entity(name="driver", join_keys=["driver_id"])


def stats(source: Any, ttl: timedelta) -> FeatureView:
    schema = [Field(name="rate", dtype=Float64), Field(name="trips", dtype=Int64), Field(name="note", dtype=String)]
    return FeatureView(name="stats", entities=[DRIVER], schema=schema, source=source, ttl=ttl)


def rows(*values: tuple[int, float, float, int, str | None]) -> pa.Table:
    """(driver, hour, rate, trips, note), created in this order."""
    return pa.table(
        {
            "driver_id": pa.array([v[0] for v in values], pa.int64()),
            "event_timestamp": pa.array([hours(v[1]) for v in values], pa.timestamp("us", tz="UTC")),
            "rate": [v[2] for v in values],
            "trips": pa.array([v[3] for v in values], pa.int64()),
            "note": pa.array([v[4] for v in values], pa.string()),
            "created": pa.array([hours(100 + n) for n in range(len(values))], pa.timestamp("us", tz="UTC")),
        }
    )


DATA = rows((1, 0, 0.1, 1, "x"), (1, 5, 0.5, 5, None), (2, 1, 0.2, 2, "y"), (1, 5, 0.55, 6, "newer"))


def iceberg(settings: BatchSettings) -> HeadraceSource:
    append(settings, ("feast", "stats"), DATA)
    return HeadraceSource(
        table="stats", namespace="feast", timestamp_field="event_timestamp", created_timestamp_column="created"
    )


def parquet(settings: BatchSettings) -> FileSource:
    path = settings.home / "stats.parquet"
    pq.write_table(DATA, path)
    return FileSource(
        name="stats", path=str(path), timestamp_field="event_timestamp", created_timestamp_column="created"
    )


SOURCES = {"iceberg": iceberg, "parquet": parquet}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, store: FeatureStore, settings: BatchSettings) -> Any:
    return SOURCES[request.param](settings)


def asked(*values: tuple[int, float]) -> pd.DataFrame:
    return pd.DataFrame({"driver_id": [v[0] for v in values], "event_timestamp": [hours(v[1]) for v in values]})


def test_point_in_time_is_inclusive_at_both_ends(store: FeatureStore, source: Any) -> None:
    store.apply([DRIVER, stats(source, timedelta(hours=2))])
    frame = asked((1, 5), (1, 0), (1, 2), (1, 2.01), (2, 0.99), (2, 3), (3, 5)).assign(extra=range(7))
    got = store.get_historical_features(frame, ["stats:rate", "stats:note"]).to_df()
    assert got["rate"].replace({float("nan"): None}).tolist() == [0.55, 0.1, 0.1, None, None, 0.2, None]
    assert got["note"].replace({float("nan"): None}).tolist() == ["newer", "x", "x", None, None, "y", None]
    assert got["extra"].tolist() == list(range(7))
    full = store.get_historical_features(frame, ["stats:trips"], full_feature_names=True).to_arrow()
    assert full.column_names == ["driver_id", "event_timestamp", "extra", "stats__trips"]


def test_only_what_had_been_created(store: FeatureStore, source: Any) -> None:
    store.apply([DRIVER, stats(source, timedelta(0))])
    frame = asked((1, 99), (1, 100), (1, 101), (1, 103))
    job = store.get_historical_features(frame, ["stats:rate"], filter_by_created_timestamp=True)
    assert job.to_df()["rate"].replace({float("nan"): None}).tolist() == [None, 0.1, 0.5, 0.55]


def test_without_rows_all_there_are(store: FeatureStore, source: Any) -> None:
    store.apply([DRIVER, stats(source, timedelta(0))])
    job = store.get_historical_features(None, ["stats:rate"], start_date=hours(1), end_date=hours(5))
    got = job.to_df().sort_values("event_timestamp")
    assert got[["driver_id", "rate"]].values.tolist() == [[2, 0.2], [1, 0.55]]


def test_materialize_takes_the_newest_row(store: FeatureStore, source: Any) -> None:
    store.apply([DRIVER, stats(source, timedelta(0))])
    store.materialize(hours(-1), hours(4))
    read = {"features": ["stats:rate"], "entity_rows": [{"driver_id": 1}, {"driver_id": 2}]}
    assert store.get_online_features(**read).to_dict()["rate"] == [0.1, 0.2]
    store.materialize_incremental(hours(6))
    assert store.get_online_features(**read).to_dict()["rate"] == [0.55, 0.2]


def test_writing_and_reading_back(store: FeatureStore, source: Any) -> None:
    store.apply([DRIVER, stats(source, timedelta(0))])
    store.write_to_offline_store("stats", rows((9, 7, 0.9, 9, "new")).to_pandas())
    got = store.get_historical_features(asked((9, 8), (1, 8)), ["stats:rate"]).to_df()
    assert got["rate"].tolist() == [0.9, 0.55]


def test_saved_datasets(store: FeatureStore, source: Any) -> None:
    store.apply([DRIVER, stats(source, timedelta(0))])
    job = store.get_historical_features(asked((1, 5), (2, 5)), ["stats:rate"])
    store.create_saved_dataset(job, "training", HeadraceStorage("training"))
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        store.create_saved_dataset(job, "training", HeadraceStorage("training"))
    store.create_saved_dataset(job, "training", HeadraceStorage("training"), allow_overwrite=True)
    got = store.get_saved_dataset("training").to_df()
    assert sorted(got["rate"].tolist()) == [0.2, 0.55]


def test_headrace_views_beside_plain_ones(store: FeatureStore, settings: BatchSettings, source: Any) -> None:
    pytest.importorskip("headrace.definitions.registry")
    from headrace.definitions.registry import write_registry

    driver = OurEntity("our_driver", join_key="driver_id")
    sales = OurView("sales", entity=driver, source=Sale, features={"n": Count(), "total_2h": Sum("amount", over="2h")})
    share = DerivedView("share", inputs=[sales, Request(goal=float)], features={"of_goal": "sales.total_2h / goal"})
    service = FeatureService("daily", [sales, share])
    definitions = compile_definitions(PROJECT, [Sale, sales, share, service])
    write_registry(settings, definitions)
    save_applied(settings.registry_address(), definitions)
    schema = log_schema(Sale.spec())
    events = [
        {"at": hours(n).replace(tzinfo=None), "driver_id": 1, "amount": 0.1 * n, "kafka_partition": 0}
        | {"kafka_offset": n, "kafka_timestamp": hours(n).replace(tzinfo=None), "kafka_key": b"1"}
        for n in range(4)
    ]
    table = ensure_table(open_catalog(settings), events_table("sales"), schema, BROKER_TIME)
    append_once(table, Piece("sales", "t", pa.Table.from_pylist(events, schema), {}, {0: 4}))
    store.refresh_registry()
    store.apply([DRIVER, stats(source, timedelta(0))])
    frame = asked((1, 2), (1, 3), (2, 3)).assign(goal=[1.0, 0.0, 1.0])
    refs = ["sales:n", "sales:total_2h", "share:of_goal", "stats:rate"]
    got = store.get_historical_features(frame, refs).to_arrow().to_pylist()
    # Half-open: the event at the instant is out.
    assert [row["n"] for row in got] == [2, 3, 0]
    assert [row["total_2h"] for row in got] == [0.1, pytest.approx(0.3), None]
    assert [row["of_goal"] for row in got] == [0.1, None, None]
    assert [row["rate"] for row in got] == [0.1, 0.1, 0.2]
    by_service = store.get_historical_features(frame, store.get_feature_service("daily"), full_feature_names=True)
    assert by_service.to_df()["sales__n"].tolist() == [2, 3, 0]
    with pytest.raises(DataError, match="asked about rows"):
        store.get_historical_features(None, ["sales:n"], start_date=hours(0), end_date=hours(1))


def test_rows_from_a_query(store: FeatureStore, settings: BatchSettings, source: Any) -> None:
    append(settings, ("feast", "asked"), pa.Table.from_pandas(asked((1, 5), (2, 0.5)), preserve_index=False))
    store.apply([DRIVER, stats(source, timedelta(0))])
    got = store.get_historical_features("SELECT * FROM feast.asked ORDER BY driver_id", ["stats:trips"]).to_arrow()
    assert got["trips"].to_pylist() == [6, None]


def test_the_source_goes_through_the_registry(store: FeatureStore, settings: BatchSettings) -> None:
    source = iceberg(settings)
    store.apply([DRIVER, stats(source, timedelta(0))])
    assert store.get_data_source(source.name) == source
    assert json.loads(source.to_proto().custom_options.configuration) == {"namespace": "feast", "table": "stats"}
