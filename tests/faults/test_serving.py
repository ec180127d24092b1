"""Serving while Redis hangs, is killed, restarts, is emptied: true answers or a 503 with its reason, never zeros."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import redis as redis_py

from features.applied import save_applied
from headrace.local.redis import redis_server
from serving.settings import ServingSettings
from tests.contract.serving.conftest import wait_ready
from tests.unit.serving.online import Online
from tests.unit.serving.shop import definitions
from tests.unit.serving.test_read import ORDERS

pytestmark = pytest.mark.faults

BODY = {"feature_service": "fresh", "entities": {"customer": ["ann", "nobody"]}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OwnRedis:
    """A Redis of this test's own, with an AOF, on a port that it keeps over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        arguments = ["--port", str(self.port), "--dir", str(self.folder), "--appendonly", "yes", "--save", ""]
        self.process = subprocess.Popen(
            [redis_server(), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(redis_py.RedisError), redis_py.Redis.from_url(self.url) as client:
                if client.ping():
                    return
            time.sleep(0.05)
        raise AssertionError("Redis did not start")

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnRedis]:
    started = OwnRedis(tmp_path)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def online(own: OwnRedis) -> Iterator[Online]:
    state = Online(own.url, definitions(f"shop_{uuid.uuid4().hex[:10]}"))
    state.add({"Order": ORDERS})
    yield state
    state.kernel.close()


@pytest.fixture
def url(own: OwnRedis, online: Online, tmp_path: Path) -> Iterator[str]:
    home = tmp_path / "home"
    home.mkdir()
    settings = ServingSettings(home=home, project=online.definitions.project, redis_url=own.url)  # type: ignore[arg-type]
    save_applied(settings.registry_address(), online.definitions)
    port = free_port()
    environment = {
        **os.environ,
        "HEADRACE_HOME": str(home),
        "HEADRACE_PROJECT": online.definitions.project,
        "HEADRACE_REDIS_URL": own.url,
        "HEADRACE_SERVE_PORT": str(port),
        "HEADRACE_REDIS_TIMEOUT_MS": "300",
        "HEADRACE_CONCURRENCY_MAX": "8",
    }
    code = "from serving.server import run; from serving.settings import ServingSettings; run(ServingSettings())"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_ready(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def ask(url: str) -> httpx.Response:
    return httpx.post(f"{url}/get-online-features", json=BODY, timeout=20)


def is_true(response: httpx.Response) -> bool:
    return response.status_code == 200 and response.json()["results"][1]["values"] == [4, 0]


def is_refused(response: httpx.Response) -> bool:
    return response.status_code == 503 and response.headers["retry-after"] == "1" and bool(response.json()["error"])


def soon_true(url: str) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        response = ask(url)
        if is_true(response):
            return True
        assert is_refused(response), response.text
        time.sleep(0.05)
    return False


def test_a_redis_that_is_killed_and_comes_back(own: OwnRedis, url: str) -> None:
    for _ in range(3):
        assert is_true(ask(url))
        own.stop(signal.SIGKILL)
        response = ask(url)
        assert is_refused(response)
        assert "Redis does not answer" in response.text
        assert httpx.get(f"{url}/ready", timeout=20).status_code == 503
        assert httpx.get(f"{url}/health", timeout=20).status_code == 200
        own.start()
        assert soon_true(url)


def test_a_redis_that_hangs_is_a_503_within_the_timeout_and_a_burst_is_shed(own: OwnRedis, url: str) -> None:
    own.send(signal.SIGSTOP)
    started = time.monotonic()
    with ThreadPoolExecutor(80) as pool:
        answers = list(pool.map(lambda _: ask(url), range(80)))
    took = time.monotonic() - started
    own.send(signal.SIGCONT)
    assert all(is_refused(answer) for answer in answers)
    facts = {answer.json()["error"]["fact"] for answer in answers}
    assert any("reads under way" in fact for fact in facts)
    # Ten times the bound, yet nobody waited for anybody else's timeout.
    assert took < 15
    assert soon_true(url)


def test_an_emptied_redis_is_not_ready_and_never_zeros(own: OwnRedis, online: Online, url: str) -> None:
    assert is_true(ask(url))
    online.redis.flushall()
    response = ask(url)
    assert is_refused(response)
    assert "no checkpoint yet" in response.text
    assert "spending: 64 of 64 shards" in httpx.get(f"{url}/ready", timeout=20).text
    online.events = {name: [] for name in online.events}
    online.add({"Order": ORDERS})
    assert soon_true(url)


def test_a_redis_that_restarts_from_its_log_is_read_again(own: OwnRedis, online: Online, url: str) -> None:
    for n in range(2_000):
        online.redis.set(f"filler-{n}", "x" * 100)
    own.stop(signal.SIGTERM)
    own.process = subprocess.Popen(
        [redis_server(), "--port", str(own.port), "--dir", str(own.folder), "--appendonly", "yes", "--save", ""],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert soon_true(url)
