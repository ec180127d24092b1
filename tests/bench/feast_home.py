"""The same features in Feast's own words, for Feast's own Redis store and server.

python -m tests.bench.feast_home FOLDER REDIS_URL        # writes the repository and the rows
python -m tests.bench.feast_home FOLDER serve PORT       # Feast's Python server, one worker
python -m tests.bench.feast_home FOLDER sdk SERVICE N    # p50 of its SDK in process, in ms
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

from tests.bench.serving_data import KEYS, VIEWS, key


def repository(folder: Path, redis_url: str, project: str) -> None:
    """Five views of ten doubles, the services `ten` and `fifty`, and a row for every key."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "project": project,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{folder / 'feast.db'}"},
        "online_store": {"type": "redis", "connection_string": urlsplit(redis_url).netloc},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    store = FeatureStore(repo_path=str(folder))
    driver = Entity(name="driver", join_keys=["driver"], value_type=ValueType.STRING)
    source = FileSource(name="rows", path=str(folder / "rows.parquet"), timestamp_field="at")
    chance = random.Random(7)
    pd.DataFrame({"driver": [key(0)], "at": [datetime.now(UTC)]}).to_parquet(folder / "rows.parquet")
    views = []
    for number in range(VIEWS):
        fields = [Field(name=f"f{number}_{n}", dtype=Float64) for n in range(10)]
        views.append(
            FeatureView(name=f"view{number}", entities=[driver], schema=fields, source=source, ttl=timedelta(days=9))
        )
    services = [FeatureService(name="ten", features=[views[0]]), FeatureService(name="fifty", features=views)]
    store.apply([driver, source, *views, *services])
    for number in range(VIEWS):
        rows: dict[str, list[Any]] = {"driver": [key(n) for n in range(KEYS)], "at": [datetime.now(UTC)] * KEYS}
        rows |= {f"f{number}_{n}": [chance.uniform(-100, 100) for _ in range(KEYS)] for n in range(10)}
        store.write_to_online_store(f"view{number}", pd.DataFrame(rows))


def sdk(folder: Path, service: str, entities: int) -> float:
    """The median time of `get_online_features` in this process, in ms."""
    store = FeatureStore(repo_path=str(folder))
    features = store.get_feature_service(service)
    rows = [{"driver": key(n)} for n in range(entities)]
    times = []
    for _ in range(40):
        started = time.perf_counter()
        store.get_online_features(features=features, entity_rows=rows)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


if __name__ == "__main__":
    where, what, *more = Path(sys.argv[1]), *sys.argv[2:]
    if what == "serve":
        FeatureStore(repo_path=str(where)).serve(
            host="127.0.0.1", port=int(more[0]), type_="http", no_access_log=True, workers=1, metrics=False,
            keep_alive_timeout=60, registry_ttl_sec=60,
        )  # fmt: skip
    elif what == "sdk":
        print(sdk(where, more[0], int(more[1])))
    else:
        repository(where, what, more[0])
