"""What a worker shows on call, and when too many rejects stop it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import ConfigError, DataError
from schemas.rejection import Reason
from stream.alarm import RejectAlarm
from stream.monitor import WorkerMonitor
from stream.report import BringUpProgress, PlaceProgress, WorkerReport

REPORT = WorkerReport(
    events=10,
    rejected={Reason.BAD_TIME: 2},
    counted={"v": 9},
    nulls={"v": 1},
    partitions=1,
    places=(PlaceProgress("clicks", 3, ("v",), 40, 100, 1.5),),
)


@pytest.fixture
def monitor() -> Iterator[WorkerMonitor]:
    made = WorkerMonitor("127.0.0.1", 0)
    yield made
    made.close()


def get(monitor: WorkerMonitor, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{monitor.port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_metrics_tell_the_last_report(monitor: WorkerMonitor) -> None:
    monitor.take(REPORT)
    families = text_string_to_metric_families(get(monitor, "/metrics")[1].decode())
    samples = {
        (s.name, *(v for _, v in sorted(s.labels.items()))): s.value for family in families for s in family.samples
    }
    assert samples["headrace_worker_events_total",] == 10
    assert samples["headrace_worker_rejected_total", "bad_time"] == 2
    assert samples["headrace_worker_counted_total", "v"] == 9
    assert samples["headrace_worker_lag", "3", "clicks", "v"] == 60
    assert samples["headrace_worker_behind_seconds", "3", "clicks", "v"] == 1.5
    assert samples["headrace_worker_ready",] == 1


def test_ready_says_why_not(monitor: WorkerMonitor) -> None:
    assert get(monitor, "/ready")[0] == 503
    monitor.take(REPORT)
    assert get(monitor, "/ready")[0] == 200
    monitor.take(REPORT._replace(bringing_up=(BringUpProgress(("w",), "clicks", 0, 1, 9),)))
    assert json.loads(get(monitor, "/ready")[1]) == {"ready": False, "why": "bringing up w"}
    monitor.take(REPORT._replace(waiting_for="Redis does not serve"))
    assert json.loads(get(monitor, "/ready")[1])["why"] == "Redis does not serve"
    assert get(monitor, "/health")[0] == 200
    assert get(monitor, "/else")[0] == 404


def test_a_port_that_is_taken_is_refused(monitor: WorkerMonitor) -> None:
    with pytest.raises(ConfigError, match="port"):
        WorkerMonitor("127.0.0.1", monitor.port)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_too_many_rejects_within_a_minute_stop_the_worker() -> None:
    clock = Clock()
    alarm = RejectAlarm(0.05, 20, clock)
    for second in range(200):
        clock.now = second
        alarm.check(events=second * 1_000, rejected=second * 50)
    clock.now = 230
    with pytest.raises(DataError, match="too many"):
        alarm.check(events=200_000, rejected=15_000)


def test_a_few_bad_messages_do_not_whatever_their_share() -> None:
    clock = Clock()
    alarm = RejectAlarm(0.05, 20, clock)
    alarm.check(events=2, rejected=1)
    alarm.check(events=2, rejected=19)
    clock.now = 61
    alarm.check(events=2, rejected=20)
    with pytest.raises(DataError, match="57 of 57"):
        alarm.check(events=2, rejected=58)
