"""What a lander shows on call: its report as Prometheus' metrics, and why it is not ready."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from batch.land_report import LandReport
from batch.settings import BatchSettings
from schemas.monitor import Monitor

SILENT_S = 900.0
"""A lander that has gone round for so long hangs: a commit takes a second, compaction of a large table minutes."""

log = logging.getLogger(__name__)


class LanderMonitor(Collector):
    """Serves the report, which changes as the lander works. Raises ConfigError where the port can't be had."""

    def __init__(self, host: str, port: int, report: LandReport) -> None:
        self._report = report
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._monitor = Monitor(host, port, self, silent_s=SILENT_S)
        self.port = self._monitor.port

    def alive(self) -> None:
        """The lander has gone round."""
        self._monitor.alive()

    def close(self) -> None:
        """Serves no more."""
        self._monitor.close()

    def metrics(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def why_not_ready(self) -> str:
        """Empty while partitions are read and nothing is waited for."""
        if self._report.waiting_for:
            return self._report.waiting_for
        return "" if self._report.places else "no partition is read yet"

    def collect(self) -> Iterator[Metric]:
        """Prometheus' view of the report."""
        report = self._report
        rows = CounterMetricFamily("headrace_lander_rows", "Rows committed to the event log", labels=["topic"])
        for topic, count in dict(report.rows).items():
            rows.add_metric([topic], count)
        yield rows
        yield CounterMetricFamily("headrace_lander_rejected", "Messages committed as rejects", value=report.rejected)
        yield CounterMetricFamily("headrace_lander_commits", "Commits of tables", value=report.commits)
        yield CounterMetricFamily("headrace_lander_commit_seconds", "Time that commits took", value=report.commit_s)
        yield GaugeMetricFamily(
            "headrace_lander_waiting", "1 while a service is waited for", value=int(bool(report.waiting_for))
        )
        yield GaugeMetricFamily(
            "headrace_lander_ready", "1 while partitions are read", value=int(not self.why_not_ready())
        )
        lag = GaugeMetricFamily("headrace_lander_lag", "Messages not committed yet", labels=["topic", "partition"])
        for (topic, partition), (landed, end) in dict(report.places).items():
            lag.add_metric([topic, str(partition)], max(end - landed, 0))
        yield lag
        age = GaugeMetricFamily(
            "headrace_lander_uncommitted_seconds", "Since when the oldest message read waits", labels=["topic"]
        )
        now = time.monotonic()
        for topic, since in dict(report.since).items():
            age.add_metric([topic], now - since if since else 0.0)
        yield age


def open_monitor(settings: BatchSettings, report: LandReport) -> LanderMonitor | None:
    """The monitor that the settings ask for. Raises ConfigError where its port can't be had."""
    if settings.metrics_port is None:
        return None
    monitor = LanderMonitor(settings.metrics_host, settings.metrics_port, report)
    log.info("metrics, /health and /ready on http://%s:%d", settings.metrics_host, monitor.port)
    return monitor
