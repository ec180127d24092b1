"""The online read: rows and checkpoints from Redis in one question, values by the one read of features/merge.py.

All rows of a request and the checkpoints of their shards come in one MGET, and so of one moment; where a view keeps a
HASH beside its rows, that MGET and the HGETALLs stand in one MULTI. A shard without a checkpoint is not restored yet:
NotReady, never zeros. A row of another generation than its shard's checkpoint is absent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from features.finish import Values
from features.kernel import Kernel
from features.merge import read_rows
from features.plan import Definitions
from features.ranges import Ints
from schemas.errors import DataError, NotReady
from schemas.row import ENTRY, GENERATION_BYTES, HEADER, NO_EVENT, TIME_MIN_US
from serving.connection import AsyncRedis, Redis
from serving.entities import Columns, count_entities, key_texts, rename_aliases, request_table
from serving.reading import Reading, Readings, ViewRead, What
from serving.resp import EXEC, HGETALL, MGET, MULTI, Reply, command_of_bulks, error_of
from serving.vectors import Status, Statuses, Vectors, ViewAnswer


class Reader:
    """Reads feature vectors in this process; may be shared by threads.

    `what` is a service's name or references 'view:feature'. Raises RequestError for a question that can't be answered,
    NotReady where state is missing or Redis is away.
    """

    def __init__(self, redis: Redis, definitions: Definitions) -> None:
        self._redis = redis
        self._readings = Readings(definitions)
        self._derive = Derive()

    @property
    def definitions(self) -> Definitions:
        return self._readings.definitions

    def read(self, what: str | Sequence[str], entities: Columns, *, as_of_us: int | None = None) -> Vectors:
        """The vectors of the entities (join keys and request columns, column by column), in their order."""
        question = Question(self._readings.of(named(what)), entities)
        replies = self._redis.ask(question.payload, question.replies)
        return question.answer(replies, as_of_us, self._derive, self._redis)

    def close(self) -> None:
        """Frees the connection and DuckDB's memory."""
        self._redis.close()
        self._derive.close()


class AsyncReader:
    """The same on an event loop: for one loop and its thread. Connection and kernel belong to the caller."""

    def __init__(self, redis: AsyncRedis, definitions: Definitions, derive: Derive) -> None:
        self._redis = redis
        self.readings = Readings(definitions)
        self._derive = derive

    async def read(self, what: str | Sequence[str], entities: Columns, *, as_of_us: int | None = None) -> Vectors:
        """As `Reader.read`."""
        question = Question(self.readings.of(named(what)), entities)
        replies = await self._redis.ask(question.payload, question.replies)
        return question.answer(replies, as_of_us, self._derive, self._redis)


class Derive:
    """The derived views' kernel, made when the first one is read."""

    def __init__(self) -> None:
        self._kernel: Kernel | None = None
        self._lock = threading.Lock()

    def __call__(self, vectors: Vectors, request: dict[str, pa.Array]) -> list[list[Values]]:
        """For each derived view of the reading its features' values."""
        with self._lock:
            if self._kernel is None:
                self._kernel = Kernel(threads=1)
            table = derived_input(vectors, request)
            return [
                [_values_of(column) for column in self._kernel.derive(plan, table).columns]
                for plan in vectors.reading.derived
            ]

    def close(self) -> None:
        with self._lock:
            if self._kernel is not None:
                self._kernel.close()
                self._kernel = None


def named(what: str | Sequence[str]) -> What:
    """A service's name or references, as readings are kept under."""
    return what if isinstance(what, str) else tuple(what)


@dataclass(frozen=True)
class _Part:
    """Where in the question's MGET the rows and checkpoints of one view stand."""

    read: ViewRead
    keys: list[str | None]
    rows: list[int]
    """The place of each entity's row; −1: its key is null."""
    checkpoints: list[int]


class Question:
    """One read, as commands to Redis and, when they are answered, as vectors."""

    def __init__(self, reading: Reading, entities: Columns) -> None:
        entities = rename_aliases(reading, entities)
        self.reading = reading
        self.entities = {name: values for name, values in entities.items() if name in reading.echoed}
        self.request = request_table(reading.request, entities)
        self.count = count_entities(entities)
        bulks: list[bytes] = [MGET]
        hashes: list[bytes] = []
        self._parts = [self._part(read, entities, bulks, hashes) for read in reading.views]
        mget = command_of_bulks(bulks) if len(bulks) > 1 else b""
        self._hashes = len(hashes)
        if hashes:
            self.payload = b"".join([MULTI, mget, *hashes, EXEC])
            self.replies = len(hashes) + 3
        else:
            self.payload = mget
            self.replies = 1 if mget else 0

    def _part(self, read: ViewRead, entities: Columns, bulks: list[bytes], hashes: list[bytes]) -> _Part:
        keys = key_texts(read.plan.keys, entities)
        rows: list[int] = []
        shards: dict[int, int] = {}
        checkpoints: list[int] = []
        row_key = read.row_key
        for key in keys:
            if key is None:
                rows.append(-1)
                checkpoints.append(-1)
                continue
            shard, row, hash_ = row_key(key)
            rows.append(len(bulks) - 1)
            bulks.append(row)
            if shard not in shards:
                shards[shard] = len(bulks) - 1
                bulks.append(read.checkpoints[shard])
            checkpoints.append(shards[shard])
            if read.variable:
                hashes.append(command_of_bulks([HGETALL, hash_]))
        return _Part(read, keys, rows, checkpoints)

    def answer(self, replies: list[Reply], as_of_us: int | None, derive: Derive, redis: Redis | AsyncRedis) -> Vectors:
        """The vectors. Raises NotReady where a shard has no checkpoint."""
        strings, hashes = self._unpacked(replies, redis)
        at = 0
        views = []
        for part in self._parts:
            beside: list[dict[bytes, bytes] | None] | None = None
            if part.read.variable:
                beside = []
                for row in part.rows:
                    beside.append(None if row < 0 else hashes[at])
                    at += row >= 0
            views.append(_view_answer(part, strings, beside))
        instants = _instants(self.reading, views, self.count, as_of_us)
        vectors = Vectors(
            reading=self.reading,
            count=self.count,
            instants_us=instants,
            views=views,
            columns=[],
            statuses=[],
            entities=self.entities,
            request={name: values.to_pylist() for name, values in self.request.items()},
        )
        for view in views:
            _read_view(view, instants)
        derived = derive(vectors, self.request) if self.reading.derived else []
        _fill(vectors, derived)
        return vectors

    def _unpacked(
        self, replies: list[Reply], redis: Redis | AsyncRedis
    ) -> tuple[list[bytes | None], list[dict[bytes, bytes]]]:
        if not self._hashes:
            return (replies[0] if replies else []), []
        results = replies[-1]
        if results is None:
            raise DataError("Redis gave up a read", where=str(redis.address), hint="see Redis's own log")
        for result in results:
            if isinstance(result, Exception):
                raise error_of(result, redis.address)
        return results[0], [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in results[1:]]


def _view_answer(
    part: _Part, strings: list[bytes | None], hashes: list[dict[bytes, bytes] | None] | None
) -> ViewAnswer:
    rows = [None if at < 0 else strings[at] for at in part.rows]
    checkpoints = [None if at < 0 else strings[at] for at in part.checkpoints]
    generations: dict[bytes, bytes] = {}
    newest = np.full(len(rows), NO_EVENT)
    folded = np.full(len(rows), NO_EVENT)
    known: dict[bytes, int] = {}
    for number, (row, checkpoint) in enumerate(zip(rows, checkpoints, strict=True)):
        if checkpoint is None:
            if part.rows[number] >= 0:
                raise _not_ready(part.read)
            continue
        if checkpoint not in known:
            known[checkpoint] = newest_of_checkpoint(checkpoint)
            generations[checkpoint] = checkpoint[:GENERATION_BYTES]
        folded[number] = known[checkpoint]
        if row is not None:
            if row[:GENERATION_BYTES] == generations[checkpoint]:
                newest[number] = HEADER.unpack_from(row)[1]
            else:
                rows[number] = None
    return ViewAnswer(part.read, part.keys, rows, checkpoints, hashes, newest, folded)


def newest_of_checkpoint(checkpoint: bytes) -> int:
    """The newest event of all partitions below a checkpoint; NO_EVENT where there is none."""
    return max((entry[4] for entry in ENTRY.iter_unpack(checkpoint[GENERATION_BYTES:])), default=NO_EVENT)


def _not_ready(read: ViewRead) -> NotReady:
    return NotReady(
        "a shard of the view has no checkpoint yet",
        where=read.plan.name,
        got=f"nothing under {read.plan.storage_id}",
        hint="is `headrace stream` running? It restores what Redis has lost; see `headrace status`",
    )


def _instants(reading: Reading, views: list[ViewAnswer], count: int, as_of_us: int | None) -> Ints:
    """DESIGN §2 'The instant', for each vector."""
    if as_of_us is not None:
        return np.full(count, as_of_us)
    if reading.clock == "wall":
        instants = np.full(count, time.time_ns() // 1_000)
    else:
        instants = np.full(count, TIME_MIN_US)
        for view in views:
            np.maximum(instants, view.folded_us + 1, out=instants)
    for view in views:
        np.maximum(instants, view.newest_us + 1, out=instants)
    return instants


def _read_view(view: ViewAnswer, instants: Ints) -> None:
    read = view.read
    generations = [None if checkpoint is None else checkpoint[:GENERATION_BYTES] for checkpoint in view.checkpoints]
    view.values = read_rows(read.plan, view.rows, generations, instants, read.features, view.hashes)
    if None in view.keys:
        known = np.array([key is not None for key in view.keys], np.bool_)
        view.values = [values.where(known) for values in view.values]
    invalid = view.newest_us >= instants
    if invalid.any():
        view.invalid = invalid
        view.values = [values.where(~invalid) for values in view.values]


def _fill(vectors: Vectors, derived: list[list[Values]]) -> None:
    """Columns and statuses in the order of the outputs."""
    late = None
    if vectors.reading.max_lag_us is not None:
        late = vectors.ages_us > vectors.reading.max_lag_us
    for output in vectors.reading.outputs:
        if output.derived:
            values = derived[output.source][output.at]
            inputs = [vectors.reading.positions[use][0] for use in vectors.reading.derived[output.source].uses]
            masks = [vectors.views[number].invalid for number in inputs]
            invalid = np.logical_or.reduce([mask for mask in masks if mask is not None] or [np.zeros(0, np.bool_)])
            if len(invalid):
                values = values.where(~invalid)
        else:
            view = vectors.views[output.source]
            values = view.values[output.at]
            invalid = np.zeros(0, np.bool_) if view.invalid is None else view.invalid
        vectors.columns.append(values)
        vectors.statuses.append(_statuses(values, invalid, late))


def _statuses(values: Values, invalid: Any, late: Any) -> Statuses:
    statuses = np.where(values.valid, np.uint8(Status.PRESENT), np.uint8(Status.NULL_VALUE))
    if late is not None:
        statuses[late & values.valid] = Status.OUTSIDE_MAX_AGE
    if len(invalid):
        statuses[invalid] = Status.INVALID
    return statuses


def derived_input(vectors: Vectors, request: dict[str, pa.Array]) -> pa.Table:
    """What derived views are computed from: a STRUCT column a view, and the request's columns."""
    columns: dict[str, pa.Array] = {}
    for view in vectors.views:
        arrays = [
            values.to_arrow(view.read.plan.feature(name).type)
            for name, values in zip(view.read.features, view.values, strict=True)
        ]
        columns[view.read.plan.name] = pa.StructArray.from_arrays(arrays, names=list(view.read.features))
    return pa.table(columns | request)


def _values_of(column: pa.ChunkedArray) -> Values:
    array = column.combine_chunks()
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_floating(array.type) or pa.types.is_integer(array.type):
        return Values(array.fill_null(0).to_numpy(zero_copy_only=False), valid)
    if pa.types.is_boolean(array.type):
        return Values(array.fill_null(False).to_numpy(zero_copy_only=False), valid)
    values = np.empty(len(array), dtype=object)
    values[:] = array.to_pylist()
    return Values(values, valid)
