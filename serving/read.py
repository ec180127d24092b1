"""The online read: rows and checkpoints from Redis in one question, values by the one read of features/merge.py.

All rows of a request and the checkpoints of their shards come in one MGET, and so of one moment; where a view keeps a
HASH beside its rows, that MGET and the HGETALLs stand in one MULTI. A shard without a checkpoint is not restored yet:
NotReady, never zeros. A row of another generation than its shard's checkpoint is absent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, TypeVar, cast

import numpy as np
import pyarrow as pa

from features.finish import Values
from features.kernel import Kernel
from features.merge import read_rows
from features.plan import Definitions
from features.ranges import Ints
from schemas.errors import DataError, NotReady
from schemas.event import Column
from schemas.row import ENTRY, GENERATION_BYTES, NO_EVENT, TIME_MIN_US, WORD_BYTES
from serving.checkpoints import newest_of_checkpoint, not_ready
from serving.connection import AsyncRedis, Redis
from serving.entities import Columns, count_entities, key_texts, rename_aliases, request_table
from serving.reading import Reading, Readings, ViewRead, What
from serving.resp import EXEC, HGETALL, MGET, MULTI, Reply, command_of_bulks, error_of
from serving.vectors import Vectors, ViewAnswer

_T = TypeVar("_T")


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

    def read(self, what: str | Sequence[str], entities: Columns, *, as_of_us: int | Ints | None = None) -> Vectors:
        """The vectors of the entities (join keys and request columns, column by column), in their order.

        `as_of_us`: one instant for all, or each entity's own.
        """
        question = Question(self._readings.of(named(what)), entities)
        replies = self._redis.ask(question.payload, question.replies) if question.replies else []
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
        replies = await self._redis.ask(question.payload, question.replies) if question.replies else []
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


class _Entities:
    """A request's entities by one set of join keys: shared by all views that have these keys."""

    def __init__(self, keys: list[str | None]) -> None:
        self.keys = keys
        self.known: list[str] = [key for key in keys if key is not None] if None in keys else keys  # type: ignore[assignment]
        self._shards: dict[int, tuple[list[int], Ints]] = {}

    def shards(self, read: ViewRead) -> tuple[list[int], Ints]:
        """The shards that the entities are in, and for each entity the number of its own among these."""
        count = read.plan.shards
        if count not in self._shards:
            shards = [key[0] for key in read.row_keys(self.known)]
            distinct = list(dict.fromkeys(shards))
            numbers = {shard: number for number, shard in enumerate(distinct)}
            self._shards[count] = (distinct, np.array([numbers[shard] for shard in shards], np.int64))
        return self._shards[count]


class _Part(NamedTuple):
    """Where in the question's MGET the rows and checkpoints of one view stand."""

    read: ViewRead
    entities: _Entities
    start: int
    """The place of the first entity's row; those of the others follow, entities with a null key left out."""
    which: Ints
    """For each row the number of its shard's checkpoint among all that are read."""


class Question:
    """One read, as commands to Redis and, when they are answered, as vectors."""

    def __init__(self, reading: Reading, entities: Columns) -> None:
        entities = rename_aliases(reading, entities)
        self.reading = reading
        self.entities = {name: values for name, values in entities.items() if name in reading.echoed}
        self.request = request_table(reading.request, entities) if reading.request else {}
        self.count = count_entities(entities)
        bulks: list[bytes] = [MGET]
        hashes: list[bytes] = []
        self._checkpoints: list[int] = []
        """The place of each checkpoint in the MGET, view by view."""
        self._parts: list[_Part] = []
        by_keys: dict[tuple[Column, ...], _Entities] = {}
        for read in reading.views:
            keys = read.plan.keys
            if keys not in by_keys:
                by_keys[keys] = _Entities(key_texts(keys, entities))
            self._part(read, by_keys[keys], bulks, hashes)
        mget = command_of_bulks(bulks) if len(bulks) > 1 else b""
        self._hashes = len(hashes)
        if hashes:
            self.payload = b"".join([MULTI, mget, *hashes, EXEC])
            self.replies = len(hashes) + 3
        else:
            self.payload = mget
            self.replies = 1 if mget else 0

    def _part(self, read: ViewRead, entities: _Entities, bulks: list[bytes], hashes: list[bytes]) -> None:
        found = read.row_keys(entities.known)
        distinct, numbers = entities.shards(read)
        start = len(bulks) - 1
        self._parts.append(_Part(read, entities, start, numbers + len(self._checkpoints)))
        bulks += [key[1] for key in found]
        bulks += [read.checkpoints[shard] for shard in distinct]
        self._checkpoints += range(start + len(found), start + len(found) + len(distinct))
        if read.variable:
            hashes += [command_of_bulks([HGETALL, key[2]]) for key in found]

    def answer(
        self, replies: list[Reply], as_of_us: int | Ints | None, derive: Derive, redis: Redis | AsyncRedis
    ) -> Vectors:
        """The vectors. Raises NotReady where a shard has no checkpoint."""
        strings, fields = self._unpacked(replies, redis)
        checkpoints, generations, folded = self._shards(strings)
        views = []
        expected: list[Ints] = []
        for part in self._parts:
            count = len(part.entities.known)
            beside = None
            if part.read.variable:
                beside, fields = fields[:count], fields[count:]
            views.append(
                ViewAnswer(
                    read=part.read,
                    keys=part.entities.keys,
                    found=_spread(part.entities, strings[part.start : part.start + count]),
                    hashes=None if beside is None else _spread(part.entities, beside),
                    folded_us=_spread_ints(part.entities, folded.take(part.which), NO_EVENT),
                    shards=checkpoints,
                    which=_spread_ints(part.entities, part.which, -1),
                )
            )
            expected.append(_spread_ints(part.entities, generations.take(part.which), NO_GENERATION))
        return self._vectors(views, expected, as_of_us, derive)

    def _vectors(
        self, views: list[ViewAnswer], generations: list[Ints], as_of_us: int | Ints | None, derive: Derive
    ) -> Vectors:
        groups = []
        for shape, numbers in self.reading.groups:
            rows = [row for number in numbers for row in views[number].found]
            parsed = shape.parse(rows, np.concatenate([generations[number] for number in numbers]))
            for part, number in enumerate(numbers):
                views[number].newest_us = parsed.newest_us[part * self.count : (part + 1) * self.count]
            groups.append((shape, numbers, parsed))
        instants = _instants(self.reading, views, self.count, as_of_us)
        same = bool(self.count) and bool((instants == instants[0]).all())
        for view in views:
            view.values = [_NOTHING] * len(view.read.features)
        for shape, numbers, parsed in groups:
            values = shape.values(parsed, instants[:1] if same else np.tile(instants, len(numbers)))
            for part, number in enumerate(numbers):
                of = slice(part * self.count, (part + 1) * self.count)
                for column, feature in zip(values, views[number].read.quick, strict=True):
                    views[number].values[feature] = Values(column.values[of], column.valid[of])
        for view in views:
            _complete(view, instants)
        vectors = Vectors(
            self.reading,
            self.count,
            instants,
            views,
            [],
            self.entities,
            {name: values.to_pylist() for name, values in self.request.items()},
        )
        derived = derive(vectors, self.request) if self.reading.derived else []
        for output in self.reading.outputs:
            column = derived[output.source][output.at] if output.derived else views[output.source].values[output.at]
            if output.derived and (invalid := vectors.invalid_of(output)) is not None:
                column = column.where(~invalid)
            vectors.columns.append(column)
        return vectors

    def _shards(self, strings: list[bytes | None]) -> tuple[list[bytes], Ints, Ints]:
        """The checkpoints that were read: as bytes, the generation of each as a number, the newest event below each."""
        checkpoints = [strings[at] for at in self._checkpoints]
        if None in checkpoints:
            raise self._not_ready(checkpoints.index(None))
        present = cast(list[bytes], checkpoints)
        sizes = set(map(len, present))
        if len(sizes) == 1 and (size := sizes.pop()) > GENERATION_BYTES:
            words = np.frombuffer(b"".join(present), np.int64).reshape(-1, size // WORD_BYTES)
            newest: Ints = words[:, ENTRY_WORDS::ENTRY_WORDS].max(axis=1)
            return present, words[:, 0], newest
        generations = np.frombuffer(b"".join([each[:GENERATION_BYTES] for each in present]), np.int64)
        return present, generations, np.array([newest_of_checkpoint(each) for each in present], np.int64)

    def _not_ready(self, number: int) -> NotReady:
        """There is no checkpoint of that number: which view it belongs to."""
        return not_ready(next(part.read.plan for part in self._parts if number in part.which))

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


ENTRY_WORDS = ENTRY.size // WORD_BYTES
"""The last of the words of an entry is its newest event, and one word, the generation, stands in front of all."""
NO_GENERATION = np.iinfo(np.int64).min
_NOTHING = Values(np.zeros(0), np.zeros(0, np.bool_))


def _spread(entities: _Entities, values: list[_T]) -> list[_T | None]:
    """A value for each entity, None where its key is null."""
    if entities.known is entities.keys:
        return values  # type: ignore[return-value]
    rest = iter(values)
    return [None if key is None else next(rest) for key in entities.keys]


def _spread_ints(entities: _Entities, values: Ints, absent: int) -> Ints:
    if entities.known is entities.keys:
        return values
    spread = np.full(len(entities.keys), absent)
    spread[[key is not None for key in entities.keys]] = values
    return spread


def _instants(reading: Reading, views: list[ViewAnswer], count: int, as_of_us: int | Ints | None) -> Ints:
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


def _complete(view: ViewAnswer, instants: Ints) -> None:
    """The features that no Shape reads; and nulls where the key is null or the instant lies in the folded past."""
    read = view.read
    if read.slow:
        names = [read.features[number] for number in read.slow]
        values = read_rows(read.plan, view.rows, view.generations, instants, names, view.hashes)
        for number, column in zip(read.slow, values, strict=True):
            view.values[number] = column
    if None in view.keys:
        known = np.array([key is not None for key in view.keys], np.bool_)
        view.values = [column.where(known) for column in view.values]
    invalid = view.newest_us >= instants
    if invalid.any():
        view.invalid = invalid
        view.values = [column.where(~invalid) for column in view.values]


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
