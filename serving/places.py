"""Where entities' rows stand in Redis: their keys, encoded for a command, and kept for the next request.

Views that have one join key and as many shards are placed together: an entity's shard is one for all of them, and the
keys of its rows are one text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from features.plan import ViewPlan
from schemas.row import checkpoint_redis_key, hash_redis_key, row_redis_key, shard_of
from serving.resp import bulk, command

KEPT_MAX = 1 << 18
"""Rows whose keys are kept ready, of all views together: 262,144 × about 100 bytes."""


class Place(NamedTuple):
    """Where an entity's rows stand: its shard, and the keys of its rows, a view each."""

    shard: int
    rows: bytes


class Places:
    """The places of the rows of some views."""

    def __init__(self, plans: Sequence[ViewPlan], room: AllPlaces) -> None:
        self.keys = plans[0].keys
        self.views = len(plans)
        self.checkpoints = [
            b"".join([bulk(checkpoint_redis_key(plan.storage_id, shard)) for plan in plans])
            for shard in range(plans[0].shards)
        ]
        """Of each shard the keys of the views' checkpoints."""
        self._ids = [plan.storage_id for plan in plans]
        self._room = room
        self._kept: dict[str, Place] = {}

    def of(self, keys: Sequence[str]) -> list[Place]:
        """Where the rows of entities stand, by their keys' texts."""
        kept = self._kept
        try:
            return [kept[key] for key in keys]
        except KeyError:
            return [self._of(key) for key in keys]

    def _of(self, key: str) -> Place:
        found = self._kept.get(key)
        if found is None:
            self._room.make(self.views)
            shard = shard_of(key, len(self.checkpoints))
            rows = b"".join([bulk(row_redis_key(each, shard, key)) for each in self._ids])
            found = self._kept[key] = Place(shard, rows)
        return found

    def hash_command(self, view: int, key: str, place: Place) -> bytes:
        """Reads the HASH beside an entity's row of a view (by its number here)."""
        return command(b"HGETALL", hash_redis_key(self._ids[view], place.shard, key))

    def forget(self) -> None:
        """Drops what is kept."""
        self._kept.clear()


class AllPlaces:
    """The places of all readings, with a bound on what they keep."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, ...], Places] = {}
        self._count = 0

    def of(self, plans: Sequence[ViewPlan]) -> tuple[tuple[Places, tuple[int, ...]], ...]:
        """The places of the views' rows, each with the numbers of its views."""
        together: dict[object, list[int]] = {}
        for number, plan in enumerate(plans):
            together.setdefault((plan.keys, plan.shards), []).append(number)
        return tuple((self._of([plans[number] for number in numbers]), tuple(numbers)) for numbers in together.values())

    def make(self, rows: int) -> None:
        """Makes room for some more rows."""
        if self._count + rows > KEPT_MAX:
            for places in self._places.values():
                places.forget()
            self._count = 0
        self._count += rows

    def _of(self, plans: Sequence[ViewPlan]) -> Places:
        ids = tuple(plan.storage_id for plan in plans)
        if ids not in self._places:
            self._places[ids] = Places(plans, self)
        return self._places[ids]
