"""How long an event takes from `produce()` to readable in Redis, measured by probes among other users' events."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from confluent_kafka import Producer

PROBES = 200
PROBE = "probe"
USERS = 997
SETTLE_S = 20.0
"""A broker on duty has compiled its code; in the first seconds its JVM takes a core for that."""
LOST_S = 60.0


class Freshness(NamedTuple):
    p50_ms: float
    p99_ms: float


@contextmanager
def noise(kafka: str, topic: str, rate: int) -> Iterator[None]:
    """Events of other users at this rate, from a process of its own: no interpreter is shared."""
    processes = multiprocessing.get_context("spawn")
    stop = processes.Event()
    process = processes.Process(target=_make_noise, args=(kafka, topic, rate, stop))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join()


def freshness(kafka: str, topic: str, rate: int, count: Callable[[], int]) -> Freshness:
    """`count` tells how many events of PROBE are readable; one of them comes before the first probe."""
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 0})
    send(producer, topic, PROBE)
    _wait_for(count, 1)
    time.sleep(SETTLE_S)
    waits = []
    for sent in range(2, PROBES + 2):
        time.sleep(max(1 / rate, 0.005))
        began = time.perf_counter()
        send(producer, topic, PROBE)
        _wait_for(count, sent)
        waits.append(time.perf_counter() - began)
    producer.flush()
    p50, p99 = np.percentile(np.array(waits) * 1_000, [50, 99])
    return Freshness(float(p50), float(p99))


def send(producer: Producer, topic: str, user: str) -> None:
    """An event of now."""
    value = b'{"at":%d,"user":"%s","amount":1.0,"n":0}' % (int(time.time() * 1_000), user.encode())
    producer.produce(topic, value, user.encode())
    producer.poll(0)


def _wait_for(count: Callable[[], int], wanted: int) -> None:
    deadline = time.monotonic() + LOST_S
    while count() < wanted:
        assert time.monotonic() < deadline, "a probe was not readable in time"
        time.sleep(0.0003)


def _make_noise(kafka: str, topic: str, rate: int, stop: threading.Event) -> None:
    # Few events go each by itself, as from many producers; many as librdkafka sends them by itself.
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 0 if rate <= 1_000 else 5})
    began, n = time.perf_counter(), 0
    while not stop.is_set():
        n += 1
        send(producer, topic, f"u{n % USERS}")
        pause = began + n / rate - time.perf_counter()
        if pause > 0:
            time.sleep(pause)
    producer.flush()
