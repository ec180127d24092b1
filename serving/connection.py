"""Connections to Redis for reads: one for asyncio, one for plain threads. Both reconnect by themselves.

    replies = await AsyncRedis(address, …).ask(payload, count)     # payload: commands as bytes; count: replies expected

Requests on one connection are pipelined: replies come in the order of the questions, so a future a request is enough.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import cast

import hiredis

from schemas.errors import NotReady
from serving.resp import Address, Reply, checked, unreachable

RECEIVE_BYTES = 1 << 17
"""What is received at a time: a buffer that stays in the processor's cache is copied from fastest (measured)."""

LOOK_S = 0.02
"""How long an event loop that was busy gets to read what has come: it polls its sockets once before the timer fires."""
TURNS_MAX = 10


class _Pipeline(asyncio.BufferedProtocol):
    """One open connection. What is received lands in one buffer, and hiredis copies it from there."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._buffer = bytearray(RECEIVE_BYTES)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[asyncio.Future[list[Reply]], int]] = deque()
        self._replies: list[Reply] = []
        self.open = False
        self.heard = 0
        """How often something was received."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += 1
        reader, replies, waiting = self._reader, self._replies, self._waiting
        reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # any buffer will do
        while True:
            try:
                reply = reader.gets()
            except hiredis.ProtocolError as error:
                self.close(error)
                return
            if reply is Ellipsis:
                return
            replies.append(reply)
            if waiting and len(replies) == waiting[0][1]:
                future = waiting.popleft()[0]
                if not future.done():
                    future.set_result(replies)
                replies = self._replies = []

    def connection_lost(self, error: Exception | None) -> None:
        self.close(error or ConnectionResetError("the connection was closed"))

    def ask(self, payload: bytes, count: int) -> asyncio.Future[list[Reply]]:
        assert self._transport is not None
        future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, count))
        self._transport.write(payload)
        return future

    def close(self, error: Exception) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            future = self._waiting.popleft()[0]
            if not future.done():
                future.set_exception(error)


class _Watch:
    """Ends a connection that was silent for `timeout_s` while a question waited.

    Only Redis's silence counts: where this process was too busy to read, what has come is read first, and while replies
    to earlier questions arrive a question waits its turn, for at most TURNS_MAX times as long.
    """

    def __init__(self, pipeline: _Pipeline, timeout_s: float) -> None:
        self._pipeline = pipeline
        self._timeout_s = timeout_s
        self._heard = pipeline.heard
        self._turns = 0
        self._looked = False
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._over)

    def cancel(self) -> None:
        """The question is answered."""
        self._timer.cancel()

    def _over(self) -> None:
        loop = asyncio.get_running_loop()
        if self._pipeline.heard != self._heard and self._turns < TURNS_MAX:
            self._heard, self._turns, self._looked = self._pipeline.heard, self._turns + 1, False
            self._timer = loop.call_later(self._timeout_s, self._over)
        elif not self._looked:
            self._looked = True
            self._timer = loop.call_later(LOOK_S, self._over)
        else:
            self._pipeline.close(TimeoutError(f"silent for {self._timeout_s} s"))


class AsyncRedis:
    """One pipelined connection, opened at the first question and again after a failure; for one event loop.

    Where Redis is silent for `timeout_s` while a question waits, that raises NotReady, and so does everything else on
    the connection: a reply that comes too late would answer the next question.
    """

    def __init__(self, address: Address, *, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._pipeline: _Pipeline | None = None
        self._opening: asyncio.Task[_Pipeline] | None = None

    async def ask(self, payload: bytes, count: int) -> list[Reply]:
        """`count` replies to the commands in `payload`. Raises NotReady or DataError."""
        return checked(await self.exchange(payload, count), self.address)

    async def exchange(self, payload: bytes, count: int) -> list[Reply]:
        """The same with error replies among the others. Raises NotReady where Redis is away."""
        pipeline = self._pipeline
        watch: _Watch | None = None
        try:
            if pipeline is None or not pipeline.open:
                pipeline = await self._connected()
            future = pipeline.ask(payload, count)
            watch = _Watch(pipeline, self._timeout_s)
            return await future
        except (OSError, hiredis.ProtocolError) as error:
            raise unreachable(self.address, error) from error
        finally:
            if watch is not None:
                watch.cancel()

    async def close(self) -> None:
        """Ends the connection; questions under way raise NotReady."""
        if self._pipeline is not None:
            self._pipeline.close(ConnectionAbortedError("the connection is being closed"))
            self._pipeline = None

    async def _connected(self) -> _Pipeline:
        # One attempt for all questions that wait, and a cancelled question does not cancel the others' attempt.
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._connect())
        return await asyncio.shield(self._opening)

    async def _connect(self) -> _Pipeline:
        if self._pipeline is not None and self._pipeline.open:
            return self._pipeline
        loop = asyncio.get_running_loop()
        address = self.address
        async with asyncio.timeout(self._timeout_s):
            if address.path is not None:
                _, pipeline = await loop.create_unix_connection(_Pipeline, address.path)
            else:
                context = address.ssl_context()
                _, pipeline = await loop.create_connection(_Pipeline, address.host, address.port, ssl=context)
            greeting = address.greeting()
            if greeting:
                checked(await pipeline.ask(b"".join(greeting), len(greeting)), address)
        self._pipeline = pipeline
        return pipeline


class Redis:
    """One connection for plain code; questions of several threads take turns."""

    def __init__(self, address: Address, *, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._lock = threading.Lock()

    def ask(self, payload: bytes, count: int) -> list[Reply]:
        """`count` replies to the commands in `payload`. Raises NotReady or DataError."""
        return checked(self.exchange(payload, count), self.address)

    def exchange(self, payload: bytes, count: int) -> list[Reply]:
        """The same with error replies among the others. Raises NotReady where Redis is away."""
        with self._lock:
            # A connection that idled may have been closed by the other side: that is found out by one more try.
            fresh = self._socket is None
            try:
                return self._exchange(payload, count)
            except (OSError, hiredis.ProtocolError) as error:
                self._drop()
                if fresh or isinstance(error, TimeoutError):
                    raise unreachable(self.address, error) from error
            try:
                return self._exchange(payload, count)
            except (OSError, hiredis.ProtocolError) as error:
                self._drop()
                raise unreachable(self.address, error) from error

    def together(self, keys: Sequence[bytes]) -> list[list[int]]:
        """The places of the keys that one command may name together: all of them; of a Cluster those of one slot."""
        return [list(range(len(keys)))]

    def masters(self) -> list[Redis]:
        """What has keys of its own: this one; of a Cluster each master."""
        return [self]

    def close(self) -> None:
        """Ends the connection; the next question opens another."""
        with self._lock:
            self._drop()

    def _exchange(self, payload: bytes, count: int) -> list[Reply]:
        if self._socket is None:
            self._socket = self._connect()
        self._socket.sendall(payload)
        return self._receive(self._socket, count)

    def _receive(self, connection: socket.socket, count: int) -> list[Reply]:
        replies: list[Reply] = []
        while len(replies) < count:
            reply = self._reader.gets()
            if reply is Ellipsis:
                data = connection.recv(RECEIVE_BYTES)
                if not data:
                    raise ConnectionResetError("the connection was closed")
                self._reader.feed(data)
            else:
                replies.append(reply)
        return replies

    def _connect(self) -> socket.socket:
        address = self.address
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        if address.path is not None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(self._timeout_s)
            connection.connect(address.path)
        else:
            connection = socket.create_connection((address.host, address.port), self._timeout_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = address.ssl_context()
            if context is not None:
                connection = context.wrap_socket(connection, server_hostname=address.host)
        greeting = address.greeting()
        try:
            if greeting:
                connection.sendall(b"".join(greeting))
                checked(self._receive(connection, len(greeting)), address)
        except (OSError, NotReady):
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
