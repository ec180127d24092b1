"""What every test may ask for: a real Kafka, a real Redis, names that no other test uses."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from random import randint

import prometheus_client
import pytest
from hypothesis import HealthCheck, settings

from headrace.local.ports import is_free
from headrace.local.services import down, up
from tests.containers import services
from tests.containers.redis_nodes import Containers
from tests.contract.cluster.masters import MASTERS, Cluster, Processes

# Imported first: it decides then, by the environment, whether counts are shared through files between processes.
assert prometheus_client

# A suite that is started in the background inherits a SIGINT that is ignored, and so would the commands that it tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Budgets of the property tests, by HEADRACE_TEST_PROFILE: while writing code, in `make test`, and over night.
for _name, _examples in {"fast": 8, "ci": 6, "nightly": 5_000}.items():
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,
        derandomize=_name == "ci",
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )
settings.load_profile(os.environ.get("HEADRACE_TEST_PROFILE", "ci"))


def pytest_report_header() -> str:
    found = services.chosen()
    return f"services: {'containers' if found.containers else 'local processes'} ({found.why})"


BUS = 10_000
"""The nodes of a Redis Cluster speak to each other on a port this much higher."""


@pytest.fixture(scope="session")
def services_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A HEADRACE_HOME for this run's services; whatever was started in it is stopped at the end."""
    home = tmp_path_factory.mktemp("services")
    yield home
    down(home)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> str:
    """The bootstrap servers of a real broker: HEADRACE_TEST_KAFKA, or one started for this run."""
    if existing := os.environ.get("HEADRACE_TEST_KAFKA"):
        return existing
    if services.wanted():
        return str(request.getfixturevalue("kafka_container"))
    return up(request.getfixturevalue("services_home"), ["kafka"])["kafka"]


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of a real Redis: HEADRACE_TEST_REDIS, or one started for this run."""
    if existing := os.environ.get("HEADRACE_TEST_REDIS"):
        return existing
    if services.wanted():
        return str(request.getfixturevalue("redis_container"))
    return up(request.getfixturevalue("services_home"), ["redis"])["redis"]


@pytest.fixture(scope="session")
def kafka_container() -> Iterator[str]:
    """A broker in a container: see tests/containers/services.py."""
    with services.kafka() as address:
        yield address


@pytest.fixture(scope="session")
def redis_container() -> Iterator[str]:
    """A Redis in a container."""
    with services.single_redis() as url:
        yield url


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Redis Cluster of three masters with a replica each; each module has its own."""
    ports: list[int] = []
    while len(ports) < 2 * MASTERS:
        port = randint(20_000, 29_000)
        if port not in ports and is_free(port) and is_free(port + BUS):
            ports.append(port)
    nodes = Containers(ports) if services.wanted() else Processes(tmp_path_factory.mktemp("cluster"))
    running = Cluster(nodes, ports)
    yield running
    running.stop()


@pytest.fixture
def unique() -> Callable[[str], str]:
    """`unique("flights")` is a name for a topic or project that no other test and no earlier run has used."""
    suffix = uuid.uuid4().hex[:10]
    return lambda name: f"{name}_{suffix}"


@pytest.fixture(autouse=True)
def no_ambient_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Settings come from the test alone, never from the shell or the checkout that it runs in."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    for name in os.environ:
        if name.startswith("HEADRACE_") and not name.startswith("HEADRACE_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path_factory.getbasetemp() / "home"))
