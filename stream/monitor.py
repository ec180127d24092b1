"""What a worker shows on call: /metrics for Prometheus, /health and /ready, on a port of its own."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.errors import ConfigError
from stream.enrich import LATE_COUNTS, WRITTEN
from stream.report import WorkerReport
from stream.settings import StreamSettings

SILENT_S = 60.0
"""A worker that has reported nothing for so long hangs: it reports every second, also while it waits for a service."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger(__name__)


def open_monitor(settings: StreamSettings) -> Monitor | None:
    """The monitor that the settings ask for. Raises ConfigError where its port can't be had."""
    if settings.metrics_port is None:
        return None
    monitor = Monitor(settings.metrics_host, settings.metrics_port)
    log.info("metrics, /health and /ready on http://%s:%d", settings.metrics_host, monitor.port)
    return monitor


class Monitor(Collector):
    """Serves the last report taken. Raises ConfigError where the port can't be had; `port` tells which it is."""

    def __init__(self, host: str, port: int) -> None:
        self._report = WorkerReport()
        self._at = time.monotonic()
        self._registry = CollectorRegistry()
        self._registry.register(self)
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

    def take(self, report: WorkerReport) -> None:
        """The newest report."""
        self._report, self._at = report, time.monotonic()

    def close(self) -> None:
        """Serves no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a GET."""
        if path == "/metrics":
            return 200, CONTENT_TYPE, generate_latest(self._registry)
        silent_s = time.monotonic() - self._at
        healthy = silent_s < SILENT_S
        if path == "/health":
            return _json(healthy, {"healthy": healthy, "silent_s": round(silent_s, 1)})
        if path == "/ready":
            ready = healthy and self._report.is_ready
            return _json(ready, {"ready": ready, "why": "" if ready else self._why(healthy)})
        return 404, "application/json", b'{"error": "there are /metrics, /health and /ready"}'

    def collect(self) -> Iterator[Metric]:
        """Prometheus' view of the report."""
        report = self._report
        yield _counter("events", "Good events read, copies left out", report.events)
        yield _counter("copies", "Events dropped as copies of an id", report.copies)
        yield _counter("too_late_tiles", "Tiles that no window can read any more", report.too_late)
        yield _counter("batches", "Micro-batches folded", report.batches)
        yield _counter("redis_calls", "Script calls", report.calls)
        yield _counter("redis_refusals", "Rounds of calls that a checkpoint refused", report.refused)
        yield _counter("redis_seconds", "Time that script calls took, replies included", report.redis_s)
        yield _gauge("partitions", "Partitions that the group has given", report.partitions)
        yield _gauge("waiting", "1 while the worker waits for a service", int(bool(report.waiting_for)))
        yield _gauge("ready", "1 while every view is fed and nothing is waited for", int(report.is_ready))
        rejected = CounterMetricFamily("headrace_worker_rejected", "Messages rejected", labels=["reason"])
        for reason, count in report.rejected.items():
            rejected.add_metric([str(reason)], count)
        yield rejected
        counted = CounterMetricFamily("headrace_worker_counted", "Events that counted for a view", labels=["view"])
        nulls = CounterMetricFamily("headrace_worker_nulls", "Null inputs of a view's expressions", labels=["view"])
        for view, count in report.counted.items():
            counted.add_metric([view], count)
            nulls.add_metric([view], report.nulls.get(view, 0))
        yield counted
        yield nulls
        yield from _enriched()
        yield from self._standings(report)

    @staticmethod
    def _standings(report: WorkerReport) -> Iterator[Metric]:
        labels = ["view", "topic", "partition"]
        lag = GaugeMetricFamily("headrace_worker_lag", "Messages that are not read yet", labels=labels)
        behind = GaugeMetricFamily("headrace_worker_behind_seconds", "Age of the newest event read", labels=labels)
        for place in report.places:
            for view in place.views:
                where = [view, place.topic, str(place.partition)]
                lag.add_metric(where, max(place.end - place.position, 0))
                behind.add_metric(where, place.behind_s)
        rising = GaugeMetricFamily("headrace_worker_bring_up", "Offsets that a bring-up is behind", labels=labels)
        for each in report.bringing_up:
            for view in each.views:
                rising.add_metric([view, each.topic, str(each.partition)], max(each.target - each.position, 0))
        yield from (lag, behind, rising)

    def _why(self, healthy: bool) -> str:
        if not healthy:
            return "the worker has stopped reporting"
        if self._report.waiting_for:
            return self._report.waiting_for
        if self._report.bringing_up:
            return f"bringing up {', '.join(sorted({v for each in self._report.bringing_up for v in each.views}))}"
        return "no partition has been given to this worker yet"


def _enriched() -> Iterator[Metric]:
    """What this process has written to enriched topics."""
    written = CounterMetricFamily("headrace_worker_enriched", "Events enriched", labels=["topic"])
    late = CounterMetricFamily(
        "headrace_worker_enriched_late", "Events whose instant the store was past: null", labels=["topic"]
    )
    for topic, count in WRITTEN.items():
        written.add_metric([topic], count)
        late.add_metric([topic], LATE_COUNTS[topic])
    yield from (written, late)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"headrace_worker_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"headrace_worker_{name}", text, value=value)


def _json(good: bool, body: dict[str, object]) -> tuple[int, str, bytes]:
    return 200 if good else 503, "application/json", json.dumps(body).encode()


def _handler(monitor: Monitor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5
        """Seconds for a request to arrive: a connection that says nothing does not hold a thread."""

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
