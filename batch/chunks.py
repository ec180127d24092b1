"""Features at past instants from events that stream by, sorted by entity: memory is bounded whatever their number.

DuckDB sorts (and spills); events come in batches, are cut between two entities, and each piece is read with the queries
of its entities, several pieces at once on threads, since NumPy lets other threads run. An entity's own events must fit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch.collected import Collected
from features.finish import Values
from features.kernel import Kernel
from features.plan import ViewPlan
from features.ranges import Ints

ROWS = 400_000
"""Events of a piece: their states fit the caches better than millions do, and 20 of them are work for all threads."""
BATCH_ROWS = 100_000
"""Events of a batch as they come."""
WAITING_MAX = 2
"""Pieces a thread that may wait: beyond, the sort waits for the reads."""

Part = tuple[Ints, Future[list[Values]]]
Read = Callable[[pa.Table, pa.Array, Ints, Ints], list[Values]]
"""Events, keys, instants and the queries' numbers -> the values of each feature; on any thread."""


class Queries:
    """Entities and instants that are asked about, in the order of the events: entity by entity, then by instant."""

    def __init__(self, keys: pa.Array, instants: Ints) -> None:
        encoded = keys.dictionary_encode()
        self.entities = encoded.dictionary
        """Each entity once; an event's `key` is its place in here."""
        codes = pc.fill_null(pc.cast(encoded.indices, pa.int64()), len(self.entities)).to_numpy(zero_copy_only=False)
        self.order: Ints = np.lexsort((instants, codes))
        """For each query in this order its number."""
        self.codes = codes[self.order]
        self.instants = instants[self.order]

    def __len__(self) -> int:
        return len(self.order)

    def answered_by(self, last: int) -> int:
        """How many queries, in this order, are about the entity `last` or one before it."""
        return int(np.searchsorted(self.codes, last, side="right"))

    def keys(self, start: int, end: int) -> pa.Array:
        """The entities of some queries, as events name them; null where the query's key is null."""
        codes = self.codes[start:end]
        return pa.array(codes, pa.int32(), mask=codes == len(self.entities))


def read_stream(
    plan: ViewPlan, batches: Iterator[pa.RecordBatch], queries: Queries, read: Read, features: int, threads: int
) -> list[Values]:
    """What `read` answers over the batches of `Kernel.record_batches`, in the order in which was asked."""
    collected = Collected(features, len(queries))
    pending: deque[Part] = deque()
    start = 0

    def answer(piece: pa.Table, start: int, end: int) -> list[Values]:
        return read(piece, queries.keys(start, end), queries.instants[start:end], queries.order[start:end])

    with ThreadPoolExecutor(threads) as pool:
        for piece in _pieces(batches):
            end = queries.answered_by(piece["key"][-1].as_py())
            if end > start:
                pending.append((queries.order[start:end], pool.submit(answer, piece, start, end)))
                start = end
            while len(pending) > threads * WAITING_MAX:
                _take(pending, collected)
        while pending:
            _take(pending, collected)
    # Behind the last event: entities that were never seen, and null keys.
    collected.put(queries.order[start:], answer(_no_records(plan), start, len(queries)))
    return collected.values()


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
        records = kernel.records(plan, [None] * len(plan.sources))
    finally:
        kernel.close()
    return records.set_column(0, "key", pa.array([], pa.int32()))
