"""A micro-batch -> the script calls that fold it into a view's rows: one a shard, more where a shard gets too much."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from features.deltas import Deltas
from features.kernel import Kernel
from features.plan import ViewPlan
from schemas.row import GENERATION_BYTES, checkpoint_redis_key, hash_redis_key, row_redis_key
from stream.batch import MicroBatch, Move, Place
from stream.checkpoint import Positions
from stream.script import has_variable_cells, merge_script
from stream.store import Call

CALL_ROWS_MAX = 2_000
"""A merge takes 2 to 8 µs, so Redis serves nobody else for at most 16 ms."""
CALL_BYTES_MAX = 4 << 20


class ViewFold:
    """Folds batches into one view. `expires`: its rows go once no window read by the wall clock covers them.

    `positions` runs ahead of Redis: calls are made as if all earlier ones had merged, which Redis itself checks.
    """

    def __init__(self, plan: ViewPlan, positions: Positions, *, expires: bool) -> None:
        self.plan = plan
        self.positions = positions
        self.counts: Counter[str] = Counter()
        self._script = merge_script(plan)
        self._expires = b"1" if expires else b"0"
        self._hashes = has_variable_cells(plan)
        self._times = {source.event.log_name: source.event.time for source in plan.sources}

    def calls(self, kernel: Kernel, batch: MicroBatch) -> list[Call]:
        """The calls of the shards that get rows, in the order in which they must run; `positions` takes them as done.

        Shards without rows stay where they are, until `advance`.
        """
        tables = [batch.tables.get(source.event.log_name) for source in self.plan.sources]
        if not any(table is not None and len(table) for table in tables):
            return []
        deltas = kernel.fold(self.plan, tables, self.positions.floors(batch))
        if _is_too_much(deltas) and sum(len(table) for table in tables if table is not None) > 1:
            mine = batch.only_topics(self._times.keys())
            return [call for half in mine.halves(self._times) for call in self.calls(kernel, half)]
        self.counts.update(deltas.counts)
        if not deltas.keys:
            return []
        bounds = np.searchsorted(deltas.shards, np.arange(self.plan.shards + 1))
        shards = np.flatnonzero(np.diff(bounds)).tolist()
        arguments = list(_arguments(deltas))
        calls = [
            self._call(shard, batch.moves, deltas, arguments, range(bounds[shard], bounds[shard + 1]))
            for shard in shards
        ]
        self.positions.assume(shards, batch.moves)
        return calls

    def advance(self, moves: Mapping[Place, Move]) -> list[Call]:
        """One call without rows for each shard that stands below the end of a move; `positions` takes them as done."""
        shards = self.positions.behind(moves).tolist()
        calls = [Call(self._script, [self._checkpoint(shard)], self._head(shard, moves)) for shard in shards]
        self.positions.assume(shards, moves)
        return calls

    def _call(
        self, shard: int, moves: Mapping[Place, Move], deltas: Deltas, arguments: list[list[bytes]], rows: range
    ) -> Call:
        keys = [self._checkpoint(shard)]
        values = self._head(shard, moves)
        storage = self.plan.storage_id
        for row in rows:
            keys.append(row_redis_key(storage, shard, deltas.keys[row]))
            if self._hashes:
                keys.append(hash_redis_key(storage, shard, deltas.keys[row]))
            values += arguments[row]
        return Call(self._script, keys, values)

    def _head(self, shard: int, moves: Mapping[Place, Move]) -> list[bytes]:
        # A generation made now, not once a worker: rows of a state that was dropped must not come back to life.
        return [os.urandom(GENERATION_BYTES), self.positions.expectations(shard, moves), self._expires]

    def _checkpoint(self, shard: int) -> bytes:
        return checkpoint_redis_key(self.plan.storage_id, shard)


def _is_too_much(deltas: Deltas) -> bool:
    if not len(deltas.shards):
        return False
    rows = np.bincount(deltas.shards)
    if rows.max() > CALL_ROWS_MAX:
        return True
    words = np.bincount(deltas.shards, weights=np.diff(deltas.starts)) * deltas.records.shape[1] + rows
    if words.max() * 8 > CALL_BYTES_MAX:
        return True
    if deltas.var is None:
        return False
    lengths = np.add.reduceat(np.fromiter(map(len, deltas.var), np.int64, len(deltas.var)), deltas.starts[:-1])
    return bool((np.bincount(deltas.shards, weights=lengths) + words * 8).max() > CALL_BYTES_MAX)


def _arguments(deltas: Deltas) -> Iterator[list[bytes]]:
    """For each row: newest | records, and the records' hash values where there are any."""
    rows, (count, width) = len(deltas.keys), deltas.records.shape
    heads = deltas.starts[:-1] * width + np.arange(rows)
    words = np.empty(rows + count * width, np.uint64)
    mask = np.ones(len(words), np.bool_)
    mask[heads] = False
    words[heads] = deltas.newest_us.view(np.uint64)
    words[mask] = deltas.records.ravel()
    data = words.tobytes()
    ends = [*(heads[1:] * 8).tolist(), len(data)]
    starts = deltas.starts.tolist()
    for row, (start, end) in enumerate(zip((heads * 8).tolist(), ends, strict=True)):
        if deltas.var is None:
            yield [data[start:end]]
        else:
            yield [data[start:end], b"".join(deltas.var[starts[row] : starts[row + 1]])]
