"""What a server counts, for Prometheus.

With several workers the counts are shared through files (PROMETHEUS_MULTIPROC_DIR, set by `serving/server.py`), so that
any worker's /metrics tells all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

BUCKETS_S = (
    *(n * 1e-4 for n in (1, 1.5, 2, 3, 4, 5, 6, 8)),
    *(n * 1e-3 for n in (1, 1.5, 2, 3, 4, 5, 6, 8)),
    *(n * 1e-2 for n in (1, 1.5, 2, 3, 4, 5, 6, 8)),
    *(n * 1e-1 for n in (1, 2, 5)),
    *(1.0, 2.0, 5.0),
)
"""Fine enough that a percentile read off them is right within a quarter of its value."""
PERCENTILES = (0.5, 0.9, 0.99, 0.999)


class Metrics:
    """One process's counts; `registry` is where they are kept."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.seconds = Histogram(
            "headrace_serving_seconds", "Time to answer", ["route"], buckets=BUCKETS_S, registry=registry
        )
        self.answers = Counter("headrace_serving_answers", "Answers", ["route", "status"], registry=registry)
        self.vectors = Counter("headrace_serving_vectors", "Feature vectors served", registry=registry)
        self.values = Counter("headrace_serving_values", "Feature values served", registry=registry)
        self.shed = Counter(
            "headrace_serving_shed", "Requests refused because of a bound", ["bound"], registry=registry
        )
        self.logged = Counter("headrace_served_logged", "Vectors handed to the log", ["service"], registry=registry)
        self.dropped = Counter(
            "headrace_served_dropped", "Sampled vectors that were not logged", ["service", "reason"], registry=registry
        )
        self.age = Gauge(
            "headrace_serving_age_seconds",
            "Age of what the last vectors were read from, by service",
            ["service"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self.under_way = Gauge(
            "headrace_serving_under_way", "Reads under way", registry=registry, multiprocess_mode="livesum"
        )
        self.definitions = Gauge(
            "headrace_serving_definitions_version",
            "Version of the applied definitions that are served",
            registry=registry,
            multiprocess_mode="min",
        )

    def text(self) -> bytes:
        """All counts in Prometheus's text format, percentiles of the latency included."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        families = list(registry.collect())
        percentiles = CollectorRegistry()
        percentiles.register(_Percentiles(families))
        return generate_latest(registry) + generate_latest(percentiles)


class _Percentiles(Collector):
    """Percentiles of headrace_serving_seconds, linear between its buckets."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        answer = GaugeMetricFamily(
            "headrace_serving_seconds_percentile", "Time to answer since the start", labels=["route", "quantile"]
        )
        counts: dict[str, list[tuple[float, float]]] = {}
        for family in self._families:
            for sample in family.samples:
                if sample.name == "headrace_serving_seconds_bucket":
                    bound = float(sample.labels["le"])
                    counts.setdefault(sample.labels["route"], []).append((bound, sample.value))
        for route, buckets in counts.items():
            for quantile in PERCENTILES:
                value = percentile(sorted(buckets), quantile)
                if value is not None:
                    answer.add_metric([route, str(quantile)], value)
        yield answer


def percentile(buckets: list[tuple[float, float]], quantile: float) -> float | None:
    """The quantile of a histogram of (upper bound, cumulative count), ascending; None where nothing was counted."""
    total = buckets[-1][1]
    if not total:
        return None
    wanted, lower, below = quantile * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if bound == float("inf") or count == below:
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower
