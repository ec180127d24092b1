"""A Redis with the shop's state, and a reader on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from serving.connection import Redis
from serving.read import Reader
from serving.resp import Address
from tests.unit.serving.online import Online
from tests.unit.serving.shop import definitions


@pytest.fixture
def online(redis_url: str, unique: Callable[[str], str]) -> Iterator[Online]:
    """The shop's online state, empty, under a project of its own."""
    state = Online(redis_url, definitions(unique("shop")))
    yield state
    for plan in state.definitions.views.values():
        for key in state.redis.scan_iter(f"h{{{plan.storage_id}.*", count=10_000):
            state.redis.delete(key)
    state.kernel.close()
    state.redis.close()


@pytest.fixture
def reader(online: Online) -> Iterator[Reader]:
    opened = Reader(Redis(Address.of(online.url), timeout_s=5), online.definitions)
    yield opened
    opened.close()
