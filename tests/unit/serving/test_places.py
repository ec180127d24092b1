"""Where rows stand: one shard for all views of a key, their keys in one text, and a bound on what is kept."""

from __future__ import annotations

import pytest

from schemas.row import checkpoint_redis_key, row_redis_key, shard_of
from serving import places
from serving.places import AllPlaces
from serving.resp import bulk, mget
from tests.unit.serving.shop import definitions

VIEWS = definitions().views
PLANS = [VIEWS[name] for name in ("spending", "visits", "coupons")]


def test_views_of_one_key_are_placed_together() -> None:
    (customers, numbers), (both, alone) = AllPlaces().of(PLANS)
    assert (numbers, alone) == ((0, 2), (1,))
    [ann] = customers.of(["ann"])
    ids = [PLANS[number].storage_id for number in numbers]
    assert ann.shard == shard_of("ann", PLANS[0].shards)
    assert ann.rows == b"".join(bulk(row_redis_key(each, ann.shard, "ann")) for each in ids)
    assert customers.checkpoints[3] == b"".join(bulk(checkpoint_redis_key(each, 3)) for each in ids)
    assert mget([ann.rows], 2).startswith(b"*3\r\n$4\r\nMGET\r\n$")
    assert both.keys == PLANS[1].keys


def test_what_is_kept_is_bounded_over_all_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "KEPT_MAX", 8)
    every = AllPlaces()
    (customers, _), (both, _) = every.of(PLANS)
    first = customers.of(["a", "b", "c"])
    both.of(["x", "y"])
    assert len(customers._kept) + len(both._kept) == 5
    again = customers.of(["d", "a"])
    assert len(customers._kept) * 2 + len(both._kept) <= 8
    assert again[1] == first[0]
