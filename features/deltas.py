"""Partial aggregates -> the records of the online row: what a worker sends to Redis."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.cells import (
    FIRST_ZERO_TIME,
    INT64_MAX,
    INT64_MIN,
    LAST_ZERO_TIME,
    WORDS,
    is_entries,
    is_fixed,
    record_words,
    word_offsets,
)
from features.plan import Cell, CellKind, ViewPlan
from features.sql import input_column

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_LENGTH = struct.Struct("<I")
_ORDER = struct.Struct("<qqq")


@dataclass(frozen=True)
class Deltas:
    """What a micro-batch adds to each entity's row, sorted by (shard, key, tile key).

    `starts` (rows + 1) bounds each row's records; `records` (records, words) are as schemas/row.py lays them out;
    `var`: for each record the value of its HASH field, where the plan has cells of variable size. `counts`: events
    read, events that counted, and nulls of each input.
    """

    keys: list[str]
    shards: npt.NDArray[np.int32]
    starts: Ints
    newest_us: Ints
    records: Words
    var: list[bytes] | None
    counts: dict[str, int]


def to_deltas(
    plan: ViewPlan,
    events: pa.Table,
    partials: pa.Table,
    counts: dict[str, int],
    entries: Mapping[int, list[bytes]],
) -> Deltas:
    """Lays out the partial aggregates (`sql.deltas`) of prepared events (sorted, row number = ord).

    `entries`: for each cell of entries its bytes in each record.
    """
    keys = partials["key"].combine_chunks()
    starts = _starts(keys)
    first_rows = starts[:-1]
    newest = int64_of(partials["newest"])
    records = np.zeros((len(partials), record_words(plan.cells)), np.uint64)
    records[:, 0] = int64_of(partials["tile_key"]).view(np.uint64)
    records[:, 1:] = fixed_words(plan.cells, partials, events)
    return Deltas(
        keys=keys.take(pa.array(first_rows)).to_pylist(),
        shards=partials["shard"].to_numpy()[first_rows].astype(np.int32),
        starts=starts,
        newest_us=np.maximum.reduceat(newest, first_rows) if len(first_rows) else newest,
        records=records,
        var=None if all(is_fixed(cell) for cell in plan.cells) else var_blobs(plan.cells, partials, events, entries),
        counts=counts,
    )


def fixed_words(cells: tuple[Cell, ...], partials: pa.Table, events: pa.Table) -> Words:
    """The words of the cells of fixed size, cell by cell, for each group."""
    words = np.zeros((len(partials), record_words(cells) - 1), np.uint64)
    for number, (cell, at) in enumerate(zip(cells, word_offsets(cells), strict=True)):
        if at is not None:
            words[:, at - 1 : at - 1 + WORDS[cell.kind]] = WORDS_OF[cell.kind](cell, number, partials, events)
    return words


def int64_of(column: pa.ChunkedArray | pa.Array, null: int = 0) -> Ints:
    """A column of integers, booleans, dates or timestamps as int64; nulls become `null`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_boolean(array.type):
        array = pc.cast(array, pa.int8())
    elif pa.types.is_date32(array.type):
        array = array.view(pa.int32())
    elif pa.types.is_timestamp(array.type):
        array = array.view(pa.int64())
    elif pa.types.is_decimal(array.type):
        return _unscaled(array, null)
    if array.type != pa.int64():
        array = pc.cast(array, pa.int64())
    if array.null_count:
        array = pc.fill_null(array, null)
    values: Ints = array.to_numpy(zero_copy_only=False)
    return values


def _unscaled(array: pa.Array, null: int) -> Ints:
    """Decimals of at most 18 digits as integers in units of their last digit."""
    words = huge_words(array)[:, 0].view(np.int64)
    return np.where(pc.is_valid(array).to_numpy(zero_copy_only=False), words, null)


def huge_words(column: pa.Array) -> Words:
    """HUGEINT or a decimal (in Arrow decimal128) as two words each; what a null holds has no meaning."""
    data = np.frombuffer(column.buffers()[1], dtype=np.uint64)
    return data.reshape(-1, 2)[column.offset : column.offset + len(column)]


def float64_of(column: pa.ChunkedArray | pa.Array, null: float) -> npt.NDArray[np.float64]:
    """A column of numbers as float64; nulls become `null`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: npt.NDArray[np.float64] = pc.fill_null(pc.cast(array, pa.float64()), null).to_numpy(zero_copy_only=False)
    return values


def value_bits(column: pa.ChunkedArray | pa.Array) -> Ints:
    """A column of values that fit a word, as the word's bits."""
    if pa.types.is_floating(column.type):
        return float64_of(column, 0.0).view(np.int64)
    return int64_of(column)


def _starts(keys: pa.Array) -> Ints:
    if not len(keys):
        return np.zeros(1, np.int64)
    changed = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).to_numpy(zero_copy_only=False)
    return np.concatenate(([0], np.flatnonzero(changed) + 1, [len(keys)])).astype(np.int64)


def _column(number: int, part: int, partials: pa.Table) -> pa.Array:
    return partials[f"c{number}_{part}"].combine_chunks()


def _one_int(null: int) -> Callable[[Cell, int, pa.Table, pa.Table], Words]:
    def words(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
        return int64_of(_column(number, 0, partials), null).view(np.uint64)[:, None]

    return words


def _one_float(null: float) -> Callable[[Cell, int, pa.Table, pa.Table], Words]:
    def words(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
        return float64_of(_column(number, 0, partials), null).view(np.uint64)[:, None]

    return words


def _sum_int(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
    return huge_words(_column(number, 0, partials))


def _sum_fixed(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
    """high · 2**62 + low, as 192 bits."""
    high = huge_words(_column(number, 0, partials))
    low = huge_words(_column(number, 1, partials))
    upper = high[:, 1].view(np.int64)
    words = np.empty((len(partials), 3), np.uint64)
    words[:, 0] = high[:, 0] << np.uint64(62)
    words[:, 1] = (high[:, 0] >> np.uint64(2)) | (high[:, 1] << np.uint64(62))
    words[:, 2] = (upper >> 2).view(np.uint64)
    extended = np.column_stack([low, (low[:, 1].view(np.int64) >> 63).view(np.uint64)])
    return _add(words, extended)


def _add(a: Words, b: Words) -> Words:
    total = np.empty_like(a)
    carry = np.zeros(len(a), np.uint64)
    for k in range(a.shape[1]):
        partial = a[:, k] + b[:, k]
        total[:, k] = partial + carry
        carry = ((partial < a[:, k]) | (total[:, k] < partial)).astype(np.uint64)
    return total


def _ordered(zero_time: int) -> Callable[[Cell, int, pa.Table, pa.Table], Words]:
    def words(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
        at = _column(number, 0, partials)
        absent = pc.is_null(at).to_numpy(zero_copy_only=False)
        chosen = events.take(pa.array(int64_of(at)))
        columns = [int64_of(chosen[name]) for name in ("t", "position", "offset")]
        record = np.column_stack([*columns, value_bits(chosen[input_column(cell)])])
        record[absent] = (zero_time, 0, 0, 0)
        return np.ascontiguousarray(record).view(np.uint64)

    return words


def _floats(number: int, parts: range, partials: pa.Table) -> list[npt.NDArray[np.float64]]:
    return [float64_of(_column(number, part, partials), 0.0) for part in parts]


def _moments(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
    """The sums of powers were taken from a mean that is rounded: moved to where they belong."""
    count = int64_of(_column(number, 0, partials))
    n = np.maximum(count, 1)
    near, s1, s2, least, greatest = _floats(number, range(1, 6), partials)
    m2 = np.maximum(s2 - s1 * (s1 / n), 0.0)
    return _stacked(count, near + s1 / n, m2, least, greatest)


def _moments4(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
    count = int64_of(_column(number, 0, partials))
    n = np.maximum(count, 1)
    near, s1, s2, s3, s4, least, greatest = _floats(number, range(1, 8), partials)
    d = s1 / n
    m2 = np.maximum(s2 - n * d**2, 0.0)
    m3 = s3 - 3 * d * s2 + 2 * n * d**3
    m4 = s4 - 4 * d * s3 + 6 * d**2 * s2 - 3 * n * d**4
    return _stacked(count, near + d, m2, m3, m4, least, greatest)


def _decayed(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> Words:
    newest = int64_of(_column(number, 0, partials), LAST_ZERO_TIME)
    return _stacked(newest, *_floats(number, range(1, 3), partials))


def _stacked(first: Ints, *rest: npt.NDArray[np.float64]) -> Words:
    return np.column_stack([first.view(np.uint64), *(column.view(np.uint64) for column in rest)])


WORDS_OF: dict[CellKind, Callable[[Cell, int, pa.Table, pa.Table], Words]] = {
    CellKind.COUNT: _one_int(0),
    CellKind.SUM_INT: _sum_int,
    CellKind.SUM_FIXED: _sum_fixed,
    CellKind.MIN_INT: _one_int(INT64_MAX),
    CellKind.MAX_INT: _one_int(INT64_MIN),
    CellKind.MIN_FLOAT: _one_float(float("inf")),
    CellKind.MAX_FLOAT: _one_float(float("-inf")),
    CellKind.FIRST: _ordered(FIRST_ZERO_TIME),
    CellKind.LAST: _ordered(LAST_ZERO_TIME),
    CellKind.MOMENTS: _moments,
    CellKind.MOMENTS4: _moments4,
    CellKind.DECAYED: _decayed,
}
"""The words of each cell of fixed size, from its partial aggregates."""


def var_blobs(
    cells: tuple[Cell, ...], partials: pa.Table, events: pa.Table, entries: Mapping[int, list[bytes]]
) -> list[bytes]:
    """For each group the cells of variable size, each with its length in front. Text is copied one by one."""
    payloads = [
        entries[number] if is_entries(cell) else _payloads(cell, number, partials, events)
        for number, cell in enumerate(cells)
        if not is_fixed(cell)
    ]
    return [b"".join(_LENGTH.pack(len(part)) + part for part in parts) for parts in zip(*payloads, strict=True)]


def _payloads(cell: Cell, number: int, partials: pa.Table, events: pa.Table) -> list[bytes]:
    column = _column(number, 0, partials)
    if cell.kind in (CellKind.MIN_BYTES, CellKind.MAX_BYTES):
        return [b"" if value is None else b"\x01" + _bytes(value) for value in column.to_pylist()]
    chosen = events.take(pa.array(int64_of(column)))
    orders = zip(*(chosen[name].to_pylist() for name in ("t", "position", "offset")), strict=True)
    values = chosen[input_column(cell)].to_pylist()
    return [
        b"" if at is None else _ORDER.pack(*order) + _bytes(value)
        for at, order, value in zip(column.to_pylist(), orders, values, strict=True)
    ]


def _bytes(value: object) -> bytes:
    """Text as utf-8, bytes as they are, a list or a map as msgpack."""
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
