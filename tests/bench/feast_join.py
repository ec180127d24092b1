"""A point-in-time join of latest values in a process of its own: `python feast_join.py WORK HOME` prints JSON.

`feast` is Feast's DuckDB store over one Parquet file, `ours` a LatestView over the same file.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.settings import BatchSettings

EPOCH_US = 1_704_067_200_000_000
DAY_US = 86_400_000_000
DAYS = 30
USERS = 50_000
FIELDS = [f"f{number}" for number in range(10)]
TTL = "10d"


def make(home: Path, facts: int, rows: int) -> None:
    """Rows of facts by time, and rows that ask about them; no two facts of a user share an instant."""
    home.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(3)
    times = np.sort(chance.choice(DAYS * DAY_US // 1_000, facts, replace=False)) * 1_000 + EPOCH_US
    columns = {
        "user": chance.integers(0, USERS, facts),
        "event_timestamp": pa.array(times).cast(pa.timestamp("us")),
        **{name: chance.normal(0, 1, facts) for name in FIELDS},
    }
    pq.write_table(pa.table(columns), home / "facts.parquet")
    # An odd microsecond: no question at the very instant of a fact, where Feast is inclusive and headrace is not.
    asked = chance.integers(0, DAYS * DAY_US // 1_000, rows) * 1_000 + 500 + EPOCH_US
    columns = {
        "user": chance.integers(0, USERS, rows),
        "event_timestamp": pa.array(asked).cast(pa.timestamp("us", tz="UTC")),
    }
    pq.write_table(pa.table(columns), home / "rows.parquet")


def ours(home: Path) -> tuple[float, pa.Table]:
    from batch.training import training_set
    from features import Entity, FeatureService, LatestView
    from features.planner import compile_definitions
    from schemas.event import Event

    annotations = {"user": int, "event_timestamp": datetime, **dict.fromkeys(FIELDS, float)}
    body = {"__annotations__": annotations, "__module__": __name__}
    facts = type("Facts", (Event,), body, path=str(home / "facts.parquet"), time="event_timestamp", key=["user"])
    view = LatestView("facts", entity=Entity("user"), source=facts, fields=FIELDS, ttl=TTL)
    definitions = compile_definitions("bench", [facts, view, FeatureService("all", [view])])
    settings = BatchSettings(home=home / "ours")
    start = time.perf_counter()
    answer = training_set(definitions, "all", home / "rows.parquet", settings)
    return time.perf_counter() - start, answer


def feast(home: Path) -> tuple[float, pa.Table]:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64

    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(home / "registry.db"),
        online_store={"type": "sqlite", "path": str(home / "online.db")},
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
        repo_path=home,
    )
    store = FeatureStore(config=config)
    source = FileSource(name="facts", path=str(home / "facts.parquet"), timestamp_field="event_timestamp")
    user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
    schema = [Field(name=name, dtype=Float64) for name in FIELDS]
    view = FeatureView(name="facts", entities=[user], schema=schema, source=source, ttl=timedelta(days=10))
    store.apply([user, view])
    rows = pq.read_table(home / "rows.parquet").to_pandas()
    start = time.perf_counter()
    job = store.get_historical_features(rows, [f"facts:{name}" for name in FIELDS], full_feature_names=True)
    answer = job.to_arrow()
    return time.perf_counter() - start, answer


def main(work: str, home: str) -> None:
    seconds, answer = {"ours": ours, "feast": feast}[work](Path(home))
    answer = answer.select(["user", "event_timestamp", *(f"facts__{name}" for name in FIELDS)])
    answer = answer.sort_by([("user", "ascending"), ("event_timestamp", "ascending")])
    sums = [pc.sum(answer[f"facts__{name}"]).as_py() for name in FIELDS]
    nulls = [answer[f"facts__{name}"].null_count for name in FIELDS]
    print(json.dumps({"seconds": seconds, "cpu": time.process_time(), "sums": sums, "nulls": nulls}))


if __name__ == "__main__":
    main(*sys.argv[1:])
