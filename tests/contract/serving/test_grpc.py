"""Feast's gRPC service, asked with Feast's own generated stub."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigError
from serving.api import create_app
from serving.settings import ServingSettings
from tests.unit.serving.online import Online

grpc = pytest.importorskip("grpc")
pytest.importorskip("feast")

from feast.protos.feast.serving.GrpcServer_pb2 import PushRequest, WriteToOnlineStoreRequest  # noqa: E402
from feast.protos.feast.serving.GrpcServer_pb2_grpc import GrpcFeatureServerStub  # noqa: E402
from feast.protos.feast.serving.ServingService_pb2 import FeatureList, GetOnlineFeaturesRequest  # noqa: E402
from feast.protos.feast.types.Value_pb2 import DoubleList, RepeatedValue, Value  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402

Ask = Callable[[Callable[[Any, Any], Awaitable[Any]]], Any]


@pytest.fixture
def settings(online: Online, home: Path) -> ServingSettings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ServingSettings(
        home=home,
        project=online.definitions.project,
        redis_url=online.url,  # type: ignore[arg-type]
        serve_grpc_port=port,
        entities_max=3,
        concurrency_max=1,
    )


@pytest.fixture
def ask(settings: ServingSettings) -> Ask:
    """Runs some calls against a server of their own."""

    def run(calls: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def against() -> Any:
            async with (
                create_app(settings).running(),
                grpc.aio.insecure_channel(f"127.0.0.1:{settings.serve_grpc_port}") as channel,
            ):
                return await calls(GrpcFeatureServerStub(channel), channel)

        return asyncio.run(against())

    return run


def texts(*values: str) -> RepeatedValue:
    return RepeatedValue(val=[Value(string_val=value) for value in values])


ANN = {"customer": texts("ann", "nobody")}


def test_vectors_are_those_of_the_sdk(ask: Ask, store: Any) -> None:
    async def calls(stub: Any, channel: Any) -> Any:
        live = {
            **ANN,
            "shop": RepeatedValue(val=[Value(int64_val=1), Value(int64_val=2)]),
            "price": RepeatedValue(val=[Value(double_val=2.0), Value(double_val=1.0)]),
        }
        answer = await stub.GetOnlineFeatures(
            GetOnlineFeaturesRequest(feature_service="live", entities=live, full_feature_names=True)
        )
        named = await stub.GetOnlineFeatures(
            GetOnlineFeaturesRequest(features=FeatureList(val=["spending:orders"]), entities=ANN)
        )
        healthy = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        return answer, named, healthy

    answer, named, healthy = ask(calls)
    rows = [{"customer": "ann", "shop": 1, "price": 2.0}, {"customer": "nobody", "shop": 2, "price": 1.0}]
    service = store.get_feature_service("live")
    expected = store.get_online_features(features=service, entity_rows=rows, full_feature_names=True).proto
    assert answer.metadata == expected.metadata
    assert list(answer.results) == list(expected.results)
    assert [value.int64_val for value in named.results[1].values] == [4, 0]
    assert healthy.status == health_pb2.HealthCheckResponse.SERVING


def test_errors_are_statuses_with_the_fact_and_the_next_step(ask: Ask) -> None:
    bad = {
        "NOT_FOUND": [
            GetOnlineFeaturesRequest(feature_service="liv", entities=ANN),
            GetOnlineFeaturesRequest(features=FeatureList(val=["spending:nosuch"]), entities=ANN),
        ],
        "INVALID_ARGUMENT": [
            GetOnlineFeaturesRequest(entities=ANN),
            GetOnlineFeaturesRequest(feature_service="fresh", entities={"customr": texts("ann")}),
            GetOnlineFeaturesRequest(feature_service="fresh", entities={"customer": texts(*"abcd")}),
            GetOnlineFeaturesRequest(
                feature_service="fresh", entities={"customer": RepeatedValue(val=[Value(int64_val=7)])}
            ),
        ],
    }

    async def calls(stub: Any, channel: Any) -> list[tuple[str, str, str]]:
        seen = []
        for code, requests in bad.items():
            for request in requests:
                with pytest.raises(grpc.RpcError) as caught:
                    await stub.GetOnlineFeatures(request)
                seen.append((code, caught.value.code().name, caught.value.details()))
        return seen

    seen = ask(calls)
    assert [(wanted, code) for wanted, code, _ in seen] == [(wanted, wanted) for wanted, _, _ in seen]
    assert seen[0][2] == "no such feature service is applied; got 'liv'; did you mean 'live'?"
    assert "split it into several" in seen[4][2]


def test_more_reads_than_it_takes_are_refused_at_once(ask: Ask) -> None:
    request = GetOnlineFeaturesRequest(feature_service="fresh", entities=ANN)

    async def calls(stub: Any, channel: Any) -> list[Any]:
        return list(await asyncio.gather(*(stub.GetOnlineFeatures(request) for _ in range(20)), return_exceptions=True))

    answers = ask(calls)
    refused = [answer for answer in answers if isinstance(answer, grpc.RpcError)]
    assert 0 < len(refused) < 20
    assert {error.code().name for error in refused} == {"RESOURCE_EXHAUSTED"}
    assert dict(refused[0].trailing_metadata())["retry-after"] == "1"


def test_rows_of_plain_views_are_pushed_and_written(ask: Ask, store: Any, drivers: Any) -> None:
    row = {
        "driver_id": Value(int64_val=41),
        "rating": Value(double_val=4.5),
        "trips": Value(int64_val=3),
        "city": Value(string_val="Graz"),
        "scores": Value(double_list_val=DoubleList(val=[1.5])),
        "since": Value(unix_timestamp_val=1_577_836_800),
        "at": Value(unix_timestamp_val=int(datetime.now(UTC).timestamp())),
    }
    read = GetOnlineFeaturesRequest(
        features=FeatureList(val=["drivers:city"]), entities={"driver_id": RepeatedValue(val=[Value(int64_val=41)])}
    )

    async def calls(stub: Any, channel: Any) -> list[str]:
        pushed = await stub.Push(PushRequest(stream_feature_view="drivers_push", typed_features=row, to="online"))
        assert pushed.status
        first = await stub.GetOnlineFeatures(read)
        row["city"] = Value(string_val="Linz")
        written = await stub.WriteToOnlineStore(
            WriteToOnlineStoreRequest(feature_view_name="drivers", typed_features=row)
        )
        assert written.status
        second = await stub.GetOnlineFeatures(read)
        with pytest.raises(grpc.RpcError) as caught:
            await stub.WriteToOnlineStore(
                WriteToOnlineStoreRequest(feature_view_name="spending", typed_features={"orders": Value(int64_val=1)})
            )
        assert "produce an event to orders" in caught.value.details()
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Push(PushRequest(stream_feature_view="nosuch", typed_features=row))
        assert caught.value.code().name == "NOT_FOUND"
        return [answer.results[1].values[0].string_val for answer in (first, second)]

    assert ask(calls) == ["Graz", "Linz"]


def test_a_port_that_is_taken_is_said(settings: ServingSettings) -> None:
    async def run() -> None:
        async with create_app(settings).running():
            raise AssertionError("it must not start")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.serve_grpc_port or 0))
        taken.listen()
        with pytest.raises(ConfigError, match="--grpc-port"):
            asyncio.run(run())
