"""The online read: rows and checkpoints from Redis in one question, values by the one read of features/merge.py.

All rows of a request and the checkpoints of their shards come in one MGET, and so of one moment; where a view keeps a
HASH beside its rows, that MGET and the HGETALLs stand in one MULTI. A shard without a checkpoint is not restored yet:
NotReady, never zeros. A row of another generation than its shard's checkpoint is absent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, TypeVar, cast

import numpy as np
import pyarrow as pa

from features.finish import Values
from features.kernel import Kernel
from features.merge import read_rows
from features.plan import Definitions
from features.ranges import Ints
from schemas.errors import DataError
from schemas.row import ENTRY, GENERATION_BYTES, NO_EVENT, TIME_MIN_US, WORD_BYTES
from serving.checkpoints import newest_of_checkpoint, not_ready
from serving.connection import AsyncRedis, Redis
from serving.entities import Columns, count_entities, key_texts, rename_aliases, request_table
from serving.places import Places
from serving.reading import Reading, Readings, What
from serving.resp import EXEC, MULTI, Reply, error_of, mget
from serving.vectors import Bools, Vectors, ViewAnswer

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


class _Part(NamedTuple):
    """Where in the question's MGET rows and checkpoints of one Places stand.

    Each known entity's rows come first, then each shard's checkpoints; of either there is one a view.
    """

    views: tuple[int, ...]
    """The views' numbers."""
    keys: list[str | None]
    known: Sequence[str]
    """The keys that are not null: `keys` itself where all are."""
    which: Ints
    """For each known entity the number of its shard among those read."""
    start: int
    checkpoints: int
    """Where the checkpoints begin."""
    end: int


class Question:
    """One read, as commands to Redis and, when they are answered, as vectors."""

    def __init__(self, reading: Reading, entities: Columns) -> None:
        entities = rename_aliases(reading.aliases, entities)
        self.reading = reading
        self.entities = {name: values for name, values in entities.items() if name in reading.echoed}
        self.request = request_table(reading.request, entities) if reading.request else {}
        self.count = count_entities(entities)
        keys: list[bytes] = []
        hashes: list[bytes] = []
        self._parts: list[_Part] = []
        self._hashed: list[tuple[int, int]] = []
        """(view, how many of its HASHes are read), in the order of the commands."""
        end = 0
        for places, views in reading.places:
            part = self._part(places, views, key_texts(places.keys, entities), end, keys, hashes)
            self._parts.append(part)
            end = part.end
        strings = mget(keys, end) if end else b""
        if hashes:
            self.payload = b"".join([MULTI, strings, *hashes, EXEC])
            self.replies = len(hashes) + 3
        else:
            self.payload = strings
            self.replies = 1 if strings else 0

    def _part(
        self,
        places: Places,
        views: tuple[int, ...],
        texts: list[str | None],
        start: int,
        keys: list[bytes],
        hashes: list[bytes],
    ) -> _Part:
        """Adds the keys of entities and shards, and the commands for HASHes."""
        known = [text for text in texts if text is not None] if None in texts else cast(list[str], texts)
        found = places.of(known)
        shards = [place[0] for place in found]
        numbers = {shard: number for number, shard in enumerate(dict.fromkeys(shards))}
        keys += [place[1] for place in found]
        keys += [places.checkpoints[shard] for shard in numbers]
        for at, view in enumerate(views):
            if self.reading.views[view].hashed and known:
                self._hashed.append((view, len(known)))
                hashes += [places.hash_command(at, key, place) for key, place in zip(known, found, strict=True)]
        checkpoints = start + len(known) * len(views)
        which = np.array([numbers[shard] for shard in shards], np.int64)
        return _Part(views, texts, known, which, start, checkpoints, checkpoints + len(numbers) * len(views))

    def answer(
        self, replies: list[Reply], as_of_us: int | Ints | None, derive: Derive, redis: Redis | AsyncRedis
    ) -> Vectors:
        """The vectors. Raises NotReady where a shard has no checkpoint."""
        strings, hashes = self._unpacked(replies, redis)
        size = (len(self.reading.views), self.count)
        generations, folded = np.empty(size, np.int64), np.empty(size, np.int64)
        views: dict[int, ViewAnswer] = {}
        for part in self._parts:
            views |= self._of_part(part, strings, hashes, generations, folded)
        return self._vectors([views[number] for number in range(size[0])], generations, folded, as_of_us, derive)

    def _of_part(
        self,
        part: _Part,
        strings: list[bytes | None],
        hashes: dict[int, list[dict[bytes, bytes]]],
        generations: Ints,
        folded: Ints,
    ) -> dict[int, ViewAnswer]:
        """What was read of the part's views; fills their lines of `generations` and `folded` (views, entities)."""
        width = len(part.views)
        checkpoints = strings[part.checkpoints : part.end]
        if None in checkpoints:
            raise not_ready(self.reading.views[part.views[checkpoints.index(None) % width]].plan)
        words, newest = _looked_at(cast(list[bytes], checkpoints))
        which = part.which
        if part.known is not part.keys:
            which = np.full(len(part.keys), -1)
            which[[key is not None for key in part.keys]] = part.which
        for into, of_shards, absent in ((generations, words, NO_GENERATION), (folded, newest, NO_EVENT)):
            # A null key's number is −1: it takes the line behind all shards.
            by_shard = np.concatenate([of_shards.reshape(-1, width), np.full((1, width), absent)])
            into[list(part.views)] = by_shard.take(which, axis=0, mode="wrap").T
        return {
            number: ViewAnswer(
                read=self.reading.views[number],
                keys=part.keys,
                found=_among(part, strings[part.start + at : part.checkpoints : width]),
                hashes=_among(part, hashes[number]) if number in hashes else None,
                folded_us=folded[number],
                shards=checkpoints[at::width],
                which=which,
            )
            for at, number in enumerate(part.views)
        }

    def _vectors(
        self, views: list[ViewAnswer], generations: Ints, folded: Ints, as_of_us: int | Ints | None, derive: Derive
    ) -> Vectors:
        groups = []
        newest = np.full(folded.shape, NO_EVENT)
        for shape, numbers in self.reading.groups:
            rows = [row for number in numbers for row in views[number].found]
            parsed = shape.parse(rows, generations[numbers].reshape(-1))
            newest[numbers] = parsed.newest_us.reshape(len(numbers), self.count)
            groups.append((shape, numbers, parsed))
        instants = _instants(self.reading, newest, folded, as_of_us)
        same = bool(self.count) and bool((instants == instants[0]).all())
        for number, view in enumerate(views):
            view.newest_us = newest[number]
            view.values = [_NOTHING] * len(view.read.features)
        for shape, numbers, parsed in groups:
            size = (len(numbers), self.count)
            values = shape.values(parsed, instants[:1] if same else np.tile(instants, len(numbers)))
            for at, column in enumerate(values):
                lines = zip(numbers, column.values.reshape(size), column.valid.reshape(size), strict=True)
                for number, of_view, valid in lines:
                    view = views[number]
                    view.values[view.read.quick[at]] = Values(of_view, valid)
        invalid = newest >= instants
        past = bool(invalid.any())
        for number, view in enumerate(views):
            _complete(view, instants, invalid[number] if past else None)
        vectors = Vectors(
            self.reading,
            self.count,
            instants,
            views,
            [],
            self.entities,
            {name: values.to_pylist() for name, values in self.request.items()},
            folded,
        )
        derived = derive(vectors, self.request) if self.reading.derived else []
        for _, _, _, source, at, is_derived in self.reading.outputs:
            vectors.columns.append(derived[source][at] if is_derived else views[source].values[at])
        if derived and past:
            for number, output in enumerate(self.reading.outputs):
                if output.derived and (mask := vectors.invalid_of(output)) is not None:
                    vectors.columns[number] = vectors.columns[number].where(~mask)
        return vectors

    def _unpacked(
        self, replies: list[Reply], redis: Redis | AsyncRedis
    ) -> tuple[list[bytes | None], dict[int, list[dict[bytes, bytes]]]]:
        """The strings of the MGET, and by view the HASHes of its known entities."""
        if not self._hashed:
            return (replies[0] if replies else []), {}
        results = replies[-1]
        if results is None:
            raise DataError("Redis gave up a read", where=str(redis.address), hint="see Redis's own log")
        for result in results:
            if isinstance(result, Exception):
                raise error_of(result, redis.address)
        fields = iter([dict(zip(flat[::2], flat[1::2], strict=True)) for flat in results[1:]])
        return results[0], {view: list(islice(fields, count)) for view, count in self._hashed}


ENTRY_WORDS = ENTRY.size // WORD_BYTES
"""The last of the words of an entry is its newest event, and one word, the generation, stands in front of all."""
NO_GENERATION = np.iinfo(np.int64).min
_NOTHING = Values(np.zeros(0), np.zeros(0, np.bool_))


def _looked_at(checkpoints: Sequence[bytes]) -> tuple[Ints, Ints]:
    """Of each checkpoint the generation, as a number, and the newest event below it."""
    sizes = set(map(len, checkpoints))
    if len(sizes) == 1 and (size := sizes.pop()) > GENERATION_BYTES:
        words = np.frombuffer(b"".join(checkpoints), np.int64).reshape(-1, size // WORD_BYTES)
        newest: Ints = words[:, ENTRY_WORDS::ENTRY_WORDS].max(axis=1)
        return words[:, 0], newest
    generations = np.frombuffer(b"".join([each[:GENERATION_BYTES] for each in checkpoints]), np.int64)
    return generations, np.array([newest_of_checkpoint(each) for each in checkpoints], np.int64)


def _among(part: _Part, values: list[_T]) -> list[_T | None]:
    """A value for each entity, None where its key is null."""
    if part.known is part.keys:
        return values  # type: ignore[return-value]
    rest = iter(values)
    return [None if key is None else next(rest) for key in part.keys]


def _instants(reading: Reading, newest: Ints, folded: Ints, as_of_us: int | Ints | None) -> Ints:
    """DESIGN §2 'The instant', for each vector; `newest` and `folded` are by view and entity."""
    count = newest.shape[1]
    if as_of_us is not None:
        return np.full(count, as_of_us)
    least = time.time_ns() // 1_000 if reading.clock == "wall" else TIME_MIN_US
    instants: Ints = newest.max(axis=0, initial=least - 1)
    if reading.clock == "event":
        np.maximum(instants, folded.max(axis=0, initial=NO_EVENT), out=instants)
    return instants + 1


def _complete(view: ViewAnswer, instants: Ints, invalid: Bools | None) -> None:
    """The features that no Shape reads; and nulls where the key is null or the instant lies in the folded past."""
    read = view.read
    if read.slow:
        names = [read.features[number] for number in read.slow]
        hashes = view.hashes or [None] * len(view.found)
        values = read_rows(read.plan, view.rows, view.generations, instants, names, hashes)
        for number, column in zip(read.slow, values, strict=True):
            view.values[number] = column
    if None in view.keys:
        known = np.array([key is not None for key in view.keys], np.bool_)
        view.values = [column.where(known) for column in view.values]
    if invalid is not None and invalid.any():
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
