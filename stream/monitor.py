"""What a worker shows on call: its last report as Prometheus' metrics, and why it is not ready."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.monitor import Monitor
from stream.enrich import LATE_COUNTS, WRITTEN
from stream.report import WorkerReport
from stream.settings import StreamSettings

SILENT_S = 60.0
"""A worker that has reported nothing for so long hangs: it reports every second, also while it waits for a service."""

log = logging.getLogger(__name__)


class WorkerMonitor(Collector):
    """Serves the last report taken. Raises ConfigError where the port can't be had; `port` tells which it is."""

    def __init__(self, host: str, port: int) -> None:
        self._report = WorkerReport()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._monitor = Monitor(host, port, self, silent_s=SILENT_S)
        self.port = self._monitor.port

    def take(self, report: WorkerReport) -> None:
        """The newest report."""
        self._report = report
        self._monitor.alive()

    def close(self) -> None:
        """Serves no more."""
        self._monitor.close()

    def metrics(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def why_not_ready(self) -> str:
        """Empty while every view is fed and nothing is waited for."""
        report = self._report
        if report.is_ready:
            return ""
        if report.waiting_for:
            return report.waiting_for
        if report.bringing_up:
            return f"bringing up {', '.join(sorted({v for each in report.bringing_up for v in each.views}))}"
        return "no partition has been given to this worker yet"

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


def open_monitor(settings: StreamSettings) -> WorkerMonitor | None:
    """The monitor that the settings ask for. Raises ConfigError where its port can't be had."""
    if settings.metrics_port is None:
        return None
    monitor = WorkerMonitor(settings.metrics_host, settings.metrics_port)
    log.info("metrics, /health and /ready on http://%s:%d", settings.metrics_host, monitor.port)
    return monitor


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
