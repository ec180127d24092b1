"""A Redis Cluster of three masters with a replica each, a module has its own."""

from __future__ import annotations

from collections.abc import Iterator
from random import randint

import pytest

from headrace.local.ports import is_free
from tests.contract.cluster.masters import MASTERS, Cluster

BUS = 10_000
"""The nodes speak to each other on a port this much higher."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    ports: list[int] = []
    while len(ports) < 2 * MASTERS:
        port = randint(20_000, 29_000)
        if port not in ports and is_free(port) and is_free(port + BUS):
            ports.append(port)
    running = Cluster(tmp_path_factory.mktemp("cluster"), ports)
    yield running
    running.stop()
