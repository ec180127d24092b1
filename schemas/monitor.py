"""What a long-running process shows on call: /metrics, /health and /ready, on a port of its own."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from schemas.errors import ConfigError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_TIMEOUT_S = 5.0
"""For a request to arrive: a connection that says nothing does not hold a thread."""


class Shown(Protocol):
    """What the process says of itself, from any thread."""

    def metrics(self) -> bytes:
        """In Prometheus' text format."""

    def why_not_ready(self) -> str:
        """The reason; empty where it is ready."""


class Monitor:
    """Serves what `shown` says. Raises ConfigError where the port can't be had; `port` tells which it is.

    Not healthy is who has not called `alive` for `silent_s`: it hangs.
    """

    def __init__(self, host: str, port: int, shown: Shown, *, silent_s: float) -> None:
        self._shown = shown
        self._silent_s = silent_s
        self._at = time.monotonic()
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(self))
        except OSError as error:
            raise ConfigError(
                "the metrics' port can't be had", where=f"{host}:{port}", got=str(error), hint="name another one, or 0"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="monitor", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def alive(self) -> None:
        """The process goes on."""
        self._at = time.monotonic()

    def close(self) -> None:
        """Serves no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a GET."""
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._shown.metrics()
        silent_s = time.monotonic() - self._at
        healthy = silent_s < self._silent_s
        if path == "/health":
            return _json(healthy, {"healthy": healthy, "silent_s": round(silent_s, 1)})
        if path == "/ready":
            why = self._shown.why_not_ready() if healthy else f"it has said nothing for {silent_s:.0f} s"
            return _json(not why, {"ready": not why, "why": why})
        return 404, "application/json", b'{"error": "there are /metrics, /health and /ready"}'


def _json(good: bool, body: dict[str, object]) -> tuple[int, str, bytes]:
    return 200 if good else 503, "application/json", json.dumps(body).encode()


def _handler(monitor: Monitor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            status, content_type, body = monitor.answer(self.path.split("?", 1)[0])
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            """Scrapes are no news."""

    return Handler
