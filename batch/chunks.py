"""Features at past instants from events that stream by, sorted by entity: memory is bounded whatever their number.

DuckDB sorts (and spills); events come in batches, are cut between two entities, and each piece is read with the queries
of its entities, several pieces at once on threads, since NumPy lets other threads run. An entity's own events must fit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch.collected import Collected
from features.finish import Values
from features.kernel import Kernel
from features.merge import read_records
from features.plan import ViewPlan
from features.ranges import Ints

ROWS = 400_000
"""Events of a piece: their states fit the caches better than millions do, and 20 of them are work for all threads."""
BATCH_ROWS = 100_000
"""Events of a batch as they come."""
WAITING_MAX = 2
"""Pieces a thread that may wait: beyond, the sort waits for the reads."""

Part = tuple[Ints, Future[list[Values]]]


def read_stream(
    plan: ViewPlan,
    batches: Iterator[pa.RecordBatch],
    keys: pa.Array,
    instants: Ints,
    features: Sequence[str],
    threads: int,
) -> list[Values]:
    """`features.merge.read_records` over the batches of `Kernel.record_batches` for these very keys."""
    queries = _Queries(keys, instants)
    collected = Collected(len(features), len(instants))
    pending: deque[Part] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for piece in _pieces(batches):
            index = queries.up_to(piece)
            if len(index):
                args = (plan, piece, keys.take(pa.array(index)), instants[index], features)
                pending.append((index, pool.submit(read_records, *args)))
            while len(pending) > threads * WAITING_MAX:
                _take(pending, collected)
        while pending:
            _take(pending, collected)
    rest = queries.rest()
    collected.put(rest, read_records(plan, _no_records(plan), keys.take(pa.array(rest)), instants[rest], features))
    return collected.values()


class _Queries:
    """Queries in the order of the events: by their entity's key and their instant."""

    def __init__(self, keys: pa.Array, instants: Ints) -> None:
        encoded = keys.dictionary_encode()
        by_bytes = pc.sort_indices(encoded.dictionary)
        self._entities = encoded.dictionary.take(by_bytes)
        rank = np.empty(len(by_bytes) + 1, np.int64)
        rank[by_bytes.to_numpy()] = np.arange(len(by_bytes))
        rank[-1] = len(by_bytes)
        codes = pc.fill_null(encoded.indices, len(by_bytes)).to_numpy(zero_copy_only=False)
        ranks = rank[codes]
        self._order = np.lexsort((instants, ranks))
        self._ends = np.searchsorted(ranks[self._order], np.arange(len(by_bytes)), side="right")
        self._at = 0

    def up_to(self, piece: pa.Table) -> Ints:
        """The queries of all entities up to the last one of the piece that weren't answered before."""
        last = piece["key"][len(piece) - 1]
        end = int(self._ends[pc.index(self._entities, last).as_py()])
        index = self._order[self._at : end]
        self._at = end
        return index

    def rest(self) -> Ints:
        """The queries behind the last event: entities that were never seen, and null keys."""
        return self._order[self._at :]


def _pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The events, cut between two entities where at least ROWS have come."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if not len(batch):
            continue
        waiting.append(batch)
        count += len(batch)
        if count >= ROWS:
            table = pa.Table.from_batches(waiting)
            cut = _last_entity(table)
            if cut:
                yield table.slice(0, cut).combine_chunks()
                waiting = table.slice(cut).to_batches()
                count -= cut
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _last_entity(table: pa.Table) -> int:
    """Where the last entity's events begin."""
    keys = table["key"]
    last = keys[len(table) - 1]
    return int(pc.index(keys, last).as_py())


def _take(pending: deque[Part], collected: Collected) -> None:
    index, part = pending.popleft()
    collected.put(index, part.result())


def _no_records(plan: ViewPlan) -> pa.Table:
    kernel = Kernel()
    try:
        return kernel.records(plan, [None] * len(plan.sources))
    finally:
        kernel.close()
