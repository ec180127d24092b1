"""A Kafka and a Redis of each test's own: they are killed, paused, filled and rolled back."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from headrace.local.ports import is_free
from headrace.local.services import down, running, up


class Services:
    """The services of one HEADRACE_HOME, and what can befall them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        addresses = up(home)
        self.kafka, self.redis_url = addresses["kafka"], addresses["redis"]

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)

    def kill(self, name: str) -> None:
        """SIGKILL, and not up again."""
        self.signal(name, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while name in running(self.home):
            assert time.monotonic() < deadline, f"{name} survives"
            time.sleep(0.02)

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(running(self.home)[name], number)

    def start(self, name: str) -> None:
        """On the port it had, once the clients that look for it there have let go of it."""
        port = int((self.kafka if name == "kafka" else self.redis_url.removesuffix("/0")).rsplit(":", 1)[1])
        deadline = time.monotonic() + 60
        while not is_free(port):
            assert time.monotonic() < deadline, f"port {port} is taken"
            time.sleep(0.05)
        addresses = up(self.home, [name])
        assert addresses[name] == (self.kafka if name == "kafka" else self.redis_url)

    def wait_for_kafka(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                AdminClient({"bootstrap.servers": self.kafka, "log_level": 0}).list_topics(timeout=2)
                return
            except KafkaException:
                time.sleep(0.2)
        raise AssertionError("Kafka does not come back")

    def copy_of_redis(self, to: Path) -> None:
        """What is on disk now: what a backup would have."""
        shutil.copytree(self.home / "redis" / "data", to)

    def put_redis_back(self, copy: Path) -> None:
        """Redis is killed and starts again from an older copy of its files."""
        self.kill("redis")
        shutil.rmtree(self.home / "redis" / "data")
        shutil.copytree(copy, self.home / "redis" / "data")
        self.start("redis")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path / "home")
    yield made
    for name in running(made.home):
        made.signal(name, signal.SIGCONT)
    down(made.home)


@pytest.fixture
def until() -> Callable[[Callable[[], object], float], None]:
    """`until(condition, timeout_s)` waits."""

    def wait(condition: Callable[[], object], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.05)

    return wait
