"""Kafka's side of a reader, where the group takes what is not being read."""

from __future__ import annotations

import time

import pytest

from stream.source import Source
from tests.contract.stream.rig import Rig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_partitions_that_rest_are_taken_by_the_group_and_given_to_another(kafka: str, redis_url: str) -> None:
    rig = Rig(kafka, redis_url)
    one, two = (Source(rig.settings, group=rig.name) for _ in range(2))
    one.subscribe([rig.topic])
    deadline = time.monotonic() + 60
    while len(one.given) < 4:
        assert time.monotonic() < deadline
        one.fetch(0.1)
    two.subscribe([rig.topic])
    while len(one.given) > 2 or len(two.given) < 2:
        assert time.monotonic() < deadline
        one.fetch(0.1)
        two.fetch(0.1)
    assert one.taken == two.given
    one.close()
    two.close()
