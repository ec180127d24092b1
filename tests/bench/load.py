"""Load on an HTTP server from this process: closed loop over some connections, or at a fixed rate of arrivals.

    python -m tests.bench.load URL BODY_FILE closed CONNECTIONS SECONDS
    python -m tests.bench.load URL BODY_FILE open RATE SECONDS

Prints JSON: requests a second, latency percentiles in ms, answers by status. At a fixed rate a request's latency counts
from the moment at which it was due, so that a server that falls behind can't hide it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

CONNECTIONS_OPEN = 64


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way; answers need a content-length."""

    def __init__(self, request: bytes, run: Run) -> None:
        self._request = request
        self._run = run
        self._buffer = bytearray()
        self._need = -1
        self._status = 0
        self._due = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, due: float) -> None:
        self._due = due
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if self._need < 0:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(buffer[:end]).lower()
            self._status = int(head[9:12])
            at = head.index(b"content-length:") + 15
            stop = head.find(b"\r\n", at)
            self._need = end + 4 + int(head[at : stop if stop > 0 else None])
        if len(buffer) >= self._need:
            del buffer[: self._need]
            self._need = -1
            self._run.answered(self, self._status, time.perf_counter() - self._due)

    def connection_lost(self, error: Exception | None) -> None:
        self._run.lost(self)


class Run:
    """Counts, and says what comes next on a connection."""

    def __init__(self, closed: bool) -> None:
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.idle: deque[Connection] = deque()
        self.waiting: deque[float] = deque()
        self.closed = closed
        self.stopped = False
        self.broken = 0

    def answered(self, connection: Connection, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        self.latencies.append(seconds)
        if self.closed:
            if not self.stopped:
                connection.send(time.perf_counter())
        elif self.waiting:
            connection.send(self.waiting.popleft())
        else:
            self.idle.append(connection)

    def lost(self, connection: Connection) -> None:
        if not self.stopped:
            self.broken += 1


async def load(url: str, body: bytes, mode: str, amount: float, seconds: float) -> dict[str, Any]:
    parts = urlsplit(url)
    request = (
        f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    closed = mode == "closed"
    run = Run(closed)
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(int(amount) if closed else CONNECTIONS_OPEN):
        _, connection = await loop.create_connection(lambda: Connection(request, run), parts.hostname, parts.port)
        connections.append(connection)
    started = time.perf_counter()
    if closed:
        for connection in connections:
            connection.send(started)
        await asyncio.sleep(seconds)
    else:
        run.idle.extend(connections)
        sent = 0
        while (now := time.perf_counter()) < started + seconds:
            while started + sent / amount <= now:
                due = started + sent / amount
                sent += 1
                if run.idle:
                    run.idle.popleft().send(due)
                else:
                    run.waiting.append(due)
            await asyncio.sleep(0.0002)
    took = time.perf_counter() - started
    run.stopped = True
    latencies = sorted(run.latencies)
    if not latencies:
        return {"rate": 0.0, "statuses": {}, "broken": run.broken}
    at = {
        q: round(latencies[min(len(latencies) - 1, int(len(latencies) * q))] * 1e3, 3) for q in (0.5, 0.9, 0.99, 0.999)
    }
    return {
        "rate": round(len(latencies) / took, 1),
        "ms": {f"p{q * 100:g}": value for q, value in at.items()},
        "statuses": {str(status): count for status, count in sorted(run.statuses.items())},
        "broken": run.broken,
        "late": len(run.waiting),
    }


if __name__ == "__main__":
    _, where, file, how, much, long = sys.argv
    print(json.dumps(uvloop.run(load(where, Path(file).read_bytes(), how, float(much), float(long)))))
