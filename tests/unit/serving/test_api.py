"""The HTTP server over state that the real script made: Feast's shapes, errors in JSON, bounds, readiness."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from features.applied import save_applied
from serving.api import App, create_app
from serving.settings import ServingSettings
from tests.unit.serving.online import Online
from tests.unit.serving.test_read import NOW, ORDERS, order


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, between its start-up and its shutdown."""
    async with app.running():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://headrace") as client:
            yield client


class Server:
    """Runs requests against one application, as plain calls."""

    def __init__(self, settings: ServingSettings) -> None:
        self.settings = settings

    def __call__(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            async with serving(create_app(self.settings)) as client:
                return await client.request(method, path, **arguments)

        return anyio.run(run)

    def read(self, **body: Any) -> httpx.Response:
        return self("POST", "/get-online-features", json=body)


@pytest.fixture
def server(online: Online, tmp_path: Path) -> Server:
    settings = ServingSettings(home=tmp_path, project=online.definitions.project, redis_url=online.url)  # type: ignore[arg-type]
    save_applied(settings.registry_address(), online.definitions)
    return Server(settings)


LIVE = {"customer": ["ann", "nobody"], "shop": [1, 2], "price": [2.0, 1.0]}


def test_an_answer_has_feasts_shape_join_keys_first(online: Online, server: Server) -> None:
    online.add({"Order": ORDERS})
    response = server.read(feature_service="replay", entities={"customer": ["ann", "nobody"]})
    assert response.status_code == 200
    answer = response.json()
    names = ["customer", "orders_1h", "orders", "last_coupon", "least_coupon_24h", "used"]
    assert answer["metadata"] == {"feature_names": names}
    assert answer["results"][0] == {
        "values": ["ann", "nobody"],
        "statuses": ["PRESENT", "PRESENT"],
        "event_timestamps": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"],
    }
    assert answer["results"][2] == {
        "values": [4, 0],
        "statuses": ["PRESENT", "PRESENT"],
        "event_timestamps": ["2026-03-01T11:55:00Z", "1970-01-01T00:00:00Z"],
    }
    assert answer["results"][3]["values"] == ["AUTUMN", None]
    assert answer["results"][3]["statuses"] == ["PRESENT", "NULL_VALUE"]
    assert answer["headrace"]["instants"] == ["2026-03-01T11:55:00.000001Z"] * 2


def test_no_entities_are_an_empty_answer(online: Online, server: Server) -> None:
    online.advance()
    for customers in ([], [None]):
        answer = server.read(feature_service="replay", entities={"customer": customers}).json()
        assert [result["values"] for result in answer["results"]] == [customers, *([[None] * len(customers)] * 5)]


def test_doubles_are_never_written_as_integers(online: Online, server: Server) -> None:
    online.add({"Order": [order("ann", 5, 2.0)]})
    response = server.read(features=["spending:last_amount"], entities={"customer": ["ann"]})
    assert b'"values":[2.0]' in response.content


def test_full_names_derived_views_and_every_type(online: Online, server: Server) -> None:
    online.add({"Order": ORDERS})
    response = server.read(feature_service="live", entities=LIVE, full_feature_names=True, as_of=NOW.isoformat())
    answer = response.json()
    names = answer["metadata"]["feature_names"]
    value = {name: result["values"][0] for name, result in zip(names, answer["results"], strict=True)}
    assert value["ratio__of_mean"] == 2.0 / 6.125
    assert value["spending__last_paid"] is False
    assert value["spending__last_order"] == "2026-03-01T11:55:00Z"
    assert value["spending__items_24h"] == 11
    assert "price" not in names


def test_as_of_takes_iso_text_and_epoch_numbers(online: Online, server: Server) -> None:
    online.add({"Order": ORDERS})
    for as_of in (
        "2026-03-01T12:00:00",
        "2026-03-01T12:00:00Z",
        "2026-03-01T13:00:00+01:00",
        1772366400,
        1772366400000,
    ):
        response = server.read(features=["spending:orders_1h"], entities={"customer": ["ann"]}, as_of=as_of)
        assert response.json()["headrace"]["instants"] == ["2026-03-01T12:00:00Z"], as_of
    past = server.read(features=["spending:orders_1h"], entities={"customer": ["ann"]}, as_of="2026-01-01").json()
    assert past["results"][1]["statuses"] == ["INVALID"]
    assert "headrace train" in past["headrace"]["reasons"]["0"]


def test_explain_tells_where_each_value_came_from(online: Online, server: Server) -> None:
    online.add({"Order": ORDERS})
    response = server.read(
        feature_service="live", entities=LIVE, full_feature_names=True, as_of=NOW.isoformat(), explain=True
    )
    trails = {trail["feature"]: trail for trail in response.json()["explain"][0]["values"]}
    mean = trails["spending:amount_mean_24h"]
    assert mean["value"] == 6.125
    assert mean["window"] == {"start": "2026-02-28T12:00:00Z", "end": "2026-03-01T12:00:00Z"}
    assert (mean["tiles"], mean["events"], mean["exact"]) == (2, 2, True)
    assert mean["newest_event"] == mean["watermark"] == "2026-03-01T11:55:00Z"
    assert mean["lag_us"] == 300_000_000
    assert mean["offsets"] == [{"topic": "orders", "partition": 0, "offset": 6}]
    assert trails["spending:orders"]["window"]["start"] is None
    assert trails["ratio:of_mean"]["inputs"] == {"spending:amount_mean_24h": 6.125}
    assert trails["ratio:of_mean"]["request"] == {"price": 2.0}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 422, "the body is JSON"),
        (b"[]", 422, "the body is a JSON object; got list"),
        (b"{}", 422, 'a request has \\"entities\\"'),
        (b'{"entities": {"customer": ["a"]}}', 422, "a request names features"),
        (b'{"entities": {"customer": ["a"]}, "features": ["x:y"]}', 404, "no such feature view is applied"),
        (b'{"entities": {"customer": ["a"]}, "feature_service": "x"}', 404, "no such feature service"),
        (b'{"entities": {"customer": "a"}, "feature_service": "replay"}', 422, "each entity column is a list"),
        (b'{"entities": {"customer": [1]}, "feature_service": "replay"}', 422, "takes text"),
        (
            b'{"entities": {"customer": ["a"]}, "feature_service": "replay", "asof": 1}',
            422,
            "unknown field; got 'asof'",
        ),
        (b'{"entities": {"customer": ["a"]}, "feature_service": "replay", "as_of": "x"}', 422, "takes an instant"),
        (b'{"entities": {"customer": ["a"]}, "features": ["coupons:used", "visits:orders"]}', 422, "'shop'"),
        (
            b'{"entities": {"customer": ["a"], "shop": [1]}, "features": ["spending:orders", "visits:orders"]}',
            422,
            "full_feature_names",
        ),
    ],
)
def test_a_bad_request_is_answered_in_json(online: Online, server: Server, body: bytes, status: int, text: str) -> None:
    online.advance()
    response = server("POST", "/get-online-features", content=body)
    assert response.status_code == status
    assert text in response.text
    assert set(response.json()["error"]) == {"fact", "where", "got", "next"}


def test_before_its_state_is_there_a_view_is_not_ready(online: Online, server: Server) -> None:
    response = server.read(feature_service="replay", entities={"customer": ["ann"]})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "no checkpoint yet" in response.json()["error"]["fact"]
    ready = server("GET", "/ready")
    assert ready.status_code == 503
    assert "spending: 64 of 64 shards have no checkpoint yet" in ready.json()["error"]["got"]
    assert server("GET", "/health").status_code == 200
    online.advance()
    assert server("GET", "/ready").json() == {"status": "ready", "definitions_version": 1}


def test_without_redis_the_answer_is_503_within_the_timeout(online: Online, server: Server) -> None:
    here = server.settings
    gone = ServingSettings(home=here.home, project=here.project, redis_url="redis://127.0.0.1:1/0")  # type: ignore[arg-type]
    response = Server(gone).read(feature_service="replay", entities={"customer": ["ann"]})
    assert response.status_code == 503
    assert response.json()["error"]["fact"] == "Redis does not answer"


def test_each_bound_is_answered_with_what_it_is(online: Online, server: Server) -> None:
    online.advance()
    small = server.settings.model_copy(
        update={"entities_max": 10, "features_max": 2, "values_max": 10, "body_bytes_max": 500}
    )
    tight = Server(small)
    names = ["spending:orders", "spending:orders_1h", "coupons:used"]
    assert tight.read(features=names[:1], entities={"customer": ["a"] * 10}).status_code == 200
    entities = tight.read(features=names[:1], entities={"customer": ["a"] * 11})
    assert (entities.status_code, entities.json()["error"]["fact"]) == (422, "a request has at most 10 entities")
    features = tight.read(features=names, entities={"customer": ["a"]})
    assert (features.status_code, features.json()["error"]["fact"]) == (422, "a request has at most 2 features")
    service = tight.read(feature_service="replay", entities={"customer": ["a"]})
    assert (service.status_code, service.json()["error"]["got"]) == (422, "5")
    values = tight.read(features=names[:2], entities={"customer": ["a"] * 6})
    assert values.json()["error"]["fact"] == "a request has at most 10 values (entities × features)"
    body = tight.read(features=names[:1], entities={"customer": ["a" * 5000]})
    assert (body.status_code, body.json()["error"]["fact"]) == (413, "a body has at most 500 bytes")


def test_other_routes_answer_in_json_too(server: Server) -> None:
    assert server("GET", "/nosuch").json()["error"]["got"] == "/nosuch"
    wrong = server("GET", "/get-online-features")
    assert (wrong.status_code, wrong.json()["error"]["got"]) == (405, "GET")
    assert server("GET", "/openapi.json").json()["openapi"] == "3.1.0"


def test_metrics_count_answers_and_tell_percentiles(online: Online, server: Server) -> None:
    online.advance()

    async def run() -> str:
        async with serving(create_app(server.settings)) as client:
            for _ in range(10):
                await client.post(
                    "/get-online-features", json={"feature_service": "replay", "entities": {"customer": ["a", "b"]}}
                )
            return (await client.get("/metrics")).text

    text = anyio.run(run)
    assert 'headrace_serving_answers_total{route="/get-online-features",status="200"} 10.0' in text
    assert "headrace_serving_vectors_total 20.0" in text
    assert 'headrace_serving_seconds_percentile{quantile="0.99",route="/get-online-features"}' in text


def test_values_under_way_are_bounded(online: Online, server: Server) -> None:
    online.add({"Order": ORDERS})
    body = {"feature_service": "fresh", "entities": {"customer": ["ann"] * 60}}
    app = create_app(server.settings.model_copy(update={"values_at_once_max": 100}))

    async def run() -> list[int]:
        async with serving(app) as client:
            asked = [client.post("/get-online-features", json=body) for _ in range(3)]
            return [each.status_code for each in await asyncio.gather(*asked)]

    assert sorted(anyio.run(run)) == [200, 503, 503]
