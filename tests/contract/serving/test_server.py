"""The server as processes: its client, several workers, other definitions while it serves, a clean end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from features.applied import save_applied
from features.plan import Definitions
from schemas.errors import DataError, NotFound, NotReady, Overloaded, RequestError
from serving import AsyncClient, Client
from serving.settings import ServingSettings
from tests.contract.serving.conftest import wait_ready
from tests.unit.serving.online import Online
from tests.unit.serving.shop import definitions

ANN = {"customer": ["ann", "nobody"]}


def test_the_client_answers_in_every_shape(server_url: str) -> None:
    with Client(server_url) as client:
        assert client.ready()
        features = client.get(["spending:orders", "spending:last_amount", "coupons:last_coupon"], ANN)
        assert features.to_dict() == {
            "customer": ["ann", "nobody"],
            "orders": [4, 0],
            "last_amount": [2.25, None],
            "last_coupon": ["AUTUMN", None],
        }
        assert features.to_rows()[0] == {"customer": "ann", "orders": 4, "last_amount": 2.25, "last_coupon": "AUTUMN"}
        assert features.to_arrow().column_names == ["customer", "orders", "last_amount", "last_coupon"]
        assert features.to_pandas()["orders"].tolist() == [4, 0]
        assert features.statuses["last_coupon"] == ["PRESENT", "NULL_VALUE"]
        explained = client.get("fresh", ANN, as_of="2026-03-01T12:00:00", explain=True)
        assert explained.instants == ["2026-03-01T12:00:00Z"] * 2
        assert explained.explain[0]["values"][0]["events"] == 4


def test_the_client_raises_the_servers_own_errors(server_url: str) -> None:
    with Client(server_url) as client:
        with pytest.raises(NotFound, match="no such feature service is applied; got 'liv'; did you mean 'live'?"):
            client.get("liv", ANN)
        with pytest.raises(RequestError, match="lacks the column 'customer'"):
            client.get("fresh", {"customr": ["ann"]})
        with pytest.raises(RequestError, match="can't be sent"):
            client.get("fresh", {"customer": [object()]})
    with Client("http://127.0.0.1:1", retries=1) as client, pytest.raises(NotReady, match="does not answer"):
        client.get("fresh", ANN)


def test_the_async_client_answers_the_same(server_url: str) -> None:
    async def run() -> list[Any]:
        async with AsyncClient(server_url) as client:
            assert await client.ready()
            answers = await asyncio.gather(*(client.get("fresh", ANN) for _ in range(20)))
            with pytest.raises(NotFound):
                await client.get("nosuch", ANN)
            return [answer.to_dict() for answer in answers]

    assert asyncio.run(run()) == [{"customer": ["ann", "nobody"], "orders": [4, 0]}] * 20


@contextmanager
def scripted(statuses: list[int]) -> Iterator[tuple[str, list[int]]]:
    """A server that answers each request with the next status, and what it has answered."""
    given: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = statuses[min(len(given), len(statuses) - 1)]
            given.append(status)
            error = b'{"error": {"fact": "not now", "where": "", "got": "", "next": ""}, "detail": ""}'
            body = b'{"metadata": {"feature_names": []}, "results": []}' if status == 200 else error
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("retry-after", "0")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", given
    finally:
        server.shutdown()
        server.server_close()


def test_the_client_tries_again_what_passes_and_nothing_else() -> None:
    with scripted([503, 429, 200]) as (url, given), Client(url) as client:
        assert client.get("any", ANN).to_dict() == {}
        assert given == [503, 429, 200]
    with scripted([503]) as (url, given), Client(url, retries=2) as client:
        with pytest.raises(NotReady, match="not now"):
            client.get("any", ANN)
        assert given == [503] * 3
    with scripted([429]) as (url, given), Client(url, retries=0) as client, pytest.raises(Overloaded):
        client.get("any", ANN)
    for status, kind in ((422, RequestError), (500, DataError)):
        with scripted([status]) as (url, given), Client(url) as client:
            with pytest.raises(kind):
                client.get("any", ANN)
            assert given == [status]


@contextmanager
def server(settings: ServingSettings) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server process of these settings on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert settings.redis_url is not None
    environment = {
        **os.environ,
        "HEADRACE_HOME": str(settings.home),
        "HEADRACE_PROJECT": settings.project,
        "HEADRACE_REDIS_URL": settings.redis_url.get_secret_value(),
        "HEADRACE_SERVE_PORT": str(port),
        "HEADRACE_SERVE_WORKERS": str(settings.serve_workers),
        "HEADRACE_DEFINITIONS_POLL_MS": "100",
        "HEADRACE_REDIS_TIMEOUT_MS": "500",
    }
    code = "from serving.server import run; from serving.settings import ServingSettings; run(ServingSettings())"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(20)


def own_settings(online: Online, home: Path, applied: Definitions, **more: Any) -> ServingSettings:
    settings = ServingSettings(home=home, project=applied.project, redis_url=online.url, **more)  # type: ignore[arg-type]
    save_applied(settings.registry_address(), applied)
    return settings


def test_several_workers_share_the_port_and_their_counts(online: Online, tmp_path: Path) -> None:
    settings = own_settings(online, tmp_path, online.definitions, serve_workers=2)
    with server(settings) as (url, process):
        wait_ready(url, process)
        body = {"feature_service": "fresh", "entities": ANN}
        for _ in range(40):
            # A connection each, so that the kernel spreads them.
            assert httpx.post(f"{url}/get-online-features", json=body).status_code == 200
        metrics = httpx.get(f"{url}/metrics").text
        assert 'headrace_serving_answers_total{route="/get-online-features",status="200"} 40.0' in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_other_definitions_are_taken_up_between_two_requests(online: Online, tmp_path: Path) -> None:
    """Readers never meet a mixture: every answer is of one version or the other."""
    project = online.definitions.project
    one = online.definitions
    other = definitions(project)
    other.services.pop("fresh")
    settings = own_settings(online, tmp_path, one)
    with server(settings) as (url, process):
        wait_ready(url, process)
        statuses: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client() as client:
                while not stop.is_set():
                    body = {"feature_service": "fresh", "entities": ANN}
                    answer = client.post(f"{url}/get-online-features", json=body)
                    statuses.append(answer.status_code)
                    if answer.status_code == 200:
                        assert answer.json()["results"][1]["values"] == [4, 0]

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in (other, one, other, one):
            time.sleep(0.4)
            save_applied(settings.registry_address(), version)
        time.sleep(0.6)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200, 404}
        assert statuses[-1] == 200
        assert httpx.get(f"{url}/ready").json()["definitions_version"] == 5


def test_a_request_under_way_is_answered_before_the_end(online: Online, tmp_path: Path) -> None:
    settings = own_settings(online, tmp_path, online.definitions)
    with server(settings) as (url, process):
        wait_ready(url, process)
        with httpx.Client() as client:
            body = {"feature_service": "fresh", "entities": ANN}
            assert client.post(f"{url}/get-online-features", json=body).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_before_anything_is_applied_the_server_says_so(online: Online, tmp_path: Path) -> None:
    settings = ServingSettings(home=tmp_path, project="nothing", redis_url=online.url)  # type: ignore[arg-type]
    with server(settings) as (url, process):
        wait_ready(url, process, path="/health")
        assert httpx.get(f"{url}/ready").status_code == 503
        answer = httpx.post(f"{url}/get-online-features", json={"feature_service": "fresh", "entities": ANN})
        assert answer.status_code == 503
        assert answer.json()["error"]["next"] == "run `headrace apply`, then ask again"
