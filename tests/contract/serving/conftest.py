"""A HEADRACE_HOME with the shop applied, its state in Redis, and the server as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from features.applied import save_applied
from headrace.definitions.registry import write_registry
from serving.settings import ServingSettings
from tests.unit.serving.online import Online
from tests.unit.serving.shop import definitions
from tests.unit.serving.test_read import ORDERS


@pytest.fixture(scope="module", params=["redis", pytest.param("cluster", marks=pytest.mark.slow)])
def store_url(request: pytest.FixtureRequest) -> str:
    """Where the rows are: one Redis, or a Cluster."""
    if request.param == "cluster":
        return str(request.getfixturevalue("cluster").url)
    return str(request.getfixturevalue("redis_url"))


@pytest.fixture(scope="module")
def online(store_url: str) -> Iterator[Online]:
    state = Online(store_url, definitions(f"shop_{uuid.uuid4().hex[:10]}"))
    state.add({"Order": ORDERS})
    yield state
    state.kernel.close()
    state.redis.close()


@pytest.fixture(scope="module")
def home(online: Online, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HEADRACE_HOME as `headrace apply` leaves it."""
    home = tmp_path_factory.mktemp("home")
    settings = ServingSettings(
        home=home,
        project=online.definitions.project,
        redis_url=online.url,  # type: ignore[arg-type]
        kafka_bootstrap="127.0.0.1:1",
    )
    save_applied(settings.registry_address(), online.definitions)
    write_registry(settings, online.definitions)
    return home


@pytest.fixture(scope="module")
def store(home: Path, online: Online) -> Any:
    settings = yaml.safe_load((home / "feature_store.yaml").read_text())
    settings["online_store"]["redis_url"] = online.url
    (home / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    feast = pytest.importorskip("feast")
    return feast.FeatureStore(repo_path=str(home))


@pytest.fixture(scope="module")
def drivers(store: Any) -> Any:
    """A plain Feast view beside headrace's own, with a TTL and a push source."""
    import feast
    from feast.data_format import ParquetFormat
    from feast.infra.offline_stores.file_source import FileSource
    from feast.types import Array, Float64, Int64, String, UnixTimestamp

    driver = feast.Entity(name="driver", join_keys=["driver_id"], value_type=feast.ValueType.INT64)
    source = FileSource(name="drivers_file", path="drivers.parquet", timestamp_field="at", file_format=ParquetFormat())
    push = feast.PushSource(name="drivers_push", batch_source=source)
    view = feast.FeatureView(
        name="drivers",
        entities=[driver],
        ttl=timedelta(hours=1),
        schema=[
            feast.Field(name="driver_id", dtype=Int64),
            feast.Field(name="rating", dtype=Float64),
            feast.Field(name="trips", dtype=Int64),
            feast.Field(name="city", dtype=String),
            feast.Field(name="scores", dtype=Array(Float64)),
            feast.Field(name="since", dtype=UnixTimestamp),
        ],
        source=push,
    )
    store.apply([driver, source, push, view])
    return view


@pytest.fixture(scope="module")
def server_url(online: Online, home: Path) -> Iterator[str]:
    """A running server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "HEADRACE_HOME": str(home),
        "HEADRACE_PROJECT": online.definitions.project,
        "HEADRACE_REDIS_URL": online.url,
        "HEADRACE_SERVE_PORT": str(port),
    }
    code = "from serving.server import run; from serving.settings import ServingSettings; run(ServingSettings())"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def wait_ready(url: str, process: subprocess.Popen[bytes], path: str = "/ready") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            if httpx.get(f"{url}{path}").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the server did not get ready")
