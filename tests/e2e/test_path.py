"""The whole path on a day of every month, its workers and lander stopped and killed on the way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from batch.history import IcebergHistory
from batch.land import run_lander
from batch.land_report import LandReport
from batch.sql import query
from batch.training import training_set
from batch.verify import verify
from headrace.demo import rejected
from headrace.demo.broken import BREAKAGES
from headrace.demo.over_http import SERVICE, TIMEOUT_S, ask, count_events, entities_of
from headrace.demo.prepare import TOPICS, Demo, prepare
from headrace.demo.processes import Process
from headrace.demo.produce import Produced, produce
from headrace.demo.report import Report
from headrace.demo.rows import training_rows
from headrace.demo.scoring import REMOTE, SDK, TRAINING, vectors_by_every_way
from headrace.demo.streaming import wait_for_server
from headrace.demo.watch import Folded
from headrace.local.ports import free_ports
from headrace.local.services import down
from headrace.settings import read_settings
from schemas.settings import ConnectionSettings
from stream.report import WorkerReport
from stream.worker import run_worker

ROOT = Path(__file__).parents[2]
SHARE = 1 / 31
SMALL_BATCH = 200
"""Events a micro-batch: small enough that a worker can be stopped in the middle."""
VECTORS = 500
pytestmark = pytest.mark.timeout(600)


@dataclass
class Streamed:
    """The demo's state with everything produced, folded and landed; and how it came there."""

    demo: Demo
    produced: Produced
    stopped: WorkerReport
    last: WorkerReport
    landed: list[LandReport]

    @property
    def good(self) -> int:
        return sum(self.demo.timeline.good.values())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streamed]:
    home = tmp_path_factory.mktemp("e2e")
    settings = read_settings(ConnectionSettings, home=home, definitions=ROOT / "features" / "views")
    try:
        demo = prepare(settings, Report(Console(quiet=True)), SHARE)
        produced = Produced()
        produce(demo.timeline, demo.settings, produced, lambda done: None, threading.Event())
        stopped = work_until_stopped(demo)
        work_until_killed(demo)
        last = work(demo, threading.Event(), until_caught_up=True)
        yield Streamed(demo, produced, stopped, last, land_in_two_goes(demo))
    finally:
        down(home)


@pytest.fixture(scope="module")
def url(path: Streamed) -> Iterator[str]:
    with serving(path.demo) as address:
        yield address


def test_a_worker_that_is_stopped_and_one_that_is_killed_leave_the_rest_to_the_next(path: Streamed) -> None:
    assert 0 < path.stopped.events < path.good
    assert path.last.events < path.good - path.stopped.events, "the killed worker had folded something"
    assert path.last.caught_up or not path.last.waiting_for


def test_the_online_counts_are_the_events_produced(path: Streamed, url: str) -> None:
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        assert count_events(client, path.demo.flights) == path.good


def test_every_good_event_is_landed_once(path: Streamed) -> None:
    for topic in TOPICS:
        rows = query(
            f"SELECT count(*), count(DISTINCT (kafka_partition, kafka_offset)) FROM events.{topic}", path.demo.batch
        )
        assert [column[0].as_py() for column in rows.columns] == [path.demo.timeline.good[topic]] * 2
    assert len(path.landed) == 2
    assert sum(sum(report.rows.values()) for report in path.landed) == path.good


def test_every_broken_message_is_among_the_rejects_with_reason_place_and_bytes(path: Streamed) -> None:
    wanted = rejected.expected(path.produced.broken)
    assert len(wanted) == len(path.demo.timeline.broken)
    assert Counter(reason for reason, *_ in wanted).keys() == {str(breakage.reason) for breakage in BREAKAGES}
    in_table = rejected.in_table(query(rejected.QUERY, path.demo.batch))
    assert sorted(in_table) == sorted(wanted)
    # The topic has each at least once: a worker that was killed had written some that its checkpoints didn't cover.
    assert set(rejected.on_topic(path.demo.settings)) == wanted


def test_a_vector_is_the_same_over_http_by_feast_by_its_remote_client_and_in_a_training_set(
    path: Streamed, url: str
) -> None:
    demo = path.demo
    flights = demo.flights[demo.flights.tailnum.notna()].tail(VECTORS).reset_index(drop=True)
    answer, equal = vectors_by_every_way(flights, url, demo.settings, demo.batch, demo.definitions)
    assert len(answer.instants) == VECTORS
    assert equal == {SDK: VECTORS, REMOTE: VECTORS, TRAINING: VECTORS}


def test_an_unknown_entity_has_counts_of_nothing_and_nulls(url: str) -> None:
    nobody = {"origin": ["XXX"], "dest": ["YYY"], "carrier": ["ZZ"], "tailnum": ["N0"], "distance_miles": [1]}
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        features = {name: values[0] for name, values in ask(client, nobody).features.items()}
    counts = {name for name, value in features.items() if value == 0}
    assert counts == {
        "airport_delays__departures_1h",
        "carrier_delays__departures",
        "carrier_delays__hour_late_24h",
        "plane_history__arrivals_24h",
        "route_history__arrivals",
    }
    assert all(value is None for name, value in features.items() if name not in counts)


def test_nothing_in_a_training_set_sees_the_future(path: Streamed) -> None:
    """The same rows over a log that ends at their instant give the same features."""
    demo = path.demo
    rows = training_rows(demo.flights.sort_values("scheduled_at", kind="stable", ignore_index=True)).slice(5_000, 50)
    computed = training_set(demo.definitions, SERVICE, rows, demo.batch).to_pylist()
    for row in computed[::10]:
        instant, origin = row["event_timestamp"], row["origin"]
        (answer,) = query(
            f"""
            SELECT count(*) AS departures_1h, max(departed_at) AS newest FROM events.flights
            WHERE origin = '{origin}' AND departed_at < TIMESTAMP '{instant}'
              AND departed_at >= time_bucket(INTERVAL '5 minutes', TIMESTAMP '{instant}' - INTERVAL '1 hour')
            """,
            demo.batch,
        ).to_pylist()
        assert row["airport_delays__departures_1h"] == answer["departures_1h"]
        assert answer["newest"] is None or answer["newest"] < instant


def test_every_vector_that_was_served_is_proved(path: Streamed) -> None:
    demo = path.demo
    with serving(demo) as address, httpx.Client(base_url=address, timeout=TIMEOUT_S) as client:
        ask(client, entities_of(demo.flights[demo.flights.tailnum.notna()].tail(VECTORS)))
    land(demo, threading.Event())
    logged = int(query(f"SELECT count(*) FROM served.{SERVICE}", demo.batch)[0][0].as_py())
    report = verify(demo.definitions, SERVICE, demo.batch)
    assert logged >= VECTORS
    assert (report.compared, report.equal, report.pending) == (logged, logged, 0)


def work(demo: Demo, stop: threading.Event, *, until_caught_up: bool = False, after: float = 0) -> WorkerReport:
    """One worker of small batches; `after` so many seconds of folding it is told to stop."""
    settings = demo.stream.model_copy(update={"batch_events_max": SMALL_BATCH})
    first: list[float] = []

    def progress(report: WorkerReport) -> None:
        if report.events and not first:
            first.append(time.monotonic())
        if after and first:
            stop.set()

    return run_worker(
        demo.definitions,
        demo.planned.loaded.events,
        settings,
        history=IcebergHistory(demo.batch),
        until_caught_up=until_caught_up,
        stop=stop,
        progress=progress,
    )


def work_until_stopped(demo: Demo) -> WorkerReport:
    return work(demo, threading.Event(), after=0.1)


def work_until_killed(demo: Demo) -> None:
    """SIGKILL, once the checkpoints say that this one has moved on."""
    folded = Folded(demo.stream, demo.definitions, TOPICS)
    before = sum(map(folded.messages, TOPICS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_BATCH_EVENTS_MAX", str(SMALL_BATCH))
        # The least that a broker allows: so long the next worker waits for the killed one's partitions.
        patch.setenv("HEADRACE_SESSION_TIMEOUT_MS", "6000")
        worker = Process("killed", ["stream"], demo.settings)
    try:
        while sum(map(folded.messages, TOPICS)) == before:
            worker.check()
            time.sleep(0.02)
    finally:
        worker.kill()
        folded.close()


def land_in_two_goes(demo: Demo) -> list[LandReport]:
    """The first lander is stopped after its first commits."""
    stop = threading.Event()
    batch = demo.batch.model_copy(update={"land_rows_max": 2_000})
    events = demo.planned.loaded.events
    first = run_lander(
        demo.definitions, events, batch, until_caught_up=False, stop=stop, progress=lambda report: stop.set()
    )
    return [first, land(demo, threading.Event())]


def land(demo: Demo, stop: threading.Event) -> LandReport:
    return run_lander(demo.definitions, demo.planned.loaded.events, demo.batch, until_caught_up=True, stop=stop)


@contextmanager
def serving(demo: Demo) -> Iterator[str]:
    """`headrace serve`, ended at the end, what it logged written."""
    port = free_ports(1)[0]
    address = f"http://127.0.0.1:{port}"
    server = Process("server", ["serve", "--port", str(port)], demo.settings)
    try:
        wait_for_server(address, server)
        yield address
        server.stop()
    finally:
        server.kill()
