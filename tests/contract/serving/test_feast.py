"""The unmodified Feast SDK over HEADRACE_HOME, and Feast's own remote client over our server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
import yaml

from serving import Client
from serving.api import create_app
from serving.settings import ServingSettings
from tests.unit.serving.online import Online

feast = pytest.importorskip("feast")

LIVE = {"customer": ["ann", "nobody", "bob"], "shop": [1, 2, 2], "price": [2.0, 1.0, 11.0]}
ROWS = [dict(zip(LIVE, row, strict=True)) for row in zip(*LIVE.values(), strict=True)]


@pytest.fixture(scope="module")
def remote(store: Any, server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same project through `online_store: {type: remote}`."""
    home = tmp_path_factory.mktemp("remote")
    settings = {
        "project": store.project,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": store.config.registry.path},
        "online_store": {"type": "remote", "path": server_url},
        "offline_store": {"type": "dask"},
        "entity_key_serialization_version": 3,
    }
    (home / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    return feast.FeatureStore(repo_path=str(home))


def driver_rows(ids: list[int], at: datetime, rating: float = 4.5) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "driver_id": ids,
            "rating": [rating] * len(ids),
            "trips": [7] * len(ids),
            "city": ["Graz"] * len(ids),
            "scores": [[1.0, 2.5]] * len(ids),
            "since": [datetime(2020, 1, 1, tzinfo=UTC)] * len(ids),
            "at": [at] * len(ids),
        }
    )


def test_the_sdk_the_remote_client_and_ours_answer_the_same(store: Any, remote: Any, server_url: str) -> None:
    service = store.get_feature_service("live")
    direct = store.get_online_features(features=service, entity_rows=ROWS, full_feature_names=True).to_dict()
    over_http = remote.get_online_features(
        features=remote.get_feature_service("live"), entity_rows=ROWS, full_feature_names=True
    ).to_dict()
    with Client(server_url) as client:
        ours = client.get("live", LIVE, full_feature_names=True).to_dict()
    assert direct["spending__orders"] == [4, 0, 1]
    assert direct["ratio__of_mean"] == [None, None, None]
    assert list(direct) == list(over_http) == list(ours)
    instants = {"spending__last_order"}
    for name, values in direct.items():
        assert ours[name] == over_http[name], name
        if name not in instants:
            assert values == ours[name], name
    assert direct["spending__last_order"][0] == datetime(2026, 3, 1, 11, 55, tzinfo=UTC)
    assert ours["spending__last_order"][0] == "2026-03-01T11:55:00Z"


def test_references_short_names_and_async(store: Any, remote: Any) -> None:
    references = ["coupons:last_coupon", "spending:amount_max", "spending:first_amount"]
    entities = [{"customer": "ann"}, {"customer": "nobody"}]
    direct = store.get_online_features(features=references, entity_rows=entities)
    expected = {
        "customer": ["ann", "nobody"],
        "last_coupon": ["AUTUMN", None],
        "amount_max": [100.0, None],
        "first_amount": [100.0, None],
    }
    assert direct.to_dict() == expected
    assert remote.get_online_features(features=references, entity_rows=entities).to_dict() == expected
    later = asyncio.run(store.get_online_features_async(features=references, entity_rows=entities))
    assert later.to_dict() == expected
    statuses = [list(result.statuses) for result in direct.proto.results]
    assert statuses == [[1, 1], [1, 2], [1, 2], [1, 2]]


def test_a_plain_view_lives_beside_headraces_own(store: Any, remote: Any, drivers: Any) -> None:
    now = datetime.now(UTC)
    store.write_to_online_store("drivers", driver_rows([1, 2], now))
    names = ["drivers:rating", "drivers:trips", "drivers:city", "drivers:scores", "drivers:since"]
    entities = [{"driver_id": 1}, {"driver_id": 99}]
    direct = store.get_online_features(features=names, entity_rows=entities)
    assert direct.to_dict() == {
        "driver_id": [1, 99],
        "rating": [4.5, None],
        "trips": [7, None],
        "city": ["Graz", None],
        "scores": [[1.0, 2.5], None],
        "since": [datetime(2020, 1, 1, tzinfo=UTC), None],
    }
    assert [list(result.statuses) for result in direct.proto.results][1] == [1, 3]
    over_http = remote.get_online_features(features=names[:4], entity_rows=entities).to_dict()
    assert over_http == {name: values for name, values in direct.to_dict().items() if name != "since"}


def test_a_ttl_holds_online(store: Any, drivers: Any) -> None:
    store.write_to_online_store("drivers", driver_rows([3], datetime.now(UTC) - timedelta(hours=2)))
    answer = store.get_online_features(features=["drivers:rating"], entity_rows=[{"driver_id": 3}])
    assert answer.to_dict() == {"driver_id": [3], "rating": [None]}
    assert list(answer.proto.results[1].statuses) == [4]
    age = datetime.now(UTC) - answer.proto.results[1].event_timestamps[0].ToDatetime(UTC)
    assert timedelta(hours=2) <= age < timedelta(hours=3)


def test_an_older_row_never_replaces_a_newer_and_one_of_the_same_instant_does(store: Any, drivers: Any) -> None:
    now = datetime.now(UTC)

    def rating() -> float:
        answer = store.get_online_features(features=["drivers:rating"], entity_rows=[{"driver_id": 4}]).to_dict()
        return float(answer["rating"][0])

    store.write_to_online_store("drivers", driver_rows([4], now, 1.0))
    store.write_to_online_store("drivers", driver_rows([4], now - timedelta(minutes=1), 2.0))
    assert rating() == 1.0
    store.write_to_online_store("drivers", driver_rows([4], now, 3.0))
    assert rating() == 3.0


def test_a_misspelt_feature_of_headraces_own_view_does_not_wake_feast(store: Any, online: Online, home: Path) -> None:
    settings = ServingSettings(home=home, project=online.definitions.project, redis_url=online.url)  # type: ignore[arg-type]

    async def run() -> tuple[int, bool]:
        app = create_app(settings)
        async with app.running(), httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
            body = {"features": ["spending:ordrs"], "entities": {"customer": ["ann"]}}
            answer = await client.post("http://headrace/get-online-features", json=body)
            return answer.status_code, app.plain._backend is None

    assert asyncio.run(run()) == (404, True)


def test_push_and_write_over_http(store: Any, remote: Any, drivers: Any, server_url: str) -> None:
    now = datetime.now(UTC).isoformat()
    rows = {"driver_id": [5], "rating": [4.0], "trips": [1], "city": ["Linz"], "scores": [[1.5]], "at": [now]}
    rows["since"] = [1_577_836_800]
    pushed = httpx.post(f"{server_url}/push", json={"push_source_name": "drivers_push", "df": rows}, timeout=60)
    assert pushed.status_code == 200, pushed.text
    answer = httpx.post(
        f"{server_url}/get-online-features", json={"features": ["drivers:city"], "entities": {"driver_id": [5]}}
    )
    assert answer.json()["results"][1]["values"] == ["Linz"]
    rows["city"] = ["Wien"]
    written = httpx.post(f"{server_url}/write-to-online-store", json={"feature_view_name": "drivers", "df": rows})
    assert written.status_code == 200, written.text
    remote.write_to_online_store("drivers", driver_rows([6], datetime.now(UTC)), allow_registry_cache=False)
    both = remote.get_online_features(features=["drivers:city"], entity_rows=[{"driver_id": 5}, {"driver_id": 6}])
    assert both.to_dict()["city"] == ["Wien", "Graz"]


def test_headraces_views_cannot_be_written_to(store: Any, server_url: str) -> None:
    body = {"feature_view_name": "spending", "df": {"customer": ["ann"], "orders": [1]}}
    refused = httpx.post(f"{server_url}/write-to-online-store", json=body, timeout=60)
    assert refused.status_code == 422
    assert "produce an event to orders" in refused.json()["error"]["next"]
    nothing = httpx.post(f"{server_url}/push", json={"push_source_name": "nosuch", "df": {"a": [1]}}, timeout=60)
    assert nothing.status_code == 404


def test_materialise_over_http(store: Any, drivers: Any, server_url: str, home: Path) -> None:
    own = httpx.post(
        f"{server_url}/materialize",
        json={"start_ts": "2026-01-01", "end_ts": "2026-02-01", "feature_views": ["spending"]},
        timeout=60,
    )
    assert own.status_code == 422
    bad = httpx.post(f"{server_url}/materialize-incremental", json={"end_ts": "soon"}, timeout=60)
    assert bad.status_code == 422


def test_teardown_deletes_its_own_project_alone(store: Any, drivers: Any, online: Online) -> None:
    client = online.redis
    from serving.feast.rows import prefix

    other = prefix(f"my{store.project}", "drivers") + b"x"
    client.hset(other, "f", "v")
    store.write_to_online_store("drivers", driver_rows([7], datetime.now(UTC)))
    own = prefix(store.project, "drivers")
    assert list(client.scan_iter(own + b"*"))
    provider = store._get_provider()
    provider.online_store.teardown(store.config, [drivers], [])
    assert not list(client.scan_iter(own + b"*"))
    assert client.exists(other)
    spending = online.definitions.views["spending"].storage_id
    assert list(client.scan_iter(f"h{{{spending}.*"))
    provider.online_store.teardown(store.config, store.list_feature_views(), [])
    assert not list(client.scan_iter(f"h{{{spending}.*"))
    assert client.exists(other)
    client.delete(other)
