"""The two executors of a view: offline over records, online through a real Redis. Both take the same log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from features.kernel import Kernel
from features.merge import read_records, read_rows
from features.plan import ViewPlan
from schemas.row import (
    GENERATION_BYTES,
    Checkpoint,
    checkpoint_redis_key,
    hash_redis_key,
    row_redis_key,
    shard_of,
)
from stream.script import has_variable_cells, merge_script


def offline(
    kernel: Kernel, plan: ViewPlan, tables: Sequence[pa.Table], queries: Sequence[tuple[str | None, int]]
) -> list[dict[str, Any]]:
    """The features of each (entity key, instant)."""
    records = kernel.records(plan, tables)
    keys = pa.array([key for key, _ in queries], pa.string())
    instants = np.array([q for _, q in queries], np.int64)
    return _rows(plan, read_records(plan, records, keys, instants, [f.name for f in plan.features]))


class Online:
    """A view's state in Redis, folded batch by batch as a worker folds it."""

    def __init__(self, client: redis.Redis[bytes], kernel: Kernel, plan: ViewPlan) -> None:
        self.client, self.kernel, self.plan = client, kernel, plan
        self.script = client.register_script(merge_script(plan).text)
        self.storage = os.urandom(6).hex()

    def fold(self, tables: Sequence[pa.Table | None]) -> None:
        """Folds one micro-batch; its offsets are not looked at, the checkpoint is moved by hand."""
        deltas = self.kernel.fold(self.plan, tables)
        step = 2 if has_variable_cells(self.plan) else 1
        for shard in np.unique(deltas.shards):
            keys: list[bytes] = [checkpoint_redis_key(self.storage, int(shard))]
            arguments: list[bytes] = [os.urandom(GENERATION_BYTES), b"", b"0"]
            for number in np.flatnonzero(deltas.shards == shard):
                start, stop = deltas.starts[number], deltas.starts[number + 1]
                keys.append(row_redis_key(self.storage, int(shard), deltas.keys[number]))
                newest = int(deltas.newest_us[number]).to_bytes(8, "little", signed=True)
                arguments.append(newest + deltas.records[start:stop].tobytes())
                if step == 2:
                    assert deltas.var is not None
                    keys.append(hash_redis_key(self.storage, int(shard), deltas.keys[number]))
                    arguments.append(b"".join(deltas.var[start:stop]))
            answer = self.script(keys, arguments)
            assert answer[0] == 1, answer

    def read(self, keys: Sequence[str], instant_us: int) -> list[dict[str, Any]]:
        """The features of the entities at an instant after every event folded."""
        return stored(self.client, self.plan, self.storage, keys, instant_us)

    def drop(self) -> None:
        """Removes the view's keys."""
        stale = list(self.client.scan_iter(f"h{{{self.storage}.*"))
        if stale:
            self.client.delete(*stale)


def stored(
    client: redis.Redis[bytes], plan: ViewPlan, storage: str, keys: Sequence[str], instants_us: int | Sequence[int]
) -> list[dict[str, Any]]:
    """The features of entities as Redis has them, at one instant or each at its own."""
    rows: list[bytes | None] = []
    generations: list[bytes | None] = []
    hashes: list[dict[bytes, bytes] | None] = []
    for key in keys:
        shard = shard_of(key, plan.shards)
        checkpoint = client.get(checkpoint_redis_key(storage, shard))
        generations.append(None if checkpoint is None else Checkpoint.decode(checkpoint).generation)
        rows.append(client.get(row_redis_key(storage, shard, key)))
        hashes.append(client.hgetall(hash_redis_key(storage, shard, key)))
    names = [f.name for f in plan.features]
    at = instants_us if isinstance(instants_us, int) else np.array(instants_us, np.int64)
    return _rows(plan, read_rows(plan, rows, generations, at, names, hashes))


def _rows(plan: ViewPlan, columns: Sequence[Any]) -> list[dict[str, Any]]:
    """As a caller sees them: through Arrow, whose types the features declare."""
    lists = {}
    for feature, values in zip(plan.features, columns, strict=True):
        lists[feature.name] = values.to_arrow(feature.type).to_pylist()
        assert len(lists[feature.name]) == len(values.to_list())
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
