"""The HTTP server: Feast's routes for features, and what an operator asks.

    POST /get-online-features                                          Feast's, and `as_of`, `explain`
    POST /push  /write-to-online-store  /materialize  /materialize-incremental     Feast's, for plain Feast views
    GET  /health  /ready  /metrics  /openapi.json

Reads are answered by the ASGI application itself, everything else by Starlette behind it: a router, middleware and
response objects would cost a read of one entity as much as all the rest of it.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import pyarrow as pa
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from features.plan import Definitions
from schemas.errors import ConfigError, HeadraceError, NotFound, NotReady, Overloaded, RequestError
from serving.answers import Answer, error_answer, internal_answer, json_answer
from serving.applied import Applied, nothing_applied
from serving.assemble import answer_json
from serving.body import Disconnected, Wanted, check_values, json_object, parse, read_body
from serving.cluster import open_async
from serving.explain import explain
from serving.few import few_of
from serving.metrics import Metrics
from serving.openapi import document
from serving.plain import Plain
from serving.read import AsyncReader, Derive, named
from serving.reading import Reading
from serving.ready import not_ready_reasons
from serving.served_log import Log, ServedLog
from serving.settings import ServingSettings
from serving.vectors import Vectors


class GrpcServer(Protocol):
    """What listens for gRPC, `serving/feast/grpc.py`."""

    async def stop(self, grace: float | None) -> None: ...


READ = "/get-online-features"
WRITES = ("/push", "/write-to-online-store", "/materialize", "/materialize-incremental")
_LOGGER = logging.getLogger(__name__)


def create_app(settings: ServingSettings, log: Log | None = None) -> App:
    """An ASGI application over what is applied in `settings.home`. `log` takes the served vectors; None: no log."""
    return App(settings, log)


class App:
    """One process's server. `reader` is replaced whole when other definitions are applied."""

    def __init__(self, settings: ServingSettings, log: Log | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.redis = open_async(settings.redis_address(), timeout_s=settings.redis_timeout_s)
        self.reader: AsyncReader | None = None
        self.applied = Applied(settings, self._take)
        self.plain = Plain(settings)
        self._derive = Derive()
        self._log = log
        self._served: ServedLog | None = None
        self._reads = 0
        self._values = 0
        self._writes = 0
        self._seconds = self.metrics.seconds.labels(READ)
        self._answers = {status: self.metrics.answers.labels(READ, str(status)) for status in (200, 404, 422, 503)}
        self._rest = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/ready", self._ready),
                Route("/metrics", self._metrics),
                Route("/openapi.json", self._openapi),
                *(Route(path, self._write, methods=["POST"]) for path in WRITES),
                # Only for other methods: a POST is answered before Starlette sees it.
                Route(READ, self._openapi, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _http_error},
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == READ and scope["method"] == "POST":
            await self._answer_read(scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    async def _answer_read(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        try:
            self.begin_read()
        except Overloaded as error:
            answer = error_answer(error)
        else:
            try:
                body = await read_body(scope["headers"], receive, self.settings.body_bytes_max)
                answer = await self._read(parse(body, self.settings))
            except HeadraceError as error:
                answer = error_answer(error)
            except Disconnected:
                return
            except Exception as error:
                _LOGGER.exception("a read failed")
                answer = internal_answer(error)
            finally:
                self.end_read()
        self._count(answer.status, time.perf_counter() - started)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.asgi_headers()})
        await send({"type": "http.response.body", "body": answer.body})

    def begin_read(self) -> None:
        """Takes one of the reads that this worker has under way at once. Raises Overloaded."""
        if self._reads >= self.settings.concurrency_max:
            self.metrics.shed.labels("concurrency").inc()
            raise Overloaded(
                f"this worker has {self._reads} reads under way, as many as it takes",
                hint="ask again after Retry-After, or start more workers",
            )
        self._reads += 1

    def end_read(self) -> None:
        """Gives it back."""
        self._reads -= 1

    def begin_write(self) -> None:
        """The same for writes."""
        if self._writes >= self.settings.writes_max:
            self.metrics.shed.labels("writes").inc()
            raise Overloaded(
                f"this worker has {self._writes} writes under way, as many as it takes", hint="ask again in a second"
            )
        self._writes += 1

    def end_write(self) -> None:
        """Gives it back."""
        self._writes -= 1

    @property
    def definitions(self) -> Definitions | None:
        """What is served; None: nothing was applied."""
        return None if self.reader is None else self.reader.readings.definitions

    async def reading(self, wanted: Wanted) -> tuple[AsyncReader, Reading] | None:
        """What a request reads and by which reader; None: its views are Feast's own. Raises NotFound, RequestError."""
        reader = self.reader
        if reader is None:
            raise nothing_applied(self.settings.project)
        try:
            reading = reader.readings.of(named(wanted.what))
        except NotFound as error:
            feasts = wanted.as_of_us is None and not wanted.explain and not _is_own(reader, wanted.what)
            if feasts and await self.plain.knows(wanted.what):
                return None
            raise error from None
        check_values(max(map(len, wanted.entities.values()), default=0), len(reading.outputs), self.settings)
        if not wanted.full_feature_names:
            reading.short_names  # noqa: B018 (refuses names that are not unique, before Redis is asked)
        return reader, reading

    async def vectors(self, reader: AsyncReader, reading: Reading, wanted: Wanted) -> Vectors:
        """The vectors that a request asks for, counted and offered to the log. Raises Overloaded."""
        values = max(map(len, wanted.entities.values()), default=0) * len(reading.outputs)
        if self._values and self._values + values > self.settings.values_at_once_max:
            self.metrics.shed.labels("values").inc()
            raise Overloaded(
                f"this worker has reads of {self._values:,} values under way, and takes "
                f"{self.settings.values_at_once_max:,} at once",
                got=f"{values:,} more",
                hint="ask again after Retry-After, or start more workers",
            )
        self._values += values
        try:
            vectors = await reader.read(wanted.what, wanted.entities, as_of_us=wanted.as_of_us)
        finally:
            self._values -= values
        self.metrics.vectors.inc(vectors.count)
        self.metrics.values.inc(vectors.count * len(vectors.columns))
        if self._served is not None:
            self._served.offer(reader.readings.definitions, vectors)
        return vectors

    async def _read(self, wanted: Wanted) -> Answer:
        found = await self.reading(wanted)
        if found is None:
            return await self._plain_read(wanted)
        reader, reading = found
        few = few_of(reading)
        if few is not None and wanted.as_of_us is None and not wanted.explain and not wanted.versions:
            question = few.question(wanted.entities)
            if question is not None and (
                self._served is None or not self._served.wants(reading, question.entities, question.size)
            ):
                replies = await self.redis.ask(question.payload, 1)
                self.metrics.vectors.inc(question.size)
                self.metrics.values.inc(question.size * len(reading.outputs))
                return Answer(200, few.answer(question, replies, wanted.full_feature_names))
        vectors = await self.vectors(reader, reading, wanted)
        more = {"explain": explain(vectors)} if wanted.explain else None
        return Answer(200, answer_json(vectors, wanted.full_feature_names, more, versions=wanted.versions))

    async def _plain_read(self, wanted: Wanted) -> Answer:
        answer = await self.plain.read(
            wanted.what, wanted.entities, wanted.full_feature_names, versions=wanted.versions
        )
        return json_answer(answer)

    def _count(self, status: int, seconds: float) -> None:
        self._seconds.observe(seconds)
        counter = self._answers.get(status)
        if counter is None:
            counter = self._answers[status] = self.metrics.answers.labels(READ, str(status))
        counter.inc()

    def _take(self, definitions: Definitions, version: int) -> None:
        # Its statements are those of these definitions: the old ones go with the reader that they belong to.
        self._derive = Derive()
        reader = AsyncReader(self.redis, definitions, self._derive)
        for service in definitions.services:
            reader.readings.of(service)
        # One assignment: a read under way keeps the reader that it began with.
        self.reader = reader
        self.metrics.definitions.set(version)
        _LOGGER.info("serving version %d of project %s", version, definitions.project)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self.running():
            yield

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From start-up to shutdown: follows what is applied, and logs what is served to the last vector."""
        await asyncio.to_thread(_import_pandas)
        with suppress(HeadraceError):
            await self.applied.refresh()
        tasks = [asyncio.create_task(self.applied.follow())]
        if self._log is not None:
            self._served = ServedLog(self._log, self.metrics, self.settings.served_buffer_max)
            tasks.append(asyncio.create_task(self._served.run()))
        grpc = await self._listen() if self.settings.serve_grpc_port is not None else None
        try:
            yield
        finally:
            if grpc is not None:
                await grpc.stop(self.settings.shutdown_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.redis.close()
            self._derive.close()

    async def _listen(self) -> GrpcServer:
        """Feast's gRPC service beside HTTP. Raises ConfigError where its packages are not installed."""
        try:
            listen = (await asyncio.to_thread(importlib.import_module, "serving.feast.grpc")).listen
        except ImportError as error:
            raise ConfigError(
                "gRPC needs Feast's messages and grpcio", got=str(error), hint="pip install 'headrace[grpc]'"
            ) from error
        server: GrpcServer = await listen(self)
        return server

    async def _health(self, request: Request) -> Response:
        return _response(json_answer({"status": "ok"}))

    async def _ready(self, request: Request) -> Response:
        reader = self.reader
        try:
            if reader is None:
                raise nothing_applied(self.settings.project)
            reasons = await not_ready_reasons(self.redis, reader.readings.definitions, self.settings.ready_lag_s)
        except HeadraceError as error:
            reasons = [str(error)]
        if reasons:
            trouble = NotReady("the server is not ready", got="; ".join(reasons), hint="see `headrace status`")
            return _response(error_answer(trouble))
        return _response(json_answer({"status": "ready", "definitions_version": self.applied.version}))

    async def _metrics(self, request: Request) -> Response:
        self.metrics.under_way.set(self._reads)
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _openapi(self, request: Request) -> Response:
        return _response(json_answer(document(self.definitions)))

    async def _write(self, request: Request) -> Response:
        started = time.perf_counter()
        path = request.url.path
        try:
            self.begin_write()
        except Overloaded as error:
            answer = error_answer(error, 429)
        else:
            try:
                body = await read_body(list(request.scope["headers"]), request.receive, self.settings.body_bytes_max)
                written = json_object(body)
                answer = json_answer(
                    await self.plain.write(path, written, dict(request.query_params), self.definitions)
                )
            except HeadraceError as error:
                answer = error_answer(error)
            except Disconnected:
                answer = error_answer(RequestError("the client went away", hint="send the whole body"), 400)
            except Exception as error:
                _LOGGER.exception("%s failed", path)
                answer = internal_answer(error)
            finally:
                self.end_write()
        self.metrics.seconds.labels(path).observe(time.perf_counter() - started)
        self.metrics.answers.labels(path, str(answer.status)).inc()
        return _response(answer)


def _is_own(reader: AsyncReader, what: str | list[str]) -> bool:
    """True where all views of a question are headrace's: Feast, which lists them too, could not say more of them."""
    definitions = reader.readings.definitions
    if isinstance(what, str):
        return what in definitions.services
    views = {reference.partition(":")[0] for reference in what}
    return all(view in definitions.views or view in definitions.derived for view in views)


def _import_pandas() -> None:
    # Arrow imports pandas (it takes a second) with the first list that it is given: not in the first request.
    pa.array([None], pa.string())


def _response(answer: Answer) -> Response:
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers, media_type=answer.content_type.decode())


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        trouble: HeadraceError = RequestError(
            f"{path} has no such method", got=request.method, hint="see /openapi.json"
        )
    else:
        trouble = NotFound("no such route", got=path, hint="see /openapi.json")
    answer = error_answer(trouble, error.status_code)
    response = _response(answer)
    response.headers.update(error.headers or {})
    return response
