"""The online read of a few entities, in plain Python: NumPy's price for its calls is more than their records'.

Each view's loop over its records is written for its plan, as the merge script in Redis is: one `struct` reads a record,
and there is a line for each cell of each window. `serving/quick.py` reads the same; tests/unit/serving/test_few.py
holds both to the one read. Answers go straight into Feast's JSON.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson

from features.cells import INT64_MAX, WORDS, record_words
from features.plan import CellKind, Feature, Finish, ViewPlan
from features.window import tile_key_range
from schemas.row import GENERATION_BYTES, HEADER, NO_EVENT, TIME_MIN_US, WORD_BYTES
from serving.checkpoints import newest_of_checkpoint, not_ready
from serving.entities import Columns, count_entities, key_texts, rename_aliases
from serving.loops import FINISHES, FORMATS, compiled, loop_source
from serving.quick import is_quick, ttl_us_of
from serving.reading import READINGS_KEPT_MAX, Reading, ViewRead
from serving.resp import Reply, mget

FEW = 6
"""Entities up to which this is the faster way (FACTS of the prototype: some 10 µs an entity and view)."""
KEPT_MAX = 4_096
SECOND_US = 1_000_000
TYPES = ("int64", "float64", "bool")


@lru_cache(maxsize=READINGS_KEPT_MAX)
def few_of(reading: Reading) -> Few | None:
    """The way to read a few entities; None where there is no other than that for many."""
    return Few(reading) if is_few(reading) else None


def is_few(reading: Reading) -> bool:
    """True where `Few` can read everything that a reading asks for."""
    if reading.derived or not reading.views or reading.max_lag_us is not None:
        return False
    return all(_is_plain(view.plan, view.plan.feature(name)) for view in reading.views for name in view.features)


def _is_plain(plan: ViewPlan, feature: Feature) -> bool:
    return (
        is_quick(plan, feature)
        and feature.type in TYPES
        and (feature.finish in FINISHES or feature.finish is Finish.LATEST)
        and all(plan.cells[cell].kind in FORMATS for cell in feature.cells)
        and _in_whole_seconds(plan, feature)
    )


def _in_whole_seconds(plan: ViewPlan, feature: Feature) -> bool:
    window = feature.window
    lengths = (plan.resolutions[window.resolution].hop_us, window.size_us, window.ending_us)
    return all(length % SECOND_US == 0 for length in lengths)


class FewQuestion(NamedTuple):
    """A read, as a command to Redis: for each view and entity its row and its shard's checkpoint."""

    payload: bytes
    entities: dict[str, Sequence[Any]]
    size: int


class Few:
    """Reads one Reading that `is_few` accepts."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._views = [_View(view) for view in reading.views]
        order = [(output.source, output.at) for output in reading.outputs]
        self._in_order = [self._first(source) + at for source, at in order]
        self._sources = [source for source, _ in order]

    def _first(self, view: int) -> int:
        return sum(len(each.features) for each in self.reading.views[:view])

    def question(self, columns: Columns) -> FewQuestion | None:
        """The question; None where it is not for this way. Raises RequestError as the other way does."""
        reading = self.reading
        columns = rename_aliases(reading.aliases, columns)
        count = count_entities(columns)
        if not 0 < count <= FEW:
            return None
        keys: list[bytes] = []
        for places, _ in reading.places:
            texts = key_texts(places.keys, columns)
            if None in texts:
                return None
            for shard, rows in places.of(texts):  # type: ignore[arg-type]
                keys.append(rows)
                keys.append(places.checkpoints[shard])
        entities = {name: values for name, values in columns.items() if name in reading.echoed}
        return FewQuestion(mget(keys, 2 * count * len(reading.views)), entities, count)

    def answer(self, question: FewQuestion, replies: list[Reply], full_feature_names: bool) -> bytes:
        """Feast's JSON. Raises NotReady where a shard has no checkpoint."""
        count = question.size
        rows, newest, folded = self._rows(replies[0], count)
        instants = self._instants(newest, folded, count)
        by_entity = []
        for entity in range(count):
            values: list[Any] = []
            for number, view in enumerate(self._views):
                values += view.values(rows[number * count + entity], instants[entity])
            by_entity.append(values)
        columns = [[values[at] for values in by_entity] for at in self._in_order]
        stamps = [
            b",".join([stamp_json(each) for each in newest[n * count : (n + 1) * count]])
            for n in range(len(self._views))
        ]
        parts: list[bytes] = []
        written = orjson.dumps(columns)[2:-2].split(b"],[")
        present = _PRESENT[count]
        for column, text, source in zip(columns, written, self._sources, strict=True):
            if None not in column:
                statuses = present
            else:
                of_view = newest[source * count : (source + 1) * count]
                statuses = _statuses(self.reading.views[source].plan, column, of_view, instants)
            parts += (text, statuses, stamps[source])
        names = self.reading.full_names if full_feature_names else self.reading.short_names
        template = _template((*question.entities,), names)
        keys = [_key_json(values, count) for values in question.entities.values()]
        of_following = [folded[number * count : (number + 1) * count] for number in self.reading.following]
        known = [min(each) for each in zip(*of_following, strict=True)] or [INT64_MAX] * count
        ages = [b"null" if k == NO_EVENT else b"%d" % max(i - k, 0) for i, k in zip(instants, known, strict=True)]
        return template % (
            *keys,
            *parts,
            b",".join([b'"%b"' % instant_text(instant) for instant in instants]),
            b",".join(ages),
        )

    def _rows(self, strings: list[bytes | None], count: int) -> tuple[list[bytes | None], list[int], list[int]]:
        """View by view and entity by entity: the row, the newest event in it, the newest below its checkpoint."""
        views = len(self._views)
        rows: list[bytes | None] = [None] * (views * count)
        newest = [NO_EVENT] * (views * count)
        folded = [NO_EVENT] * (views * count)
        start = 0
        for _, numbers in self.reading.places:
            width = len(numbers)
            for at, number in enumerate(numbers, start):
                for entity in range(count):
                    place = at + 2 * width * entity
                    row, checkpoint = strings[place], strings[place + width]
                    if checkpoint is None:
                        raise not_ready(self.reading.views[number].plan)
                    into = number * count + entity
                    folded[into] = _newest_of_checkpoint(checkpoint)
                    if row is not None and row[:GENERATION_BYTES] == checkpoint[:GENERATION_BYTES]:
                        rows[into] = row
                        newest[into] = HEADER.unpack_from(row)[1]
            start += 2 * width * count
        return rows, newest, folded

    def _instants(self, newest: list[int], folded: list[int], count: int) -> list[int]:
        if self.reading.clock == "event":
            return [max(TIME_MIN_US, max(folded[e::count]) + 1, max(newest[e::count]) + 1) for e in range(count)]
        now = time.time_ns() // 1_000
        return [max(now, max(newest[e::count]) + 1) for e in range(count)]


class _View:
    """One view's records and the loop over them."""

    def __init__(self, read: ViewRead) -> None:
        plan = read.plan
        features = [plan.feature(name) for name in read.features]
        self._windows = list(dict.fromkeys(feature.window for feature in features))
        self._plan = plan
        self._ranges: dict[tuple[int, bool], list[tuple[int, int]]] = {}
        self._heads = len(plan.resolutions)
        self._size = record_words(plan.cells) * WORD_BYTES
        cells = {cell: feature.type for feature in features for cell in feature.cells}
        formats = []
        for number, cell in enumerate(plan.cells):
            if number not in cells:
                formats.append(f"{WORDS[cell.kind] * WORD_BYTES}x" if cell.kind in WORDS else "")
            elif cell.kind in (CellKind.FIRST, CellKind.LAST):
                formats.append(FORMATS[cell.kind] + ("d" if cells[number] == "float64" else "q"))
            else:
                formats.append(FORMATS[cell.kind])
        self._record = struct.Struct("<q" + "".join(formats))
        self._loop = compiled(loop_source(plan, features))
        self._nothing = self._loop((), [(0, 0)] * len(self._windows), 0)

    def values(self, row: bytes | None, instant_us: int) -> tuple[Any, ...]:
        if row is None:
            return self._nothing
        end = HEADER.size + (self._heads + HEADER.unpack_from(row)[2]) * self._size
        second, fraction = divmod(instant_us, SECOND_US)
        windows = self._ranges.get((second, not fraction))
        if windows is None:
            windows = self._range(second, fraction, instant_us)
        return self._loop(self._record.iter_unpack(memoryview(row)[HEADER.size : end]), windows, instant_us)

    def _range(self, second: int, fraction: int, instant_us: int) -> list[tuple[int, int]]:
        """The tile keys of each window: the same within a second, since every window begins and ends at a whole one."""
        ranges = []
        for window in self._windows:
            first, last = tile_key_range(window, self._plan.resolutions, np.array([instant_us], np.int64))
            ranges.append((int(first[0]), int(last[0])))
        if len(self._ranges) >= KEPT_MAX:
            self._ranges.clear()
        self._ranges[second, not fraction] = ranges
        return ranges


_newest_of_checkpoint = lru_cache(maxsize=KEPT_MAX)(newest_of_checkpoint)
"""A checkpoint moves once a second or so, and is read with every row of its shard."""

_PRESENT = [b",".join([b'"PRESENT"'] * count) for count in range(FEW + 1)]


def _statuses(plan: ViewPlan, column: list[Any], newest: list[int], instants: list[int]) -> bytes:
    return b",".join(
        [
            b'"PRESENT"' if value is not None else b'"%b"' % why_null(plan, at, instant).encode()
            for value, at, instant in zip(column, newest, instants, strict=True)
        ]
    )


def why_null(plan: ViewPlan, newest_us: int, instant_us: int) -> str:
    """The status of a null: NULL_VALUE, or in a view of latest values that there is no row, or none young enough."""
    if plan.kind != "latest":
        return "NULL_VALUE"
    if newest_us == NO_EVENT:
        return "NOT_FOUND"
    ttl_us = ttl_us_of(plan)
    return "NULL_VALUE" if ttl_us is None or newest_us >= instant_us - ttl_us else "OUTSIDE_MAX_AGE"


@lru_cache(maxsize=KEPT_MAX)
def stamp_json(newest_us: int) -> bytes:
    """An event timestamp as JSON; Feast's 1970 where there is none."""
    return b'"%b"' % instant_text(0 if newest_us == NO_EVENT else newest_us)


@lru_cache(maxsize=64)
def _second_text(second: int) -> bytes:
    return str(np.datetime64(second, "s")).encode()


def instant_text(instant_us: int) -> bytes:
    """An instant as `iso` writes it."""
    second, fraction = divmod(instant_us, 1_000_000)
    text = _second_text(second)
    return b"%b.%06dZ" % (text, fraction) if fraction else text + b"Z"


def _key_json(values: Sequence[Any], count: int) -> bytes:
    return b'{"values":%b,"statuses":[%b],"event_timestamps":[%b]}' % (
        orjson.dumps(list(values)),
        _PRESENT[count],
        b",".join([b'"1970-01-01T00:00:00Z"'] * count),
    )


@lru_cache(maxsize=256)
def _template(keys: tuple[str, ...], names: tuple[str, ...]) -> bytes:
    """The answer with places for the keys' results, three for each feature, the instants and the ages."""
    metadata = orjson.dumps({"feature_names": [*keys, *names]}).replace(b"%", b"%%")
    results = [b"%b"] * len(keys) + [b'{"values":[%b],"statuses":[%b],"event_timestamps":[%b]}'] * len(names)
    return (
        b'{"metadata":' + metadata + b',"results":[' + b",".join(results)
        + b'],"headrace":{"instants":[%b],"ages_us":[%b]}}'
    )  # fmt: skip
