"""Feast's gRPC service, as `feast listen` has it: the same messages over the same reads as HTTP.

A request that can't be answered gets a status with the fact and the next step as its details; one that may be asked
again says when, in the trailing metadata `retry-after`. Importing this takes seconds: Feast's messages come with Feast.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import grpc
from feast.protos.feast.serving.GrpcServer_pb2 import (
    PushRequest,
    PushResponse,
    WriteToOnlineStoreRequest,
    WriteToOnlineStoreResponse,
)
from feast.protos.feast.serving.GrpcServer_pb2_grpc import (
    GrpcFeatureServerServicer,
    add_GrpcFeatureServerServicer_to_server,
)
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesRequest, GetOnlineFeaturesResponse
from grpc_health.v1 import health, health_pb2_grpc

from schemas.errors import ConfigError, HeadraceError, NotFound, NotReady, Overloaded, RequestError, TooLarge
from serving.answers import RETRY_AFTER_S
from serving.api import App
from serving.body import Wanted, asked, check_entities
from serving.feast.online import answer_proto, entity_columns
from serving.feast.values import from_proto

Code = grpc.StatusCode
Context: TypeAlias = grpc.aio.ServicerContext
_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

CODES: tuple[tuple[type[HeadraceError], grpc.StatusCode], ...] = (
    (NotFound, Code.NOT_FOUND),
    (TooLarge, Code.RESOURCE_EXHAUSTED),
    (RequestError, Code.INVALID_ARGUMENT),
    (Overloaded, Code.RESOURCE_EXHAUSTED),
    (NotReady, Code.UNAVAILABLE),
    (ConfigError, Code.FAILED_PRECONDITION),
)
"""The status of each kind of error; the first that fits. Everything else is INTERNAL."""
PASSING = (Overloaded, NotReady)
_LOGGER = logging.getLogger(__name__)


async def listen(app: App) -> grpc.aio.Server:
    """Serves the application's reads and writes on its gRPC port. Raises ConfigError where the port is taken."""
    settings = app.settings
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.body_bytes_max),
            ("grpc.max_send_message_length", -1),
            # The worker processes share the port, as they share that of HTTP.
            ("grpc.so_reuseport", int(settings.serve_workers > 1)),
        ]
    )
    add_GrpcFeatureServerServicer_to_server(FeatureServer(app), server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    host = f"[{settings.serve_host}]" if ":" in settings.serve_host else settings.serve_host
    try:
        server.add_insecure_port(f"{host}:{settings.serve_grpc_port}")
    except RuntimeError as error:
        raise ConfigError(
            "the server can't listen for gRPC there",
            where=f"{host}:{settings.serve_grpc_port}",
            got=str(error),
            hint="stop what listens there, or name another one with --grpc-port",
        ) from None
    await server.start()
    return server


class FeatureServer(GrpcFeatureServerServicer):
    """The service's three calls."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def GetOnlineFeatures(  # noqa: N802
        self, request: GetOnlineFeaturesRequest, context: Context
    ) -> GetOnlineFeaturesResponse:
        return await self._answered("GetOnlineFeatures", self._read, request, context)

    async def Push(  # noqa: N802
        self, request: PushRequest, context: Context
    ) -> PushResponse:
        return await self._answered("Push", self._push, request, context)

    async def WriteToOnlineStore(  # noqa: N802
        self, request: WriteToOnlineStoreRequest, context: Context
    ) -> WriteToOnlineStoreResponse:
        return await self._answered("WriteToOnlineStore", self._write, request, context)

    async def _read(self, request: GetOnlineFeaturesRequest) -> GetOnlineFeaturesResponse:
        app = self._app
        app.begin_read()
        try:
            # A map has no order, so that join keys stand in the answer by their names.
            columns = entity_columns(dict(sorted({**request.entities, **request.request_context}.items())))
            check_entities(columns, app.settings)
            what = asked(request.feature_service, list(request.features.val), app.settings)
            versions = bool(request.include_feature_view_version_metadata)
            wanted = Wanted(what, columns, request.full_feature_names, versions, None, False)
            found = await app.reading(wanted)
            if found is not None:
                vectors = await app.vectors(*found, wanted)
                return answer_proto(vectors, wanted.full_feature_names, versions)
            backend = await app.plain.backend()
            return await asyncio.to_thread(backend.read, what, columns, wanted.full_feature_names, versions)
        finally:
            app.end_read()

    async def _push(self, request: PushRequest) -> PushResponse:
        await self._written(
            "/push",
            {
                "push_source_name": request.stream_feature_view,
                "df": _row(request.features, request.typed_features),
                "allow_registry_cache": request.allow_registry_cache,
                "to": request.to or "online",
            },
        )
        return PushResponse(status=True)

    async def _write(self, request: WriteToOnlineStoreRequest) -> WriteToOnlineStoreResponse:
        await self._written(
            "/write-to-online-store",
            {
                "feature_view_name": request.feature_view_name,
                "df": _row(request.features, request.typed_features),
                "allow_registry_cache": request.allow_registry_cache,
            },
        )
        return WriteToOnlineStoreResponse(status=True)

    async def _written(self, route: str, request: dict[str, Any]) -> None:
        self._app.begin_write()
        try:
            await self._app.plain.write(route, request, {}, self._app.definitions)
        finally:
            self._app.end_write()

    async def _answered(
        self, call: str, answer: Callable[[_Request], Awaitable[_Answer]], request: _Request, context: Context
    ) -> _Answer:
        """The call's answer, counted as HTTP's are; an error ends it with a status."""
        route, metrics = f"/GrpcFeatureServer/{call}", self._app.metrics
        started = time.perf_counter()
        code = Code.OK
        try:
            return await answer(request)
        except HeadraceError as error:
            code = next((code for kind, code in CODES if isinstance(error, kind)), Code.INTERNAL)
            after = (("retry-after", str(RETRY_AFTER_S)),) if isinstance(error, PASSING) else ()
            details = str(error)
        except Exception as error:
            _LOGGER.exception("%s failed", route)
            code, after = Code.INTERNAL, ()
            details = f"the server failed; got {type(error).__name__}; the traceback is in its log, please report it"
        finally:
            metrics.seconds.labels(route).observe(time.perf_counter() - started)
            metrics.answers.labels(route, code.name).inc()
        await context.abort(code, details, after)
        raise AssertionError("abort raises")


def _row(texts: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The one row that a message writes. Raises RequestError where it has both texts and values."""
    if texts and values:
        raise RequestError(
            "a message has features or typed_features", got="both", hint="typed_features keeps numbers numbers"
        )
    return {name: [value] for name, value in texts.items()} | {
        name: [from_proto(value)] for name, value in values.items()
    }
