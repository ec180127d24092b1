"""A rig for each runner and store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.contract.stream.rig import Rig
from tests.contract.stream.runners import UNDER, Under


@pytest.fixture(params=UNDER)
def under(request: pytest.FixtureRequest) -> Under:
    """The runner and the store of this run of the test."""
    chosen: Under = request.param
    return chosen


@pytest.fixture
def new_rig(kafka: str, under: Under, request: pytest.FixtureRequest) -> Callable[..., Rig]:
    """Makes a rig as the test wants it."""
    url = request.getfixturevalue("cluster").url if under.cluster else request.getfixturevalue("redis_url")
    return partial(Rig, kafka, url, runner=under.runner)


@pytest.fixture
def rig(new_rig: Callable[..., Rig]) -> Rig:
    """One view, eight shards, four partitions."""
    return new_rig()
