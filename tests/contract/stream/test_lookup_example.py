"""examples/enrich_by_lookup.py against a slow and a failing service, killed in between, and folded by Faust."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from features import Count, Entity, FeatureView
from features.planner import compile_definitions
from schemas.event import Event
from schemas.row import checkpoint_redis_key
from stream.settings import StreamSettings
from stream.topics import ensure_topics
from stream.worker import run_worker

ROOT = Path(__file__).parents[3]
CUSTOMERS = 20
ORDERS = 400
TIMEOUT_S = 1.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Service(BaseHTTPRequestHandler):
    """Customer 0 is unknown, 1 always fails, 2 fails every other time, 3 is always too slow, 4 slow but in time."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        customer = self.path.rpartition("/")[2]
        self.asked[customer] += 1
        time.sleep({"c3": 4 * TIMEOUT_S, "c4": TIMEOUT_S / 5}.get(customer, 0))
        status = {"c0": 404, "c1": 500, "c2": 503 if self.asked[customer] % 2 else 200}.get(customer, 200)
        try:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b'{"segment": "s-%s"}' % customer.encode())
        except BrokenPipeError:
            pass

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128


@pytest.fixture
def lookup_url() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/customers"
    server.shutdown()


def test_orders_get_their_segments_whatever_the_service_does(
    kafka: str, redis_url: str, lookup_url: str, unique: Callable[[str], str], tmp_path: Path
) -> None:
    orders, out = unique("orders"), unique("orders_with_segment")

    class Order(Event, topic=orders, time="at", key=["customer"]):
        at: datetime
        id: str
        customer: str
        amount: float

    class OrderWithSegment(Event, topic=out, time="at", key=["customer"], id="id"):
        at: datetime
        id: str
        customer: str
        amount: float
        segment: str | None
        lookup: str

    customer = Entity("customer", join_key="customer")
    features = {"orders": Count(), "known": Count("segment")}
    view = FeatureView("segments", entity=customer, source=OrderWithSegment, features=features, shards=4)
    plain = FeatureView("plain", entity=customer, source=Order, features={"orders": Count()})
    project = unique("p")
    settings = StreamSettings(kafka_bootstrap=kafka, redis_url=redis_url, project=project, session_timeout_ms=6_000)
    ensure_topics(settings, compile_definitions(project, [view, plain]))
    definitions = compile_definitions(project, [view])
    produce(kafka, orders)
    environment = {"KAFKA": kafka, "ORDERS": orders, "ORDERS_OUT": out, "LOOKUP_URL": lookup_url, "GROUP": unique("g")}
    environment["LOOKUP_TIMEOUT_S"] = str(TIMEOUT_S)
    with example(environment, tmp_path) as process:
        wait_until(lambda: len(read(kafka, out)) > ORDERS // 10)
        process.kill()
        process.wait()
    with example(environment, tmp_path):
        wait_until(lambda: len({row["id"] for row in read(kafka, out)}) == ORDERS)
    rows = {row["id"]: row for row in read(kafka, out)}
    expected = {"c0": (None, "unknown"), "c1": (None, "failed"), "c3": (None, "failed")}
    for row in rows.values():
        who = row["customer"]
        if who != "c2":
            assert (row["segment"], row["lookup"]) == expected.get(who, (f"s-{who}", "found"))
    report = run_worker(
        definitions,
        {"OrderWithSegment": OrderWithSegment},
        settings,
        history=None,
        until_caught_up=True,
        stop=threading.Event(),
        runner="faust",
    )
    assert report.events == ORDERS  # copies that the killed process left are dropped by their ids
    assert report.copies == len(read(kafka, out)) - ORDERS
    plan = definitions.views["segments"]
    assert redis.Redis.from_url(redis_url).get(checkpoint_redis_key(plan.storage_id, 0))


def produce(kafka: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    now = datetime.now(UTC).isoformat()
    for number in range(ORDERS):
        customer = f"c{number % CUSTOMERS}"
        order = {"at": now, "id": f"o{number}", "customer": customer, "amount": number / 4}
        producer.produce(topic, orjson.dumps(order), customer)
    producer.flush()


def read(kafka: str, topic: str) -> list[dict[str, Any]]:
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "test", "enable.auto.commit": False})
    rows = []
    try:
        for partition in range(4):
            place = TopicPartition(topic, partition, 0)
            end = consumer.get_watermark_offsets(place, timeout=10)[1]
            consumer.assign([place])
            at = 0
            while at < end:
                for message in consumer.consume(500, 1.0):
                    rows.append(orjson.loads(message.value() or b""))
                    at = (message.offset() or 0) + 1
    finally:
        consumer.close()
    return rows


@contextmanager
def example(environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "example.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "faust", "-A", "examples.enrich_by_lookup", "worker", "--without-web"],
            cwd=ROOT,
            env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.3)
